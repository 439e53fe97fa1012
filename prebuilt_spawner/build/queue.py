"""Who may go on now, who waits, and who is turned away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from ..errors import QueueFull


@dataclass(eq=False)
class _Waiting:
    called: asyncio.Future[None]
    moved: Callable[[int], None]


class Queue:
    """Slots that are given in order of arrival, while others wait.

    Args:
        slots: How many go on at once.
        most_waiting: How many may wait; None is no limit.
    """

    def __init__(self, slots: int, *, most_waiting: int | None = None) -> None:
        self._free = slots
        self._most_waiting = most_waiting
        self._waiting: deque[_Waiting] = deque()

    @asynccontextmanager
    async def slot(self, moved: Callable[[int], None]) -> AsyncIterator[None]:
        """A slot for as long as it is entered.

        Args:
            moved: Called with the place in the queue (1 is next) at first and whenever it changes; not where there is
                a slot at once. Must not raise.

        Raises:
            QueueFull: As many wait as may.
        """
        await self._take(moved)
        try:
            yield
        finally:
            self._give()

    async def _take(self, moved: Callable[[int], None]) -> None:
        if self._free:
            self._free -= 1
            return
        if self._most_waiting is not None and len(self._waiting) >= self._most_waiting:
            raise QueueFull(
                f"{len(self._waiting)} other environments wait to be built already. Try again in a few minutes."
            )
        waiting = _Waiting(called=asyncio.get_running_loop().create_future(), moved=moved)
        self._waiting.append(waiting)
        moved(len(self._waiting))
        try:
            await waiting.called
        except asyncio.CancelledError:
            if waiting.called.done() and not waiting.called.cancelled():
                self._give()  # called and cancelled in the same turn of the loop
            elif waiting in self._waiting:
                self._waiting.remove(waiting)
                self._announce()
            raise

    def _give(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.called.cancelled():  # else it gives up in this turn of the loop
                waiting.called.set_result(None)
                self._announce()
                return
        self._free += 1

    def _announce(self) -> None:
        for place, waiting in enumerate(self._waiting, start=1):
            waiting.moved(place)


class WaitingRoom:
    """Seats for users who wait for something that takes its time; whoever is served at once needs none.

    JupyterHub counts everybody whose server is being started toward its `concurrent_spawn_limit`. Fewer seats than that
    keep those who wait from locking out those whose environment is ready.

    Args:
        seats: How many users may wait at once; None is no limit.
    """

    def __init__(self, seats: int | None = None) -> None:
        self._seats = seats
        self.taken = 0

    @contextmanager
    def seat(self) -> Iterator[None]:
        """A seat for as long as it is entered.

        Raises:
            QueueFull: All are taken.
        """
        if self._seats is not None and self.taken >= self._seats:
            raise QueueFull(
                f"{self.taken} users wait for their environments already. Try again in a few minutes, or choose an "
                "environment that is ready."
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


def seats_below(concurrent_spawn_limit: int) -> int | None:
    """How many users may wait where JupyterHub starts so many servers at once: three quarters; 0 there is no limit."""
    if concurrent_spawn_limit <= 0:
        return None
    return max(1, concurrent_spawn_limit - max(1, concurrent_spawn_limit // 4))
