"""One task for all who want the same thing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .events import BuildEvent, Report
from .trail import EventTrail

T = TypeVar("T")


@dataclass
class _Shared(Generic[T]):
    task: asyncio.Task[T]
    events: EventTrail
    readers: list[Report] = field(default_factory=list)
    waiters: int = 0


class SharedTasks(Generic[T]):
    """Runs one task for each key, however many wait for it.

    The task belongs to nobody who waits: a waiter that is cancelled does not disturb the others, and when the last
    one leaves, the task is cancelled. A waiter that comes later is told what was reported before, and how long ago.

    Args:
        now: A clock in seconds that never goes back.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._running: dict[Hashable, _Shared[T]] = {}
        self._stopping: dict[Hashable, set[asyncio.Task[T]]] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether the key's task runs, which who comes now would join."""
        return key in self._running

    async def run(self, key: Hashable, work: Callable[[Report], Awaitable[T]], *, report: Report) -> T:
        """The result of the key's task, which is `work(report)` where none runs yet.

        Raises:
            Exception: What the task raised; every waiter gets it.
        """
        shared = self._running.get(key)
        if shared is None:
            shared = self._start(key, work)
        for event in shared.events:
            report(event)
        shared.readers.append(report)
        shared.waiters += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiters -= 1
            shared.readers.remove(report)
            if not shared.waiters and not shared.task.done():
                # Whoever comes now starts anew instead of joining what is being stopped.
                self._forget(key, shared)
                self._stopping.setdefault(key, set()).add(shared.task)
                shared.task.cancel()

    async def close(self) -> None:
        """Cancel every task and wait until they have ended."""
        tasks = [shared.task for shared in self._running.values()]
        tasks += [task for stopping in self._stopping.values() for task in stopping]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: Hashable, work: Callable[[Report], Awaitable[T]]) -> _Shared[T]:
        events = EventTrail(self._now)
        loop = asyncio.get_running_loop()

        def tell(event: BuildEvent) -> None:
            events.add(event)
            for reader in list(shared.readers):
                reader(event)

        def report(event: BuildEvent) -> None:
            # Adapters report from their threads.
            loop.call_soon_threadsafe(tell, event)

        before = set(self._stopping.get(key, ()))

        async def run() -> T:
            if before:
                # One at a time: what is being stopped may still hold what this needs.
                await asyncio.wait(before)
            return await work(report)

        task = loop.create_task(run())
        shared = _Shared(task=task, events=events)
        self._running[key] = shared
        task.add_done_callback(lambda _: self._ended(key, shared))
        return shared

    def _ended(self, key: Hashable, shared: _Shared[T]) -> None:
        self._forget(key, shared)
        stopping = self._stopping.get(key, set())
        stopping.discard(shared.task)
        if not stopping:
            self._stopping.pop(key, None)
        if not shared.task.cancelled():
            shared.task.exception()  # retrieved, also where every waiter has left

    def _forget(self, key: Hashable, shared: _Shared[T]) -> None:
        if self._running.get(key) is shared:
            del self._running[key]
