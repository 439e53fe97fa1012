"""What a lock may hold for one user: the policy is applied to it however it came about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prebuilt_spawner.build.provider import EnvironmentRequest, ProfileRequest
from prebuilt_spawner.environment.lock import Lock, to_pylock
from prebuilt_spawner.environment.policy import Policy, read_rules
from prebuilt_spawner.errors import PolicyRefusal

from .locking_world import World, base_probe

NO_DEMO = Policy(allow_custom_packages=True, denied_packages=read_rules({"demo": "it is broken"}))
DATA = ProfileRequest(slug="data", requirements=("demo",))


async def test_a_denied_dependency_is_refused_before_and_after_its_lock_is_there(world: World):
    """The first time, again from the ledger, and for whoever is denied it; others get it."""
    for user in ("a", "a", "b"):
        with pytest.raises(PolicyRefusal, match=r"demo 1\.0 .* broken\. extra, which you asked for"):
            await world.lock(user, "extra", policy=NO_DEMO)
    assert world.resolves == 1
    assert await world.pins("c", "extra", policy=Policy()) == {"demo": "1.0", "extra": "1.0"}


async def test_a_policy_that_changed_counts_for_a_lock_that_a_user_holds(world: World):
    """What was allowed last term is not installed today."""
    assert await world.pins("a", "extra", policy=Policy()) == {"demo": "1.0", "extra": "1.0"}
    with pytest.raises(PolicyRefusal):
        await world.lock("a", "extra", policy=NO_DEMO)
    with pytest.raises(PolicyRefusal):
        await world.lock("a", "extra", policy=NO_DEMO, refresh=True)


async def test_a_refusal_is_one_users_and_not_remembered(world: World):
    """Unlike what cannot be resolved for anybody."""
    with pytest.raises(PolicyRefusal):
        await world.lock("a", "extra", policy=NO_DEMO)
    assert await world.pins("a", "extra", policy=Policy())


async def test_the_known_lock_is_refused_as_a_start_would_be(world: World):
    """So the form says it; what is not resolved yet is not refused."""
    request = EnvironmentRequest(user="a", requirements=("extra",), base="base:1", policy=NO_DEMO)
    assert await world.locksmith.known_lock(request, world.base, world.probe) is None
    await world.lock("b", "extra")
    with pytest.raises(PolicyRefusal, match="broken"):
        await world.locksmith.known_lock(request, world.base, world.probe)


async def test_a_profile_may_hold_what_its_users_may_not_ask_for(world: World):
    """Alone, and with packages on top, which are checked."""
    world.resolver.publish("more", "1.0", "six")
    world.resolver.publish("six", "1.0")
    policy = Policy(allow_custom_packages=True, denied_packages=read_rules(["demo", "six"]))
    assert await world.pins("a", "demo", profile=DATA, policy=policy) == {"demo": "1.0"}
    assert await world.pins("a", "demo", "extra", profile=DATA, policy=policy) == {"demo": "1.0", "extra": "1.0"}
    with pytest.raises(PolicyRefusal, match=r"six 1\.0 .* more, which you asked for"):
        await world.lock("a", "demo", "more", profile=DATA, policy=policy)


async def test_a_package_of_the_profile_in_another_version_is_not_the_profiles(world: World):
    """Where what the user adds would move it."""
    world.resolver.publish("demo", "0.9")
    world.resolver.publish("old", "1.0", "demo<1")
    with pytest.raises(PolicyRefusal, match=r"demo 0\.9"):
        await world.lock("a", "demo", "old", profile=DATA, policy=NO_DEMO)


async def test_a_lock_file_is_exempt_too(world: World):
    """It is the administrator's."""
    wheel = world.resolver.publish("demo", "0.9")
    profile = ProfileRequest(slug="fixed", pylock=to_pylock(Lock(wheels=(wheel,))))
    assert await world.pins("a", profile=profile, policy=NO_DEMO) == {"demo": "0.9"}
    assert await world.pins("a", "other", profile=profile, policy=NO_DEMO) == {"demo": "0.9", "other": "1.0"}


async def test_what_the_base_has_is_not_installed_and_not_refused(world: World):
    """A list of packages is about what is added to the base."""
    world.probe = base_probe(demo="1.0")
    assert await world.pins("a", "extra", policy=NO_DEMO) == {"extra": "1.0"}


async def test_what_starts_as_root_is_refused_before_it_is_resolved(world: World):
    """By the settings or by the base; what a profile has alone is not."""
    world.probe = replace(base_probe(), uid=0, user="root")
    for policy in (Policy(allow_custom_packages=True), Policy(container_user="0")):
        with pytest.raises(PolicyRefusal, match="starts as root"):
            await world.lock("a", "other", policy=policy)
        with pytest.raises(PolicyRefusal, match="starts as root"):
            await world.lock("a", "demo", "other", profile=DATA, policy=policy)
        assert await world.pins("a", "demo", profile=DATA, policy=policy) == {"demo": "1.0"}
    assert world.resolves == 1
    assert await world.pins("a", "other", policy=Policy(container_user="1000")) == {"other": "1.0"}
