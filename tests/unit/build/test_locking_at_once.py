"""Tests of `prebuilt_spawner.build.locking`: several people at once."""

from __future__ import annotations

import asyncio

import pytest

from prebuilt_spawner.build.events import Phase
from prebuilt_spawner.build.locking import Locksmith
from prebuilt_spawner.errors import IndexUnavailable, UnresolvableRequest

from .locking_world import DATA, until_resolving, until_waiting


async def test_people_who_ask_at_the_same_time_share_one_resolve_and_each_is_told(world, gate):
    waiting = [asyncio.ensure_future(world.lock(user, "demo")) for user in "abcde"]
    await until_waiting(world, 5)
    gate.set()
    locks = await asyncio.gather(*waiting)
    assert world.resolves == 1
    assert len({lock.packages for lock in locks}) == 1
    world.resolver.publish("demo", "1.1")
    for user in "abcde":
        assert await world.pins(user, "demo") == {"demo": "1.0"}


async def test_different_requests_do_not_wait_for_each_other(world, gate):
    waiting = [asyncio.ensure_future(world.lock("a", name)) for name in ("demo", "other")]
    await until_resolving(world, 2)
    gate.set()
    await asyncio.gather(*waiting)


async def test_who_leaves_does_not_disturb_the_others_even_as_the_first(world, gate):
    first, second = [asyncio.ensure_future(world.lock(user, "demo")) for user in "ab"]
    await until_waiting(world, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert (await second).pins == {"demo": "1.0"}
    assert world.resolver.switches.cancelled["resolve"] == 0
    assert world.resolves == 1


async def test_the_last_one_to_leave_stops_the_resolve_and_the_next_one_starts_anew(world, gate):
    waiting = [asyncio.ensure_future(world.lock(user, "demo")) for user in "ab"]
    await until_waiting(world, 2)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    gate.set()
    assert await world.pins("c", "demo") == {"demo": "1.0"}
    assert world.resolver.switches.cancelled["resolve"] == 1
    assert world.resolves == 2


async def test_a_resolve_that_fails_fails_for_all_who_wait_and_is_tried_again_by_the_next(world, gate):
    world.resolver.switches.failures["resolve"] = IndexUnavailable("The package index does not answer.")
    waiting = [asyncio.ensure_future(world.lock(user, "demo")) for user in "ab"]
    await until_waiting(world, 2)
    gate.set()
    for task in waiting:
        with pytest.raises(IndexUnavailable):
            await task
    world.resolver.switches.failures.clear()
    assert await world.pins("a", "demo") == {"demo": "1.0"}


async def test_a_refresh_does_not_join_what_was_begun_before_it(world, gate):
    plain = asyncio.ensure_future(world.lock("a", "demo"))
    await until_resolving(world)
    refresh = asyncio.ensure_future(world.lock("b", "demo", refresh=True))
    await until_resolving(world, 2)
    gate.set()
    await asyncio.gather(plain, refresh)


async def test_a_refresh_that_is_left_stops(world, gate):
    refresh = asyncio.ensure_future(world.lock("a", "demo", refresh=True))
    await until_resolving(world)
    refresh.cancel()
    with pytest.raises(asyncio.CancelledError):
        await refresh
    assert world.resolver.switches.cancelled["resolve"] == 1


async def test_users_of_a_profile_who_add_packages_at_once_agree_on_the_profiles_lock(world, gate):
    waiting = [
        asyncio.ensure_future(world.lock(user, *requirements, profile=DATA))
        for user, requirements in (("a", ("demo", "extra")), ("b", ("demo", "other")), ("c", ("demo",)))
    ]
    await until_waiting(world, 3)
    assert world.resolves == 1
    gate.set()
    locks = await asyncio.gather(*waiting)
    assert {lock.pins["demo"] for lock in locks} == {"1.0"}
    assert world.resolves == 3


async def test_a_few_requests_are_resolved_at_once_and_the_others_wait_in_order_of_arrival(world, gate):
    world.locksmith = Locksmith(world.ledger, world.resolver, max_concurrent_resolves=2)
    for number in range(6):
        world.resolver.publish(f"demo{number}", "1.0")
    waiting = []
    for number in range(6):
        waiting.append(asyncio.ensure_future(world.lock("a", f"demo{number}")))
        await until_waiting(world, number + 1)
    assert world.resolves == 2
    assert [event.phase for event in world.events] == [Phase.RESOLVING] * 2 + [Phase.WAITING] * 4
    assert world.events[-1].message == "Waiting for other requests: place 4 in line"
    gate.set()
    await asyncio.gather(*waiting)
    assert [request.requirements for request in world.resolver.requests] == [(f"demo{n}",) for n in range(6)]
    assert [event.phase for event in world.events[6:]].count(Phase.RESOLVING) == 4


async def test_who_stops_waiting_and_what_fails_leave_their_turn_to_the_next(world, gate):
    world.locksmith = Locksmith(world.ledger, world.resolver, max_concurrent_resolves=1)
    first = asyncio.ensure_future(world.lock("a", "absent"))
    await until_resolving(world)
    leaving = [asyncio.ensure_future(world.lock(user, "demo", refresh=True)) for user in "bc"]
    await until_waiting(world, 3)
    last = asyncio.ensure_future(world.lock("d", "other"))
    await until_waiting(world, 4)
    leaving[0].cancel()
    gate.set()
    with pytest.raises(UnresolvableRequest):
        await first
    leaving[1].cancel()
    assert (await last).pins == {"other": "1.0"}
    await asyncio.wait(leaving)
    assert await world.pins("e", "demo") == {"demo": "1.0"}
    assert world.events[-1].phase is Phase.RESOLVING


async def test_nobody_waits_for_a_turn_while_a_lock_is_written_down(world, monkeypatch):
    world.locksmith = Locksmith(world.ledger, world.resolver, max_concurrent_resolves=1)
    writing, written = asyncio.Event(), asyncio.Event()
    remember = world.ledger.remember

    async def slow(**more):
        writing.set()
        await written.wait()
        return await remember(**more)

    monkeypatch.setattr(world.ledger, "remember", slow)
    waiting = [asyncio.ensure_future(world.lock("a", "demo"))]
    await writing.wait()
    waiting.append(asyncio.ensure_future(world.lock("b", "other")))
    await until_resolving(world, 2)
    written.set()
    await asyncio.gather(*waiting)
    assert Phase.WAITING not in {event.phase for event in world.events}
