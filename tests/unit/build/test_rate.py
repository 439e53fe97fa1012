"""Tests of `prebuilt_spawner.build.rate`, alone and in the manager."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from prebuilt_spawner.build import rate
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.provider import ProfileRequest
from prebuilt_spawner.build.rate import BuildRates
from prebuilt_spawner.environment.policy import Policy
from prebuilt_spawner.errors import BuildRateExceeded, UnresolvableRequest
from tests.messages import faults

from .test_manager import World


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(clock: Clock) -> BuildRates:
    return BuildRates(now=clock)


def test_a_user_who_has_had_enough_is_told_when_to_try_again(rates: BuildRates, clock: Clock):
    """To the minute in which the first of them was an hour ago; others are not concerned."""
    for _ in range(3):
        rates.for_start("ada", 3)()
        clock.seconds += 600
    with pytest.raises(BuildRateExceeded) as caught:
        rates.for_start("ada", 3)()
    assert caught.value.status == 429
    assert "had 3 environments prepared within an hour" in caught.value.message
    assert "Try again in 30 minutes" in caught.value.message
    assert not faults(caught.value.message)
    rates.for_start("bob", 3)()
    clock.seconds += 1799
    with pytest.raises(BuildRateExceeded, match="in 1 minute, or"):
        rates.for_start("ada", 3)()
    clock.seconds += 1
    rates.for_start("ada", 3)()


def test_a_start_is_charged_once_however_much_it_causes(rates: BuildRates):
    charge = rates.for_start("ada", 1)
    charge()
    charge()
    with pytest.raises(BuildRateExceeded):
        rates.for_start("ada", 1)()


def test_a_refusal_is_not_counted_and_a_lower_limit_counts_at_once(rates: BuildRates, clock: Clock):
    for _ in range(5):
        rates.for_start("ada", 5)()
        clock.seconds += 60
    for _ in range(3):
        with pytest.raises(BuildRateExceeded, match="in 58 minutes"):
            rates.for_start("ada", 2)()


def test_without_a_limit_nothing_is_counted(rates: BuildRates):
    for _ in range(1000):
        rates.for_start("ada", 0)()
    assert not rates._charged


def test_what_is_kept_is_bounded(rates: BuildRates, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    """Nobody is kept after an hour, and no more users than a number; those who were charged last stay."""
    monkeypatch.setattr(rate, "_MOST_USERS", 10)
    for number in range(100):
        rates.for_start(f"u{number}", 5)()
    assert len(rates._charged) <= 11
    with pytest.raises(BuildRateExceeded):
        rates.for_start("u99", 1)()
    clock.seconds += 3600
    rates.for_start("late", 5)()
    assert list(rates._charged) == ["late"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    for gate in world.engine.switches.gates.values():
        gate.set()
    await world.manager.close()


ONE = Policy(allow_custom_packages=True, max_builds_per_hour=1)


async def start(world: World, *requirements: str, **more) -> None:
    await world.manager.ensure(world.request(*requirements, policy=ONE, **more), report=ignore)


async def test_what_is_ready_and_what_is_remembered_costs_nothing(world: World):
    """Resolving and building of one start count as one; so does what fails."""
    await start(world, "alpha")
    for _ in range(3):
        await start(world, "alpha")
    with pytest.raises(BuildRateExceeded):
        await start(world, "beta")
    assert len(world.resolver.requests) == 1
    for _ in range(3):
        with pytest.raises(UnresolvableRequest):
            await start(world, "nope", user="b")
    with pytest.raises(BuildRateExceeded):
        await start(world, "beta", user="b")
    with pytest.raises(BuildRateExceeded):
        await start(world, "alpha", refresh=True)


async def test_who_joins_another_users_build_pays_nothing(world: World):
    gate = world.gate("assemble")
    first = asyncio.create_task(start(world, "alpha"))
    await world.until("assemble", 1)
    second = asyncio.create_task(start(world, "alpha", user="b"))
    while len(world.manager._waiting.get(next(iter(world.manager._waiting)), ())) < 2:
        await asyncio.sleep(0.001)
    gate.set()
    await asyncio.gather(first, second)
    await start(world, "beta", user="b")
    with pytest.raises(BuildRateExceeded):
        await start(world, "gamma")


async def test_a_build_alone_is_counted(world: World):
    """Where the lock is there and the image is not."""
    await start(world, "alpha")
    (reference,) = world.engine.names
    world.engine.remove(reference)
    with pytest.raises(BuildRateExceeded):
        await start(world, "alpha")


async def test_profiles_cost_nothing(world: World):
    """Nor does their resolving when packages are added; those do."""
    data, more = (ProfileRequest(slug=name, requirements=(name,)) for name in ("alpha", "beta"))
    await start(world, "alpha", profile=data)
    await start(world, "beta", profile=more)
    await start(world)
    await start(world, "beta", "gamma", profile=more)
    with pytest.raises(BuildRateExceeded):
        await start(world, "alpha", "gamma", profile=data)
