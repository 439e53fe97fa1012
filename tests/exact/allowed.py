"""What may be otherwise in our images than where pip installed the same lock: all of it, each with its reason."""

from __future__ import annotations

import codecs
import csv
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prebuilt_spawner.image.session import externally_managed

from .conftest import KINDS
from .images import Images
from .trees import Difference


def always(difference: Difference, images: Images) -> bool:
    """What is said by path and aspect is enough."""
    return True


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A kind of difference that is meant.

    Attributes:
        reason: Why.
        path: A regular expression for the whole path.
        aspects: See `Difference`.
        kinds: The bases on which it is found; on others it is not allowed.
        holds: Whether the difference is just this one, where path and aspect do not say enough.
        always_found: Whether it is found in every comparison; else it depends on what the newest packages hold.
    """

    reason: str
    path: str
    aspects: frozenset[str]
    kinds: tuple[str, ...] = KINDS
    holds: Callable[[Difference, Images], bool] = always
    always_found: bool = True

    def covers(self, difference: Difference, images: Images) -> bool:
        """Whether it is this kind of difference."""
        return (
            images.base.kind in self.kinds
            and difference.aspect in self.aspects
            and re.fullmatch(self.path, difference.path) is not None
            and self.holds(difference, images)
        )


def explained(
    found: Iterable[Difference], allowed: Iterable[Allowed], images: Images
) -> tuple[list[Difference], list[Allowed]]:
    """(differences that nothing allows, entries that should have allowed one and did not)."""
    entries = [entry for entry in allowed if images.base.kind in entry.kinds]
    used: set[int] = set()
    unexplained = []
    for difference in found:
        covering = [number for number, entry in enumerate(entries) if entry.covers(difference, images)]
        used.update(covering)
        if not covering:
            unexplained.append(difference)
    return unexplained, [entry for number, entry in enumerate(entries) if entry.always_found and number not in used]


def _says_who_installed(difference: Difference, images: Images) -> bool:
    return images.texts(difference.path) == ("prebuilt-spawner\n", "pip\n")


_CODING = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")  # PEP 263
_LAUNCHER = re.compile(
    r"(?P<shebang>#!.+\n)(?:# -\*- coding: utf-8 -\*-\n)?(?:import re\n)?import sys\n+"
    r"from (?P<module>\S+) import (?P<name>\S+)\n+"
    r"if __name__ == ['\"]__main__['\"]:\n(?:    (?:if )?sys\.argv.*\n| {8}sys\.argv.*\n)*"
    r"    sys\.exit\((?P<call>\S+)\(\)\)\n?"
)


def _is_launcher(difference: Difference, images: Images) -> bool:
    ours, pips = (_LAUNCHER.fullmatch(text) for text in images.texts(difference.path))
    return ours is not None and pips is not None and ours.groupdict() == pips.groupdict()


def _lists_the_same(difference: Difference, images: Images) -> bool:
    """Whether RECORD differs in no more than in the rows of files that may differ."""
    site = posixpath.dirname(posixpath.dirname(difference.path))
    folder = posixpath.basename(posixpath.dirname(difference.path))
    ours, pips = (list(csv.reader(text.splitlines())) for text in images.texts(difference.path))
    launchers = set()
    for path, *facts in ours:
        absolute = posixpath.normpath(posixpath.join(site, path))
        if absolute in images.our_tree and [path, *facts] not in pips:
            one = Difference(absolute, "content", "", "")
            if images.has_texts(absolute) and _is_launcher(one, images):
                launchers.add(path)
    omitted = {f"{folder}/INSTALLER", f"{folder}/REQUESTED"}

    def may_be_missing(path: str) -> bool:
        absolute = posixpath.normpath(posixpath.join(site, path))
        missing = path.endswith(".pyc") and absolute not in images.pips_tree
        return missing and _has_a_rare_encoding(absolute, images)

    def compared(rows: list[list[str]]) -> list[list[str]]:
        return [
            [path] if path in launchers else [path, *facts]
            for path, *facts in rows
            if path not in omitted and not may_be_missing(path)
        ]

    return compared(ours) == compared(pips)


def _has_a_rare_encoding(bytecode: str, images: Images) -> bool:
    """Whether the source needs a codec of its own."""
    folder, _, name = bytecode.rpartition("/__pycache__/")
    source = f"{folder}/{name.partition('.')[0]}.py"
    lines = images.ours.texts([source])[source].splitlines()[:2]
    named = next((found[1] for found in map(_CODING.match, lines) if found), "utf-8")
    return codecs.lookup(named).name not in ("utf-8", "iso8859-1", "ascii")


def _has_the_folders_group(difference: Difference, images: Images) -> bool:
    folder = posixpath.dirname(difference.path)
    while folder not in images.base.tree:
        folder = posixpath.dirname(folder)
    above = images.base.tree[folder]
    if not above.mode & 0o2000:
        return False
    if difference.aspect == "owner":
        return (difference.ours, difference.pips) == ("0:0", f"0:{above.gid}")
    return int(difference.pips or "", 8) == int(difference.ours or "", 8) | 0o2000


def _is_ours(difference: Difference, images: Images) -> bool:
    return difference.path in images.our_tree and images.texts(difference.path)[0] == externally_managed()


def _is_unchecked(difference: Difference, images: Images) -> bool:
    return (difference.ours, difference.pips) == ("unchecked-hash", "timestamp")


def _stays_as_it_was(difference: Difference, images: Images) -> bool:
    path = difference.path
    if path not in images.base.tree or images.base.tree[path].kind != "folder":
        return False
    before, after = images.base.tree[path], images.our_tree[path]
    return (before.mode, before.uid, before.gid) == (after.mode, after.uid, after.gid)


_METADATA = r"/.*/[^/]+\.dist-info"

_BYTECODE = [
    Allowed(
        reason="bytecode that does not say when its source was changed is the same everywhere",
        path=r"/.+\.pyc",
        aspects=frozenset({"form"}),
        holds=_is_unchecked,
    ),
    Allowed(
        reason="pip compiles what lies beside the folder of packages under a name with `..` in it",
        path=r"/.+/bin/__pycache__/[^/]+\.pyc",
        aspects=frozenset({"source"}),
    ),
    Allowed(
        reason="pip loads no modules while it installs, and so compiles no source that needs a codec of its own",
        path=r"/.+\.pyc",
        aspects=frozenset({"only ours"}),
        holds=lambda difference, images: _has_a_rare_encoding(difference.path, images),
        always_found=False,
    ),
]

ALLOWED = [
    Allowed(
        reason="INSTALLER says who installed it",
        path=f"{_METADATA}/INSTALLER",
        aspects=frozenset({"content"}),
        holds=_says_who_installed,
    ),
    Allowed(
        reason="REQUESTED says who was asked for by name; the same lock gives the same files whoever asked",
        path=f"{_METADATA}/REQUESTED",
        aspects=frozenset({"only pip's"}),
    ),
    Allowed(
        reason="RECORD lists these files, and the launchers' hashes",
        path=f"{_METADATA}/RECORD",
        aspects=frozenset({"content"}),
        holds=_lists_the_same,
    ),
    Allowed(
        reason="a launcher's text is our own, so that a newer pip or library does not change it; it does the same",
        path=r"/(?:opt/venv|usr/local|opt/conda)/bin/[^/]+",
        aspects=frozenset({"content"}),
        holds=_is_launcher,
    ),
    Allowed(
        reason="the image says what it is made of, and what to do for other packages",
        path=r"/usr/local/share/prebuilt-spawner(/(pylock\.toml|Dockerfile|notice\.txt|pip-advice|bin(/(prebuilt-try))?))?",
        aspects=frozenset({"only ours"}),
    ),
    Allowed(
        reason="Python gives the advice where pip could only fail",
        path=r"/.+/(site|dist)-packages/prebuilt_spawner_advice\.pth",
        aspects=frozenset({"only ours"}),
    ),
    Allowed(
        reason="a terminal has the image's own PATH",
        path=r"/etc/profile\.d/prebuilt-spawner\.sh",
        aspects=frozenset({"only ours"}),
    ),
    Allowed(
        reason="conda gives the advice, itself and before it",
        path=r"/opt/conda/conda-meta/frozen|/usr/local/share/prebuilt-spawner/bin/conda",
        aspects=frozenset({"only ours"}),
        kinds=("conda",),
    ),
    Allowed(
        reason="the image says how to ask for a package, in the place of the distribution's own words",
        path=r"/usr/lib/python3\.\d+/EXTERNALLY-MANAGED",
        aspects=frozenset({"content"}),
        kinds=("system",),
        holds=_is_ours,
    ),
    Allowed(
        reason="the image says how to ask for a package",
        path=r"/opt/conda/lib/python3\.\d+/EXTERNALLY-MANAGED",
        aspects=frozenset({"only ours"}),
        kinds=("conda",),
    ),
    Allowed(
        reason="a folder with the setgid bit hands its group and the bit down; what we add is root's everywhere",
        path=r"/opt/conda/.+",
        aspects=frozenset({"owner", "mode"}),
        kinds=("conda",),
        holds=_has_the_folders_group,
    ),
    *_BYTECODE,
]

ALLOWED_WHERE_REPLACED = [
    *ALLOWED,
    Allowed(
        reason="pip knows nothing of conda's records; with the package goes what conda says of it",
        path=r"/opt/conda/conda-meta/[^/]+\.json",
        aspects=frozenset({"only pip's"}),
        kinds=("conda",),
    ),
    Allowed(
        reason="a folder of the base stays what it is when its package is replaced; pip makes it anew",
        path=r"/opt/conda/.+",
        aspects=frozenset({"owner", "mode"}),
        kinds=("conda",),
        holds=_stays_as_it_was,
    ),
]
