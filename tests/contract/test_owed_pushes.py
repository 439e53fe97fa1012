"""What a ledger remembers of what hubs owe to registries: `prebuilt_spawner.build.pushes.PushMemory`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timezone

import pytest

from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.ledger import SqlLedger

WHEEL = LockedWheel(
    name="demo",
    version="1.0",
    filename="demo-1.0-py3-none-any.whl",
    url="https://user:secret@index.test/demo-1.0-py3-none-any.whl",
    sha256="a" * 64,
)
PLACE = {"hub": "hub", "place": "registry.test/env"}
ABOUT = {"base": "base:1", "base_digest": "b" * 64, "lock": Lock(wheels=(WHEEL,))}


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[SqlLedger]:
    ledger = SqlLedger(ledger_url)
    yield ledger
    await ledger.close()


async def owed(ledger: SqlLedger, **where: str) -> list[str]:
    return [one.digest for one in await ledger.owed_pushes(**{**PLACE, **where}, limit=10)]


async def test_a_debt_is_remembered_whole_and_without_credentials(ledger: SqlLedger) -> None:
    before = datetime.now(timezone.utc)
    await ledger.owe_push(**PLACE, digest="one", **ABOUT)
    (found,) = await ledger.owed_pushes(**PLACE)
    assert (found.digest, found.base, found.base_digest, found.attempts) == ("one", "base:1", "b" * 64, 0)
    assert found.lock.wheels[0].sha256 == WHEEL.sha256
    assert "secret" not in found.lock.wheels[0].url
    assert before <= found.since <= datetime.now(timezone.utc)


async def test_who_owes_twice_owes_once(ledger: SqlLedger) -> None:
    await asyncio.gather(*(ledger.owe_push(**PLACE, digest="one", **ABOUT) for _ in range(4)))
    assert await owed(ledger) == ["one"]


async def test_what_was_tried_least_comes_first_and_then_the_oldest(ledger: SqlLedger) -> None:
    for digest in ("one", "two", "three"):
        await ledger.owe_push(**PLACE, digest=digest, **ABOUT)
    await ledger.count_push_attempt(**PLACE, digest="one")
    assert await owed(ledger) == ["two", "three", "one"]
    assert [one.digest for one in await ledger.owed_pushes(**PLACE, limit=1)] == ["two"]


async def test_a_debt_is_one_hubs_to_one_place(ledger: SqlLedger) -> None:
    await ledger.owe_push(**PLACE, digest="one", **ABOUT)
    await ledger.owe_push(**{**PLACE, "hub": "other"}, digest="one", **ABOUT)
    assert await owed(ledger, place="elsewhere") == []
    await ledger.settle_push(**PLACE, digest="one")
    assert await owed(ledger) == []
    assert await owed(ledger, hub="other") == ["one"]


async def test_settling_what_is_not_owed_is_no_error(ledger: SqlLedger) -> None:
    await ledger.settle_push(**PLACE, digest="one")
    await ledger.count_push_attempt(**PLACE, digest="one")
    assert await owed(ledger) == []
