"""The files of two images, compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Entry(NamedTuple):
    """One path of an image.

    Attributes:
        path: Absolute.
        kind: `file`, `folder`, `link` or `other`.
        mode: Permission bits.
        uid, gid: The owner.
        mtime_ns: Time of the last change.
        size: Of a file, in bytes.
        what: See tree_script.py.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    what: str | None


class Tree:
    """Entries by path."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = {entry.path: entry for entry in entries}

    def __getitem__(self, path: str) -> Entry:
        return self.entries[path]

    def __contains__(self, path: str) -> bool:
        return path in self.entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def lines(self) -> Iterator[str]:
        """As tree_script.py prints them."""
        return (json.dumps(entry) for entry in self)

    def new(self, base: Tree) -> Iterator[Entry]:
        """What the base has not, or has with other content, another mode or another owner."""
        for entry in self:
            before = base.entries.get(entry.path)
            if before is None or _facts(before) != _facts(entry) or (entry.kind == "file" and entry.what is not None):
                yield entry

    def learn(self, content: Mapping[str, str]) -> None:
        """Take what was found out about the content of files later."""
        for path, what in content.items():
            self.entries[path] = self.entries[path]._replace(what=what)


@dataclass(frozen=True)
class Difference:
    """What one image has otherwise than another.

    Attributes:
        path: Absolute.
        aspect: `only ours`, `only pip's`, `kind`, `mode`, `owner` or `content`; of bytecode also `form` (of its header)
            and `source` (the name that it has for it), while the code is the same.
        ours, pips: Of the aspect; None for a path that is not there.
    """

    path: str
    aspect: str
    ours: str | None
    pips: str | None

    def __str__(self) -> str:
        return f"{self.path}: {self.aspect}: {self.ours} / {self.pips}"


def differences(ours: Tree, pips: Tree, *, code: Mapping[str, str]) -> list[Difference]:
    """All differences but those of times, in the order of the paths.

    Args:
        ours, pips: With the content of everything that is not as in the base.
        code: The aspect in which bytecode that is not the same to the byte differs, by path: `content`, `source` or "".
    """
    return [
        difference
        for path in sorted({*ours.entries, *pips.entries})
        for difference in _at(path, ours.entries.get(path), pips.entries.get(path), code)
    ]


def differing_bytecode(ours: Tree, pips: Tree) -> list[str]:
    """Bytecode that is in both and not the same to the byte."""
    return [
        entry.path
        for entry in ours
        if entry.path.endswith(".pyc") and entry.path in pips and _code(entry) != _code(pips[entry.path])
    ]


def unknown_content(one: Tree, other: Tree) -> list[str]:
    """Files whose content is known of the one, and as in the base (so not known) of the other."""
    return [
        entry.path
        for entry in one
        if entry.kind == "file" and entry.what is None and entry.path in other and other[entry.path].what is not None
    ]


def _facts(entry: Entry) -> tuple[object, ...]:
    return entry.kind, entry.mode, entry.uid, entry.gid, entry.what if entry.kind == "link" else None


def _at(path: str, ours: Entry | None, pips: Entry | None, code: Mapping[str, str]) -> Iterator[Difference]:
    if ours is None or pips is None:
        aspect = "only pip's" if ours is None else "only ours"
        yield Difference(path, aspect, ours and ours.kind, pips and pips.kind)
        return
    if ours.kind != pips.kind:
        yield Difference(path, "kind", ours.kind, pips.kind)
        return
    if ours.mode != pips.mode:
        yield Difference(path, "mode", oct(ours.mode), oct(pips.mode))
    if (ours.uid, ours.gid) != (pips.uid, pips.gid):
        yield Difference(path, "owner", f"{ours.uid}:{ours.gid}", f"{pips.uid}:{pips.gid}")
    if path.endswith(".pyc"):
        aspect = code.get(path, "content") if _code(ours) != _code(pips) else ""
        if aspect:
            yield Difference(path, aspect, _code(ours), _code(pips))
        if _form(ours) != _form(pips):
            yield Difference(path, "form", _form(ours), _form(pips))
    elif ours.what != pips.what:
        yield Difference(path, "content", ours.what, pips.what)


def _code(entry: Entry) -> str:
    return (entry.what or "").partition(" ")[0]


def _form(entry: Entry) -> str:
    return (entry.what or "").partition(" ")[2]
