"""Paths in an image: absolute without the leading slash, as tar has them, unless said otherwise."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

from ..environment.base import InstallScheme


def in_image(path: str) -> str:
    """An absolute path as tar has it."""
    return path.strip("/")


def parents(path: str) -> Iterator[str]:
    """The folders above a path, nearest first."""
    while path := path.rpartition("/")[0]:
        yield path


def site_folders(scheme: InstallScheme) -> frozenset[str]:
    """Where packages are imported from."""
    return frozenset({in_image(scheme.purelib), in_image(scheme.platlib)})


def places(scheme: InstallScheme) -> frozenset[str]:
    """Everywhere that a wheel's files can go."""
    return site_folders(scheme) | {in_image(scheme.headers), in_image(scheme.scripts), in_image(scheme.data)}


def look(path: str) -> str:
    """Equal for two paths that are easily taken for each other: they differ only in case, or in how their accents are
    encoded (Unicode normalisation), and are one file to some file systems and tools."""
    return path.casefold() if path.isascii() else unicodedata.normalize("NFC", path.casefold())


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
