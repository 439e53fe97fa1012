"""Layer fragments: the tar entries of one wheel's files, made once and then only concatenated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
