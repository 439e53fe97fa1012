"""Layer fragments: the tar entries of one wheel's files, made once and then only concatenated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..environment.base import BaseProbe
from .layer import LAYOUT_VERSION

_INDEX_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FragmentFile:
    """One file of a fragment.

    Attributes:
        path: Absolute in the image without the leading slash, as tar has it.
        mode: Permission bits.
        size_bytes: Of its content.
        sha256: Of its content, 64 hex digits.
        offset_bytes: Where its tar entry (extended headers included) begins in the fragment's body.
        length_bytes: Of that entry, padding included; a multiple of 512.
    """

    path: str
    mode: int
    size_bytes: int
    sha256: str
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """A wheel as it is installed in one scheme: files only, no folders, no end-of-archive mark.

    Attributes:
        wheel_sha256: The wheel that it was made from.
        distribution: Normalised name of the wheel's distribution.
        body: File on the hub's disk that holds the tar entries, one after the other.
        files: Sorted by path; they cover the body without gaps.
    """

    wheel_sha256: str
    distribution: str
    body: Path
    files: tuple[FragmentFile, ...]

    @property
    def size_bytes(self) -> int:
        """Of the body."""
        return sum(file.length_bytes for file in self.files)


def fragment_key(wheel_sha256: str, probe: BaseProbe) -> str:
    """What a fragment depends on, as 64 hex digits: where the keys are equal, one fragment serves both bases."""
    facts = {
        "layout": LAYOUT_VERSION,
        "wheel": wheel_sha256,
        "scheme": asdict(probe.scheme),
        "interpreter": probe.interpreter,
        "python": probe.python_version.split(".")[:2],
        "implementation": probe.implementation,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def fragment_to_json(fragment: Fragment) -> bytes:
    """The fragment's index, to be kept beside its body. It does not name the body: both may be moved together."""
    index = {
        "version": _INDEX_VERSION,
        "wheel_sha256": fragment.wheel_sha256,
        "distribution": fragment.distribution,
        # Offsets follow from the lengths: the files cover the body without gaps.
        "files": [[file.path, file.mode, file.size_bytes, file.sha256, file.length_bytes] for file in fragment.files],
    }
    return json.dumps(index, ensure_ascii=False, separators=(",", ":")).encode()


def fragment_from_json(index: bytes, *, body: Path) -> Fragment:
    """The fragment that `fragment_to_json` described.

    Raises:
        ValueError: The index is damaged, or of another version: make the fragment anew.
    """
    try:
        document = json.loads(index)
        if document["version"] != _INDEX_VERSION:
            raise ValueError(f"fragment index of version {document['version']!r}")
        files: list[FragmentFile] = []
        offset_bytes = 0
        for path, mode, size_bytes, sha256, length_bytes in document["files"]:
            files.append(
                FragmentFile(
                    path=path,
                    mode=mode,
                    size_bytes=size_bytes,
                    sha256=sha256,
                    offset_bytes=offset_bytes,
                    length_bytes=length_bytes,
                )
            )
            offset_bytes += length_bytes
        return Fragment(
            wheel_sha256=document["wheel_sha256"],
            distribution=document["distribution"],
            body=body,
            files=tuple(files),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"damaged fragment index: {error!r}") from error
