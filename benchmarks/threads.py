"""Work of contestants in threads, which cannot be stopped: whoever is cancelled waits for its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: Any, **more: Any) -> T:
    """The result of blocking work. What is made in the engine meanwhile is there before anybody removes it."""
    running = asyncio.ensure_future(asyncio.to_thread(partial(work, *arguments, **more)))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise
