"""Tests of `prebuilt_spawner.build.manager`, on the in-memory doubles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from prebuilt_spawner.adapters.memory import MemoryEngine, MemoryResolver, MemoryWheelStore
from prebuilt_spawner.build.events import BuildEvent, Phase, ignore
from prebuilt_spawner.build.history import Outcome
from prebuilt_spawner.build.locking import Locksmith
from prebuilt_spawner.build.manager import BuildLimits, BuildManager
from prebuilt_spawner.build.provider import Environment, EnvironmentRequest, ProfileRequest, Provider
from prebuilt_spawner.build.queue import WaitingRoom
from prebuilt_spawner.build.remembered import RememberedFailures
from prebuilt_spawner.environment.policy import Policy
from prebuilt_spawner.errors import (
    BuildTimeout,
    EngineFailure,
    EngineUnavailable,
    IndexUnavailable,
    PolicyRefusal,
    QueueFull,
    StorageFailure,
    UnbuildableEnvironment,
    UnresolvableRequest,
)
from prebuilt_spawner.ledger import SqlLedger

from .locking_world import base_image, base_probe


class FullDisk:
    """A guard that says no while it is told to, and counts how often it may tidy up."""

    def __init__(self) -> None:
        self.full = False
        self.tidied = 0

    async def check(self) -> None:
        if self.full:
            raise StorageFailure("The hub's disk is nearly full.")

    def tidy(self) -> None:
        self.tidied += 1

    async def close(self) -> None: ...


class World:
    """A manager, everything that it uses, and three packages on the index."""

    def __init__(self, **limits: Any) -> None:
        self.engine: MemoryEngine = limits.pop("engine", None) or MemoryEngine()
        self.resolver, self.wheel_store = MemoryResolver(), MemoryWheelStore()
        self.engine.add_base(base_image(), base_probe())
        for name in ("alpha", "beta", "gamma"):
            self.resolver.publish(name, "1.0")
        self.ledger = SqlLedger("sqlite://")
        self.seconds = 0.0
        self.failures = RememberedFailures(600, now=lambda: self.seconds)
        self.room = WaitingRoom(limits.pop("seats", None))
        self.guard = FullDisk()
        self.provider = Provider(
            engine=self.engine, wheel_store=self.wheel_store, ledger=self.ledger, repository="test/env"
        )
        self.manager = BuildManager(
            engine=self.engine,
            wheel_store=self.wheel_store,
            ledger=self.ledger,
            history=self.ledger,
            hub="this hub",
            locksmith=Locksmith(self.ledger, self.resolver, failures=self.failures, room=self.room),
            provider=self.provider,
            failures=self.failures,
            room=self.room,
            guard=self.guard,
            limits=BuildLimits(**limits),
        )

    async def ensure(self, user: str, *requirements: str, report=ignore, refresh: bool = False) -> Environment:
        return await self.manager.ensure(self.request(*requirements, user=user, refresh=refresh), report=report)

    def request(self, *requirements: str, user: str = "a", **more: Any) -> EnvironmentRequest:
        return EnvironmentRequest(user=user, requirements=requirements, base="base:1", **more)

    def start(self, user: str, *requirements: str) -> asyncio.Task[Environment]:
        return asyncio.create_task(self.ensure(user, *requirements))

    def gate(self, method: str) -> asyncio.Event:
        """Builds stop before this step of the engine's until the gate is set."""
        return self.engine.switches.gates.setdefault(method, asyncio.Event())

    async def until(self, method: str, calls: int) -> None:
        """Until the engine was asked for this step so many times."""
        while self.engine.switches.calls[method] < calls:
            await asyncio.sleep(0.001)

    @property
    def builds(self) -> int:
        return self.engine.switches.calls["assemble"]


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    for gate in world.engine.switches.gates.values():
        gate.set()
    await world.manager.close()


async def test_the_image_is_there_under_its_digest(world: World):
    """What comes back names an image that the engine has, and the lock that it was made from."""
    environment = await world.ensure("a", "alpha")
    assert environment.image == f"test/env:{environment.digest}"
    assert environment.image in world.engine.names
    assert environment.lock.packages == ("alpha==1.0",)
    assert not world.engine.held(environment.base.image_id)


async def test_an_image_that_is_there_is_not_built_again(world: World):
    """The second who asks, and the first again, get the image without a build."""
    first = await world.ensure("a", "alpha")
    assert await world.ensure("b", "alpha") == first
    assert await world.ensure("a", "alpha") == first
    assert world.builds == 1


