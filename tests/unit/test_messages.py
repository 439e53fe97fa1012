"""Every message for users that the source holds, read from the source of every module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from prebuilt_spawner import errors
from prebuilt_spawner.build.failure import _ERRORS, TELL, Failure, Kind, failure_of
from prebuilt_spawner.environment.quoting import quoted
from tests.messages import ERROR_CLASSES, PACKAGE, faults, written_messages

MODULES = sorted(PACKAGE.rglob("*.py"))


def path_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("module", MODULES, ids=path_of)
def test_messages_are_sentences_that_say_what_to_do_and_hold_nothing_secret(module: Path) -> None:
    """No path, no traceback, no class of exception, no address, no credentials; one line, and not long."""
    wrong = []
    for message in written_messages(module):
        # What is wrong with a lock is said to an administrator or a user by whoever read it.
        text = f"{message.text} {TELL}" if message.module == "environment/lock.py" else message.text
        found = faults(text)
        if found:
            wrong.append((message.line, text, found))
    assert wrong == []


def test_the_walk_sees_the_messages() -> None:
    """Of every error class that is raised at all, and most of what a search for their names finds."""
    text = "".join(module.read_text("utf-8") for module in MODULES if module.name != "errors.py")
    calls = len(re.findall(rf"raise (?:{'|'.join(ERROR_CLASSES)})\(", text))
    seen = {(message.module, message.line) for module in MODULES for message in written_messages(module)}
    assert calls > 80
    assert len(seen) >= calls


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("raise QueueFull('One. Try.')", ["One. Try."]),
        ("raise QueueFull(f'One {x} ' 'two.', detail='no')", ["One thing two."]),
        ("A = 'Constant.'\ndef f():\n    raise QueueFull(f'{A} {TELL}')", [f"Constant. {TELL}"]),
        ("raise QueueFull('a' if x else f'b{\"c\" if y else \"d\"}')", ["a", "bc", "bd"]),
        ("def f(m):\n    raise QueueFull(m)\nf('Given.')\nf(m='Named.')", ["Given.", "Named."]),
        ("def f():\n    m = 'One.'\n    if x:\n        m = 'Two.'\n    raise QueueFull(m)", ["One.", "Two."]),
        ("Failure(kind=k, what='What.', advice='Try.').error()", ["What. Try."]),
        ("raise QueueFull(error.message)", []),
    ],
)
def test_every_way_to_write_a_message_is_seen(
    source: str, texts: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "module.py").write_text(source)
    monkeypatch.setattr("tests.messages.PACKAGE", tmp_path)
    assert [message.text for message in written_messages(tmp_path / "module.py")] == texts


@pytest.mark.parametrize(
    "message",
    [
        "",
        "It failed. Try /var/lib/docker.",
        "Traceback (most recent call last). Try again.",
        "OSError: try again.",
        "Ask https://me:secret@index.test.",
        "Ask 10.0.0.1:8080.",
        "It failed.",
        "Try again",
        "Try again.\nPlease.",
        "Try again. " * 100,
    ],
)
def test_a_bad_message_is_noticed(message: str) -> None:
    assert faults(message)


def test_credentials_that_a_user_typed_are_not_repeated() -> None:
    assert quoted("git+https://me:s3cret@host.test/x") == "'git+https://host.test/x'"
    assert "s3cret" not in quoted("pkg @ https://me:" + "s3cret" * 20 + "@host.test/x")


def test_every_kind_is_an_error_with_its_own_cause_and_every_error_has_a_kind() -> None:
    for kind in Kind:
        error = Failure(kind=kind, what="It failed.", advice="Try again.", package="demo").error(detail="why")
        assert type(error) is _ERRORS[kind]
        assert (error.message, error.detail, error.package) == ("It failed. Try again.", "why", "demo")
        assert failure_of(error).kind is kind
        of_packages = isinstance(error, errors.UnresolvableRequest | errors.UnbuildableEnvironment)
        assert (error.about, error.entry) == (("packages", "demo") if of_packages else ("", ""))
    for name in ERROR_CLASSES:
        error = getattr(errors, name)("It failed.")
        assert failure_of(error) == Failure(kind=Kind(error.reason), what="It failed.")


def test_every_kind_is_in_the_documentation() -> None:
    """With the status of its error."""
    text = (PACKAGE.parent / "docs/explanation/failures.md").read_text("utf-8")
    table = {}
    for row in re.findall(r"^\| (`.*?) \| ([\d, ]+) \|", text, re.MULTILINE):
        table.update(zip(re.findall(r"`(.*?)`", row[0]), map(int, row[1].split(",")), strict=True))
    assert table == {kind.value: _ERRORS[kind].status for kind in Kind}


def test_a_cause_that_is_written_out_is_a_kind() -> None:
    causes = {
        keyword.value.value
        for module in MODULES
        for call in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "cause" and isinstance(keyword.value, ast.Constant)
    }
    assert causes - set(Kind) == set()


@pytest.mark.parametrize(
    ("message", "kind", "package"),
    [
        ("The wheel of Demo is too large: unpacked it has more than 1 MiB. Try another.", Kind.TOO_LARGE, "demo"),
        ("The wheel of demo has no METADATA. Try another version of it.", Kind.UNBUILDABLE, "demo"),
        ('one and two both have "x", with different contents. Leave one out.', Kind.FILE_CONFLICT, ""),
        ('demo has a file "is too large" that belongs to the server (x).', Kind.FILE_CONFLICT, "demo"),
        ('demo brings a command "jupyter" that would take the place of …', Kind.FILE_CONFLICT, "demo"),
        ("demo 1.0 of the base image cannot be replaced: …", Kind.FILE_CONFLICT, "demo"),
        ("Something else.", Kind.UNBUILDABLE, ""),
    ],
)
def test_what_the_checks_say_has_a_kind(message: str, kind: Kind, package: str) -> None:
    found = failure_of(errors.UnbuildableEnvironment(message))
    assert (found.kind, found.package) == (kind, package)
