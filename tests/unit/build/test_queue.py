"""Who goes on, who waits, and who is turned away."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prebuilt_spawner.build.queue import Queue, WaitingRoom, seats_below
from prebuilt_spawner.errors import QueueFull


class Visitor:
    """Somebody who takes a slot, and keeps it until told to leave."""

    def __init__(self, queue: Queue) -> None:
        self.places: list[int] = []
        self.inside = False
        self._leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._visit(queue))

    async def _visit(self, queue: Queue) -> None:
        async with queue.slot(self.places.append):
            self.inside = True
            try:
                await self._leave.wait()
            finally:
                self.inside = False

    async def leave(self) -> None:
        self._leave.set()
        await settle()


async def settle() -> None:
    """Give every task its turns."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_slots_are_given_in_order_of_arrival() -> None:
    queue = Queue(2)
    visitors = [Visitor(queue) for _ in range(5)]
    await settle()
    assert [visitor.inside for visitor in visitors] == [True, True, False, False, False]
    await visitors[1].leave()
    assert [visitor.inside for visitor in visitors] == [True, False, True, False, False]
    for visitor in visitors:
        await visitor.leave()
    assert all(visitor.task.done() for visitor in visitors)


async def test_those_who_wait_see_their_place_go_down() -> None:
    queue = Queue(1)
    visitors = [Visitor(queue) for _ in range(4)]
    await settle()
    assert [visitor.places for visitor in visitors] == [[], [1], [2], [3]]
    visitors[2].task.cancel()
    await settle()
    assert visitors[3].places == [3, 2]
    await visitors[0].leave()
    assert visitors[3].places == [3, 2, 1]
    for visitor in visitors:
        await visitor.leave()


async def test_beyond_the_limit_people_are_turned_away_and_not_before() -> None:
    queue = Queue(1, most_waiting=2)
    visitors = [Visitor(queue) for _ in range(4)]
    await settle()
    with pytest.raises(QueueFull, match="2 other environments"):
        await visitors[3].task
    await visitors[0].leave()
    fifth = Visitor(queue)
    await settle()
    assert fifth.places == [2]
    for visitor in (*visitors[1:3], fifth):
        await visitor.leave()


async def test_a_slot_that_was_just_given_to_somebody_who_leaves_goes_to_the_next() -> None:
    queue = Queue(1)
    visitors = [Visitor(queue) for _ in range(3)]
    await settle()
    visitors[0]._leave.set()
    await asyncio.sleep(0)  # the slot is given on in this turn …
    visitors[1].task.cancel()  # … and its new owner leaves before it runs
    await settle()
    assert visitors[2].inside
    await visitors[2].leave()
    assert queue._free == 1


@settings(max_examples=200, deadline=None)
@given(
    slots=st.integers(1, 3),
    most=st.integers(0, 3),
    steps=st.lists(st.tuples(st.sampled_from(["come", "leave", "cancel", "turn"]), st.integers(0, 20)), max_size=40),
)
def test_no_slot_is_lost_and_nobody_is_forgotten(slots: int, most: int, steps: list[tuple[str, int]]) -> None:
    """Whatever order people come, leave and give up in."""

    async def run() -> None:
        queue = Queue(slots, most_waiting=most)
        visitors: list[Visitor] = []
        for step, number in steps:
            if step == "come":
                visitors.append(Visitor(queue))
            elif step == "turn":
                await asyncio.sleep(0)
            elif visitors:
                visitor = visitors[number % len(visitors)]
                if step == "leave":
                    visitor._leave.set()
                else:
                    visitor.task.cancel()
            assert sum(visitor.inside for visitor in visitors) <= slots
        await settle()
        inside = sum(visitor.inside for visitor in visitors)
        waiting = sum(not visitor.task.done() and not visitor.inside for visitor in visitors)
        assert inside <= slots
        assert waiting <= most
        assert not waiting or inside == slots
        for _ in visitors:
            for visitor in visitors:
                await visitor.leave()
        await asyncio.gather(*(visitor.task for visitor in visitors), return_exceptions=True)
        last = Visitor(queue)
        await settle()
        assert last.inside
        assert queue._free == slots - 1
        await last.leave()

    asyncio.run(run())


def test_a_room_has_its_seats_and_no_more() -> None:
    room = WaitingRoom(1)
    with room.seat():
        with pytest.raises(QueueFull, match="1 users wait"), room.seat():
            raise AssertionError("it was entered")
        assert room.taken == 1
    with room.seat():
        assert room.taken == 1
    assert room.taken == 0


def test_a_quarter_of_the_hubs_places_is_kept_for_those_whose_environment_is_ready() -> None:
    assert [seats_below(limit) for limit in (0, 1, 2, 4, 100)] == [None, 1, 1, 3, 75]