async def test_many_at_once_share_one_build(world: World):
    """Twenty who ask for the same at once cause one resolve and one build."""
    gate = world.gate("assemble")
    waiters = [world.start(f"u{number}", "alpha") for number in range(20)]
    await world.until("assemble", 1)
    gate.set()
    assert len({environment.image for environment in await asyncio.gather(*waiters)}) == 1
    assert (world.builds, len(world.resolver.requests)) == (1, 1)


async def test_one_who_leaves_does_not_disturb_the_others(world: World):
    """When one of two waiters is cancelled, the other gets the image."""
    gate = world.gate("assemble")
    leaver, stayer = world.start("a", "alpha"), world.start("b", "alpha")
    await world.until("assemble", 1)
    leaver.cancel()
    await asyncio.wait([leaver])
    gate.set()
    assert (await stayer).image in world.engine.names


async def test_the_last_to_leave_stops_the_build(world: World):
    """With nobody waiting the build is cancelled, nothing is left or held, and the next request builds anew."""
    world.gate("assemble")
    waiters = [world.start("a", "alpha"), world.start("b", "alpha")]
    await world.until("assemble", 1)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    while world.engine.held(base_image().image_id):
        await asyncio.sleep(0.001)
    assert world.engine.switches.cancelled["assemble"] == 1
    assert not world.engine.plans
    del world.engine.switches.gates["assemble"]
    assert (await world.ensure("c", "alpha")).image in world.engine.names


async def test_no_more_builds_run_at_once_than_may(world: World):
    """The third build waits, says so, and runs when one of the two before it has ended."""
    gate = world.gate("assemble")
    running = [world.start("a", "alpha"), world.start("b", "beta")]
    await world.until("assemble", 2)
    events: list[BuildEvent] = []
    third = asyncio.create_task(world.ensure("c", "gamma", report=events.append))
    while not any(event.phase is Phase.WAITING for event in events):
        await asyncio.sleep(0.001)
    assert world.builds == 2
    gate.set()
    await asyncio.gather(*running, third)
    assert world.builds == 3


async def test_an_image_that_is_there_does_not_wait_for_builds(world: World):
    """While every slot is taken, who asks for an image that exists gets it."""
    ready = await world.ensure("a", "alpha")
    world.gate("assemble")
    running = [world.start("b", "beta"), world.start("c", "gamma")]
    await world.until("assemble", 3)
    assert await asyncio.wait_for(world.ensure("d", "alpha"), 5) == ready
    for waiter in running:
        waiter.cancel()
    await asyncio.wait(running)


@pytest.mark.parametrize("step", ["hold", "assemble", "tag"])
async def test_a_failure_of_the_engine_leaves_nothing_and_is_not_remembered(world: World, step: str):
    """Everyone who waits gets the error; no image without a name stays, and the next start works."""
    world.engine.switches.failures[step] = EngineFailure("The container engine broke off.")
    results = await asyncio.gather(world.start("a", "alpha"), world.start("b", "alpha"), return_exceptions=True)
    assert [type(result) for result in results] == [EngineFailure] * 2
    assert not world.engine.plans
    assert not world.engine.held(base_image().image_id)
    world.engine.switches.failures.clear()
    assert (await world.ensure("a", "alpha")).image in world.engine.names


async def test_a_wheel_that_cannot_be_fetched_is_the_indexes_fault(world: World):
    """The error of the wheel store reaches the waiter, and nothing was assembled."""
    world.wheel_store.bad_wheels["alpha"] = IndexUnavailable("alpha cannot be downloaded.")
    with pytest.raises(IndexUnavailable, match="alpha"):
        await world.ensure("a", "alpha")
    assert world.builds == 0


async def test_what_cannot_be_resolved_is_not_built(world: World):
    """An unknown package is refused before the engine is asked to make anything."""
    with pytest.raises(UnresolvableRequest, match="delta"):
        await world.ensure("a", "delta")
    assert world.builds == 0


async def test_closing_stops_builds(world: World):
    """After `close` no build runs, and who waited is told."""
    world.gate("assemble")
    waiter = world.start("a", "alpha")
    await world.until("assemble", 1)
    await world.manager.close()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert world.engine.switches.cancelled["assemble"] == 1


# -- the queue ---------------------------------------------------------------------------------------------------------


async def made_world(**limits: Any) -> World:
    world = World(**limits)
    for number in range(9):
        world.resolver.publish(f"p{number}", "1.0")
    return world


