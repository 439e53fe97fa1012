"""Waiting for several tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

_REPORT_SECONDS = 0.3


def when_made(task: asyncio.Task[T], made: Callable[[T], None]) -> None:
    """Call `made` with the task's result, if it has one; before whoever waits for the task from now on goes on."""

    def ended(_: asyncio.Task[T]) -> None:
        if not task.cancelled() and task.exception() is None:
            made(task.result())

    task.add_done_callback(ended)


async def all_done(tasks: Sequence[asyncio.Task[T]], tell: Callable[[], None], reached: Callable[[], int]) -> None:
    """Wait for all or for the first failure, and tell now and then when something has changed. Leaves none running."""
    pending, told = set(tasks), -1
    try:
        while pending:
            if reached() != told:
                told = reached()
                tell()
            done, pending = await asyncio.wait(pending, timeout=_REPORT_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
