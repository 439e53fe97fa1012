"""Tests of `prebuilt_spawner.build.locking`: the locks of profiles, and of what people add to them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from prebuilt_spawner.build.provider import ProfileRequest
from prebuilt_spawner.environment.lock import Lock, parse_pylock, to_pylock
from prebuilt_spawner.errors import MalformedRequest, PolicyRefusal

from .locking_world import DATA, World, base_image, base_probe

# -- profiles ----------------------------------------------------------------------------------------------------------


async def test_a_profiles_lock_is_everybodys_and_kept_apart_from_free_lists(world):
    await world.lock("a", "demo", profile=DATA)
    world.resolver.publish("demo", "1.1")
    assert await world.pins("b", "demo", profile=DATA) == {"demo": "1.0"}
    assert await world.pins("b", "demo") == {"demo": "1.1"}
    assert await world.pins("b", "demo", profile=ProfileRequest(slug="new", requirements=("demo",))) == {"demo": "1.1"}


async def test_a_user_may_not_refresh_a_profile(world):
    await world.lock("a", "demo", profile=DATA)
    with pytest.raises(PolicyRefusal, match=r"profile data .* administrator") as caught:
        await world.lock("a", "demo", profile=DATA, refresh=True)
    assert caught.value.about == "refresh"
    assert world.resolves == 1


async def test_the_order_of_a_profiles_requirements_does_not_turn_it_into_a_free_list(world):
    profile = ProfileRequest(slug="data", requirements=("other", "demo"))
    with pytest.raises(PolicyRefusal):
        await world.lock("a", "demo", "other", profile=profile, refresh=True)


async def test_an_administrators_refresh_renews_a_profile_for_everybody(world):
    await world.lock("a", "demo", profile=DATA)
    world.resolver.publish("demo", "1.1")
    await world.lock("root", "demo", profile=DATA, refresh=True, may_refresh_profile=True)
    assert await world.pins("a", "demo", profile=DATA) == {"demo": "1.1"}


async def test_being_an_administrator_alone_refreshes_nothing(world):
    await world.lock("a", "demo", profile=DATA)
    world.resolver.publish("demo", "1.1")
    assert await world.pins("root", "demo", profile=DATA, may_refresh_profile=True) == {"demo": "1.0"}


async def test_adding_a_package_does_not_move_the_profiles(world):
    await world.lock("a", "demo", profile=DATA)
    world.resolver.publish("demo", "1.1")
    assert await world.pins("b", "demo", "extra", profile=DATA) == {"demo": "1.0", "extra": "1.0"}


async def test_a_profiles_lock_is_made_first_where_a_user_who_adds_to_it_is_the_first(world):
    await world.lock("a", "demo", "extra", profile=DATA)
    assert [request.requirements for request in world.resolver.requests] == [("demo",), ("demo", "extra")]
    world.resolver.publish("demo", "1.1")
    assert await world.pins("b", "demo", profile=DATA) == {"demo": "1.0"}


async def test_a_refresh_with_added_packages_renews_the_users_and_not_the_profiles(world):
    await world.lock("a", "demo", "extra", profile=DATA)
    world.resolver.publish("demo", "1.1")
    world.resolver.publish("extra", "1.1", "demo")
    assert await world.pins("a", "demo", "extra", profile=DATA, refresh=True) == {"demo": "1.0", "extra": "1.1"}
    assert await world.pins("a", "demo", profile=DATA) == {"demo": "1.0"}


# -- a profile and more ------------------------------------------------------------------------------------------------


async def refresh_profile(world: World, **more) -> Lock:
    return await world.lock("root", "demo", profile=DATA, refresh=True, may_refresh_profile=True, **more)


async def test_a_free_list_of_the_same_packages_does_not_answer_for_a_profile_and_more(world):
    await world.lock("a", "demo", "extra")
    world.resolver.publish("demo", "1.1")
    assert await world.pins("b", "demo", profile=DATA) == {"demo": "1.1"}
    assert await world.pins("b", "demo", "extra", profile=DATA) == {"demo": "1.1", "extra": "1.0"}


async def test_people_without_a_profile_never_get_a_profiles_old_pins(world):
    await world.lock("a", "demo", profile=DATA)
    world.resolver.publish("demo", "1.1")
    await world.lock("a", "demo", "extra", profile=DATA)
    for user in ("b", "a"):
        assert await world.pins(user, "demo", "extra") == {"demo": "1.1", "extra": "1.0"}


async def test_two_profiles_of_the_same_packages_do_not_answer_for_each_other(world):
    await world.lock("a", "demo", "extra", profile=DATA)
    world.resolver.publish("demo", "1.1")
    other = ProfileRequest(slug="other", requirements=("demo",))
    assert await world.pins("a", "demo", "extra", profile=other) == {"demo": "1.1", "extra": "1.0"}


async def test_a_profile_that_grows_to_somebodys_list_is_not_answered_with_their_lock(world):
    await world.lock("a", "demo", "extra", profile=DATA)
    world.resolver.publish("demo", "1.1")
    grown = ProfileRequest(slug="data", requirements=("demo", "extra"))
    assert await world.pins("a", "demo", "extra", profile=grown) == {"demo": "1.1", "extra": "1.0"}


async def test_after_an_administrators_refresh_everybody_has_the_profiles_new_versions_and_keeps_their_own(world):
    for user in ("a", "b"):
        await world.lock(user, "demo", "extra", profile=DATA)
    world.resolver.publish("demo", "1.1")
    world.resolver.publish("extra", "1.1", "demo")
    await world.lock("b", "demo", "extra", profile=DATA, refresh=True)
    await refresh_profile(world)
    assert await world.pins("a", "demo", "extra", profile=DATA) == {"demo": "1.1", "extra": "1.0"}
    assert await world.pins("b", "demo", "extra", profile=DATA) == {"demo": "1.1", "extra": "1.1"}
    resolves = world.resolves
    for user, extra in (("newcomer", "1.1"), ("a", "1.0"), ("b", "1.1")):
        assert await world.pins(user, "demo", "extra", profile=DATA) == {"demo": "1.1", "extra": extra}
    assert world.resolves == resolves


async def test_a_newcomer_who_is_the_first_after_an_administrators_refresh_has_the_profiles_new_versions(world):
    await world.lock("a", "demo", "extra", profile=DATA)
    world.resolver.publish("demo", "1.1")
    await refresh_profile(world)
    assert await world.pins("c", "demo", "extra", profile=DATA) == {"demo": "1.1", "extra": "1.0"}


async def test_a_profile_that_moved_moves_what_people_added_on_a_patched_base_too(world):
    await world.lock("a", "demo", "extra", profile=DATA)
    world.resolver.publish("demo", "1.1")
    world.resolver.publish("extra", "1.1", "demo")
    await refresh_profile(world)
    patched = base_image("2")
    assert await world.pins("a", "demo", "extra", profile=DATA, base=patched) == {"demo": "1.1", "extra": "1.0"}


async def test_a_profiles_refresh_that_goes_back_a_version_counts_too(world):
    world.resolver.publish("demo", "1.1")
    await world.lock("a", "demo", "extra", profile=DATA)
    world.resolver.withdraw("demo", "1.1")
    await refresh_profile(world)
    world.resolver.publish("demo", "1.1")
    assert await world.pins("a", "demo", "extra", profile=DATA) == {"demo": "1.0", "extra": "1.0"}


async def test_a_profile_that_went_back_to_the_bases_version_takes_what_people_added_along(world):
    world.resolver.publish("demo", "1.1")
    await world.lock("a", "demo", "extra", profile=DATA)
    world.probe = base_probe(demo="1.0")
    patched = base_image("2")
    world.resolver.withdraw("demo", "1.1")
    await refresh_profile(world, base=patched)
    world.resolver.publish("demo", "1.1")
    assert await world.pins("a", "demo", profile=DATA, base=patched) == {}
    await world.lock("a", "demo", "extra", profile=DATA, base=patched)
    assert world.resolver.requests[-1].preferences == {"extra": "1.0"}


async def test_on_a_patched_base_what_a_user_had_goes_before_a_profile_that_did_not_move(world):
    """Here the user's own package forces another version than the profile's."""
    world.resolver.publish("demo", "1.1")
    await world.lock("a", "demo", profile=DATA, base=base_image("1"))
    world.resolver.publish("demo", "1.2")
    asked = ("demo!=1.1", "extra")
    assert await world.pins("a", *asked, profile=DATA) == {"demo": "1.2", "extra": "1.0"}
    world.resolver.publish("demo", "1.3")
    assert await world.pins("a", *asked, profile=DATA, base=base_image("2")) == {"demo": "1.2", "extra": "1.0"}
    assert world.resolver.requests[-1].preferences == {"demo": "1.2", "extra": "1.0"}


# -- profiles with a lock file -----------------------------------------------------------------------------------------


def with_file(world: World, *versions: tuple[str, str]) -> ProfileRequest:
    wheels = tuple(world.resolver.publish(name, version) for name, version in versions)
    return ProfileRequest(slug="fixed", requirements=("demo",), pylock=to_pylock(Lock(wheels=wheels)))


async def test_a_lock_file_is_the_profiles_lock_and_nothing_is_resolved(world):
    profile = with_file(world, ("demo", "0.9"), ("other", "0.8"))
    assert await world.pins("a", "demo", profile=profile) == {"demo": "0.9", "other": "0.8"}
    assert world.resolves == 0
    assert world.events == []


async def test_a_lock_file_that_was_replaced_counts_at_once(world):
    await world.lock("a", "demo", profile=with_file(world, ("demo", "0.9")))
    assert await world.pins("a", "demo", profile=with_file(world, ("demo", "0.7"))) == {"demo": "0.7"}


async def test_a_lock_file_alone_makes_a_profile(world):
    profile = ProfileRequest(slug="fixed", pylock=with_file(world, ("demo", "0.9")).pylock)
    assert await world.pins("a", profile=profile) == {"demo": "0.9"}


async def test_what_the_base_has_at_that_very_version_is_left_out_of_a_lock_file(world):
    profile = with_file(world, ("demo", "0.9"), ("other", "0.8"))
    world.probe = base_probe(demo="0.9.0", other="0.7")
    assert await world.pins("a", "demo", profile=profile) == {"other": "0.8"}


async def test_packages_that_are_added_to_a_lock_file_keep_its_pins(world):
    profile = with_file(world, ("demo", "0.9"))
    assert await world.pins("a", "demo", "extra", profile=profile) == {"demo": "0.9", "extra": "1.0"}
    assert world.resolves == 1


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_lock_file_is_renewed_by_its_owner_only(world, allowed):
    with pytest.raises(PolicyRefusal, match="fixed") as caught:
        await world.lock(
            "a", "demo", profile=with_file(world, ("demo", "0.9")), refresh=True, may_refresh_profile=allowed
        )
    assert caught.value.about == "refresh"


async def test_a_lock_file_is_read_once_for_each_base_and_never_on_the_event_loop(world, monkeypatch):
    threads: list[int] = []

    def parse(*args, **more):
        threads.append(threading.get_ident())
        return parse_pylock(*args, **more)

    monkeypatch.setattr("prebuilt_spawner.build.lock_files.parse_pylock", parse)
    profile = with_file(world, ("demo", "0.9"))
    await asyncio.gather(*(world.lock(user, "demo", profile=profile) for user in "abc"))
    await world.lock("a", "demo", "extra", profile=profile)
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    await world.lock("a", "demo", profile=profile, base=base_image("2"))
    assert len(threads) == 2


async def test_lock_files_that_were_not_used_for_long_are_forgotten(world, monkeypatch):
    parsed: list[str] = []

    def parse(text, *args, **more):
        parsed.append(text)
        return parse_pylock(text, *args, **more)

    monkeypatch.setattr("prebuilt_spawner.build.lock_files.parse_pylock", parse)
    monkeypatch.setattr("prebuilt_spawner.build.lock_files._KEPT_LOCKS", 32)
    used = with_file(world, ("demo", "0.1"))
    for number in range(100):
        await world.lock("a", "demo", profile=with_file(world, ("demo", f"1.{number}")))
        await world.lock("a", "demo", profile=used)
    await world.lock("a", "demo", profile=with_file(world, ("demo", "1.0")))
    assert parsed.count(used.pylock) == 1
    assert len(parsed) == 102


async def test_a_broken_lock_file_names_the_profile(world):
    with pytest.raises(MalformedRequest, match="profile fixed"):
        await world.lock("a", "demo", profile=ProfileRequest(slug="fixed", requirements=("demo",), pylock="no TOML ["))
