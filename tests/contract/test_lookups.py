"""What a ledger promises of many questions for locks at once: the answers of its single ones."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from prebuilt_spawner.build.interface import StoredLock
from prebuilt_spawner.build.lookups import GatheredReads, Lookup, Sought
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.ledger import SqlLedger, lookup_queries


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[SqlLedger]:
    ledger = SqlLedger(ledger_url)
    yield ledger
    await ledger.close()


def lock(version: int) -> Lock:
    wheel = LockedWheel(
        name="demo",
        version=str(version),
        filename=f"demo-{version}-py3-none-any.whl",
        url=f"https://index.example/demo-{version}-py3-none-any.whl",
        sha256=f"{version:064x}",
        size_bytes=version,
    )
    return Lock(wheels=(wheel,))


async def one_by_one(ledger: SqlLedger, lookup: Lookup) -> StoredLock | None:
    match lookup.sought:
        case Sought.HELD:
            return await ledger.held(owner=str(lookup.whose), request_digest=lookup.what)
        case Sought.HELD_IN_LINEAGE:
            return await ledger.held_in_lineage(owner=str(lookup.whose), lineage=lookup.what)
        case Sought.NEWEST:
            return await ledger.newest(scope=str(lookup.whose), request_digest=lookup.what)
        case Sought.NEWEST_IN_LINEAGE:
            return await ledger.newest_in_lineage(scope=str(lookup.whose), lineage=lookup.what)
        case Sought.DESCENDANT:
            return await ledger.descendant(ancestor_id=int(lookup.whose), request_digest=lookup.what)


async def filled(ledger: SqlLedger, chance: random.Random) -> list[Lookup]:
    """Many locks, some of which follow from others, and every question about them."""
    stored: list[StoredLock] = []
    for number in range(60):
        request = f"request{chance.randrange(8)}"
        ancestor = chance.choice(stored).id if stored and chance.random() < 0.5 else None
        stored.append(
            await ledger.remember(
                scope=chance.choice(["", "profile:a"]),
                request_digest=request,
                lineage=f"lineage{int(request[-1]) // 2}",
                lock=lock(number),
                ancestor_id=ancestor,
            )
        )
        await ledger.hold(owner=f"user:{chance.randrange(4)}", lock=chance.choice(stored))
    requests, lineages = [f"request{number}" for number in range(9)], [f"lineage{number}" for number in range(5)]
    asked = [
        *((Sought.HELD, f"user:{user}", what) for user in range(5) for what in requests),
        *((Sought.HELD_IN_LINEAGE, f"user:{user}", what) for user in range(5) for what in lineages),
        *((Sought.NEWEST, scope, what) for scope in ("", "profile:a", "profile:b") for what in requests),
        *((Sought.NEWEST_IN_LINEAGE, scope, what) for scope in ("", "profile:a", "profile:b") for what in lineages),
        *((Sought.DESCENDANT, one.id, what) for one in stored for what in requests),
    ]
    lookups = [Lookup(sought=sought, whose=whose, what=what) for sought, whose, what in asked]
    chance.shuffle(lookups)
    return lookups


@pytest.mark.parametrize("seed", range(3))
async def test_many_questions_have_the_answers_of_single_ones(ledger, seed):
    lookups = await filled(ledger, random.Random(seed))
    expected = [await one_by_one(ledger, lookup) for lookup in lookups]
    assert any(expected)
    assert None in expected
    assert await ledger.look_up(lookups) == expected
    assert await ledger.look_up(lookups[:1] * 3) == expected[:1] * 3
    assert await ledger.look_up(lookups[:7]) == expected[:7]
    assert await ledger.look_up([]) == []


async def test_what_changes_between_two_questions_shows(ledger, monkeypatch):
    """Also where no more locks are kept in memory than one."""
    monkeypatch.setattr(lookup_queries, "SHELF_LOCKS", 1)
    lookup = Lookup(sought=Sought.NEWEST, whose="", what="request")
    for number in range(3):
        made = await ledger.remember(
            scope="", request_digest="request", lineage="lineage", lock=lock(number), ancestor_id=None
        )
        assert await ledger.look_up([lookup]) == [made]


async def test_questions_of_one_turn_are_asked_at_once_and_each_task_gets_its_own_answer():
    import asyncio

    asked: list[int] = []

    class Counted:
        async def look_up(self, lookups):
            asked.append(len(lookups))
            return [f"{lookup.sought.value} {lookup.whose} {lookup.what}" for lookup in lookups]

    reads = GatheredReads(Counted())

    async def two(number: int) -> tuple:
        return (
            await reads.held(owner=f"user:{number}", request_digest="r"),
            await reads.newest(scope="", request_digest=f"r{number % 10}"),
        )

    answers = await asyncio.gather(*(two(number) for number in range(100)))
    assert answers == [(f"held user:{number} r", f"newest  r{number % 10}") for number in range(100)]
    assert asked == [100, 10]
