"""`packages.js`, run by Node.js: it reads texts as the server does, and says the same of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

import prebuilt_spawner
from prebuilt_spawner.environment.mistakes import mistake_in
from prebuilt_spawner.environment.pasted import MAX_REQUEST_CHARACTERS, MAX_REQUIREMENTS, entries_of, rules_for_page
from prebuilt_spawner.environment.quoting import quoted
from prebuilt_spawner.environment.requirements import parse_requirements, requirement_name
from prebuilt_spawner.errors import MalformedRequest
from tests.pastes import ACCEPTED, LINE_PIECES, PIECES, REFUSED

SCRIPT = Path(prebuilt_spawner.__file__).parent / "hub/static/packages.js"
DRIVER = """
const lines = require("node:readline").createInterface({ input: process.stdin });
let packages = null;
lines.on("line", (line) => {
  const asked = JSON.parse(line);
  if (packages === null) packages = require(asked.script)(asked.rules);
  else process.stdout.write(JSON.stringify(packages[asked.what](asked.value)) + "\\n");
});
"""

Ask = Callable[[str, Any], Any]

# Without characters that are younger than one of the two Unicodes: which of them print is not known to both.
CHARACTERS = st.one_of(
    st.characters(codec="latin-1"),
    st.sampled_from("\u2028\u202e\ufeff\u200b\u0430\u4e00\ue000\U0001f600\U0010ffff\ud83d"),
)
texts = st.lists(st.one_of(st.sampled_from(PIECES + LINE_PIECES), st.text(CHARACTERS, max_size=3)), max_size=12).map(
    "".join
)


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Calls a function of the script with a value; Node.js must be there, as it is wherever a hub is."""
    with subprocess.Popen(
        ["node", "-e", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def say(value: Any) -> None:
            stdin.write(json.dumps(value) + "\n")
            stdin.flush()

        def call(what: str, value: Any) -> Any:
            say({"what": what, "value": value})
            return json.loads(stdout.readline())

        say({"script": str(SCRIPT), "rules": rules_for_page()})
        yield call
        stdin.close()
        process.wait(timeout=30)


def outcome(request: str) -> tuple[str, ...] | MalformedRequest:
    try:
        return parse_requirements(request)
    except MalformedRequest as error:
        return error


def compare(ask: Ask, text: str) -> None:
    """The script's entries are the server's, and whatever it says of one is what the server says."""
    entries = ask("entries", text)
    server = [(entry.text, entry.mistake or mistake_in(entry.text)) for entry in entries_of(text)]
    assert [(entry["text"], entry["mistake"]) for entry in entries] == server
    result = outcome(text)
    mistaken = [entry for entry in entries if entry["mistake"]]
    if mistaken:
        assert isinstance(result, MalformedRequest)
        assert (result.message, result.entry) == (mistaken[0]["mistake"], mistaken[0]["text"])
    assert {bool(entry["name"]) is not bool(entry["mistake"]) for entry in entries} <= {True}
    again = ask("toText", entries)
    if isinstance(result, tuple):
        assert {entry["name"] for entry in entries} == set(map(requirement_name, result))
        for entry in entries:
            assert parse_requirements([entry["name"] + entry["wish"]]) == parse_requirements([entry["text"]])
        assert parse_requirements(again) == result
    else:
        assert isinstance(outcome(again), MalformedRequest)
    assert ask("entries", again) == entries or mistaken


@pytest.mark.parametrize("text", [*(text for text, _ in ACCEPTED), *(text for text, _, _ in REFUSED)])
def test_what_people_paste_is_read_as_by_the_server(ask: Ask, text: str) -> None:
    compare(ask, text)
    compare(ask, f"numpy {text}")


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(text=texts)
def test_any_text_is_read_as_by_the_server(ask: Ask, text: str) -> None:
    compare(ask, text)


@settings(deadline=None)
@given(
    value=st.one_of(
        st.text(CHARACTERS), st.lists(st.sampled_from(["x" * 30, "😀" * 31, "://", "me:pw@", "/", "\n"])).map("".join)
    )
)
def test_texts_are_quoted_as_by_the_server(ask: Ask, value: str) -> None:
    assert ask("quoted", value) == quoted(value)


def test_the_longest_text_is_quoted_as_by_the_server(ask: Ask) -> None:
    """Only its beginning is read, in characters and not in halves of them."""
    for text in ("😀" * 2000, "://" + "a" * 996 + "@", "://" + "a" * 997 + "@", "😀" * 990 + "://a:b@c"):
        assert ask("quoted", text) == quoted(text)


def test_an_entry_is_shown_by_its_name_and_what_is_wished_of_it(ask: Ask) -> None:
    (entry, marked) = ask("entries", "Foo.Bar_x [b, a] >= 2, < 3\nbar;os_name=='nt'")
    assert entry == {
        "text": "Foo.Bar_x [b, a] >= 2, < 3",
        "name": "foo-bar-x",
        "wish": "[b, a] >= 2, < 3",
        "mistake": "",
        "duplicate": False,
    }
    assert (marked["name"], marked["wish"]) == ("bar", ";os_name=='nt'")
    assert Requirement(marked["name"] + marked["wish"]) == Requirement("bar; os_name == 'nt'")


@pytest.mark.parametrize(
    ("text", "duplicates"),
    [
        ("pandas numpy Pandas>=2 pandas[x]", [False, False, True, True]),
        ("foo-bar\nFoo__Bar", [False, True]),
        ("foo; os_name == 'nt'\nfoo", [False, False]),
        ("foo; os_name == 'nt'\nfoo>=1;os_name==\"nt\"\nfoo; os_name=='posix'", [False, True, False]),
        ("a b ./a a", [False, False, False, True]),
    ],
)
def test_a_package_that_was_asked_for_before_is_a_duplicate(ask: Ask, text: str, duplicates: list[bool]) -> None:
    """Under the same condition; what has a mistake is none."""
    assert [entry["duplicate"] for entry in ask("entries", text)] == duplicates


@pytest.mark.parametrize(
    "text",
    [
        *(
            "pandas",
            "",
            "x" * MAX_REQUEST_CHARACTERS,
            "x" * (MAX_REQUEST_CHARACTERS + 1),
            "😀" * MAX_REQUEST_CHARACTERS,
        ),
        *("a " * MAX_REQUIREMENTS, "a " * (MAX_REQUIREMENTS + 1), "a\n" * 20_000),
    ],
    ids=range(8),
)
def test_a_text_that_is_too_long_is_refused_as_by_the_server(ask: Ask, text: str) -> None:
    """As a whole; its entries have no part in it."""
    result = outcome(text)
    whole = isinstance(result, MalformedRequest) and not result.entry
    assert ask("refusal", text) == (result.message if isinstance(result, MalformedRequest) and whole else "")


def test_the_script_can_be_put_into_a_page_by_a_template() -> None:
    """It ends no script, opens no comment of HTML's, and holds nothing that Jinja reads."""
    source = SCRIPT.read_text("utf-8")
    assert source.isascii()
    for forbidden in ("</script", "<script", "<!--", "{{", "{%", "{#", "import(", "require(", "http:", "https:"):
        assert forbidden not in source.lower()
