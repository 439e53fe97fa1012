"""A hub that starts again after it was killed: what it marks, what it removes, and what it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest

from prebuilt_spawner.adapters.memory_inventory import MemoryInventory
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.history import Outcome
from prebuilt_spawner.build.interface import DerivedImage
from prebuilt_spawner.build.recovery import recover
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.errors import EngineUnavailable, StorageFailure
from prebuilt_spawner.image.names import BASE_DIGEST_LABEL, DIGEST_LABEL
from prebuilt_spawner.image.plan import plan_image
from prebuilt_spawner.ledger import SqlLedger

from ...contract.engine_worlds import MemoryWorld


class World:
    """An engine with half-made images, and a ledger that knows of builds."""

    def __init__(self) -> None:
        self.memory = MemoryWorld()
        self.engine = self.memory.engine
        self.inventory = MemoryInventory(self.engine, repository=self.memory.repository)
        self.ledger = SqlLedger("sqlite://")

    async def build(self, word: str, *, hub: str = "hub", outcome: Outcome | None = None) -> int:
        build_id = await self.ledger.begin_build(
            hub=hub, digest=digest_of(word), base="base:1", requirements=[word], user="ada"
        )
        if outcome is not None:
            await self.ledger.end_build(build_id, outcome=outcome, phase_seconds={})
        return build_id

    async def image(self, word: str, *, name: bool = False) -> DerivedImage:
        base = await self.engine.resolve_base(self.memory.base)
        plan = plan_image(
            base=base,
            probe=await self.engine.probe(base),
            lock=Lock(),
            fragments=(),
            own_files={"opt/word": word.encode()},
            labels={DIGEST_LABEL: digest_of(word), BASE_DIGEST_LABEL: base.digest},
            environment={},
            digest=digest_of(word),
        )
        image = await self.engine.assemble(plan, report=ignore)
        return await self.engine.tag(image, f"{self.memory.repository}:{image.digest}") if name else image

    def there(self, image: DerivedImage) -> bool:
        return image.image_id in self.engine.plans


def digest_of(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.memory.start()
    yield world
    await world.ledger.close()


async def recovered(world: World) -> list[int]:
    return [record.id for record in await recover(world.ledger, world.inventory, hub="hub")]


async def test_a_build_that_was_cut_off_is_marked_and_its_half_made_image_goes(world):
    build_id, image = await world.build("one"), await world.image("one")
    assert await recovered(world) == [build_id]
    assert (await world.ledger.build(build_id)).outcome is Outcome.INTERRUPTED
    assert not world.there(image)
    assert await recovered(world) == []


async def test_an_image_that_got_its_name_before_the_end_stays(world):
    await world.build("one")
    image = await world.image("one", name=True)
    await recovered(world)
    assert world.there(image)


async def test_an_image_that_a_container_uses_stays(world):
    await world.build("one")
    image = await world.image("one")
    world.engine.in_use.add(image.image_id)
    await recovered(world)
    assert world.there(image)


async def test_what_another_hub_builds_now_stays(world):
    await world.build("one")
    other, image = await world.build("one", hub="other"), await world.image("one")
    await recovered(world)
    assert world.there(image)
    assert (await world.ledger.build(other)).outcome is Outcome.RUNNING


async def test_what_another_hub_built_longer_than_we_did_stays_too(world):
    """Its build began first, ours was the last one that began."""
    await world.build("one", hub="other")
    await world.build("one")
    image = await world.image("one")
    await recovered(world)
    assert world.there(image)


async def test_an_image_that_no_build_of_this_ledger_made_stays(world):
    image = await world.image("one")
    await world.build("two")
    await recovered(world)
    assert world.there(image)


@pytest.mark.parametrize(
    ("outcome", "stays"), [(Outcome.DONE, True), (Outcome.FAILED, False), (Outcome.CANCELLED, False)]
)
async def test_what_a_build_left_that_ended_without_an_image_goes(world, outcome, stays):
    await world.build("one", outcome=outcome)
    image = await world.image("one")
    assert await recovered(world) == []
    assert world.there(image) is stays


async def test_containers_that_this_hub_left_go(world):
    world.inventory.left_helpers = ["hub", "other", "hub"]
    await recovered(world)
    assert world.inventory.left_helpers == ["other"]


async def test_without_the_engine_the_builds_are_marked_and_the_rest_waits_for_the_next_start(world, caplog):
    build_id, image = await world.build("one"), await world.image("one")
    world.engine.unavailable = EngineUnavailable("Gone.")
    assert await recovered(world) == [build_id]
    assert "was not removed" in caplog.text
    world.engine.unavailable = None
    await recovered(world)
    assert not world.there(image)


async def test_a_ledger_that_cannot_be_used_is_said(world, monkeypatch):
    async def fail(**arguments: object) -> None:
        raise StorageFailure("Full.")

    monkeypatch.setattr(world.ledger, "interrupt_builds", fail)
    with pytest.raises(StorageFailure):
        await recovered(world)
