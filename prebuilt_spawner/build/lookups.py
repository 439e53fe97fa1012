"""Questions to the ledger that are asked many at once, as values, and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .history import Outcome
    from .interface import StoredLock


class Sought(str, Enum):
    """Which of the ledger's questions it is: the name of its method."""

    HELD = "held"
    HELD_IN_LINEAGE = "held_in_lineage"
    NEWEST = "newest"
    NEWEST_IN_LINEAGE = "newest_in_lineage"
    DESCENDANT = "descendant"


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """One question for a lock.

    Attributes:
        sought: Which one.
        whose: The owner, the scope, or the ancestor's id.
        what: The request digest, or the lineage.
    """

    sought: Sought
    whose: str | int
    what: str


@dataclass(frozen=True, kw_only=True)
class LastBuild:
    """How the last build of a request ended that was done or failed.

    Attributes:
        digest: The environment digest; "" where resolving failed.
        outcome: DONE or FAILED.
        request_fault: Whether the request was at fault, and would fail again.
        error: What the user was told; "" where it did not fail.
        seconds: How long it took, without the wait for its turn.
    """

    digest: str
    outcome: Outcome
    request_fault: bool
    error: str
    seconds: float


class LockReads(Protocol):
    """What finding a known lock needs of a ledger; see `Ledger` for the methods."""

    async def held(self, *, owner: str, request_digest: str) -> StoredLock | None: ...
    async def held_in_lineage(self, *, owner: str, lineage: str) -> StoredLock | None: ...
    async def newest(self, *, scope: str, request_digest: str) -> StoredLock | None: ...
    async def newest_in_lineage(self, *, scope: str, lineage: str) -> StoredLock | None: ...
    async def descendant(self, *, ancestor_id: int, request_digest: str) -> StoredLock | None: ...


class LockLookups(Protocol):
    """Answers many questions for locks at once."""

    async def look_up(self, lookups: Sequence[Lookup]) -> Sequence[StoredLock | None]: ...


class GatheredReads:
    """Implements `LockReads` by asking at once what many tasks ask in one turn of the event loop."""

    def __init__(self, ledger: LockLookups) -> None:
        self._ledger = ledger
        self._asked: list[tuple[Lookup, asyncio.Future[StoredLock | None]]] = []
        self._asking: set[asyncio.Task[None]] = set()

    async def held(self, *, owner: str, request_digest: str) -> StoredLock | None:
        return await self._answer(Lookup(sought=Sought.HELD, whose=owner, what=request_digest))

    async def held_in_lineage(self, *, owner: str, lineage: str) -> StoredLock | None:
        return await self._answer(Lookup(sought=Sought.HELD_IN_LINEAGE, whose=owner, what=lineage))

    async def newest(self, *, scope: str, request_digest: str) -> StoredLock | None:
        return await self._answer(Lookup(sought=Sought.NEWEST, whose=scope, what=request_digest))

    async def newest_in_lineage(self, *, scope: str, lineage: str) -> StoredLock | None:
        return await self._answer(Lookup(sought=Sought.NEWEST_IN_LINEAGE, whose=scope, what=lineage))

    async def descendant(self, *, ancestor_id: int, request_digest: str) -> StoredLock | None:
        return await self._answer(Lookup(sought=Sought.DESCENDANT, whose=ancestor_id, what=request_digest))

    async def _answer(self, lookup: Lookup) -> StoredLock | None:
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._ask)  # after all tasks that run in this turn
        answer: asyncio.Future[StoredLock | None] = loop.create_future()
        self._asked.append((lookup, answer))
        return await answer

    def _ask(self) -> None:
        asked, self._asked = self._asked, []
        task = asyncio.get_running_loop().create_task(self._pass_on(asked))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _pass_on(self, asked: list[tuple[Lookup, asyncio.Future[StoredLock | None]]]) -> None:
        lookups = list(dict.fromkeys(lookup for lookup, _ in asked))
        try:
            found = dict(zip(lookups, await self._ledger.look_up(lookups), strict=True))
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        for lookup, answer in asked:
            if not answer.done():
                answer.set_result(found[lookup])
