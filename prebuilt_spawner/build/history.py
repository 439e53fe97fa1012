"""What is remembered of builds, as in `interface`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from .lookups import LastBuild
from .usual import UsualTimes


class Outcome(str, Enum):
    """How a build ended, or that it has not."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """The hub that ran it ended first."""


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """A build, or a request that was not even resolved, as the ledger remembers it.

    Attributes:
        id: The ledger's own number for it; the hub's log names it.
        digest: The environment digest; "" where resolving failed.
        base: The base image's reference.
        requirements: What was asked for, canonical.
        users: Names of those who asked, in order.
        begun_at, ended_at: Aware UTC times; `ended_at` is None while it runs.
        outcome: How it ended.
        phase_seconds: How long each phase took, by `Phase` value, in order.
        error: What the user was told; "" where it did not fail.
        log: What happened and what tools printed, bounded: its beginning, its end, and a line that says what was cut.
        size_bytes: Of the image; 0 where there is none.
    """

    id: int
    digest: str
    base: str
    requirements: tuple[str, ...]
    users: tuple[str, ...]
    begun_at: datetime
    ended_at: datetime | None
    outcome: Outcome
    phase_seconds: Mapping[str, float]
    error: str
    log: str
    size_bytes: int


class BuildHistory(Protocol):
    """The memory of builds. A *hub* is a name that stays the same when a hub is started again.

    Everything may raise `StorageFailure`.
    """

    async def begin_build(self, *, hub: str, digest: str, base: str, requirements: Sequence[str], user: str) -> int:
        """A build begins; returns its id."""

    async def join_build(self, build_id: int, *, user: str) -> None:
        """Somebody else waits for it too."""

    async def end_build(
        self,
        build_id: int,
        *,
        outcome: Outcome,
        phase_seconds: Mapping[str, float],
        error: str = "",
        log: str = "",
        size_bytes: int = 0,
        request_fault: bool = False,
    ) -> None:
        """A build has ended; `request_fault` where it failed by the request's own fault. One that has ended before
        stays as it was."""

    async def interrupt_builds(self, *, hub: str) -> Sequence[BuildRecord]:
        """Mark the builds that this hub left running before it started as interrupted, and return them."""

    async def build(self, build_id: int) -> BuildRecord | None:
        """The build of this number."""

    async def last_builds(self, *, digest: str, limit: int = 1) -> Sequence[BuildRecord]:
        """The last builds of an environment, newest first."""

    async def last_of_requests(self, requests: Sequence[tuple[str, Sequence[str]]]) -> Sequence[LastBuild | None]:
        """The last build of each request that was done or failed, or was not even resolved; None where there was none.

        Args:
            requests: The base image's reference and the requirements, in any order.
        """

    async def usual_times(self, *, base: str) -> UsualTimes:
        """`usual_seconds` for any number of packages, as far as the last 2000 builds on the base say it."""

    async def usual_seconds(self, *, base: str, packages: int) -> float | None:
        """How long builds of about so many packages took lately on a base: the median of those that were done; None
        where there were none."""
