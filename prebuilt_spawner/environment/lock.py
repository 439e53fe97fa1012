"""Locks: which wheels, to the byte, an environment adds to its base."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LockedWheel:
    """One wheel that a lock installs.

    Attributes:
        name: Normalised as PEP 503 says.
        version: Canonical as PEP 440 says.
        filename: The wheel's file name (it carries the tags).
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
