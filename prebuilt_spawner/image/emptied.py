"""What goes along with files that are deleted: bytecode that was made of them, and folders that they leave empty.

Paths are absolute in the image without the leading slash, as tar has them, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..environment.base import BaseProbe
from .paths import in_image, parents, places


def source_of(path: str) -> str | None:
    """The source of a bytecode file, by its path alone (PEP 3147, PEP 488); None for another file."""
    folder, _, name = path.rpartition("/")
    stem, _, suffix = name.rpartition(".")
    if suffix not in ("pyc", "pyo"):
        return None
    above, _, last = folder.rpartition("/")
    if last != "__pycache__":
        return path[:-1]
    stem, _, tag = stem.rpartition(".")
    if tag.startswith("opt-"):
        stem = stem.rpartition(".")[0]
    return f"{above}/{stem}.py"


def bytecode_beside(files: Iterable[str], *, probe: BaseProbe, staying: Collection[str]) -> set[str]:
    """The bytecode that is on no list and of no more use when the files are gone.

    That is all of it whose source does not stay, whichever interpreter made it. pip takes what its own interpreter made
    and leaves the rest, and with that the folder: a package that is gone can be imported as an empty namespace.
    """
    found: set[str] = set()
    for folder in {path.rpartition("/")[0] for path in files}:
        for place in (folder, f"{folder}/__pycache__"):
            compiled = (f"{place}/{name}" for name in probe.compiled.get(f"/{place}", ()))
            found.update(path for path in compiled if source_of(path) not in staying)
    return found


def with_emptied_folders(
    gone: Collection[str], *, probe: BaseProbe, remaining: Iterable[str], refilled: Collection[str]
) -> set[str]:
    """The fewest paths that delete these files and each folder in which they leave no file.

    A folder stays where something is left in it or below it, be it nobody's, and where it is one of the scheme's own.
    An emptied folder into which a new file goes keeps its mode and owner: what is in it is deleted, one by one.

    Args:
        gone: The files to delete.
        probe: The base.
        remaining: The listed files of the base that are not deleted, and bytecode.
        refilled: The folders that new files will be written to, and all above them.
    """
    own = [*places(probe.scheme), in_image(probe.stdlib), *map(in_image, probe.occupied)]
    held = {folder for place in own for folder in (place, *parents(place))}
    for path in remaining:
        for folder in parents(path):
            if folder in held:
                break
            held.add(folder)
    emptied = {folder for path in gone for folder in parents(path)} - held
    deleted = emptied.difference(refilled)
    found = {_topmost(path, deleted) for path in gone}
    # The base may have folders without any file, and those can be imported, too.
    for folder in map(in_image, probe.folders):
        above = folder.rpartition("/")[0]
        if above in emptied and above in refilled and folder not in refilled:
            found.add(folder)
    return found


def _topmost(path: str, folders: Collection[str]) -> str:
    """The highest of the given folders that the path lies in, each in the next; the path itself where there is none."""
    for folder in parents(path):
        if folder not in folders:
            break
        path = folder
    return path
