"""Which files of the base go when a lock is installed on it, and whose the others are.

Paths are absolute in the image without the leading slash, as tar has them, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from ..environment.base import BaseProbe, InstalledDistribution
from ..environment.lock import Lock
from ..errors import UnbuildableEnvironment
from .emptied import bytecode_beside, source_of, with_emptied_folders
from .paths import RealPaths, in_image, parents, places, site_folders
from .per_object import PerObject


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """What happens to the base's distributions.

    Attributes:
        removed: Files and folders that go. Each lies in a folder that the base has; none lies below another.
        staying: By path, the distribution that a file of the base belongs to and that is not replaced.
        former: The files of each replaced distribution, by its name; no more than the name where it has no list
            of files and is only shadowed.
    """

    removed: frozenset[str] = frozenset()
    staying: Mapping[str, str] = field(default_factory=dict)
    former: Mapping[str, frozenset[str] | None] = field(default_factory=dict)

    def removes(self, path: str) -> bool:
        """Whether this file or folder goes, by itself or with a folder that it lies in."""
        return path in self.removed or any(folder in self.removed for folder in parents(path))


def replacement(probe: BaseProbe, lock: Lock, *, incoming: Collection[str] = ()) -> Replacement:
    """Decide it for every distribution of the base that the lock has under the same name.

    There go: the files on its list, programs that its entry points name, bytecode of these, its metadata folder whole
    (pip leaves what a broken RECORD does not name, and then the old version is still seen), and folders that are empty
    then. Of a distribution that is there twice, all copies.

    A conda package is told by its files, not by its name. When all distributions in it are replaced, there go also its
    other files in the folders of packages, and conda's record of it. Where it has files elsewhere that no distribution
    lists (shared libraries, programs), other packages may need those: they stay, and conda's record with them, which
    says whose they are. So `conda list` goes on showing the old version. To refuse would be tidier, and help nobody.

    A distribution in another folder than packages are installed to (Debian's own, say) that cannot be removed
    is left where it is if the folder of new packages comes before that one on `sys.path`.

    Args:
        probe: The base.
        lock: What is installed on it.
        incoming: The paths of all files that will be written.

    Raises:
        UnbuildableEnvironment: One can be neither removed nor shadowed.
    """
    if lock.pins.keys().isdisjoint({*probe.distributions, *(found.name for found in probe.copies)}):
        return _unreplaced(probe)
    base = _Base(probe, replaced=lock.pins.keys())
    staying = base.staying()
    former: dict[str, frozenset[str] | None] = {}
    gone: set[str] = set()
    whole: set[str] = set()
    for found in base.going:
        files = base.files(found)
        if files is None:
            former.setdefault(found.name, None)
        else:
            former[found.name] = files | (former.get(found.name) or frozenset())
        metadata = base.removal_of(found)
        if metadata is not None:
            gone.update(files or (), map(base.real, found.scripts))
            whole.add(metadata)
    replaced = {
        record: package for record, package in probe.conda.items() if whole.issuperset(map(base.real, package.metadata))
    }
    for package in replaced.values():
        gone.update(map(base.real, package.files))
    gone = {path for path in gone if path not in staying and source_of(path) not in staying}
    gone |= bytecode_beside(gone, probe=probe, staying=staying)
    # A whiteout needs its folder: an entry for one that the base lacks would make it, and it could be imported.
    gone = {path for path in gone if f"/{path.rpartition('/')[0]}" in probe.folders}
    refilled = {folder for path in incoming for folder in parents(path)}
    removed = with_emptied_folders(gone, probe=probe, remaining=base.known_files() - gone, refilled=refilled)
    removed |= whole
    removed |= {in_image(record) for record, package in replaced.items() if not package.has_more}
    # Where images are stacked, whiteouts can come above new files: none may be of a folder that holds some.
    removed -= refilled
    return Replacement(
        removed=frozenset(path for path in removed if removed.isdisjoint(parents(path))),
        staying=staying,
        former=former,
    )


class _Base:
    """The distributions of the base, those that go and those that stay, and which files are whose."""

    def __init__(self, probe: BaseProbe, *, replaced: Collection[str]) -> None:
        self._probe = probe
        self.real = RealPaths(probe.links)
        self._sites = site_folders(probe.scheme)
        self._places = tuple(f"{place}/" for place in places(probe.scheme))
        self._all = sorted((*probe.distributions.values(), *probe.copies), key=lambda found: found.name)
        self.going = [found for found in self._all if found.name in replaced]
        self._going = {self._metadata(found) for found in self.going}
        self._conda = {self.real(path): package for package in probe.conda.values() for path in package.metadata}
        self._files = {self._metadata(found): self._listed(found) for found in self._all}

    def files(self, found: InstalledDistribution) -> frozenset[str] | None:
        """All that is known to be its own; None where it has no list of its files."""
        return self._files[self._metadata(found)]

    def known_files(self) -> set[str]:
        """All files that are on somebody's list, and all bytecode."""
        known = {path for files in self._files.values() for path in files or ()}
        known.update(self.real(path) for package in self._probe.conda.values() for path in package.files)
        known.update(f"{in_image(folder)}/{name}" for folder, names in self._probe.compiled.items() for name in names)
        return known

    def staying(self) -> dict[str, str]:
        """By path, whose a file is that is not replaced; the first by name where it is several ones'."""
        owners: dict[str, str] = {}
        for found in self._all:
            metadata = self._metadata(found)
            if metadata not in self._going:
                package = self._conda.get(metadata)
                others = map(self.real, package.files) if package else ()
                for path in (*(self._files[metadata] or ()), *map(self.real, found.scripts), *others):
                    owners.setdefault(path, found.name)
        return owners

    def removal_of(self, found: InstalledDistribution) -> str | None:
        """The folder or file that is deleted as a whole with its files: its metadata, or all of an egg. None where it
        stays in the shadow of the new one.

        Raises:
            UnbuildableEnvironment: Neither can be.
        """
        location = self.real(found.location)
        metadata = self._metadata(found)
        if location.endswith(".egg") and location.rpartition("/")[0] in self._sites:
            return location  # its line in `easy-install.pth` is passed over when the path is not there
        files = self._files[metadata]
        if files is not None and all(map(self._is_ours, files)) and self._is_ours(metadata):
            return metadata
        if location in self._sites:
            if files is None and self._is_leftover(found):
                return metadata
            self._refuse(
                found, "it has no list of its files" if files is None else "it has files in places of the system"
            )
        path = [in_image(folder) for folder in self._probe.import_path]
        if location in path and any(site in path[path.index(location) :] for site in self._sites):
            self._refuse(found, "it is in a folder that Python searches before that of new packages")
        return None

    def _metadata(self, found: InstalledDistribution) -> str:
        return f"{self.real(found.location)}/{found.metadata_directory}"

    def _listed(self, found: InstalledDistribution) -> frozenset[str] | None:
        files: Iterable[str] | None = found.files
        if files is None:
            package = self._conda.get(self._metadata(found))
            # Which of a package's files are whose is not known where it holds several distributions.
            if package is None or not self._going.issuperset(map(self.real, package.metadata)):
                return None
            files = package.files
        return frozenset(map(self.real, files))

    def _is_ours(self, path: str) -> bool:
        """Whether it is in a place of packages, and not of Python itself."""
        in_stdlib = path.startswith(f"{in_image(self._probe.stdlib)}/")
        in_site = path.startswith(tuple(f"{site}/" for site in self._sites))
        return path.startswith(self._places) and (in_site or not in_stdlib) and f"/{path}" != self._probe.interpreter

    def _is_leftover(self, found: InstalledDistribution) -> bool:
        """Whether it is the metadata of a version that was overwritten: another copy in that place has a list."""
        return any(
            other.name == found.name and other.location == found.location and other.files is not None
            for other in self.going
        )

    def _refuse(self, found: InstalledDistribution, why: str) -> NoReturn:
        raise UnbuildableEnvironment(
            f"{found.name} {found.version} of the base image cannot be replaced: {why}. "
            "Ask for that version, or ask the administrator to install it in the base image with pip or conda.",
            detail=f"{found.location}/{found.metadata_directory}",
        )


_unreplaced: PerObject[BaseProbe, Replacement] = PerObject(
    lambda probe: Replacement(staying=_Base(probe, replaced=()).staying())
)
"""Where nothing of a base goes."""
