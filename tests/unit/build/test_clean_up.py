"""A clean-up over doubles: what goes, what stays, and what it does while others use images."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone

import pytest

from prebuilt_spawner.adapters.memory import MemoryEngine
from prebuilt_spawner.adapters.memory_inventory import MemoryInventory
from prebuilt_spawner.build.clean_up import Cleaned, clean_up
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.retention import Reason
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.errors import EngineFailure, StorageFailure
from prebuilt_spawner.image.names import BASE_DIGEST_LABEL, DIGEST_LABEL
from prebuilt_spawner.image.plan import plan_image
from prebuilt_spawner.ledger import SqlLedger

from ...contract.engine_worlds import MemoryWorld

DAY = timedelta(days=1)


class World:
    """An engine with images, and a ledger with a clock of the test's own."""

    def __init__(self) -> None:
        self.memory = MemoryWorld()
        self.engine: MemoryEngine = self.memory.engine
        self.repository = self.memory.repository
        self.inventory = MemoryInventory(self.engine, repository=self.repository)
        self.time = datetime(2030, 1, 1, tzinfo=timezone.utc)
        self.ledger = SqlLedger("sqlite://", now=lambda: self.time)

    async def image(self, word: str) -> str:
        """The digest of an image that is used now."""
        digest = hashlib.sha256(word.encode()).hexdigest()
        base = await self.engine.resolve_base(self.memory.base)
        plan = plan_image(
            base=base,
            probe=await self.engine.probe(base),
            lock=Lock(),
            fragments=(),
            own_files={"opt/word": word.encode()},
            labels={DIGEST_LABEL: digest, BASE_DIGEST_LABEL: base.digest},
            environment={},
            digest=digest,
        )
        await self.engine.tag(await self.engine.assemble(plan, report=ignore), self.name(digest))
        await self.use(digest)
        return digest

    async def use(self, digest: str) -> None:
        await self.ledger.record_environment(digest=digest, base_digest="base", lock=Lock(), size_bytes=1)

    def name(self, digest: str) -> str:
        return f"{self.repository}:{digest}"

    def has(self, digest: str) -> bool:
        return self.name(digest) in self.engine.names

    async def clean(self, *, days: float = 14, dry_run: bool = False) -> Cleaned:
        return await clean_up(
            self.inventory,
            self.ledger,
            repository=self.repository,
            profiles=(),
            older_than=days * DAY,
            now=lambda: self.time,
            dry_run=dry_run,
        )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.memory.start()
    yield world
    await world.ledger.close()


async def test_old_images_go_and_the_ledger_forgets_them(world):
    old = await world.image("old")
    world.time += 20 * DAY
    young = await world.image("young")
    cleaned = await world.clean()
    assert [image.digest for image in cleaned.removed] == [old]
    assert [(kept.image.digest, kept.reason) for kept in cleaned.kept] == [(young, Reason.USED_LATELY)]
    assert not world.has(old)
    assert world.has(young)
    assert set(await world.ledger.last_uses([old, young])) == {young}


async def test_a_dry_run_says_the_same_and_does_nothing(world):
    old = await world.image("old")
    world.time += 20 * DAY
    dry = await world.clean(dry_run=True)
    assert world.has(old)
    assert world.inventory.switches.calls["remove"] == 0
    assert dry == await world.clean()
    assert not world.has(old)


async def test_an_image_that_is_used_after_it_was_chosen_stays(world):
    old, other = await world.image("old"), await world.image("other")
    world.time += 20 * DAY
    gate = world.inventory.switches.gates["remove"] = asyncio.Event()
    cleaning = asyncio.ensure_future(world.clean())
    while not world.inventory.switches.calls["remove"]:
        await asyncio.sleep(0)
    # The first is being removed; the second was chosen too, and is used now.
    removing, waiting = old, other
    await world.ledger.use_environment(waiting)
    gate.set()
    cleaned = await cleaning
    assert [image.digest for image in cleaned.removed] == [removing]
    assert [(kept.image.digest, kept.reason) for kept in cleaned.kept] == [(waiting, Reason.USED_LATELY)]
    assert world.has(waiting)


async def test_who_wants_an_image_that_is_being_removed_waits_and_sees_that_it_is_gone(world):
    old = await world.image("old")
    world.time += 20 * DAY
    gate = world.inventory.switches.gates["remove"] = asyncio.Event()
    cleaning = asyncio.ensure_future(world.clean())
    while not world.inventory.switches.calls["remove"]:
        await asyncio.sleep(0)
    using = asyncio.ensure_future(world.ledger.use_environment(old))
    await world.ledger.use_environment("another")
    assert not using.done()
    gate.set()
    await asyncio.wait_for(using, 10)
    assert not world.has(old)
    await cleaning


async def test_an_image_that_a_container_uses_by_the_time_it_is_removed_stays(world):
    old = await world.image("old")
    world.time += 20 * DAY
    gate = world.inventory.switches.gates["remove"] = asyncio.Event()
    cleaning = asyncio.ensure_future(world.clean())
    while not world.inventory.switches.calls["remove"]:
        await asyncio.sleep(0)
    world.engine.in_use.add(world.engine.names[world.name(old)])
    gate.set()
    assert [kept.reason for kept in (await cleaning).kept] == [Reason.IN_USE]
    assert world.has(old)
    assert set(await world.ledger.last_uses([old])) == {old}


async def test_what_fails_at_one_image_is_said_and_the_image_can_be_used_and_removed_later(world):
    old = await world.image("old")
    world.time += 20 * DAY
    world.inventory.switches.failures["remove"] = EngineFailure("Broken.")
    cleaned = await world.clean()
    assert (cleaned.removed, cleaned.kept, [error.message for error in cleaned.failures]) == ((), (), ["Broken."])
    del world.inventory.switches.failures["remove"]
    assert [image.digest for image in (await world.clean()).removed] == [old]


async def test_a_clean_up_that_is_cancelled_leaves_nobody_waiting(world):
    old = await world.image("old")
    world.time += 20 * DAY
    world.inventory.switches.gates["remove"] = asyncio.Event()
    cleaning = asyncio.ensure_future(world.clean())
    while not world.inventory.switches.calls["remove"]:
        await asyncio.sleep(0)
    cleaning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cleaning
    await asyncio.wait_for(world.ledger.use_environment(old), 10)
    assert world.has(old)


async def test_without_the_ledger_nothing_is_removed(world, monkeypatch):
    old = await world.image("old")

    async def fail(*arguments: object) -> None:
        raise StorageFailure("Full.")

    monkeypatch.setattr(world.ledger, "last_uses", fail)
    with pytest.raises(StorageFailure):
        await world.clean(days=0)
    assert world.has(old)