async def test_builds_wait_in_order_and_users_see_their_place_go_down():
    """One builds, three wait; each hears of its place, and they are built in the order of their arrival."""
    world = await made_world(max_concurrent_builds=1)
    gate = world.gate("assemble")
    heard: dict[int, list[str]] = {number: [] for number in range(4)}
    tasks = []
    for number in range(4):

        def report(event: BuildEvent, number: int = number) -> None:
            if event.message.startswith("Waiting"):
                heard[number].append(event.message)

        tasks.append(asyncio.create_task(world.ensure(f"u{number}", f"p{number}", report=report)))
        while len(heard[number]) < (number > 0) or world.engine.switches.calls["assemble"] < 1:
            await asyncio.sleep(0.001)
    assert [messages[0] for messages in heard.values() if messages] == [
        "Waiting for another build to end",
        "Waiting for others: place 2 in line",
        "Waiting for others: place 3 in line",
    ]
    gate.set()
    await asyncio.gather(*tasks)
    assert heard[3][-3:] == [
        "Waiting for others: place 3 in line",
        "Waiting for others: place 2 in line",
        "Waiting for another build to end",
    ]
    built = [plan.labels["prebuilt_spawner.packages"] for plan in world.engine.plans.values()]
    assert built == [f'["p{number}==1.0"]' for number in range(4)]
    await world.manager.close()


async def test_a_build_too_many_is_a_429_and_images_that_exist_are_not_delayed():
    """Exactly beyond the limit; somebody who joins a build that waits is no build."""
    world = await made_world(max_concurrent_builds=1, max_queued_builds=1)
    ready = await world.ensure("a", "p0")
    gate = world.gate("assemble")
    running = [world.start("b", "p1")]
    await world.until("assemble", 2)
    running += [world.start("c", "p2"), world.start("d", "p2")]
    while world.room.taken < 3:
        await asyncio.sleep(0.001)
    with pytest.raises(QueueFull):
        await world.ensure("e", "p3")
    assert await world.ensure("f", "p0") == ready
    gate.set()
    await asyncio.gather(*running)
    assert (await world.ensure("e", "p3")).image in world.engine.names
    await world.manager.close()


async def test_users_who_wait_take_no_more_seats_than_there_are():
    """However few builds they wait for; who needs no build needs no seat."""
    world = await made_world(seats=2)
    ready = await world.ensure("a", "p0")
    gate = world.gate("assemble")
    waiting = [world.start("b", "p1"), world.start("c", "p1")]
    while world.room.taken < 2:
        await asyncio.sleep(0.001)
    with pytest.raises(QueueFull, match="2 users wait"):
        await world.ensure("d", "p1")
    assert await world.ensure("e", "p0") == ready
    gate.set()
    await asyncio.gather(*waiting)
    assert world.room.taken == 0
    await world.manager.close()


async def test_a_build_that_has_gone_silent_is_given_up():
    """It is a timeout for all who wait, and its slot is free again."""
    world = await made_world(max_concurrent_builds=1, silence_seconds=1)
    world.manager._now = asyncio.get_running_loop().time
    world.gate("assemble")
    results = await asyncio.gather(world.start("a", "p0"), world.start("b", "p0"), return_exceptions=True)
    assert [type(result) for result in results] == [BuildTimeout] * 2
    assert world.engine.switches.cancelled["assemble"] == 1
    del world.engine.switches.gates["assemble"]
    assert (await world.ensure("a", "p0")).image in world.engine.names
    await world.manager.close()


async def test_a_long_wait_for_its_turn_is_no_silence_of_a_build():
    """Nothing is heard of a wait whose place does not change."""
    world = await made_world(max_concurrent_builds=1, silence_seconds=300)
    seconds = 0.0
    world.manager._now = lambda: seconds
    gate = world.gate("assemble")
    first = world.start("a", "p0")
    await world.until("assemble", 1)
    # Of another size, so that nothing is known of how long it takes.
    heard: list[BuildEvent] = []
    packages = [f"p{number}" for number in range(1, 6)]
    second = asyncio.create_task(world.ensure("b", *packages, report=heard.append))
    while Phase.WAITING not in [event.phase for event in heard]:
        await asyncio.sleep(0.001)
    seconds += 400
    gate.set()
    assert (await second).image in world.engine.names
    await first
    await world.manager.close()


