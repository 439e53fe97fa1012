"""Who gets a turn, and when."""

from __future__ import annotations

import asyncio

import pytest

from prebuilt_spawner.adapters.turns import LargestFirst


class Worker:
    """Takes a turn and keeps it until it is released."""

    def __init__(self, turns: LargestFirst, size: int, begun: list[int]) -> None:
        self._release = asyncio.Event()
        self.task = asyncio.ensure_future(self._work(turns, size, begun))

    async def _work(self, turns: LargestFirst, size: int, begun: list[int]) -> None:
        async with turns.turn(size):
            begun.append(size)
            await self._release.wait()

    async def end(self) -> None:
        self._release.set()
        await self.task


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_of_those_who_wait_the_largest_comes_next() -> None:
    turns, begun = LargestFirst(2), []
    workers = [Worker(turns, size, begun) for size in (1, 2, 3, 9, 5)]
    await settled()
    assert begun == [1, 2]
    for worker in workers[:2]:
        await worker.end()
        await settled()
    assert begun == [1, 2, 9, 5]
    for worker in (workers[3], workers[4], workers[2]):
        await worker.end()
    assert begun == [1, 2, 9, 5, 3]


async def test_equals_come_in_their_order() -> None:
    turns, begun = LargestFirst(1), []
    workers = [Worker(turns, 4, begun) for _ in range(3)]
    order = []
    for worker in workers:
        worker.task.add_done_callback(lambda _, worker=worker: order.append(worker))
    for worker in workers:
        await worker.end()
    assert order == workers


async def test_who_leaves_takes_no_turn_with_them() -> None:
    """Neither while waiting, nor in the middle, nor at the moment in which the turn is given."""
    turns, begun = LargestFirst(1), []
    first, second, third = (Worker(turns, size, begun) for size in (3, 2, 1))
    await settled()
    second.task.cancel()
    await settled()
    first.task.cancel()
    await settled()
    assert begun == [3, 1]
    fourth = Worker(turns, 7, begun)
    await settled()
    third._release.set()
    await asyncio.sleep(0)
    fourth.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fourth.task
    last = Worker(turns, 8, begun)
    await settled()
    assert begun[-1] == 8
    await last.end()
