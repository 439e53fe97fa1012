"""Tests of `prebuilt_spawner.build.locking`: whose lock answers a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone

import pytest

from prebuilt_spawner.adapters.memory import MemoryResolver
from prebuilt_spawner.build.events import BuildEvent, Phase
from prebuilt_spawner.build.locking import Locksmith
from prebuilt_spawner.build.provider import EnvironmentRequest, ProfileRequest
from prebuilt_spawner.environment.base import BaseImage, BaseProbe, InstalledDistribution, InstallScheme
from prebuilt_spawner.environment.lock import Lock, to_pylock
from prebuilt_spawner.errors import IndexUnavailable, MalformedRequest, PolicyRefusal, UnresolvableRequest
from prebuilt_spawner.ledger import SqlLedger

SITE = "/usr/lib/python3.11/site-packages"


def base_image(digest: str = "1", reference: str = "base:1") -> BaseImage:
    return BaseImage(
        reference=reference,
        image_id="sha256:" + digest * 64,
        digest=digest * 64,
        diff_ids=("sha256:" + digest * 64,),
        config={},
        os="linux",
        architecture="amd64",
    )


def base_probe(**installed: str) -> BaseProbe:
    """A probe of a base that has these packages."""
    return BaseProbe(
        python_version="3.11.2",
        implementation="cpython",
        abi="cp311",
        cache_tag="cpython-311",
        machine="x86_64",
        glibc=(2, 36),
        interpreter="/usr/bin/python3",
        stdlib="/usr/lib/python3.11",
        virtual=False,
        markers={
            "implementation_name": "cpython",
            "implementation_version": "3.11.2",
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "6.1",
            "platform_system": "Linux",
            "platform_version": "1",
            "python_full_version": "3.11.2",
            "python_version": "3.11",
            "sys_platform": "linux",
        },
        scheme=InstallScheme(purelib=SITE, platlib=SITE, headers="/usr/include", scripts="/usr/bin", data="/usr"),
        user="jovyan",
        uid=1000,
        gid=100,
        home="/home/jovyan",
        distributions={
            name: InstalledDistribution(
                name=name, version=version, location=SITE, metadata_directory=f"{name}-{version}.dist-info"
            )
            for name, version in installed.items()
        },
    )


class World:
    """A locksmith with an index that tests publish on, and a clock that moves at every look."""

    def __init__(self) -> None:
        self.resolver = MemoryResolver()
        self.time = datetime(2030, 1, 1, tzinfo=timezone.utc)
        self.ledger = SqlLedger("sqlite://", now=self.tick)
        self.locksmith = Locksmith(self.ledger, self.resolver)
        self.base = base_image()
        self.probe = base_probe()
        self.events: list[BuildEvent] = []

    def tick(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time

    @property
    def resolves(self) -> int:
        return len(self.resolver.requests)

    async def lock(self, user: str, *requirements: str, base: BaseImage | None = None, **more) -> Lock:
        request = EnvironmentRequest(user=user, requirements=requirements, base="base:1", **more)
        return await self.locksmith.lock_for(request, base or self.base, self.probe, report=self.events.append)

    async def pins(self, user: str, *requirements: str, **more) -> dict[str, str]:
        return (await self.lock(user, *requirements, **more)).pins


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.resolver.publish("demo", "1.0")
    world.resolver.publish("extra", "1.0", "demo")
    world.resolver.publish("other", "1.0")
    yield world
    await world.locksmith.close()
    await world.ledger.close()


DATA = ProfileRequest(slug="data", requirements=("demo",))


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


# -- profiles ----------------------------------------------------------------------------------------------------------


async def test_a_profiles_lock_is_everybodys_and_kept_apart_from_free_lists(world):
    await world.lock("a", "demo", profile=DATA)
    world.resolver.publish("demo", "1.1")
    assert await world.pins("b", "demo", profile=DATA) == {"demo": "1.0"}
    assert await world.pins("b", "demo") == {"demo": "1.1"}
    assert await world.pins("b", "demo", profile=ProfileRequest(slug="new", requirements=("demo",))) == {"demo": "1.1"}


async def test_a_user_may_not_refresh_a_profile(world):
    await world.lock("a", "demo", profile=DATA)
    with pytest.raises(PolicyRefusal, match=r"profile data .* administrator"):
        await world.lock("a", "demo", profile=DATA, refresh=True)
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


async def test_what_a_user_had_goes_before_the_profiles_pins_on_a_patched_base(world):
    await world.lock("a", "demo", "extra", profile=DATA)
    world.resolver.publish("demo", "1.1")
    await world.lock("root", "demo", profile=DATA, refresh=True, may_refresh_profile=True)
    patched = base_image("2")
    assert await world.pins("a", "demo", "extra", profile=DATA, base=patched) == {"demo": "1.0", "extra": "1.0"}
    assert await world.pins("a", "demo", profile=DATA, base=patched) == {"demo": "1.1"}


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
    with pytest.raises(PolicyRefusal, match="fixed"):
        await world.lock(
            "a", "demo", profile=with_file(world, ("demo", "0.9")), refresh=True, may_refresh_profile=allowed
        )


async def test_a_broken_lock_file_names_the_profile(world):
    with pytest.raises(MalformedRequest, match="profile fixed"):
        await world.lock("a", "demo", profile=ProfileRequest(slug="fixed", requirements=("demo",), pylock="no TOML ["))


# -- several at once ---------------------------------------------------------------------------------------------------


@pytest.fixture
def gate(world) -> asyncio.Event:
    """Resolving waits until this is set."""
    gate = asyncio.Event()
    world.resolver.switches.gates["resolve"] = gate
    return gate


async def until_resolving(world: World, times: int = 1) -> None:
    while world.resolves < times:  # noqa: ASYNC110  # the ledger's threads decide when
        await asyncio.sleep(0)


async def until_waiting(world: World, waiters: int) -> None:
    """Until so many have been told that it is being resolved."""
    while len(world.events) < waiters:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_people_who_ask_at_the_same_time_share_one_resolve_and_each_is_told(world, gate):
    waiting = [asyncio.ensure_future(world.lock(user, "demo")) for user in "abcde"]
    await until_waiting(world, 5)
    gate.set()
    locks = await asyncio.gather(*waiting)
    assert world.resolves == 1
    assert len({lock.packages for lock in locks}) == 1
    world.resolver.publish("demo", "1.1")
    for user in "abcde":
        assert await world.pins(user, "demo") == {"demo": "1.0"}


async def test_different_requests_do_not_wait_for_each_other(world, gate):
    waiting = [asyncio.ensure_future(world.lock("a", name)) for name in ("demo", "other")]
    await until_resolving(world, 2)
    gate.set()
    await asyncio.gather(*waiting)


async def test_who_leaves_does_not_disturb_the_others_even_as_the_first(world, gate):
    first, second = [asyncio.ensure_future(world.lock(user, "demo")) for user in "ab"]
    await until_waiting(world, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert (await second).pins == {"demo": "1.0"}
    assert world.resolver.switches.cancelled["resolve"] == 0
    assert world.resolves == 1


async def test_the_last_one_to_leave_stops_the_resolve_and_the_next_one_starts_anew(world, gate):
    waiting = [asyncio.ensure_future(world.lock(user, "demo")) for user in "ab"]
    await until_waiting(world, 2)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    gate.set()
    assert await world.pins("c", "demo") == {"demo": "1.0"}
    assert world.resolver.switches.cancelled["resolve"] == 1
    assert world.resolves == 2


async def test_a_resolve_that_fails_fails_for_all_who_wait_and_is_tried_again_by_the_next(world, gate):
    world.resolver.switches.failures["resolve"] = IndexUnavailable("The package index does not answer.")
    waiting = [asyncio.ensure_future(world.lock(user, "demo")) for user in "ab"]
    await until_waiting(world, 2)
    gate.set()
    for task in waiting:
        with pytest.raises(IndexUnavailable):
            await task
    world.resolver.switches.failures.clear()
    assert await world.pins("a", "demo") == {"demo": "1.0"}


async def test_a_refresh_does_not_join_what_was_begun_before_it(world, gate):
    plain = asyncio.ensure_future(world.lock("a", "demo"))
    await until_resolving(world)
    refresh = asyncio.ensure_future(world.lock("b", "demo", refresh=True))
    await until_resolving(world, 2)
    gate.set()
    await asyncio.gather(plain, refresh)


async def test_a_refresh_that_is_left_stops(world, gate):
    refresh = asyncio.ensure_future(world.lock("a", "demo", refresh=True))
    await until_resolving(world)
    refresh.cancel()
    with pytest.raises(asyncio.CancelledError):
        await refresh
    assert world.resolver.switches.cancelled["resolve"] == 1


async def test_users_of_a_profile_who_add_packages_at_once_agree_on_the_profiles_lock(world, gate):
    waiting = [
        asyncio.ensure_future(world.lock(user, *requirements, profile=DATA))
        for user, requirements in (("a", ("demo", "extra")), ("b", ("demo", "other")), ("c", ("demo",)))
    ]
    await until_waiting(world, 3)
    assert world.resolves == 1
    gate.set()
    locks = await asyncio.gather(*waiting)
    assert {lock.pins["demo"] for lock in locks} == {"1.0"}
    assert world.resolves == 3