async def test_a_full_disk_refuses_builds_and_not_images_that_exist(world: World):
    """And after a build there is a moment to tidy up."""
    ready = await world.ensure("a", "alpha")
    assert world.guard.tidied == 1
    world.guard.full = True
    with pytest.raises(StorageFailure):
        await world.ensure("b", "beta")
    assert await world.ensure("b", "alpha") == ready
    world.guard.full = False
    await world.ensure("b", "beta")
    assert world.guard.tidied == 2


# -- failures that are remembered --------------------------------------------------------------------------------------


async def test_what_cannot_be_resolved_is_answered_from_memory(world: World):
    """For everybody, until somebody asks for newest versions, or the time is up."""
    for user in ("a", "a", "b"):
        with pytest.raises(UnresolvableRequest, match="delta"):
            await world.ensure(user, "delta")
    assert len(world.resolver.requests) == 1
    with pytest.raises(UnresolvableRequest):
        await world.ensure("a", "delta", refresh=True)
    assert len(world.resolver.requests) == 2
    world.resolver.publish("delta", "1.0")
    with pytest.raises(UnresolvableRequest):
        await world.ensure("a", "delta")
    world.seconds += 600
    assert (await world.ensure("a", "delta")).lock.packages == ("delta==1.0",)


async def test_what_cannot_be_built_is_answered_from_memory(world: World):
    """By what it would install: another request that leads to the same wheels fails as fast."""
    world.wheel_store.bad_wheels["alpha"] = UnbuildableEnvironment("alpha is malformed.")
    for requirement in ("alpha", "alpha", "alpha>=1"):
        with pytest.raises(UnbuildableEnvironment):
            await world.ensure("a", requirement)
    assert world.wheel_store.switches.calls["fetch"] == 1
    del world.wheel_store.bad_wheels["alpha"]
    assert (await world.ensure("a", "alpha", refresh=True)).image in world.engine.names


async def test_a_failure_of_the_surroundings_is_never_remembered(world: World):
    """The index is up again, and so is the user."""
    world.resolver.switches.failures["resolve"] = IndexUnavailable("The index is down.")
    with pytest.raises(IndexUnavailable):
        await world.ensure("a", "alpha")
    world.resolver.switches.failures.clear()
    assert (await world.ensure("a", "alpha")).image in world.engine.names


# -- what the ledger remembers -----------------------------------------------------------------------------------------


async def test_a_build_is_remembered_with_all_who_asked(world: World):
    """Who, what, when, how long each phase took, how it ended, and what was said."""
    gate = world.gate("assemble")
    waiters = [world.start("a", "alpha"), world.start("b", "alpha")]
    await world.until("assemble", 1)
    waiters.append(world.start("c", "alpha"))
    while world.room.taken < 3:
        await asyncio.sleep(0.001)
    gate.set()
    environment = (await asyncio.gather(*waiters))[0]
    (record,) = await world.ledger.last_builds(digest=environment.digest, limit=5)
    assert record.outcome is Outcome.DONE
    assert (record.base, record.requirements) == ("base:1", ("alpha",))
    assert sorted(record.users) == ["a", "b", "c"]
    assert next(iter(record.phase_seconds)) == "resolving"
    assert set(record.phase_seconds) >= {"downloading", "saving", "checking"}
    assert record.ended_at is not None
    assert record.ended_at >= record.begun_at
    assert "Saving to the engine" in record.log
    assert record.error == ""
    assert record.size_bytes == (await world.provider.present(environment)).size_bytes > 0


async def test_a_build_that_failed_is_remembered_with_its_reason(world: World):
    world.engine.switches.failures["assemble"] = EngineFailure("The container engine broke off.")
    with pytest.raises(EngineFailure):
        await world.ensure("a", "alpha")
    record = await world.ledger.build(1)
    assert (record.outcome, record.error) == (Outcome.FAILED, "The container engine broke off.")


async def test_a_failure_bears_the_number_of_its_build(world: World):
    """For all who waited, and for those who are answered from memory; what was no build has none."""
    world.wheel_store.bad_wheels["alpha"] = UnbuildableEnvironment("alpha is malformed.")
    for users in ("ab", "c"):
        failures = await asyncio.gather(*(world.start(user, "alpha") for user in users), return_exceptions=True)
        assert [(type(failure), failure.build_id) for failure in failures] == [(UnbuildableEnvironment, 1)] * len(users)
    with pytest.raises(UnresolvableRequest) as unresolved:
        await world.ensure("a", "delta")
    assert unresolved.value.build_id == 2
    world.engine.unavailable = EngineUnavailable("It is down.")
    with pytest.raises(EngineUnavailable) as nothing:
        await world.ensure("a", "beta")
    assert nothing.value.build_id == 0


