"""Runs in a hub's process, for measuring alone: how late its event loop is, a hundred times a second."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

INTERVAL_SECONDS = 0.01
_tasks: set[asyncio.Task[None]] = set()


def start(path: str) -> None:
    """Write down from now on, a line each time: when it was awaited (`time.monotonic`), how late it came (seconds)."""
    _tasks.add(asyncio.get_running_loop().create_task(_watch(Path(path))))


def delays(path: Path, since: float, until: float) -> list[float]:
    """How many seconds late the loop was, whenever it was so between these times."""
    lines = (line.split() for line in path.read_text().splitlines())
    return [float(line[1]) for line in lines if len(line) == 2 and since <= float(line[0]) <= until]


async def _watch(path: Path) -> None:
    with path.open("w", buffering=1) as file:
        while True:
            due = time.monotonic() + INTERVAL_SECONDS
            await asyncio.sleep(INTERVAL_SECONDS)
            file.write(f"{due:.6f} {time.monotonic() - due:.6f}\n")
