"""What the memory tells a clean-up, on a database in memory and on a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone

import pytest

from prebuilt_spawner.build.history import Outcome
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.image.stacking import Stack, StackedLayer
from prebuilt_spawner.ledger import SqlLedger


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        self.time += timedelta(hours=1)
        return self.time


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[SqlLedger]:
    ledger = SqlLedger(ledger_url, now=Clock())
    yield ledger
    await ledger.close()


def lock(version: str) -> Lock:
    wheel = LockedWheel(name="demo", version=version, filename="demo.whl", url="", sha256=version.zfill(64))
    return Lock(wheels=(wheel,))


async def use(ledger: SqlLedger, digest: str) -> None:
    await ledger.record_environment(digest=digest, base_digest="base", lock=lock("1"), size_bytes=1)


async def hold(ledger: SqlLedger, owner: str, version: str, *, request: str = "r", lineage: str = "l") -> None:
    stored = await ledger.remember(
        scope=owner, request_digest=request, lineage=lineage, lock=lock(version), ancestor_id=None
    )
    await ledger.hold(owner=owner, lock=stored)


async def test_the_last_use_is_known_of_what_was_made_or_used(ledger):
    await use(ledger, "one")
    await use(ledger, "two")
    await use(ledger, "one")
    found = await ledger.last_uses(["one", "two", "three"])
    assert set(found) == {"one", "two"}
    assert found["one"] > found["two"]
    assert await ledger.last_uses([]) == {}


async def test_any_number_of_environments_can_be_asked_for(ledger):
    await use(ledger, "digest-40000")
    assert set(await ledger.last_uses([f"digest-{number}" for number in range(40_001)])) == {"digest-40000"}


async def test_profiles_hold_their_last_lock_for_each_request(ledger):
    await hold(ledger, "profile:data", "1", request="old base")
    await hold(ledger, "profile:data", "2", request="new base")
    await hold(ledger, "profile:data", "7", request="other image", lineage="other")
    await hold(ledger, "profile:maths", "3")
    await hold(ledger, "profile:maths", "4")
    await hold(ledger, "user:profile:x", "5")
    found = await ledger.profile_locks()
    assert {slug: [each.wheels[0].version for each in locks] for slug, locks in found.items()} == {
        "data": ["2", "7"],
        "maths": ["4"],
    }


async def test_a_base_that_was_put_back_brings_the_profiles_lock_back(ledger):
    for request, version in (("old base", "1"), ("new base", "2"), ("old base", "1")):
        await hold(ledger, "profile:data", version, request=request)
    assert [each.wheels[0].version for each in (await ledger.profile_locks())["data"]] == ["1"]


LATER = datetime(2040, 1, 1, tzinfo=timezone.utc)


async def remove(ledger: SqlLedger, digest: str) -> None:
    assert await ledger.begin_removal(digest, unused_since=LATER)
    await ledger.end_removal(digest, removed=True)


async def test_what_was_used_meanwhile_is_not_removed(ledger):
    await use(ledger, "one")
    looked_at = (await ledger.last_uses(["one"]))["one"]
    await ledger.use_environment("one")
    assert not await ledger.begin_removal("one", unused_since=looked_at)
    assert await ledger.begin_removal("one", unused_since=LATER)


async def test_who_wants_to_use_an_image_waits_for_the_end_of_its_removal_and_of_no_other():
    ledger = SqlLedger("sqlite://")
    await use(ledger, "one")
    assert await ledger.begin_removal("one", unused_since=LATER)
    using = asyncio.ensure_future(ledger.use_environment("one"))
    for _ in range(5):
        await ledger.use_environment("two")
    assert not using.done()
    assert not await ledger.begin_removal("one", unused_since=LATER), "one removal at a time"
    await ledger.end_removal("one", removed=False)
    await asyncio.wait_for(using, 10)
    assert not await ledger.begin_removal("one", unused_since=datetime.now(timezone.utc) - timedelta(hours=1))
    await ledger.close()


async def test_a_removal_that_was_killed_keeps_nobody_waiting_for_ever(ledger):
    """The clock goes on by an hour at each look."""
    await use(ledger, "one")
    assert await ledger.begin_removal("one", unused_since=LATER)
    await asyncio.wait_for(ledger.use_environment("one"), 10)
    assert await ledger.begin_removal("one", unused_since=LATER)


async def test_of_many_who_use_and_remove_at_once_no_user_sees_an_image_that_then_goes(tmp_path):
    """Each notes its use, looks, and finds the image as it saw it a moment later."""
    ledgers = [SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") for _ in range(2)]
    images = set()

    async def start(number: int) -> None:
        digest = f"image-{number}"
        await asyncio.sleep(number % 7 * 0.002)
        await ledgers[0].use_environment(digest)
        seen = digest in images
        await asyncio.sleep(0.01)
        assert (digest in images) == seen

    async def clean(number: int) -> None:
        digest = f"image-{number}"
        await asyncio.sleep(number % 5 * 0.002)
        if await ledgers[1].begin_removal(digest, unused_since=before):
            await asyncio.sleep(0.002)
            images.discard(digest)
            await ledgers[1].end_removal(digest, removed=True)

    for number in range(40):
        await use(ledgers[0], f"image-{number}")
        images.add(f"image-{number}")
    before = datetime.now(timezone.utc)
    await asyncio.gather(*(act(number) for number in range(40) for act in (start, clean)))
    for ledger in ledgers:
        await ledger.close()


async def test_what_runs_is_being_built(ledger):
    asked = {"base": "base", "requirements": [], "user": "ada"}
    ended = await ledger.begin_build(hub="hub", digest="ended", **asked)
    await ledger.begin_build(hub="hub", digest="runs", **asked)
    await ledger.begin_build(hub="other", digest="runs too", **asked)
    await ledger.begin_build(hub="other", digest="", **asked)
    await ledger.end_build(ended, outcome=Outcome.DONE, phase_seconds={})
    assert set(await ledger.digests_being_built()) == {"runs", "runs too"}
    assert not await ledger.begin_removal("runs", unused_since=LATER)
    assert await ledger.begin_removal("ended", unused_since=LATER)


async def test_nothing_is_stacked_on_an_environment_that_was_forgotten_until_it_is_made_again(ledger):
    stack = Stack(digest="one", layers=(StackedLayer(diff_id="sha256:1", wheels=frozenset(["a"])),))
    about = {"layout_version": 2, "base_digest": "base"}

    async def record() -> None:
        await ledger.record_image(stack, **about, lock=lock("1"), size_bytes=1)

    await record()
    await remove(ledger, "one")
    await remove(ledger, "never there")
    assert await ledger.stacks(**about, wheels={"a"}) == []
    assert await ledger.popularity({"a"}) == {}
    assert await ledger.last_uses(["one"]) == {}
    await record()
    assert await ledger.stacks(**about, wheels={"a"}) == [stack]
