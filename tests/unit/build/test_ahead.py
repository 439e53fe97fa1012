"""Layers of heavy wheels come before their image; the environment is the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import pytest_asyncio

from prebuilt_spawner.adapters.memory_carrier import MemoryCarrier
from prebuilt_spawner.build import ahead
from prebuilt_spawner.environment.base import InstalledDistribution
from prebuilt_spawner.image import plan
from prebuilt_spawner.image.archive import layer_digest

from .test_provider import World

NAMES = ("alpha", "beta", "gamma")


@pytest_asyncio.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Every wheel is heavy."""
    monkeypatch.setattr(plan, "HEAVY_FRAGMENT_BYTES", 1)
    monkeypatch.setattr(ahead, "MIN_WHEELS_BYTES", 0)
    world = World(tmp_path)
    yield world
    await world.ledger.close()


def layers(world: World, image_id: str) -> set[str]:
    """The digests of all layers above the base."""
    made = world.engine.plans[image_id]
    return {*made.lower.diff_ids[len(world.base.diff_ids) :], *map(layer_digest, made.layers)}


async def test_heavy_wheels_come_ahead_and_leave_no_image(world: World) -> None:
    image_id = await world.made(*NAMES)
    made = world.engine.plans[image_id]
    assert len(made.lower.diff_ids) == len(world.base.diff_ids) + len(NAMES)
    assert len(made.layers) == 1  # the notes
    assert set(world.engine.plans) == {image_id}


async def test_others_can_be_stacked_on_what_came_ahead(world: World) -> None:
    first = await world.made("alpha", "beta")
    assert world.stands_on(await world.made(*NAMES)) == first


async def test_where_an_image_is_there_to_be_stacked_on_nothing_comes_ahead(world: World) -> None:
    await world.made("alpha")
    with mock.patch.object(MemoryCarrier, "add", side_effect=AssertionError):
        await world.made("alpha", "beta")


@pytest.mark.parametrize("fails", ["add", "settle"])
async def test_what_does_not_come_ahead_comes_with_the_image(world: World, fails: str) -> None:
    async def settle(_: MemoryCarrier) -> None:
        return None

    nothing = {"add": lambda *_: False, "settle": settle}[fails]
    with mock.patch.object(MemoryCarrier, fails, nothing):
        image_id = await world.made(*NAMES)
    assert world.stands_on(image_id) == world.base.image_id


async def test_small_wheels_and_those_that_replace_the_bases_are_not_worth_it(world: World) -> None:
    """What takes the place of the base's lies on what takes that away."""
    environment = world.environment(*NAMES)
    assert ahead.is_worth_it(environment)
    present = InstalledDistribution(
        name="alpha", version="1.0", location="/site", metadata_directory="alpha-1.0.dist-info"
    )
    has_one = replace(world.probe, distributions={"alpha": present})
    assert not ahead.is_worth_it(replace(environment, probe=has_one))
    with mock.patch.object(ahead, "MIN_WHEELS_BYTES", 10**12):
        assert not ahead.is_worth_it(environment)


async def test_the_layers_are_those_that_the_image_has_without_it(world: World, tmp_path: Path) -> None:
    with_it = layers(world, await world.made(*NAMES))
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    with mock.patch.object(ahead, "MIN_WHEELS_BYTES", 10**12):
        without = layers(other, await other.made(*NAMES))
    await other.ledger.close()
    assert with_it == without
