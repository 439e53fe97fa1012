"""Layer fragments: the tar entries of one wheel's files, made once and then only concatenated.

A fragment has two parts on the hub's disk. The files of the *installed wheel* depend on the wheel, the scheme and the
interpreter's path. The *compiled* part, its bytecode and RECORD (which lists it), depends on the interpreter itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..environment.base import BaseProbe
from .layer import LAYOUT_VERSION, FileRange
from .tar import padding

_INDEX_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class FragmentFile:
    """One file of a fragment.

    Attributes:
        path: Absolute in the image without the leading slash, as tar has it.
        mode: Permission bits.
        size_bytes: Of its content.
        sha256: Of its content, 64 hex digits.
        body: File on the hub's disk that holds its tar entry.
        offset_bytes: Where the entry (extended headers included) begins in the body.
        length_bytes: Of the entry, padding included; a multiple of 512.
    """

    path: str
    mode: int
    size_bytes: int
    sha256: str
    body: Path
    offset_bytes: int
    length_bytes: int

    @property
    def content(self) -> FileRange:
        """The content alone."""
        header_bytes = self.length_bytes - self.size_bytes - len(padding(self.size_bytes))
        return FileRange(path=self.body, offset_bytes=self.offset_bytes + header_bytes, length_bytes=self.size_bytes)


@dataclass(frozen=True, kw_only=True)
class InstalledWheel:
    """A wheel's files as they are in one scheme, before anything is compiled.

    Attributes:
        wheel_sha256: The wheel that it was made from.
        distribution: Normalised name of the wheel's distribution.
        body: File on the hub's disk that holds the tar entries, one after the other.
        files: All but RECORD, sorted by path; they cover the body without gaps.
        record_path: Where RECORD goes.
        record_rows: Its rows: path relative to the folder that the metadata folder is in, hash, size.
    """

    wheel_sha256: str
    distribution: str
    body: Path
    files: tuple[FragmentFile, ...]
    record_path: str
    record_rows: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """A wheel as it is installed in one scheme, with its bytecode: files only, no folders, no end-of-archive mark.

    Attributes:
        wheel_sha256: The wheel that it was made from.
        distribution: Normalised name of the wheel's distribution.
        files: Those of the installed wheel, then RECORD and bytecode, each sorted by path; no path twice.
    """

    wheel_sha256: str
    distribution: str
    files: tuple[FragmentFile, ...]

    @property
    def size_bytes(self) -> int:
        """Of its tar entries."""
        return sum(file.length_bytes for file in self.files)


def installed_key(wheel_sha256: str, probe: BaseProbe) -> str:
    """What an installed wheel depends on, as 64 hex digits: where the keys are equal, one serves both bases."""
    return _key(
        {
            "layout": LAYOUT_VERSION,
            "wheel": wheel_sha256,
            "scheme": asdict(probe.scheme),
            "interpreter": probe.interpreter,
        }
    )


def fragment_key(wheel_sha256: str, probe: BaseProbe) -> str:
    """What a fragment depends on, as 64 hex digits: where the keys are equal, one fragment serves both bases."""
    return _key(
        {
            "installed": installed_key(wheel_sha256, probe),
            "implementation": probe.implementation,
            "cache_tag": probe.cache_tag,
            "build": probe.build,
        }
    )


def installed_to_json(installed: InstalledWheel) -> bytes:
    """The index of an installed wheel, to be kept beside its body. It does not name the body: both may be moved."""
    return _to_json(
        {
            "version": _INDEX_VERSION,
            "wheel_sha256": installed.wheel_sha256,
            "distribution": installed.distribution,
            "files": _files_to_json(installed.files),
            "record_path": installed.record_path,
            "record_rows": installed.record_rows,
        }
    )


def installed_from_json(index: bytes, *, body: Path) -> InstalledWheel:
    """The installed wheel that `installed_to_json` described.

    Raises:
        ValueError: The index is damaged, or of another version: install the wheel anew.
    """
    document = _from_json(index)
    try:
        return InstalledWheel(
            wheel_sha256=document["wheel_sha256"],
            distribution=document["distribution"],
            body=body,
            files=_files_from_json(document["files"], body),
            record_path=document["record_path"],
            record_rows=tuple((path, hash_, size) for path, hash_, size in document["record_rows"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged index of an installed wheel: {error!r}") from error


def fragment_to_json(fragment: Fragment, *, installed: InstalledWheel) -> bytes:
    """The fragment's index, to be kept beside the body of its compiled part. It names no body."""
    count = len(installed.files)
    return _to_json(
        {
            "version": _INDEX_VERSION,
            "wheel_sha256": fragment.wheel_sha256,
            "distribution": fragment.distribution,
            "installed": _files_to_json(fragment.files[:count]),
            "compiled": _files_to_json(fragment.files[count:]),
        }
    )


def fragment_from_json(index: bytes, *, installed: Path, compiled: Path) -> Fragment:
    """The fragment that `fragment_to_json` described.

    Args:
        index: What that wrote.
        installed, compiled: The bodies of its two parts.

    Raises:
        ValueError: The index is damaged, or of another version: make the fragment anew.
    """
    document = _from_json(index)
    try:
        return Fragment(
            wheel_sha256=document["wheel_sha256"],
            distribution=document["distribution"],
            files=(
                *_files_from_json(document["installed"], installed),
                *_files_from_json(document["compiled"], compiled),
            ),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged fragment index: {error!r}") from error


def _files_to_json(files: Iterable[FragmentFile]) -> list[list[Any]]:
    # Offsets follow from the lengths: the files cover the body without gaps.
    return [[file.path, file.mode, file.size_bytes, file.sha256, file.length_bytes] for file in files]


def _files_from_json(rows: Sequence[Any], body: Path) -> tuple[FragmentFile, ...]:
    files: list[FragmentFile] = []
    offset_bytes = 0
    for path, mode, size_bytes, sha256, length_bytes in rows:
        files.append(
            FragmentFile(
                path=path,
                mode=mode,
                size_bytes=size_bytes,
                sha256=sha256,
                body=body,
                offset_bytes=offset_bytes,
                length_bytes=length_bytes,
            )
        )
        offset_bytes += length_bytes
    return tuple(files)


def _key(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _to_json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _from_json(index: bytes) -> dict[str, Any]:
    document = json.loads(index)
    if not isinstance(document, dict) or document.get("version") != _INDEX_VERSION:
        raise ValueError("not an index of this version")
    return document
