"""Waiting for something for a limited time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class DeadlinePassed(Exception):
    """The work did not end in time, and was cancelled."""


async def within(timeout_seconds: float | None, work: Awaitable[T]) -> T:
    """The work's result; None waits without end. The work is cancelled, and waited for, when the time is up or the
    caller is cancelled.

    `asyncio.wait_for` can lose a cancellation before Python 3.12, and since 3.11 its timeout is an `OSError`.

    Raises:
        DeadlinePassed: The time was up first.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=timeout_seconds)
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    if not task.done():
        await _cancel(task)
        raise DeadlinePassed
    return task.result()


async def _cancel(task: asyncio.Future[T]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
