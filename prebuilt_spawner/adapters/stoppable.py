"""Blocking work on threads of its own, which stops when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

CLOSE_SECONDS = 10
"""How long the end of the hub waits for work that was told to stop."""


class Cancelled(Exception):
    """The waiter left: the thread's work is to stop. Never reaches a caller."""


def daemon(work: Callable[[], T], name: str) -> tuple[threading.Thread, Future[T]]:
    """A thread that is still to be started, and what its work will have given. Unlike a pool's threads it is a daemon:
    a server that stays silent does not keep the hub from ending."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def job() -> None:
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    return threading.Thread(target=job, name=name, daemon=True), future


class StoppableThreads:
    """Runs each piece of work on a thread of its own, without a limit: one that hangs delays no other.

    Args:
        name: Of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._starter = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-starter")
        self._running: dict[Future[Any], threading.Event] = {}

    async def run(self, work: Callable[[threading.Event], T]) -> T:
        """The result of `work(stop)`, which must look at `stop` all the while: it is set when the caller is cancelled,
        who does not wait then, and by `close`.

        Raises:
            Exception: What the work raised; `Cancelled` is the work's own.
        """
        stop = threading.Event()
        thread, future = daemon(lambda: work(stop), self._name)
        self._running[future] = stop
        future.add_done_callback(lambda _: self._running.pop(future, None))
        # Not from here: `start` waits until the thread runs, on a busy machine for 100 ms.
        self._starter.submit(thread.start)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            stop.set()
            raise

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Stop what runs, and wait for it a while."""
        self._starter.shutdown(wait=False)
        running = dict(self._running)
        for stop in running.values():
            stop.set()
        await asyncio.to_thread(concurrent.futures.wait, running, seconds)
