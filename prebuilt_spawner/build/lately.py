"""Answers that are given again for a short while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lately(Generic[T]):
    """Finds each answer once for all who ask at the same time or a little later.

    Whoever leaves disturbs nobody; a question whose finding failed is asked anew.

    Args:
        seconds: How long an answer is given again.
        now: A clock in seconds that never goes back.
    """

    def __init__(self, seconds: float, *, now: Callable[[], float]) -> None:
        self._seconds = seconds
        self._now = now
        self._answers: dict[Hashable, tuple[float, asyncio.Task[T]]] = {}
        self._tasks: set[asyncio.Task[T]] = set()

    async def get(self, key: Hashable, find: Callable[[], Awaitable[T]]) -> T:
        """The answer, which is `await find()` where there is none.

        Raises:
            Exception: What `find` raised.
        """
        until, task = self._answers.get(key, (0.0, None))
        if task is None or self._now() >= until or (task.done() and (task.cancelled() or task.exception())):
            task = self._started(find)
            self._answers[key] = (self._now() + self._seconds, task)
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Find everything anew, also what is just being found."""
        self._answers.clear()

    async def close(self) -> None:
        """Stop what is being found."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _started(self, find: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        async def found() -> T:
            return await find()

        task = asyncio.get_running_loop().create_task(found())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, also where everybody has left
