"""Which files of the base go when a lock is installed on it, and whose the others are.

Paths are absolute in the image without the leading slash, as tar has them, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..environment.base import BaseProbe, InstalledDistribution, InstallScheme
from ..environment.lock import Lock
from ..errors import UnbuildableEnvironment

_OPTIMISATION_TAGS = ("", ".opt-1", ".opt-2")
"""The three bytecode files that one source can have (PEP 488)."""


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """What happens to the base's distributions.

    Attributes:
        removed: Files and metadata folders that go. Each lies in a folder that the base has; none lies below another.
        staying: By path, the distribution that a file of the base belongs to and that is not replaced.
        former: The files of each replaced distribution, by its name; no more than the name where it has no list
            of files and is only shadowed.
    """

    removed: frozenset[str] = frozenset()
    staying: Mapping[str, str] = field(default_factory=dict)
    former: Mapping[str, frozenset[str] | None] = field(default_factory=dict)


def replacement(probe: BaseProbe, lock: Lock) -> Replacement:
    """Decide it for every distribution of the base that the lock has under the same name.

    One that lies in another folder than packages are installed to (Debian's own, say) and that cannot be removed is
    left where it is: the folder of new packages comes first on `sys.path`.

    Raises:
        UnbuildableEnvironment: One can be neither removed nor shadowed.
    """
    real = RealPaths(probe.links)
    files = {
        name: None if found.files is None else frozenset(map(real, found.files))
        for name, found in probe.distributions.items()
    }
    names = sorted(set(lock.pins) & files.keys())
    staying = {
        path: name
        for name, owned in sorted(files.items(), reverse=True)
        if name not in names and owned is not None
        for path in owned
    }
    former: dict[str, frozenset[str] | None] = {}
    removed: set[str] = set()
    for name in names:
        former[name] = files[name]
        removed |= _removed(probe.distributions[name], files[name], probe=probe, real=real, staying=staying)
    return Replacement(removed=frozenset(removed), staying=staying, former=former)


def _removed(
    distribution: InstalledDistribution,
    files: frozenset[str] | None,
    *,
    probe: BaseProbe,
    real: RealPaths,
    staying: Mapping[str, str],
) -> set[str]:
    location = real(distribution.location)
    shadowed = location not in {in_image(probe.scheme.purelib), in_image(probe.scheme.platlib)}
    if files is None or not all(_in_scheme(path, probe.scheme) for path in files):
        if shadowed:
            return set()
        raise UnbuildableEnvironment(
            f"{distribution.name} {distribution.version} of the base image cannot be replaced: "
            f"{'it has no list of its files' if files is None else 'it has files in places of the system'}. "
            "Ask for that version, or ask the administrator to install it in the base image with pip or conda.",
            detail=f"{distribution.location}/{distribution.metadata_directory}",
        )
    metadata = f"{location}/{distribution.metadata_directory}"
    shared = files & staying.keys()
    # A whiteout needs its folder: an entry for one that the base lacks would make it, and it could be imported.
    gone = {
        path
        for path in _with_bytecode(files, probe.cache_tag) - _with_bytecode(shared, probe.cache_tag)
        if f"/{path.rpartition('/')[0]}" in probe.folders and not f"{path}/".startswith(f"{metadata}/")
    }
    return gone | {metadata}


def _with_bytecode(files: Iterable[str], cache_tag: str) -> set[str]:
    """The files, and where the interpreter keeps what it compiled of the sources among them (PEP 3147)."""
    found = set(files)
    for path in files:
        if path.endswith(".py"):
            folder, _, name = path.rpartition("/")
            found.update(f"{folder}/__pycache__/{name[:-3]}.{cache_tag}{tag}.pyc" for tag in _OPTIMISATION_TAGS)
    return found


def _in_scheme(path: str, scheme: InstallScheme) -> bool:
    places = {scheme.purelib, scheme.platlib, scheme.headers, scheme.scripts, scheme.data}
    return any(path.startswith(f"{in_image(place)}/") for place in places)


def in_image(path: str) -> str:
    """An absolute path as tar has it."""
    return path.strip("/")


def parents(path: str) -> Iterator[str]:
    """The folders above a path, nearest first."""
    while path := path.rpartition("/")[0]:
        yield path


class RealPaths:
    """Absolute paths of the base with its symlinked folders resolved, as tar has them."""

    def __init__(self, links: Mapping[str, str]) -> None:
        """Take symlinks by absolute path; the targets are absolute and resolved."""
        self._folders = {in_image(link): in_image(target) for link, target in links.items()}
        self._folders[""] = ""

    def __call__(self, path: str) -> str:
        folder, slash, name = in_image(path).rpartition("/")
        return f"{self._folder(folder)}{slash}{name}"

    def _folder(self, path: str) -> str:
        if path not in self._folders:
            folder, slash, name = path.rpartition("/")
            resolved = f"{self._folder(folder)}{slash}{name}"
            self._folders[path] = self._folders.get(resolved, resolved)
        return self._folders[path]
