"""What a registry is for where an environment is not in the engine: fetched if it is right, built if not."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from prebuilt_spawner.adapters.memory_registry import MemoryRegistry
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.errors import LayersGone, PrebuiltError, RegistryRefusal, RegistryUnavailable

from .registry_hubs import PLACE, Hub, until

REFUSAL = RegistryRefusal("The registry does not let this hub in. Tell your administrator.", detail="401")
FAILURE = RegistryUnavailable("The registry cannot be reached. Tell your administrator.", detail="timeout")


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest_asyncio.fixture
async def hubs(tmp_path: Path, registry: MemoryRegistry) -> AsyncIterator[Callable[..., Hub]]:
    made: list[Hub] = []

    def hub(**how: Any) -> Hub:
        made.append(Hub(tmp_path / str(len(made)), registry, **how))
        return made[-1]

    yield hub
    for one in made:
        await one.close()


async def published(hub: Hub, *names: str) -> str:
    """The digest of an environment that this hub has made and pushed."""
    hub.pushes.begin(hub.provider)
    environment = await hub.make(*names)

    async def there() -> bool:
        return environment.digest in hub.registry.tags and not await hub.owed()

    await until(there)
    return environment.digest


# -- fetched -----------------------------------------------------------------------------------------------------------


async def test_what_one_hub_has_made_another_only_fetches(hubs: Callable[..., Hub], registry: MemoryRegistry) -> None:
    """The same tag, nothing is built there, and nothing pushed again."""
    digest = await published(hubs(), "alpha", "beta")
    other = hubs()
    environment = await other.make("alpha", "beta")
    assert environment.image == f"{PLACE}:{digest}"
    assert other.built == 0
    assert other.shared.watch.counts == {"pulled": 1}
    assert await other.owed() == []
    assert set(registry.tags) == {digest}


async def test_what_nobody_has_made_is_built(hubs: Callable[..., Hub]) -> None:
    """And owed to the registry."""
    hub = hubs()
    environment = await hub.make("alpha")
    assert hub.built == 1
    assert hub.shared.watch.counts == {"absent": 1}
    assert await hub.owed() == [environment.digest]


async def test_who_leaves_during_a_pull_leaves_nothing_behind(hubs: Callable[..., Hub]) -> None:
    await published(hubs(), "alpha")
    other = hubs()
    gate = other.transfers.switches.gates["pulled"] = asyncio.Event()
    start = asyncio.ensure_future(other.make("alpha"))

    async def pulling() -> bool:
        return bool(other.transfers.switches.calls["pulled"])

    await until(pulling)
    start.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert (other.engine.plans, dict(other.engine.names)) == ({}, {})


# -- what is wrong -----------------------------------------------------------------------------------------------------


def changed(config: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(config))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return document


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no image": lambda config: None,
    "an empty configuration": lambda config: {},
    "another digest label": lambda config: changed(config, "config", "Labels", "prebuilt_spawner.digest", to="0" * 64),
    "another base": lambda config: changed(config, "config", "Labels", "prebuilt_spawner.base_digest", to="0" * 64),
    "other packages": lambda config: changed(config, "config", "Labels", "prebuilt_spawner.packages", to="[]"),
    "a label that its base has not": lambda config: changed(config, "config", "Labels", "more", to="x"),
    "other base layers": lambda config: changed(config, "rootfs", "diff_ids", to=["sha256:" + "9" * 64]),
    "a layer below the base": lambda config: changed(
        config, "rootfs", "diff_ids", to=["sha256:" + "9" * 64, *config["rootfs"]["diff_ids"]]
    ),
    "root as its user": lambda config: changed(config, "config", "User", to="root"),
    "another command": lambda config: changed(config, "config", "Cmd", to=["sh"]),
    "one more variable": lambda config: changed(config, "config", "Env", to=[*config["config"]["Env"], "LD_PRELOAD=x"]),
    "another machine": lambda config: changed(config, "architecture", to="riscv64"),
    "a list for a configuration": lambda config: changed(config, "config", to=[1]),
    "a word for layers": lambda config: changed(config, "rootfs", to="layers"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_wrong_image_under_the_right_tag_is_refused_and_built(
    hubs: Callable[..., Hub],
    registry: MemoryRegistry,
    caplog: pytest.LogCaptureFixture,
    wrong: Callable[[dict[str, Any]], Any],
) -> None:
    """It is not even pulled; the log says what is wrong with it, and the tag stays where it is."""
    digest = await published(hubs(), "alpha")
    found = await registry.find(digest)
    assert found is not None
    registry.put(digest, wrong(dict(found.config or {})))
    before = dict(registry.tags)
    other = hubs()
    with caplog.at_level(logging.ERROR):
        assert await published(other, "alpha") == digest
    assert (other.built, other.transfers.switches.calls["pulled"]) == (1, 0)
    assert other.shared.watch.counts == {"wrong": 1}
    assert registry.tags == before
    assert [record.message for record in caplog.records if "is not used" in record.message]


async def test_another_image_than_the_one_that_was_looked_at_is_refused(hubs: Callable[..., Hub]) -> None:
    """Though the engine pulls by the manifest's digest."""
    hub = hubs()
    first, second = await published(hub, "alpha"), await published(hub, "beta")
    other = hubs()
    registry_plan = other.registry.plan
    other.registry.plan = lambda digest: registry_plan(hub.registry.tags[second])  # type: ignore[method-assign]
    environment = await other.make("alpha")
    assert environment.digest == first
    assert (other.built, other.shared.watch.counts) == (1, {"wrong": 1})
    assert len(other.engine.plans) == 1


