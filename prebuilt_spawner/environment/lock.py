"""Locks: which wheels, to the byte, an environment adds to its base."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import tomli_w
from packaging.markers import EvaluateContext, Marker
from packaging.pylock import (
    Package,
    PackageSdist,
    PackageWheel,
    Pylock,
    PylockUnsupportedVersionError,
    PylockValidationError,
)
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags, create_compatible_tags_selector
from packaging.utils import parse_sdist_filename, parse_wheel_filename

from ..errors import MalformedRequest, UnresolvableRequest
from .base import BaseProbe
from .digest import source_identity
from .parsing import one_at_a_time
from .quoting import quoted
from .urls import without_credentials

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
WHEEL_FILENAME = re.compile(r"[A-Za-z0-9._+!-]+\.whl")
SDIST_FILENAME = re.compile(r"[A-Za-z0-9._+!-]+\.(?:tar\.gz|tgz|tar\.bz2|tar\.xz|zip)")
"""What files may be called that stand in a lock, whatever else indexes and builds call theirs."""
_TOOL = "prebuilt-spawner"
"""The name of our own tables in a pylock file."""
_URL_CHARACTERS = re.compile(r"[\x21-\x7e]+")
# The oldest glibc that manylinux tags name, by machine (PEP 513 for x86, PEP 599 for the others).
_OLDEST_GLIBC_MINOR = {"x86_64": 5, "i686": 5}
_OLDEST_GLIBC_MINOR_ELSEWHERE = 17
# PEP 600: the older names of three of them.
_LEGACY_MANYLINUX = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


@dataclass(frozen=True, kw_only=True)
class LockedFile:
    """One file of an index, to the byte.

    Attributes:
        name: Normalised as PEP 503 says.
        version: Canonical as PEP 440 says.
        filename: Its name on the index.
        url: Where it was found, without credentials.
        sha256: 64 hex digits.
        size_bytes: None where the index did not say.
    """

    name: str
    version: str
    filename: str
    url: str
    sha256: str
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class LockedWheel(LockedFile):
    """One wheel that a lock installs. Its file name carries the tags.

    Attributes:
        source: What it is built from; None where the index has the wheel. Two builds of one source are rarely the same
            to the byte. So the `sha256` of such a wheel is that of what makes it (`digest.source_identity`), its `url`
            is the source's, and its file name and size are those of the wheel that was made when it was locked.
    """

    source: LockedSource | None = None


@dataclass(frozen=True, kw_only=True)
class LockedSource(LockedFile):
    """A source distribution, and everything else that decides which wheel is made of it.

    Attributes:
        base_digest: The content of the base image that it is built in.
        requires: What is installed for its build, all of it, sorted by name: wheels of an index.
        metadata_sha256: Of the METADATA file of the wheel that was made when it was locked, by which the other packages
            were chosen; "" where it is not known.
    """

    base_digest: str
    requires: tuple[LockedWheel, ...] = ()
    metadata_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What is installed on a base: nothing else, and nothing that the base has already.

    Attributes:
        wheels: Sorted by name, each name once.
    """

    wheels: tuple[LockedWheel, ...] = ()

    @property
    def pins(self) -> dict[str, str]:
        """Version by normalised name."""
        return {wheel.name: wheel.version for wheel in self.wheels}

    @property
    def packages(self) -> tuple[str, ...]:
        """`name==version` for each wheel, sorted: the image's `prebuilt_spawner.packages` label."""
        return tuple(f"{wheel.name}=={wheel.version}" for wheel in self.wheels)

    @property
    def from_source(self) -> tuple[str, ...]:
        """`name==version` for each wheel that is built from source, sorted."""
        return tuple(f"{wheel.name}=={wheel.version}" for wheel in self.wheels if wheel.source is not None)


def built_wheel(source: LockedSource, *, filename: str, size_bytes: int | None) -> LockedWheel:
    """The wheel that is made of a source distribution, as a lock has it.

    Args:
        source: What it is made of.
        filename, size_bytes: Those of the wheel that was made.
    """
    return LockedWheel(
        name=source.name,
        version=source.version,
        filename=filename,
        url=source.url,
        sha256=source_identity(source),
        size_bytes=size_bytes,
        source=source,
    )


def parse_pylock(text: str, probe: BaseProbe, *, source: str = "the lock", base_digest: str = "") -> Lock:
    """The wheels that a pylock file (PEP 751) installs on a base, the most specific one of each package.

    A package that has only a source distribution is read where `to_pylock` wrote what its build needs.

    Args:
        text: The file's content.
        probe: The base: its tags choose the wheels, its markers the packages. The lock's default dependency
            groups are installed, no extras.
        source: What the file is called in messages.
        base_digest: The content of the base that sources are built in; "" for the one that the file names.

    Raises:
        MalformedRequest: It is not such a file, or it names things that we do not install: source trees and
            archives, wheels without SHA-256 or under other URLs than http, https and file.
        UnresolvableRequest: It does not fit this base: another Python, or a package without a wheel for it.
    """
    pylock = _read(text, source)
    wheels = [_wheel_of(package, probe, source, base_digest) for package in _selected(pylock, probe, source)]
    return Lock(wheels=tuple(sorted(wheels, key=lambda wheel: wheel.name)))


