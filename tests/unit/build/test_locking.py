"""Tests of `prebuilt_spawner.build.locking`: whose lock answers a free list."""

from __future__ import annotations

import pytest

from prebuilt_spawner.build.events import Phase
from prebuilt_spawner.build.locking import Locksmith
from prebuilt_spawner.build.provider import ProfileRequest
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.errors import IndexUnavailable, UnresolvableRequest

from .locking_world import base_image

# -- what resolves nothing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"refresh": True}, {"profile": ProfileRequest(slug="plain")}])
async def test_an_empty_list_is_the_empty_lock_and_resolves_nothing(world, more):
    assert await world.lock("a", **more) == Lock()
    assert world.resolves == 0
    assert world.events == []


async def test_an_empty_profile_needs_no_administrator_to_refresh_it(world):
    assert await world.lock("a", profile=ProfileRequest(slug="plain"), refresh=True) == Lock()


async def test_the_same_request_is_resolved_once_whoever_asks_and_reported_once(world):
    assert await world.pins("a", "demo") == {"demo": "1.0"}
    assert [event.phase for event in world.events] == [Phase.RESOLVING]
    world.resolver.publish("demo", "1.1")
    for user in ("a", "b"):
        assert await world.pins(user, "demo") == {"demo": "1.0"}
    assert world.resolves == 1
    assert len(world.events) == 1


async def test_the_order_of_requirements_does_not_matter(world):
    await world.lock("a", "demo", "other")
    await world.lock("b", "other", "demo")
    assert world.resolves == 1


async def test_another_index_is_another_request(world):
    await world.lock("a", "demo")
    world.locksmith = Locksmith(world.ledger, world.resolver, index_url="https://index.example/simple")
    world.resolver.publish("demo", "1.1")
    assert await world.pins("a", "demo") == {"demo": "1.1"}


async def test_what_cannot_be_resolved_is_not_remembered(world):
    with pytest.raises(UnresolvableRequest, match="pandsa"):
        await world.lock("a", "pandsa")
    world.resolver.publish("pandsa", "1.0")
    assert await world.pins("a", "pandsa") == {"pandsa": "1.0"}


# -- refresh of a free list --------------------------------------------------------------------------------------------


async def test_a_refresh_is_for_the_user_who_asks_and_for_those_who_come_first_afterwards(world):
    for user in ("a", "b"):
        await world.lock(user, "demo")
    world.resolver.publish("demo", "1.1")
    assert await world.pins("a", "demo", refresh=True) == {"demo": "1.1"}
    resolves = world.resolves
    assert await world.pins("a", "demo") == {"demo": "1.1"}
    assert await world.pins("b", "demo") == {"demo": "1.0"}
    assert await world.pins("c", "demo") == {"demo": "1.1"}
    assert world.resolves == resolves


async def test_a_refresh_starts_from_no_pins(world):
    await world.lock("a", "demo")
    await world.lock("a", "demo", refresh=True)
    assert world.resolver.requests[-1].preferences == {}


async def test_a_refresh_that_finds_nothing_newer_changes_nothing(world):
    before = await world.lock("a", "demo")
    assert await world.lock("a", "demo", refresh=True) == before
    assert world.resolves == 2


async def test_a_refresh_that_fails_leaves_the_lock_as_it_was(world):
    before = await world.lock("a", "demo")
    world.resolver.switches.failures["resolve"] = IndexUnavailable("The package index does not answer.")
    with pytest.raises(IndexUnavailable):
        await world.lock("a", "demo", refresh=True)
    assert await world.lock("a", "demo") == before


async def test_a_version_that_was_taken_back_leaves_with_a_refresh(world):
    world.resolver.publish("demo", "1.1")
    await world.lock("a", "demo")
    world.resolver.withdraw("demo", "1.1")
    assert await world.pins("a", "demo", refresh=True) == {"demo": "1.0"}
    assert await world.pins("b", "demo") == {"demo": "1.0"}


# -- another content of the base ---------------------------------------------------------------------------------------


