"""The manager under arrivals, departures, failures and restarts in any order, on the in-memory doubles."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from prebuilt_spawner.build.history import Outcome
from prebuilt_spawner.errors import EngineFailure, QueueFull

from .locking_world import base_image
from .test_manager import World

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["cancel", "turn", "open", "close", "break", "mend", "restart"]), st.integers(0, 9)),
    ),
    max_size=30,
)


class Driver:
    """Takes the steps, and watches what may never be."""

    def __init__(self) -> None:
        self.waiters: list[asyncio.Task[Any]] = []
        self.building: Counter[str] = Counter()
        self.most = 0
        self.world = self.new_world()

    def new_world(self, before: World | None = None) -> World:
        # The engine outlives the hub.
        engine = None if before is None else before.engine
        world = World(max_concurrent_builds=2, max_queued_builds=1, engine=engine)
        for number in range(4):
            world.resolver.publish(f"p{number}", "1.0")
        making = world.provider.make

        async def make(environment: Any, *, report: Any, max_unsized_bytes: Any) -> Any:
            self.building[environment.digest] += 1
            self.most = max(self.most, sum(self.building.values()))
            assert self.building[environment.digest] == 1, "one build for each environment at a time"
            try:
                return await making(environment, report=report)
            finally:
                self.building[environment.digest] -= 1

        world.provider.make = make  # type: ignore[method-assign]
        return world

    async def take(self, step: str, number: int) -> None:
        switches = self.world.engine.switches
        if step == "arrive":
            self.waiters.append(self.world.start(f"u{len(self.waiters)}", f"p{number}"))
        elif step == "cancel" and self.waiters:
            self.waiters[number % len(self.waiters)].cancel()
        elif step == "turn":
            for _ in range(number * 3):
                await asyncio.sleep(0)
        elif step == "close":
            self.world.gate("assemble")
        elif step == "open":
            gate = switches.gates.pop("assemble", None)
            if gate is not None:
                gate.set()
        elif step == "break":
            switches.failures["assemble"] = EngineFailure("The container engine broke off.")
        elif step == "mend":
            switches.failures.clear()
        elif step == "restart":
            # As JupyterHub does at its end: every task is cancelled, the manager's keeper among them.
            for waiter in self.waiters:
                waiter.cancel()
            await asyncio.gather(*self.waiters, return_exceptions=True)
            await self.world.manager.close()
            self.world = self.new_world(self.world)

    async def finish(self) -> None:
        """Let everything go on, and see that nobody and nothing is left over."""
        await self.take("mend", 0)
        await self.take("open", 0)
        results = await asyncio.wait_for(asyncio.gather(*self.waiters, return_exceptions=True), 20)
        for result in results:
            assert not isinstance(result, BaseException) or isinstance(
                result, asyncio.CancelledError | EngineFailure | QueueFull
            ), result
        # Those who left first may still be being stopped.
        while sum(self.building.values()):
            await asyncio.sleep(0.001)
        assert self.most <= 2, "no more builds at once than may"
        assert self.world.room.taken == 0
        last = [self.world.start("last", f"p{number}") for number in range(2)]
        for environment in await asyncio.wait_for(asyncio.gather(*last), 20):
            assert environment.image in self.world.engine.names, "no slot was lost"
        assert not self.world.engine.held(base_image().image_id)
        assert set(self.world.engine.plans) == set(self.world.engine.names.values()), "nothing half made is left"
        number = 1
        while (record := await self.world.ledger.build(number)) is not None:
            assert record.outcome is not Outcome.RUNNING
            number += 1
        await self.world.manager.close()


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_one_build_for_each_environment_nobody_forgotten_no_slot_lost(steps: list[tuple[str, int]]) -> None:
    """Whatever order people come and leave, the engine breaks and the hub restarts in."""

    async def run() -> None:
        driver = Driver()
        for step, number in steps:
            await driver.take(step, number)
        await driver.finish()

    asyncio.run(run())
