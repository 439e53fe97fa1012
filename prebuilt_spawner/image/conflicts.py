"""Whether the files of several wheels can live together, and in the base."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from packaging.utils import canonicalize_name

from ..environment.base import BaseProbe
from ..errors import UnbuildableEnvironment
from .emptied import source_of
from .fragment import Fragment, FragmentFile
from .names import SHARE_FOLDER
from .paths import in_image, look, parents, site_folders
from .per_object import PerObject
from .replacement import Replacement
from .shadows import module_of, protected_modules
from .wheel import printable

_EXECUTABLE = 0o111
_METADATA = (".dist-info", ".egg-info")
_OWN_FOLDER = f"{in_image(SHARE_FOLDER)}/"
"""Programs in it come before all others."""


def check_conflicts(
    fragments: Sequence[Fragment],
    *,
    probe: BaseProbe,
    replaced: Replacement,
    own_paths: Collection[str],
    protected: Collection[str],
) -> None:
    """Check that no two fragments want different things of one path, and none wants what is the base's.

    Args:
        fragments: Of distributions with different names.
        probe: The base.
        replaced: What goes from it.
        own_paths: Paths that this package writes itself, as tar has them.
        protected: Names of the distributions that the server is made of, and of all that they need.

    Raises:
        UnbuildableEnvironment: Two want different things of one path; names both and the file.
    """
    names = {fragment.distribution for fragment in fragments}
    check = _Check(probe=probe, replaced=replaced, own_paths=own_paths, protected=protected, names=names)
    for fragment in sorted(fragments, key=lambda fragment: fragment.distribution):
        check.accept(fragment)
    check.folders_are_not_files()


@dataclass(frozen=True, slots=True)
class _Folder:
    """What is the same for all files of a folder.

    Attributes:
        is_notes: Whether it is kept for notes about the image.
        is_stdlib: Whether it is of Python's own library, and no place of packages.
        may_hide: Whether a file in it can take a module from the server.
        may_describe: Whether it can be in the metadata of a distribution, or hold such.
        has_programs: Whether programs lie in it.
    """

    is_notes: bool
    is_stdlib: bool
    may_hide: bool
    may_describe: bool
    has_programs: bool


class _Check:
    """The files that were accepted so far, and the rules for the next."""

    def __init__(
        self,
        *,
        probe: BaseProbe,
        replaced: Replacement,
        own_paths: Collection[str],
        protected: Collection[str],
        names: Collection[str],
    ) -> None:
        self._probe = probe
        self._replaced = replaced
        self._own_paths = frozenset(own_paths)
        self._protected = frozenset(protected)
        self._server = protected_modules(probe, self._protected.difference(replaced.former))
        self._distributions = frozenset((*probe.distributions, *names))
        self._accepted: dict[str, tuple[str, FragmentFile]] = {}
        self._spellings = dict(_spellings(replaced.staying))
        """Paths of files by their looks: those of the base that stay, and those that were accepted."""
        self._known: dict[str, _Folder] = {}
        self._folders: dict[str, str] = {}
        """Folders of accepted files, by path: the distribution that had it first."""
        scheme = probe.scheme
        self._program_folders = {
            path.rpartition("/")[0] for path in (*probe.executables.values(), f"{scheme.scripts}/")
        }
        self._stdlib = f"{in_image(probe.stdlib)}/"
        self._site_folders = tuple(f"{place}/" for place in site_folders(scheme))

    def accept(self, fragment: Fragment) -> None:
        """The next fragment."""
        for file in fragment.files:
            self._accept(fragment.distribution, file)

    def folders_are_not_files(self) -> None:
        """Last, because a later fragment may have a folder where an earlier one has a file."""
        for path in sorted(self._folders.keys() & self._accepted.keys()):
            _conflict(self._folders[path], self._accepted[path][0], path, "one as a file, the other as a folder")

    def _accept(self, name: str, file: FragmentFile) -> None:
        path = file.path
        if path in self._accepted:
            other, same = self._accepted[path]
            if _is_bytecode(path):
                return  # of equal sources; before Python 3.11 it depends on what was compiled before
            if (same.sha256, same.size_bytes) != (file.sha256, file.size_bytes):
                _conflict(name, other, path, "with different content")
            if same.mode != file.mode:
                _conflict(name, other, path, "one as a program, the other not")
            return
        place = path.rpartition("/")[0]
        folder = self._known.get(place)
        if folder is None:
            folder = self._known[place] = self._folder(place)
        self._check_spelling(name, path)
        self._check_folders(name, path)
        self._check_base(name, path, folder)
        if folder.may_describe:
            self._check_metadata(name, path)
        if self._probe.customisers:
            self._check_customiser(name, path)
        if folder.has_programs:
            self._check_program(name, file)
        self._accepted[path] = name, file

    def _folder(self, place: str) -> _Folder:
        below = f"{place}/"
        in_site = below.startswith(self._site_folders)
        top = self._in_site(below).partition("/")[0]
        return _Folder(
            is_notes=below.startswith(_OWN_FOLDER),
            is_stdlib=below.startswith(self._stdlib) and not in_site,
            may_hide=self._server.may_own_below(place),
            may_describe=in_site and (not top or top.endswith(_METADATA)),
            has_programs=f"/{place}" in self._program_folders,
        )

    def _check_spelling(self, name: str, path: str) -> None:
        spelling = self._spellings.setdefault(look(path), path)
        if spelling == path or path in self._replaced.staying:
            return
        accepted = self._accepted.get(spelling)
        whose = f"{self._replaced.staying[spelling]} in the base image" if accepted is None else accepted[0]
        how = f'the one as "{printable(spelling)}", which differs only in case or in how accents are encoded'
        _conflict(name, whose, path, how)

    def _check_folders(self, name: str, path: str) -> None:
        for folder in parents(path):
            if folder in self._folders:
                return
            self._folders[folder] = name
            if f"/{folder}" in self._probe.links and not self._replaced.removes(folder):
                _refuse(name, path, "a folder that is a link in the base image")
            if folder in self._replaced.staying:
                self._belongs(name, folder)

    def _check_base(self, name: str, path: str, folder: _Folder) -> None:
        absolute = f"/{path}"
        if folder.is_notes or path in self._own_paths:
            _refuse(name, path, "a place that is kept for notes about the image")
        if (absolute in self._probe.folders or absolute in self._probe.links) and not self._replaced.removes(path):
            _refuse(name, path, "the place of a folder of the base image")
        if folder.is_stdlib:
            _refuse(name, path, "Python's own library")
        owner = self._replaced.staying.get(path)
        if owner is None and not folder.may_hide:
            return
        # What its replaced version shared already (the `__init__.py` of an old namespace package) it may go on sharing.
        former = self._replaced.former.get(name) or ()
        was_its_own = path in former or (_is_bytecode(path) and source_of(path) in former)
        if owner is not None and (owner in self._protected or not was_its_own):
            self._belongs(name, path)
        hidden = self._server.owner_of(path)
        if hidden is not None and not was_its_own:
            _hides(name, path, hidden)

    def _in_site(self, path: str) -> str:
        """The path from the folder of packages that it lies in; "" where it lies in none."""
        place = next((place for place in self._site_folders if path.startswith(place)), None)
        return "" if place is None else path.removeprefix(place)

    def _check_metadata(self, name: str, path: str) -> None:
        """That it does not change what is said of another distribution. `CheckedWheel` has seen to the folders of
        packages; the way through the data folder needs the scheme."""
        top = self._in_site(path).partition("/")[0]
        if not top.endswith(_METADATA):
            return
        described = canonicalize_name(top.rpartition(".")[0].partition("-")[0])
        # Metadata of a distribution that is not there is litter of a careless build, as pip takes it.
        if described != name and described in self._distributions:
            raise UnbuildableEnvironment(
                f'{name} has a file "{printable(path)}" in the metadata of {described}. '
                f"Leave {name} out, or try another version of it."
            )

    def _check_customiser(self, name: str, path: str) -> None:
        """That what the base runs whenever Python starts goes on running: only the first such module is imported."""
        present = self._probe.customisers.get(module_of(self._in_site(path)) or "")
        if present is not None and not self._replaced.removes(in_image(present)):
            owner = self._replaced.staying.get(in_image(present))
            raise UnbuildableEnvironment(
                f'{name} has a file "{printable(path)}", which Python would run at every start, and so has '
                f"{'the base image' if owner is None else f'{owner} in the base image'}; only one of them can be. "
                f"Leave {name} out, or try another version of it.",
                detail=present,
            )

    def _check_program(self, name: str, file: FragmentFile) -> None:
        program = file.path.rpartition("/")[2]
        present = self._probe.executables.get(program)
        if present is None or self._replaced.removes(in_image(present)):
            return
        owner = self._replaced.staying.get(in_image(present))
        if in_image(present) == file.path:
            if owner is not None:  # `_check_base` allowed it
                return
        elif not file.mode & _EXECUTABLE or self._is_formers(name, present):
            return
        if owner is None:
            belongs = f"to the base image, in {printable(present.rpartition('/')[0])}"
        else:
            belongs = f"to the server ({owner})" if owner in self._protected else f"to {owner} in the base image"
        raise UnbuildableEnvironment(
            f'{name} brings a command "{printable(program)}" that would take the place of the one that belongs '
            f"{belongs}. Leave {name} out, or try another version of it.",
            detail=f"/{file.path} and {present}",
        )

    def _is_formers(self, name: str, program: str) -> bool:
        """Whether it may be of the version that is replaced: listed by that, or nobody's where that has no list."""
        if name not in self._replaced.former:
            return False
        files = self._replaced.former[name]
        path = in_image(program)
        return path not in self._replaced.staying if files is None else path in files

    def _belongs(self, name: str, path: str) -> NoReturn:
        owner = self._replaced.staying[path]
        if owner in self._protected:
            raise UnbuildableEnvironment(
                f'{name} has a file "{printable(path)}" that belongs to the server ({owner}). '
                f"Leave {name} out, or try another version of it."
            )
        raise UnbuildableEnvironment(
            f'{name} has a file "{printable(path)}" that belongs to {owner} in the base image. '
            f"Leave {name} out, or ask for another version of {name} or {owner}."
        )


def _is_bytecode(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder.endswith("/__pycache__") and name.endswith(".pyc")


def _hides(name: str, path: str, owner: str) -> NoReturn:
    raise UnbuildableEnvironment(
        f'{name} has a file "{printable(path)}" that would take the place of a part of the server ({owner}). '
        f"Leave {name} out, or try another version of it."
    )


def _conflict(name: str, other: str, path: str, how: str) -> NoReturn:
    raise UnbuildableEnvironment(
        f'{other} and {name} both have "{printable(path)}", {how}. '
        "They cannot be installed together: leave one out, or try other versions."
    )


def _refuse(name: str, path: str, what: str) -> NoReturn:
    raise UnbuildableEnvironment(
        f'{name} has a file "{printable(path)}" for {what}. Leave {name} out, or try another version of it.'
    )


def _by_look(paths: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in paths:
        found.setdefault(look(path), path)
    return found


_spellings: PerObject[Mapping[str, str], dict[str, str]] = PerObject(_by_look)
"""The paths of a base's files by their looks."""
