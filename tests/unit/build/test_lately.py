"""Tests of `prebuilt_spawner.build.lately`."""

from __future__ import annotations

import asyncio

import pytest

from prebuilt_spawner.build.lately import Lately


class World:
    """Answers that count how often they were found, and a clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.found = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.lately: Lately[int] = Lately(2, now=lambda: self.seconds)

    async def find(self) -> int:
        self.found += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.found

    async def get(self, key: str = "a") -> int:
        return await self.lately.get(key, self.find)


async def test_an_answer_is_given_again_for_its_time_and_for_its_question_alone():
    world = World()
    assert [await world.get(), await world.get(), await world.get("b")] == [1, 1, 2]
    world.seconds = 1.9
    assert await world.get() == 1
    world.seconds = 2
    assert await world.get() == 3


async def test_all_who_ask_at_the_same_time_get_one_answer_and_who_leaves_takes_it_from_nobody():
    world = World()
    world.gate.clear()
    leaver, *others = (asyncio.create_task(world.get()) for _ in range(5))
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.wait([leaver])
    world.gate.set()
    assert await asyncio.gather(*others) == [1] * 4


async def test_what_could_not_be_found_is_looked_for_again():
    world = World()
    world.error = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        await world.get()
    world.error = None
    assert await world.get() == 2


async def test_what_was_forgotten_is_found_anew_also_while_it_is_being_found():
    world = World()
    world.gate.clear()
    early = asyncio.create_task(world.get())
    await asyncio.sleep(0)
    world.lately.forget()
    late = asyncio.create_task(world.get())
    await asyncio.sleep(0)
    world.gate.set()
    await asyncio.gather(early, late)
    assert world.found == 2


async def test_closing_stops_what_is_being_found():
    world = World()
    world.gate.clear()
    waiter = asyncio.create_task(world.get())
    await asyncio.sleep(0)
    await world.lately.close()
    with pytest.raises(asyncio.CancelledError):
        await waiter
