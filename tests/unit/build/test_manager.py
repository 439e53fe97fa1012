"""Tests of `prebuilt_spawner.build.manager`, on the in-memory doubles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from prebuilt_spawner.adapters.memory import MemoryEngine, MemoryResolver, MemoryWheelStore
from prebuilt_spawner.build.events import BuildEvent, Phase, ignore
from prebuilt_spawner.build.locking import Locksmith
from prebuilt_spawner.build.manager import BuildManager
from prebuilt_spawner.build.provider import Environment, EnvironmentRequest, Provider
from prebuilt_spawner.errors import EngineFailure, IndexUnavailable, UnresolvableRequest
from prebuilt_spawner.ledger import SqlLedger

from .locking_world import base_image, base_probe


class World:
    """A manager, everything that it uses, and three packages on the index."""

    def __init__(self, max_concurrent_builds: int = 2) -> None:
        self.engine, self.resolver, self.wheel_store = MemoryEngine(), MemoryResolver(), MemoryWheelStore()
        self.engine.add_base(base_image(), base_probe())
        for name in ("alpha", "beta", "gamma"):
            self.resolver.publish(name, "1.0")
        self.ledger = SqlLedger("sqlite://")
        self.manager = BuildManager(
            engine=self.engine,
            wheel_store=self.wheel_store,
            ledger=self.ledger,
            locksmith=Locksmith(self.ledger, self.resolver),
            provider=Provider(
                engine=self.engine, wheel_store=self.wheel_store, ledger=self.ledger, repository="test/env"
            ),
            max_concurrent_builds=max_concurrent_builds,
        )

    async def ensure(self, user: str, *requirements: str, report=ignore) -> Environment:
        request = EnvironmentRequest(user=user, requirements=requirements, base="base:1")
        return await self.manager.ensure(request, report=report)

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