async def test_a_patched_base_does_not_upgrade_packages(world):
    await world.lock("a", "demo")
    world.resolver.publish("demo", "1.1")
    assert await world.pins("a", "demo", base=base_image("2")) == {"demo": "1.0"}
    assert world.resolver.requests[-1].preferences == {"demo": "1.0"}
    resolves = world.resolves
    assert await world.pins("a", "demo", base=base_image("2")) == {"demo": "1.0"}
    assert world.resolves == resolves


async def test_a_patched_base_that_forces_a_newer_version_gets_it(world):
    await world.lock("a", "demo")
    world.resolver.withdraw("demo", "1.0")
    world.resolver.publish("demo", "1.1")
    assert await world.pins("a", "demo", base=base_image("2")) == {"demo": "1.1"}


async def test_each_keeps_their_own_versions_on_a_patched_base(world):
    for user in ("a", "b", "c"):
        await world.lock(user, "demo")
    world.resolver.publish("demo", "1.1")
    await world.lock("a", "demo", refresh=True)
    world.resolver.publish("demo", "1.2")
    patched = base_image("2")
    assert await world.pins("b", "demo", base=patched) == {"demo": "1.0"}
    assert await world.pins("a", "demo", base=patched) == {"demo": "1.1"}
    resolves = world.resolves
    assert await world.pins("c", "demo", base=patched) == {"demo": "1.0"}
    assert world.resolves == resolves, "what was carried over for one serves all who held the same"


async def test_a_first_timer_on_a_patched_base_gets_the_newest_lock_carried_over(world):
    await world.lock("a", "demo")
    world.resolver.publish("demo", "1.1")
    await world.lock("b", "demo", refresh=True)
    world.resolver.publish("demo", "1.2")
    assert await world.pins("c", "demo", base=base_image("2")) == {"demo": "1.1"}


@pytest.mark.parametrize("first", ["b", "a", "c"])
async def test_who_starts_first_on_a_patched_base_decides_for_nobody_else(world, first):
    for user in ("a", "b"):
        await world.lock(user, "demo")
    world.resolver.publish("demo", "1.1")
    await world.lock("a", "demo", refresh=True)
    world.resolver.publish("demo", "1.2")
    patched = base_image("2")
    wanted = {"a": "1.1", "b": "1.0", "c": "1.1", "d": "1.1"}
    for user in (first, *(user for user in wanted if user != first)):
        assert await world.pins(user, "demo", base=patched) == {"demo": wanted[user]}
    assert len(world.resolver.requests) == 4
    for user in wanted:
        assert await world.pins(user, "demo", base=base_image("3")) == {"demo": wanted[user]}


async def test_a_refresh_on_any_content_of_the_base_counts_for_those_who_come_first_on_another(world):
    await world.lock("a", "demo")
    world.resolver.publish("demo", "1.1")
    await world.lock("a", "demo", base=base_image("2"), refresh=True)
    assert await world.pins("c", "demo") == {"demo": "1.1"}
    assert await world.pins("a", "demo") == {"demo": "1.0"}


async def test_a_base_that_is_put_back_brings_the_first_lock_back(world):
    first = await world.lock("a", "demo")
    world.resolver.publish("demo", "1.1")
    await world.lock("a", "demo", base=base_image("2"))
    await world.lock("a", "demo", base=base_image("2"), refresh=True)
    resolves = world.resolves
    assert await world.lock("a", "demo") == first
    assert world.resolves == resolves


async def test_after_a_base_was_put_back_the_next_one_follows_what_was_used_last(world):
    await world.lock("a", "demo")
    world.resolver.publish("demo", "1.1")
    await world.lock("a", "demo", base=base_image("2"), refresh=True)
    await world.lock("a", "demo")
    assert await world.pins("a", "demo", base=base_image("3")) == {"demo": "1.0"}


async def test_the_same_base_under_another_name_is_the_same_request(world):
    await world.lock("a", "demo")
    world.resolver.publish("demo", "1.1")
    assert await world.pins("b", "demo", base=base_image(reference="mirror.example/base:1")) == {"demo": "1.0"}
    assert world.resolves == 1


async def test_another_base_is_no_reason_to_keep_versions(world):
    await world.lock("a", "demo")
    world.resolver.publish("demo", "1.1")
    assert await world.pins("a", "demo", base=base_image("2", reference="other:1")) == {"demo": "1.1"}