@pytest.mark.parametrize("error", [REFUSAL, FAILURE, LayersGone("An image has gone. Start again.")])
async def test_what_cannot_be_pulled_is_built(hubs: Callable[..., Hub], error: PrebuiltError) -> None:
    """Whatever the engine says."""
    await published(hubs(), "alpha")
    other = hubs()
    other.transfers.switches.failures["pulled"] = error
    await other.make("alpha")
    assert (other.built, other.shared.watch.counts) == (1, {"broken": 1})


async def test_what_somebody_removes_right_after_its_pull_is_built(hubs: Callable[..., Hub]) -> None:
    await published(hubs(), "alpha")
    other = hubs()
    tagging, calls = other.engine.tag, 0

    async def tag(image: Any, reference: str) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise LayersGone("The image that was made has gone. Start again.")
        return await tagging(image, reference)

    other.engine.tag = tag  # type: ignore[method-assign]
    await other.make("alpha")
    assert other.built == 1


# -- a registry that does not help -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "outcome"), [(REFUSAL, "refused"), (FAILURE, "unreachable")])
async def test_a_registry_that_refuses_or_is_away_costs_a_build_and_one_line_in_the_log(
    hubs: Callable[..., Hub],
    registry: MemoryRegistry,
    caplog: pytest.LogCaptureFixture,
    error: PrebuiltError,
    outcome: str,
) -> None:
    """However many environments are asked for; and one line when it is back."""
    hub = hubs()
    registry.switches.failures["find"] = error
    with caplog.at_level(logging.INFO, "prebuilt_spawner.build.registry_watch"):
        for name in ("alpha", "beta", "gamma"):
            await hub.make(name)
            hub.seconds += 60
        assert hub.built == 3
        assert hub.shared.watch.counts == {outcome: 3}
        (line,) = [record.getMessage() for record in caplog.records]
        assert "they are built on this hub" in line
        assert error.detail in line
        del registry.switches.failures["find"]
        await hub.make("delta")
    assert [record.getMessage() for record in caplog.records][1:] == [
        "The registry can be used for looking for environments again"
    ]


async def test_a_registry_that_says_nothing_is_waited_for_once_in_a_while(
    hubs: Callable[..., Hub], registry: MemoryRegistry
) -> None:
    """For as long as a look may take; the next starts do not wait for it, until a pause has passed."""
    hub = hubs(look_seconds=0.02)
    gate = registry.switches.gates["find"] = asyncio.Event()
    await hub.make("alpha")
    await hub.make("beta")
    assert registry.switches.calls["find"] == 1
    assert registry.switches.cancelled["find"] == 1
    assert hub.shared.watch.counts == {"unreachable": 2}
    gate.set()
    hub.seconds += 31
    await hub.make("gamma")
    assert hub.shared.watch.counts == {"unreachable": 2, "absent": 1}
    assert hub.built == 3


async def test_without_a_registry_nothing_of_this_happens(hubs: Callable[..., Hub]) -> None:
    hub = hubs()
    hub.provider._shared = hub.provider._pushes = None
    await hub.provider.make(hub.environment("alpha"), report=ignore)
    assert hub.registry.switches.calls == {}
