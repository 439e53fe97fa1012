"""How tests/exact compares images: what it must not overlook."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from ..exact.allowed import ALLOWED, ALLOWED_WHERE_REPLACED, Allowed, explained
from ..exact.machines import SCRIPT
from ..exact.trees import Difference, Entry, Tree, differences, differing_bytecode

FILE = Entry("/a", "file", 0o644, 0, 0, 1, 3, "abc")
ON_VENV = SimpleNamespace(base=SimpleNamespace(kind="venv"))


def found(ours: Entry, pips: Entry, code: str = "") -> list[str]:
    return [one.aspect for one in differences(Tree([ours]), Tree([pips]), code={"/a.pyc": code})]


@pytest.mark.parametrize(
    ("other", "aspects"),
    [
        (FILE, []),
        (FILE._replace(mtime_ns=2), []),
        (FILE._replace(mode=0o600), ["mode"]),
        (FILE._replace(uid=1), ["owner"]),
        (FILE._replace(gid=1), ["owner"]),
        (FILE._replace(what="abd"), ["content"]),
        (FILE._replace(kind="link", what="abc"), ["kind"]),
        (FILE._replace(path="/b"), ["only ours", "only pip's"]),
        (FILE._replace(mode=0o600, uid=1, what="abd"), ["mode", "owner", "content"]),
    ],
)
def test_every_fact_but_the_time_counts(other: Entry, aspects: list[str]):
    """A file that is otherwise in one fact is a difference in that fact."""
    assert found(FILE, other) == aspects


@pytest.mark.parametrize("aspect", ["", "source", "content"])
def test_bytecode_counts_as_the_code_that_it_holds(aspect: str):
    """Bytes after the header that differ count where the code is another; the header's form counts by itself."""
    ours = FILE._replace(path="/a.pyc", what="abc unchecked-hash")
    pips = FILE._replace(path="/a.pyc", what="abd timestamp")
    assert differing_bytecode(Tree([ours]), Tree([pips])) == ["/a.pyc"]
    assert found(ours, pips, code=aspect) == [*filter(None, [aspect]), "form"]


def test_what_no_entry_allows_is_reported_and_so_is_an_entry_that_allows_nothing():
    """The list can neither be too short nor too long."""
    allowed = [
        Allowed(reason="one", path="/a", aspects=frozenset({"mode"})),
        Allowed(reason="two", path="/b", aspects=frozenset({"mode"})),
        Allowed(reason="three", path="/c", aspects=frozenset({"mode"}), kinds=("conda",)),
        Allowed(reason="four", path="/d", aspects=frozenset({"mode"}), always_found=False),
    ]
    one, other, longer = (
        Difference(path, aspect, "1", "2") for path, aspect in (("/a", "mode"), ("/a", "owner"), ("/ab", "mode"))
    )
    unexplained, unused = explained([one, other, longer], allowed, ON_VENV)
    assert unexplained == [other, longer]
    assert [entry.reason for entry in unused] == ["two"]


@pytest.mark.parametrize("entry", ALLOWED_WHERE_REPLACED, ids=lambda entry: entry.reason)
def test_every_entry_says_why(entry: Allowed):
    """In words, once."""
    assert len(entry.reason.split()) > 3
    assert [other.reason for other in ALLOWED_WHERE_REPLACED].count(entry.reason) == 1
    assert ALLOWED_WHERE_REPLACED[: len(ALLOWED)] == ALLOWED


def test_code_is_the_same_whatever_its_file_is_called(tmp_path: Path):
    """Two names of one source are told apart, and are the same in their shortest form; other code is other code."""
    specification = importlib.util.spec_from_file_location("tree_script", SCRIPT)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)

    def code(source: str, name: str) -> list[str]:
        path = tmp_path / "a.pyc"
        path.write_bytes(bytes(16) + script.marshal.dumps(compile(source, name, "exec")))
        return script.code(str(path))

    text = "def f(x):\n    return x in {'a', 'b', 'c'}\n"
    plain, roundabout, other = (
        code(text, "/lib/a.py"),
        code(text, "/lib/b/../a.py"),
        code(text + "y = 1\n", "/lib/a.py"),
    )
    assert plain[0] != roundabout[0]
    assert plain[1] == roundabout[1]
    assert other[1] != plain[1]
