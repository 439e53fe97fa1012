"""Who looks after the disks while images are made."""

from __future__ import annotations

from typing import Protocol


class Guard(Protocol):
    """Looks after the disks."""

    async def check(self) -> None:
        """Raise `StorageFailure` where nothing new should be built."""

    def tidy(self) -> None:
        """Make room after a build, where it is time to. Returns at once and raises nothing."""

    async def close(self) -> None:
        """Start nothing more."""


class NoGuard:
    """Leaves the disks to others."""

    async def check(self) -> None:
        """See `Guard`."""

    def tidy(self) -> None:
        """See `Guard`."""

    async def close(self) -> None:
        """See `Guard`."""
