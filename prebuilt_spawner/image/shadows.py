"""Which modules of the server a new file would hide from the interpreter, wherever on `sys.path` each of them lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from ..environment.base import BaseProbe, InstalledDistribution
from .paths import in_image
from .per_object import PerObject

_MODULE_SUFFIXES = (".py", ".pyc", ".so")
_PACKAGE = "__init__"


class ProtectedModules:
    """The modules and files of the server's distributions that stay, by their paths relative to where they lie.

    Packages may lie in several folders of `sys.path`. The first folder that has a module wins, so that paths have to
    be compared relative to their folders: Debian's own packages come after those that are installed on top.
    """

    def __init__(self, probe: BaseProbe, protected: frozenset[str]) -> None:
        """Take the names of those that stay."""
        staying = [found for name, found in sorted(probe.distributions.items()) if name in protected]
        self._files: dict[str, str] = {}
        self._modules: dict[str, str] = {}
        for distribution in staying:
            files = tuple(_relative_files(distribution))
            self._files.update(dict.fromkeys(files, distribution.name))
            self._modules.update(dict.fromkeys(_outermost_modules(distribution, files), distribution.name))
        self._namespaces = {
            folder: owner for module, owner in self._modules.items() for folder in _prefixes(module)[:-1]
        }
        self._tops = {path.partition("/")[0].casefold() for path in (*self._files, *self._modules)}
        places = {probe.scheme.purelib, probe.scheme.platlib, *(found.location for found in staying)}
        # Where one lies in another, a path is relative to the inner one.
        self._places = sorted((f"{in_image(place)}/" for place in places), key=len, reverse=True)

    def may_own_below(self, folder: str) -> bool:
        """Whether `owner_of` can find anything for a file in this folder: a quick look, for many files."""
        place = next((place for place in self._places if f"{folder}/".startswith(place)), None)
        if place is None:
            return False
        top = f"{folder}/"[len(place) :].partition("/")[0]
        return not top or top.casefold() in self._tops

    def owner_of(self, path: str) -> str | None:
        """Which distribution of the server this file (absolute, without the leading slash) would take a module or
        file from; None where none."""
        place = next((place for place in self._places if path.startswith(place)), None)
        if place is None:
            return None
        relative = path[len(place) :]
        if relative in self._files:
            return self._files[relative]
        module = module_of(relative)
        if module is None:
            return None
        owners = (self._modules.get(prefix) for prefix in _prefixes(module))
        return next((owner for owner in owners if owner is not None), self._namespaces.get(module))


def _relative_files(distribution: InstalledDistribution) -> Iterator[str]:
    location = f"{in_image(distribution.location)}/"
    for path in map(in_image, distribution.files or ()):
        if path.startswith(location):
            yield path[len(location) :]


def _outermost_modules(distribution: InstalledDistribution, files: Iterable[str]) -> frozenset[str]:
    """The packages and modules of a distribution that lie in no package; of a namespace (PEP 420) what it has in it.

    Without a list of files its name has to do.
    """
    if distribution.files is None:
        return frozenset({distribution.name.replace("-", "_").casefold()})
    paths = [path for path in files if module_of(path) is not None]
    packages = {module_of(path) for path in paths if _is_package(path)}
    modules = filter(None, map(module_of, paths))
    return frozenset(next((prefix for prefix in _prefixes(module) if prefix in packages), module) for module in modules)


@lru_cache(maxsize=1 << 15)
def module_of(path: str) -> str | None:
    """What is imported from a file, with slashes and in lower case: `a/b` for `a/b.py`, `a` for `a/__init__.py`; None
    for a file that cannot be imported by its name, as what the interpreter has compiled cannot."""
    folder, _, name = path.rpartition("/")
    stem = name.partition(".")[0]
    parts = [*filter(None, folder.split("/")), *([stem] if stem != _PACKAGE else [])]
    if (
        not parts
        or "__pycache__" in parts
        or not name.endswith(_MODULE_SUFFIXES)
        or not all(part.isidentifier() for part in parts)
    ):
        return None
    # In lower case because a name that stands in for a list of files has no other.
    return "/".join(parts).casefold()


def _is_package(path: str) -> bool:
    return path.rpartition("/")[2].partition(".")[0] == _PACKAGE


def _prefixes(module: str) -> list[str]:
    """`a`, `a/b`, `a/b/c` of `a/b/c`."""
    parts = module.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


protected_modules: PerObject[BaseProbe, ProtectedModules] = PerObject(ProtectedModules)
"""Of a base, and of the names of the server's distributions that stay in it."""
