"""What hubs owe to registries: noted with each build, paid in the background, and never forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from prebuilt_spawner.adapters.memory_registry import MemoryRegistry
from prebuilt_spawner.errors import (
    BaseImageUnavailable,
    IndexUnavailable,
    PrebuiltError,
    RegistryRefusal,
    StorageFailure,
)

from ..image.wheels import make_base
from .registry_hubs import PLACE, Hub, until
from .test_shared_cache import FAILURE, REFUSAL, published


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest_asyncio.fixture
async def hub(tmp_path: Path, registry: MemoryRegistry) -> AsyncIterator[Hub]:
    hub = Hub(tmp_path / "hub", registry)
    yield hub
    await hub.close()


def calls(hub: Hub, method: str, count: int) -> Callable[[], Any]:
    async def reached() -> bool:
        return hub.registry.switches.calls[method] >= count

    return reached


def settled(hub: Hub) -> Callable[[], Any]:
    async def nothing_owed() -> bool:
        return not await hub.owed()

    return nothing_owed


async def test_a_push_holds_nobody_up(hub: Hub, registry: MemoryRegistry) -> None:
    """The image is there while its push waits."""
    gate = registry.switches.gates["push"] = asyncio.Event()
    hub.pushes.begin(hub.provider)
    one = await hub.make("alpha")
    two = await hub.make("beta")
    assert registry.tags == {}
    assert await hub.owed() == [one.digest, two.digest]
    gate.set()
    await until(settled(hub))
    assert set(registry.tags) == {one.digest, two.digest}
    assert hub.pushes.watch.counts == {"pushed": 2}


async def test_one_push_goes_on_at_a_time(hub: Hub, registry: MemoryRegistry) -> None:
    """The hub's disk and network are for its users first."""
    gate = registry.switches.gates["manifest"] = asyncio.Event()
    hub.pushes.begin(hub.provider)
    for name in ("alpha", "beta", "gamma"):
        await hub.make(name)
    await until(calls(hub, "manifest", 1))
    await asyncio.sleep(0)
    assert registry.switches.calls["push"] == 1
    gate.set()
    await until(settled(hub))
    assert registry.switches.calls["push"] == 3


async def test_what_is_pushed_does_not_depend_on_what_it_was_stacked_on(
    tmp_path: Path, hub: Hub, registry: MemoryRegistry
) -> None:
    """Another hub, which never had the smaller environment, makes the very same image of it."""
    await published(hub, "alpha")
    digest = await published(hub, "alpha", "beta", "gamma")
    assert {plan.lower.diff_ids == hub.base.diff_ids for plan in hub.engine.plans.values()} == {True, False}
    other = Hub(tmp_path / "other", MemoryRegistry(), name="another hub")
    assert await published(other, "alpha", "beta", "gamma") == digest
    assert other.registry.tags[digest] == registry.tags[digest]
    await other.close()


@pytest.mark.parametrize("error", [REFUSAL, FAILURE])
async def test_what_cannot_be_pushed_now_is_pushed_later(
    hub: Hub, registry: MemoryRegistry, caplog: pytest.LogCaptureFixture, error: PrebuiltError
) -> None:
    """The user has the server all the same, and the log says once what is the matter."""
    registry.switches.failures["push"] = error
    hub.pushes.begin(hub.provider)
    with caplog.at_level(logging.WARNING):
        environment = await hub.make("alpha")
        await until(calls(hub, "push", 3))
    assert registry.tags == {}
    assert await hub.owed() == [environment.digest]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "kept on this hub and pushed later" in line
    del registry.switches.failures["push"]
    await until(settled(hub))
    assert set(registry.tags) == {environment.digest}


async def test_a_push_that_breaks_off_is_tried_again_and_leaves_nothing_under_the_tag(
    hub: Hub, registry: MemoryRegistry
) -> None:
    registry.switches.failures["manifest"] = FAILURE
    hub.pushes.begin(hub.provider)
    environment = await hub.make("alpha")
    await until(calls(hub, "manifest", 2))
    assert registry.tags == {}
    del registry.switches.failures["manifest"]
    await until(settled(hub))
    assert set(registry.tags) == {environment.digest}


async def test_one_that_always_fails_does_not_keep_others_from_being_pushed(hub: Hub, registry: MemoryRegistry) -> None:
    """It goes behind them; and what is made while it waits for its next try does not wait with it."""
    bad = hub.environment("alpha")
    planned = hub.provider.planned

    def refusing(environment: Any) -> Any:
        if environment.digest == bad.digest:
            raise IndexUnavailable("The package index does not serve alpha any more. Try again.")
        return planned(environment)

    hub.provider.planned = refusing  # type: ignore[method-assign]
    hub.pushes = hub.provider._pushes = hub.new_pushes(pause_seconds=60)
    await hub.make("alpha")
    hub.pushes.begin(hub.provider)

    async def tried() -> bool:
        return (await hub.ledger.owed_pushes(hub=hub.name, place=PLACE))[0].attempts > 0

    await until(tried)
    good = await hub.make("beta")

    async def only_the_bad_one_is_owed() -> bool:
        return await hub.owed() == [bad.digest]

    await until(only_the_bad_one_is_owed)
    assert set(registry.tags) == {good.digest}
    await asyncio.sleep(0.05)
    assert (await hub.ledger.owed_pushes(hub=hub.name, place=PLACE))[0].attempts <= 2