def to_pylock(lock: Lock, *, requires_python: str = "", environments: Sequence[str] = ()) -> str:
    """The lock as the text of a pylock file (PEP 751); the same text for the same lock.

    Args:
        lock: What to write. URLs are written without credentials.
        requires_python: A specifier such as `>=3.11`, or "".
        environments: Markers, at least one of which must hold where it is installed.
    """
    document: dict[str, Any] = {"lock-version": "1.0"}
    if environments:
        document["environments"] = [str(Marker(marker)) for marker in environments]
    if requires_python:
        document["requires-python"] = str(SpecifierSet(requires_python))
    document["created-by"] = "prebuilt-spawner"
    document["packages"] = [_package_table(wheel) for wheel in sorted(lock.wheels, key=lambda wheel: wheel.name)]
    return tomli_w.dumps(document)


def supported_tags(probe: BaseProbe) -> tuple[Tag, ...]:
    """The wheel tags (PEP 425, PEP 600) that the base's interpreter installs, most specific first."""
    major, minor = probe.python_version.split(".")[:2]
    return _supported_tags((int(major), int(minor)), probe.abi, probe.machine, probe.glibc)


@lru_cache(maxsize=32)
def _supported_tags(python: tuple[int, int], abi: str, machine: str, glibc: tuple[int, int] | None) -> tuple[Tag, ...]:
    platforms = list(_platforms(machine, glibc))
    interpreter = f"cp{python[0]}{python[1]}"
    return (*cpython_tags(python, [abi], platforms), *compatible_tags(python, interpreter, platforms))


def _platforms(machine: str, glibc: tuple[int, int] | None) -> Iterator[str]:
    if glibc is not None:
        major, newest = glibc
        oldest = _OLDEST_GLIBC_MINOR.get(machine, _OLDEST_GLIBC_MINOR_ELSEWHERE)
        for minor in range(newest, oldest - 1, -1):
            yield f"manylinux_{major}_{minor}_{machine}"
            if (major, minor) in _LEGACY_MANYLINUX:
                yield f"{_LEGACY_MANYLINUX[major, minor]}_{machine}"
    yield f"linux_{machine}"