async def test_who_stops_waiting_is_in_the_log_with_the_builds_number(world: World, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "prebuilt_spawner")
    gate = world.gate("assemble")
    leaves, stays = world.start("ada", "alpha"), world.start("bob", "alpha")
    await world.until("assemble", 1)
    leaves.cancel()
    await asyncio.wait([leaves])
    assert "ada does not wait for build 1 of test/env:" in caplog.text
    gate.set()
    await stays


async def test_a_build_that_everybody_left_is_remembered_as_cancelled(world: World):
    world.gate("assemble")
    waiter = world.start("a", "alpha")
    await world.until("assemble", 1)
    waiter.cancel()
    await asyncio.wait([waiter])
    while (await world.ledger.build(1)).outcome is Outcome.RUNNING:
        await asyncio.sleep(0.001)
    assert (await world.ledger.build(1)).outcome is Outcome.CANCELLED


async def test_what_could_not_be_resolved_is_remembered_once(world: World):
    """What is answered from memory is no further build."""
    for _ in range(3):
        with pytest.raises(UnresolvableRequest):
            await world.ensure("a", "delta")
    record = await world.ledger.build(1)
    assert (record.outcome, record.digest, record.requirements) == (Outcome.FAILED, "", ("delta",))
    assert "delta" in record.error
    assert await world.ledger.build(2) is None


async def test_what_could_not_be_resolved_for_several_at_once_is_one_build(world: World):
    """It was tried once; the record names them all, and each failure bears its number."""
    gate = world.resolver.switches.gates["resolve"] = asyncio.Event()
    waiting = [world.start(user, "delta") for user in "abc"]
    while world.room.taken < 3:
        await asyncio.sleep(0.001)
    gate.set()
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert len(world.resolver.requests) == 1
    assert [(type(failure), failure.build_id) for failure in failures] == [(UnresolvableRequest, 1)] * 3
    assert sorted((await world.ledger.build(1)).users) == ["a", "b", "c"]
    assert await world.ledger.build(2) is None


async def test_an_image_that_exists_is_no_build(world: World):
    await world.ensure("a", "alpha")
    await world.ensure("b", "alpha")
    assert await world.ledger.build(2) is None


def limited(max_bytes: int) -> Policy:
    return Policy(allow_custom_packages=True, max_environment_bytes=max_bytes)


async def test_what_is_too_large_is_refused_before_anything_is_downloaded(world: World):
    """Each wheel here has 1000 bytes. It is one user's limit, and is not remembered for others."""
    world.resolver.publish("delta", "1.0", "alpha")
    small, large = (world.request("delta", policy=limited(size)) for size in (1999, 2000))
    for _ in range(2):
        with pytest.raises(PolicyRefusal, match=r"alpha 1\.0 with 1 kB"):
            await world.manager.ensure(small, report=ignore)
    assert world.wheel_store.switches.calls["fetch"] == 0
    await world.manager.ensure(large, report=ignore)
    with pytest.raises(PolicyRefusal):  # also where the image is there
        await world.manager.ensure(small, report=ignore)


async def test_a_profile_may_be_larger_than_what_users_may_add(world: World):
    profile = ProfileRequest(slug="big", requirements=("alpha", "beta"))
    request = world.request("alpha", "beta", profile=profile, policy=limited(1000))
    await world.manager.ensure(request, report=ignore)
    more = world.request("alpha", "beta", "gamma", profile=profile, policy=limited(1000))
    await world.manager.ensure(more, report=ignore)
    with pytest.raises(PolicyRefusal):
        await world.manager.ensure(world.request("alpha", "beta", policy=limited(1000)), report=ignore)


async def test_of_wheels_without_a_size_no_more_is_downloaded_than_may_be(world: World):
    """Who may have more is not refused with those who may not, at the same time or later."""
    world.resolver.publish("odd", "1.0", size_bytes=None)
    small, large = (world.request("odd", policy=limited(size)) for size in (999, 1000))
    gate = world.wheel_store.switches.gates.setdefault("fetch", asyncio.Event())
    starts = [asyncio.create_task(world.manager.ensure(request, report=ignore)) for request in (small, large)]
    while world.wheel_store.switches.calls["fetch"] < 2:
        await asyncio.sleep(0.001)
    gate.set()
    refused, environment = await asyncio.gather(*starts, return_exceptions=True)
    assert isinstance(refused, PolicyRefusal)
    assert isinstance(environment, Environment)