@pytest.mark.parametrize("error", [REFUSAL, FAILURE])
async def test_a_push_is_tried_for_two_weeks(hub: Hub, registry: MemoryRegistry, error: PrebuiltError) -> None:
    """However often that is."""
    registry.switches.failures["push"] = error
    environment = await hub.make("alpha")
    pushes = hub.provider._pushes = hub.new_pushes(pause_seconds=0)
    pushes.begin(hub.provider)
    await until(calls(hub, "push", 30))
    assert await hub.owed() == [environment.digest]
    await pushes.close()
    later = datetime.now(timezone.utc) + timedelta(days=15)
    hub.pushes = hub.provider._pushes = hub.new_pushes(pause_seconds=0, now=lambda: later)
    hub.pushes.begin(hub.provider)
    await until(settled(hub))
    assert registry.tags == {}


async def test_what_a_hub_owed_when_it_ended_it_pushes_when_it_starts_again(hub: Hub, registry: MemoryRegistry) -> None:
    """Also what was half-sent. The ledger has it, wheels that are gone are fetched again."""
    registry.switches.gates["manifest"] = asyncio.Event()
    hub.pushes.begin(hub.provider)
    one, two = await hub.make("alpha"), await hub.make("beta")
    await until(calls(hub, "manifest", 1))
    await hub.pushes.close()
    assert registry.switches.cancelled["manifest"] == 1
    assert registry.tags == {}
    assert await hub.owed() == [one.digest, two.digest]
    registry.switches.gates.clear()
    hub.pushes = hub.provider._pushes = hub.new_pushes()
    hub.pushes.begin(hub.provider)
    await until(settled(hub))
    assert set(registry.tags) == {one.digest, two.digest}


async def test_another_hubs_debts_and_those_to_another_registry_are_not_paid(
    hub: Hub, registry: MemoryRegistry
) -> None:
    """Hubs can share a ledger, and a hub can get another registry."""
    environment = await hub.make("alpha")
    for how in ({"hub": "another"}, {"place": "another.test/env"}):
        pushes = hub.new_pushes(**how)
        pushes.begin(hub.provider)
        await asyncio.sleep(0.02)
        await pushes.close()
    assert await hub.owed() == [environment.digest]
    assert registry.tags == {}


async def test_on_a_base_that_is_another_by_now_nothing_is_pushed(
    hub: Hub, registry: MemoryRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """What was made cannot be made again; nobody is going to ask for it."""
    await hub.make("alpha")
    hub.engine.add_base(make_base(digest="f" * 64, diff_ids=("sha256:" + "9" * 64,)), hub.probe)
    with caplog.at_level(logging.INFO):
        hub.pushes.begin(hub.provider)
        await until(settled(hub))
    assert registry.tags == {}
    assert "its base image is another one now" in caplog.text


async def test_a_base_that_has_gone_is_waited_for(hub: Hub, registry: MemoryRegistry) -> None:
    """The registry of the base may be away for a while."""
    await hub.make("alpha")
    hub.engine.switches.failures["resolve_base"] = BaseImageUnavailable("The base image is not there. Start again.")
    hub.pushes.begin(hub.provider)

    async def asked() -> bool:
        return hub.engine.switches.calls["resolve_base"] >= 2

    await until(asked)
    del hub.engine.switches.failures["resolve_base"]
    await until(settled(hub))
    assert len(registry.tags) == 1


async def test_a_ledger_that_cannot_be_written_costs_a_push_and_no_start(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    async def owe_push(**_: Any) -> None:
        raise StorageFailure("The ledger cannot be written. Tell your administrator.")

    hub.ledger.owe_push = owe_push  # type: ignore[method-assign]
    await hub.make("alpha")
    assert "will not be pushed" in caplog.text


async def test_a_refusal_is_counted_for_the_image_and_for_the_registry(hub: Hub, registry: MemoryRegistry) -> None:
    registry.switches.failures["push"] = RegistryRefusal("The registry does not let this hub in. Tell somebody.")
    hub.pushes.begin(hub.provider)
    await hub.make("alpha")
    await until(calls(hub, "push", 3))
    (owed,) = await hub.ledger.owed_pushes(hub=hub.name, place=PLACE)
    assert owed.attempts >= 2
    assert hub.pushes.watch.counts["refused"] >= 2
