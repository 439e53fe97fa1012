"""Turns for work of which only so much goes on at once, the largest first."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count


class LargestFirst:
    """Gives turns: of all who wait, to the one with the largest work, and to equals in the order of their coming.

    Args:
        at_once: How many have a turn at once.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._numbers = count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Entered when it is the work's turn."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-size, next(self._numbers), mine))
        self._give()
        try:
            await mine
            yield
        finally:
            # Whoever leaves while waiting has had no turn, unless it was given just now.
            if mine.done() and not mine.cancelled():
                self._free += 1
            self._give()

    def _give(self) -> None:
        while self._free and self._waiting:
            _, _, first = heapq.heappop(self._waiting)
            if not first.done():
                self._free -= 1
                first.set_result(None)