def _read(text: str, source: str) -> Pylock:
    try:
        document = tomllib.loads(text)
        with one_at_a_time:
            return Pylock.from_dict(document)
    except PylockUnsupportedVersionError as error:
        raise MalformedRequest(
            f"{_sentence(source)} has a lock-version that is not supported; write one with lock-version 1.0.",
            detail=str(error),
        ) from error
    except (PylockValidationError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise MalformedRequest(
            f"{_sentence(source)} cannot be read as a pylock file (PEP 751).", detail=f"{type(error).__name__}: {error}"
        ) from error


def _selected(pylock: Pylock, probe: BaseProbe, source: str) -> Iterator[Package]:
    """The packages that are meant for this base, in the steps of PEP 751 "Installation"."""
    markers = dict(probe.markers)
    python = probe.python_version
    if not _admits(pylock.requires_python, python):
        raise UnresolvableRequest(
            f"{_sentence(source)} is for Python {pylock.requires_python}; the base image has {python}."
        )
    if pylock.environments and not any(_holds(marker, markers, source) for marker in pylock.environments):
        raise UnresolvableRequest(f"{_sentence(source)} is for other platforms than that of the base image.")
    in_lock = {**markers, "extras": frozenset[str](), "dependency_groups": frozenset(pylock.default_groups or ())}
    seen: set[str] = set()
    for package in pylock.packages:
        if package.marker is not None and not _holds(package.marker, in_lock, source):
            continue
        if package.name in seen:
            raise MalformedRequest(f"{_sentence(source)} installs {package.name} twice on the base image's platform.")
        seen.add(package.name)
        if not _admits(package.requires_python, python):
            raise UnresolvableRequest(
                f"{package.name} needs Python {package.requires_python}; the base image has {python}. "
                "Choose another version of the package or another base image.",
                package=package.name,
                cause="other-python",
            )
        yield package


def _admits(specifier: SpecifierSet | None, python_version: str) -> bool:
    return specifier is None or specifier.contains(python_version, prereleases=True)


def _holds(marker: Marker, environment: Mapping[str, Any], source: str) -> bool:
    context: EvaluateContext = "lock_file" if "dependency_groups" in environment else "requirement"
    try:
        return marker.evaluate(environment, context=context)
    except (KeyError, ValueError) as error:
        raise MalformedRequest(
            f"{_sentence(source)} holds a marker that cannot be evaluated: {quoted(str(marker))}."
        ) from error


def _wheel_of(package: Package, probe: BaseProbe, source: str, base_digest: str) -> LockedWheel:
    tables = (package.tool or {}).get(_TOOL)
    if package.wheels or package.sdist is None or tables is None:
        return _locked(package, _best_wheel(package, probe, source), source)
    try:
        made, base = tables["wheel"], str(base_digest or tables["base"])
        metadata, requires = str(made["metadata-sha256"]), tables["build-requires"]
        with one_at_a_time:
            build = Pylock.from_dict({"lock-version": "1.0", "created-by": _TOOL, "packages": requires})
        wheel = PackageWheel(
            name=made["name"], url=package.sdist.url, size=made.get("size"), hashes=package.sdist.hashes
        )
        if not _SHA256.fullmatch(base) or not (metadata == "" or _SHA256.fullmatch(metadata)):
            raise ValueError("a digest is not one")
    except (KeyError, TypeError, ValueError, PylockValidationError) as error:
        raise MalformedRequest(
            f"{_sentence(source)} does not say how {package.name} is built from its source.", detail=repr(error)
        ) from error
    file = _locked(package, package.sdist, source)
    locked = LockedSource(
        **{field.name: getattr(file, field.name) for field in fields(LockedFile)},
        base_digest=base,
        metadata_sha256=metadata,
        requires=tuple(
            sorted(
                (_locked(one, _best_wheel(one, probe, source), source) for one in build.packages),
                key=lambda wheel: wheel.name,
            )
        ),
    )
    return built_wheel(locked, filename=_locked(package, wheel, source).filename, size_bytes=wheel.size)


def _best_wheel(package: Package, probe: BaseProbe, source: str) -> PackageWheel:
    if package.vcs or package.directory or package.archive:
        raise MalformedRequest(
            f"{_sentence(source)} takes {package.name} from a source tree or an archive. Only wheels are installed."
        )
    candidates = [(wheel, parse_wheel_filename(wheel.filename)[-1]) for wheel in package.wheels or ()]
    best = next(create_compatible_tags_selector(supported_tags(probe))(candidates), None)
    if best is None:
        version = f" {package.version}" if package.version else ""
        python = ".".join(probe.python_version.split(".")[:2])
        raise UnresolvableRequest(
            f"{package.name}{version} has no wheel for Python {python} on {probe.machine} Linux. "
            "Try another version of it or another base image.",
            package=package.name,
            cause="no-fitting-wheel",
        )
    return best


def _locked(package: Package, file: PackageWheel | PackageSdist, source: str) -> LockedWheel:
    filename, is_wheel = file.filename, isinstance(file, PackageWheel)
    if not (WHEEL_FILENAME if is_wheel else SDIST_FILENAME).fullmatch(filename):
        what = "wheel" if is_wheel else "source"
        raise MalformedRequest(f"{_sentence(source)} names a {what} of {package.name} with an odd name.")
    sha256 = file.hashes.get("sha256", "")
    if not _SHA256.fullmatch(sha256):
        raise MalformedRequest(f"{_sentence(source)} gives no SHA-256 for {filename}.")
    if file.size is not None and file.size < 0:
        raise MalformedRequest(f"{_sentence(source)} gives {filename} a size below zero.")
    version = package.version or (parse_wheel_filename if is_wheel else parse_sdist_filename)(filename)[1]
    return LockedWheel(
        name=package.name,
        version=str(version),
        filename=filename,
        url=_checked_url(file, source),
        sha256=sha256.lower(),
        size_bytes=file.size,
    )


def _checked_url(wheel: PackageWheel | PackageSdist, source: str) -> str:
    url = wheel.url
    if not url and wheel.path and PurePosixPath(wheel.path).is_absolute():
        url = PurePosixPath(wheel.path).as_uri()
    if not url:
        raise MalformedRequest(f"{_sentence(source)} gives no URL for {wheel.filename}.")
    try:
        parts = urlsplit(url)
        fits = bool(_URL_CHARACTERS.fullmatch(url)) and (
            parts.scheme == "file" or (parts.scheme in ("http", "https") and bool(parts.hostname))
        )
        if fits:
            return without_credentials(url)
    except ValueError:
        pass
    raise MalformedRequest(
        f"{_sentence(source)} gives a URL for {wheel.filename} that cannot be fetched. Use http or https.",
        detail=quoted(url.rpartition("@")[2]),
    )


def _package_table(wheel: LockedWheel) -> dict[str, Any]:
    source, table = wheel.source, {"name": wheel.name, "version": wheel.version}
    if source is None:
        return {**table, "wheels": [_file_table(wheel)]}
    made: dict[str, Any] = {"name": wheel.filename, "metadata-sha256": source.metadata_sha256}
    if wheel.size_bytes is not None:
        made["size"] = wheel.size_bytes
    build = {
        "wheel": made,
        "base": source.base_digest,
        "build-requires": [_package_table(requirement) for requirement in source.requires],
    }
    return {**table, "sdist": _file_table(source), "tool": {_TOOL: build}}


def _file_table(file: LockedFile) -> dict[str, Any]:
    table: dict[str, Any] = {"name": file.filename, "url": without_credentials(file.url)}
    if file.size_bytes is not None:
        table["size"] = file.size_bytes
    return {**table, "hashes": {"sha256": file.sha256}}


def _sentence(source: str) -> str:
    return source[:1].upper() + source[1:]
