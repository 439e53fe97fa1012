"""Which packages are built from source, for whom, how often, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from prebuilt_spawner.adapters.memory import MemoryEngine, MemoryWheelStore
from prebuilt_spawner.adapters.memory_sources import MemoryMadeWheels, MemorySandbox, MemorySourceIndex
from prebuilt_spawner.build.events import BuildEvent, Phase, Report, ignore
from prebuilt_spawner.build.guard import NoGuard
from prebuilt_spawner.build.locking import Locksmith
from prebuilt_spawner.build.previews import _of_environment
from prebuilt_spawner.build.provider import EnvironmentRequest, ProfileRequest, Provider
from prebuilt_spawner.build.remembered import RememberedFailures
from prebuilt_spawner.build.source_builds import SourceBuilds
from prebuilt_spawner.build.sources import Flaw, SandboxAnswer
from prebuilt_spawner.environment.base import BaseImage, BaseProbe
from prebuilt_spawner.environment.digest import source_identity
from prebuilt_spawner.environment.lock import Lock, LockedWheel, to_pylock
from prebuilt_spawner.environment.policy import Policy, read_rules
from prebuilt_spawner.errors import PolicyRefusal, StorageFailure, UnbuildableEnvironment, UnresolvableRequest
from prebuilt_spawner.image.fragment import Fragment, FragmentFile

from .locking_world import World as LockingWorld
from .locking_world import base_image


class Store(MemoryWheelStore):
    """One whose wheels have a METADATA file of this hash; "" for none."""

    metadata_sha256 = "a" * 64

    async def fragments(
        self, wheels: list[LockedWheel], base: BaseImage, probe: BaseProbe, *, report: Report, made=ignore
    ) -> tuple[Fragment, ...]:
        file = FragmentFile(
            path=f"site/{wheels[0].name}-1.0.dist-info/METADATA",
            mode=0o644,
            size_bytes=1,
            sha256=self.metadata_sha256,
            body=Path("body"),
            offset_bytes=0,
            length_bytes=1,
        )
        found = await super().fragments(wheels, base, probe, report=report)
        return tuple(replace(fragment, files=(file,)) for fragment in found) if self.metadata_sha256 else found


class World(LockingWorld):
    """A locksmith that builds `legacy` 1.0 and 2.0, which need `demo`, from source, with what is set up."""

    def __init__(self) -> None:
        super().__init__()
        self.index = MemorySourceIndex()
        self.sandbox = MemorySandbox()
        self.made = MemoryMadeWheels()
        self.store = Store()
        self.failures = RememberedFailures(0)
        self.resolver.publish("demo", "1.0")
        self.resolver.publish("setuptools", "80.0")
        self.publish("legacy", "1.0", "demo")
        self.publish("legacy", "2.0", "demo")
        self.sources = self.make()

    def publish(self, name: str, version: str, *requires: str, **more) -> None:
        self.index.publish(name, version, **more)
        self.resolver.publish_source(name, version, *requires)

    def make(self, *, failure_ttl: float = 0, **more) -> SourceBuilds:
        """Another one, with a locksmith that uses it."""
        self.failures = RememberedFailures(failure_ttl)
        self.sources = SourceBuilds(
            resolver=self.resolver,
            index=self.index,
            sandbox=self.sandbox,
            made_wheels=self.made,
            wheel_store=self.store,
            failures=self.failures,
            **more,
        )
        self.locksmith = Locksmith(self.ledger, self.resolver, sources=self.sources, failures=self.failures)
        return self.sources

    @property
    def built(self) -> list[str]:
        """The files that were built, in order, rounds that only asked included."""
        return [job.source.name for job in self.sandbox.jobs]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.ledger.open()
    yield world
    await world.locksmith.close()
    await world.sources.close()
    await world.ledger.close()


async def test_what_has_no_wheel_is_built_and_its_own_metadata_decide_what_comes_with_it(world: World):
    lock = await world.lock("a", "legacy")
    assert lock.pins == {"demo": "1.0", "legacy": "2.0"}
    assert lock.from_source == ("legacy==2.0",)
    (wheel,) = (wheel for wheel in lock.wheels if wheel.source is not None)
    assert wheel.source is not None
    assert (wheel.sha256, wheel.size_bytes) == (source_identity(wheel.source), 500)
    assert wheel.source.metadata_sha256 == "a" * 64
    messages = [(event.phase, event.message) for event in world.events if event.message]
    assert (Phase.BUILDING, "Building legacy 2.0 from source") in messages
    assert world.made.logs == {wheel.sha256: "built\n"}


async def test_a_version_with_a_wheel_is_taken_where_one_fits(world: World):
    world.resolver.publish("legacy", "1.5")
    assert (await world.lock("a", "legacy")).pins == {"legacy": "1.5"}
    assert (await world.lock("a", "legacy>=2")).pins == {"demo": "1.0", "legacy": "2.0"}
    assert world.built == ["legacy-2.0.tar.gz"]


@pytest.mark.parametrize(("wish", "version"), [("legacy<2", "1.0"), ("legacy==1.0", "1.0"), ("legacy", "2.0")])
async def test_the_newest_version_that_is_asked_for_is_built(world: World, wish: str, version: str):
    assert (await world.pins("a", wish))["legacy"] == version


async def test_a_dependency_without_a_wheel_is_built_too(world: World):
    world.resolver.publish("modern", "1.0", "legacy<2", "further")
    world.publish("further", "3.0")
    lock = await world.lock("a", "modern")
    assert lock.pins == {"demo": "1.0", "further": "3.0", "legacy": "1.0", "modern": "1.0"}
    assert lock.from_source == ("further==3.0", "legacy==1.0")


async def test_what_the_build_needs_is_pinned_wheels_only_and_beside_nothing_of_the_base(world: World):
    """First what its file says, then what its backend says."""
    world.sandbox.needs["legacy-2.0.tar.gz"] = [("setuptools",), ("setuptools", "demo>=1")]
    (wheel,) = (one for one in (await world.lock("a", "legacy")).wheels if one.source is not None)
    assert wheel.source is not None
    assert [one.name for one in wheel.source.requires] == ["demo", "setuptools"]
    assert [job.asked for job in world.sandbox.jobs] == [(), ("setuptools",), ("setuptools", "demo>=1")]
    assert [len(job.wheels) for job in world.sandbox.jobs] == [0, 1, 2]
    asked = [request for request in world.resolver.requests if "setuptools" in request.requirements]
    assert all(request.probe.distributions == {} for request in asked)


@pytest.mark.parametrize("needs", ["absent", "thing @ file:///etc/passwd", "legacy<2", "-r /etc/passwd"])
async def test_what_the_build_needs_and_cannot_have_is_the_packages_fault(world: World, needs: str):
    world.sandbox.needs["legacy-2.0.tar.gz"] = [(needs,)]
    with pytest.raises(UnbuildableEnvironment, match=r"legacy 2\.0 .* needs other packages first") as caught:
        await world.lock("a", "legacy")
    assert (caught.value.package, caught.value.cause) == ("legacy", "build-failed")
    assert needs in caught.value.detail


async def test_a_build_that_needs_ever_more_is_given_up(world: World):
    for number in range(9):
        world.resolver.publish(f"part{number}", "1.0")
    world.sandbox.needs["legacy-2.0.tar.gz"] = [tuple(f"part{i}" for i in range(n + 1)) for n in range(9)]
    with pytest.raises(UnbuildableEnvironment, match="one thing after the other"):
        await world.lock("a", "legacy")
    assert len(world.built) < 6


async def test_where_it_is_not_allowed_nothing_is_fetched_and_the_user_is_told_what_to_do(world: World):
    world.make(allowed=False)
    with pytest.raises(UnresolvableRequest) as caught:
        await world.lock("a", "legacy")
    for words in ("does not build", "another package", "older version that has a wheel", "ask the administrator"):
        assert words in caught.value.message
    assert (world.built, world.index.switches.calls["sources"], world.store.switches.calls["fetch"]) == ([], 0, 0)


async def test_what_has_no_source_either_is_said_so(world: World):
    world.resolver.publish_source("neither", "1.0")
    with pytest.raises(UnresolvableRequest, match="neither a wheel nor a source distribution"):
        await world.lock("a", "neither")


@pytest.mark.parametrize("denied", ["legacy", "legacy>=2"])
async def test_a_denied_package_is_not_even_fetched(world: World, denied: str):
    """Asked for, and as a dependency; for others it is built."""
    world.resolver.publish("modern", "1.0", "legacy")
    policy = Policy(allow_custom_packages=True, denied_packages=read_rules([denied]))
    for wish in ("legacy", "modern"):
        with pytest.raises(PolicyRefusal, match="legacy"):
            await world.lock("a", wish, policy=policy)
    assert (world.built, world.store.switches.calls["fetch"]) == ([], 0)
    assert (await world.lock("b", "modern", policy=Policy())).from_source == ("legacy==2.0",)


async def test_one_users_policy_stops_nobody_elses_build(world: World):
    """Though they ask for the same at the same time."""
    denied = Policy(allow_custom_packages=True, denied_packages=read_rules(["legacy"]))
    first, second = await asyncio.gather(
        world.lock("a", "legacy", policy=denied), world.lock("b", "legacy", policy=Policy()), return_exceptions=True
    )
    assert isinstance(first, PolicyRefusal)
    assert isinstance(second, Lock)
    assert world.built == ["legacy-2.0.tar.gz"]


async def test_what_a_profile_has_is_built_whatever_its_users_may_ask_for(world: World):
    profile = ProfileRequest(slug="old", requirements=("legacy",))
    denied = Policy(allow_custom_packages=True, denied_packages=read_rules(["legacy"]))
    assert (await world.lock("a", "legacy", profile=profile, policy=denied)).from_source == ("legacy==2.0",)


async def test_who_asks_at_the_same_time_waits_for_one_build(world: World):
    world.sandbox.switches.gates["run"] = asyncio.Event()
    world.resolver.publish("modern", "1.0", "legacy")
    waiting = [asyncio.create_task(world.lock(user, wish)) for user, wish in (("a", "legacy"), ("b", "modern"))]
    while world.sandbox.switches.calls["run"] < 1 or len(world.resolver.requests) < 2:
        await asyncio.sleep(0)
    world.sandbox.switches.gates["run"].set()
    await asyncio.gather(*waiting)
    assert world.built == ["legacy-2.0.tar.gz"]


async def test_when_the_last_one_leaves_the_build_is_ended(world: World):
    world.sandbox.switches.gates["run"] = asyncio.Event()
    waiting = asyncio.create_task(world.lock("a", "legacy"))
    while not world.sandbox.switches.calls["run"]:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    while not world.sandbox.switches.cancelled["run"]:
        await asyncio.sleep(0)


async def test_what_was_built_is_used_by_everybody_from_then_on(world: World):
    """Also where another request brings it in, and though what its build needs has got newer."""
    world.sandbox.needs["legacy-2.0.tar.gz"] = [("setuptools",)]
    await world.lock("a", "legacy")
    world.resolver.publish("setuptools", "81.0")
    world.resolver.publish("modern", "1.0", "legacy")
    assert (await world.lock("b", "modern")).from_source == ("legacy==2.0",)
    assert (await world.lock("a", "legacy", refresh=True)).from_source == ("legacy==2.0",)
    assert world.built == ["legacy-2.0.tar.gz"] * 2


async def test_another_base_is_another_build(world: World):
    first = await world.lock("a", "legacy")
    second = await world.lock("a", "legacy", base=base_image("2"))
    assert world.built == ["legacy-2.0.tar.gz"] * 2
    assert first != second


async def test_a_build_that_failed_is_remembered_until_newer_versions_are_asked_for(world: World):
    """By its source: another request that needs it is answered at once, too."""
    world.make(failure_ttl=60)
    world.resolver.publish("modern", "1.0", "legacy")
    world.sandbox.answers["legacy-2.0.tar.gz"] = SandboxAnswer(
        flaw=Flaw.FAILED, log="fatal error: ffi.h: No such file or directory"
    )
    for wish in ("legacy", "legacy", "modern"):
        with pytest.raises(UnbuildableEnvironment, match=r"header ffi\.h"):
            await world.lock("a", wish)
    assert world.built == ["legacy-2.0.tar.gz"]
    del world.sandbox.answers["legacy-2.0.tar.gz"]
    assert (await world.lock("a", "legacy", refresh=True)).pins["legacy"] == "2.0"


async def test_what_is_being_built_is_no_failure_on_the_form(world: World):
    world.make(failure_ttl=60)
    world.sandbox.switches.gates["run"] = asyncio.Event()
    waiting = asyncio.create_task(world.lock("a", "legacy"))
    while not world.sandbox.switches.calls["run"]:
        await asyncio.sleep(0)
    request = EnvironmentRequest(user="b", requirements=("legacy",), base="base:1")
    assert await world.locksmith.known_lock(request, world.base, world.probe) is None
    world.sandbox.switches.gates["run"].set()
    lock = await waiting
    assert await world.locksmith.known_lock(request, world.base, world.probe) == lock


@pytest.mark.parametrize(
    ("filename", "words"),
    [
        ("other-2.0-py3-none-any.whl", "another package or version"),
        ("legacy-2.1-py3-none-any.whl", "another package or version"),
        ("legacy-2.0-cp39-cp39-win_amd64.whl", "another platform"),
        ("legacy.whl", "no proper wheel"),
        ("legacy-2.0-py3-none-any. x.whl", "no proper wheel"),
    ],
)
async def test_another_wheel_than_the_one_that_was_to_be_made_is_refused(world: World, filename: str, words: str):
    world.sandbox.answers["legacy-2.0.tar.gz"] = SandboxAnswer(wheel=Path(filename), size_bytes=1)
    with pytest.raises(UnbuildableEnvironment, match=words):
        await world.lock("a", "legacy")
    assert world.made.kept == {}


async def test_a_wheel_that_cannot_be_installed_is_not_kept(world: World):
    world.store.bad_wheels["legacy"] = UnbuildableEnvironment("The wheel of legacy is malformed. Try another.")
    with pytest.raises(UnbuildableEnvironment, match="malformed"):
        await world.lock("a", "legacy")
    assert world.made.kept == {}


@pytest.mark.parametrize("size_bytes", [2 << 30, None])
async def test_a_source_that_is_larger_than_the_scratch_space_is_not_built(world: World, size_bytes: int | None):
    """Whether the index says so, or it turns out as it is fetched."""
    world.publish("large", "1.0", size_bytes=size_bytes)
    if size_bytes is None:
        world.store.switches.failures["fetch"] = PolicyRefusal("More than is allowed.")
    with pytest.raises(UnbuildableEnvironment, match=r"The source of large 1\.0 is too large") as caught:
        await world.lock("a", "large")
    assert (caught.value.cause, world.built) == ("too-large", [])


async def test_the_hubs_log_gets_the_end_of_what_a_failed_build_printed(world: World):
    """However much that was."""
    world.sandbox.answers["legacy-2.0.tar.gz"] = SandboxAnswer(flaw=Flaw.FAILED, log="x" * 200_000 + "the reason")
    with pytest.raises(UnbuildableEnvironment) as caught:
        await world.lock("a", "legacy")
    assert len(caught.value.detail) < 5000
    assert caught.value.detail.endswith("the reason")


async def test_an_image_is_made_with_what_is_built_and_says_so(world: World):
    """Only the index's wheels are fetched; the wheel is built again where it has gone, and every preview names it."""
    world.store.metadata_sha256 = ""
    lock = await world.lock("a", "legacy")
    world.made.kept.clear()
    world.store.fetched.clear()
    engine = MemoryEngine()
    engine.add_base(world.base, world.probe)
    provider = Provider(
        engine=engine, wheel_store=world.store, ledger=world.ledger, repository="x/env", sources=world.sources
    )
    environment = provider.name(base=world.base, probe=world.probe, lock=lock)
    events: list[BuildEvent] = []
    await provider.make(environment, report=events.append)
    assert "With what is built from source: legacy==2.0" in [event.message for event in events]
    assert "Building legacy 2.0 from source" in [event.message for event in events]
    assert len(world.made.kept) == 1
    (wheel,) = (one for one in lock.wheels if one.source is not None)
    assert wheel.sha256 not in world.store.fetched
    assert _of_environment(environment).from_source == ("legacy==2.0",)


async def test_with_a_disk_nearly_full_nothing_is_built(world: World):
    class Full(NoGuard):
        async def check(self) -> None:
            raise StorageFailure("The hub's disk is nearly full. Tell your administrator.")

    world.make(guard=Full())
    with pytest.raises(StorageFailure, match="nearly full"):
        await world.lock("a", "legacy")
    assert world.built == []


# -- again -------------------------------------------------------------------------------------------------------------


async def test_a_wheel_that_has_gone_is_built_again_from_exactly_what_the_lock_says(world: World):
    """Without asking what it needs, and without resolving."""
    world.sandbox.needs["legacy-2.0.tar.gz"] = [("setuptools",)]
    lock = await world.lock("a", "legacy")
    world.made.kept.clear()
    world.resolver.publish("setuptools", "81.0")
    resolves = world.resolves
    await world.sources.have(lock, world.base, world.probe, report=ignore)
    last = world.sandbox.jobs[-1]
    assert (last.asked, [path.name for path in last.wheels]) == (None, ["setuptools-80.0-py3-none-any.whl"])
    assert (world.resolves, len(world.made.kept)) == (resolves, 1)
    await world.sources.have(lock, world.base, world.probe, report=ignore)
    assert world.sandbox.jobs[-1] is last


async def test_what_says_other_things_of_itself_when_it_is_built_again_is_refused(world: World):
    """Other packages were chosen by what it said."""
    lock = await world.lock("a", "legacy")
    world.made.kept.clear()
    world.store.metadata_sha256 = "b" * 64
    with pytest.raises(UnbuildableEnvironment, match="other things of itself") as caught:
        await world.sources.have(lock, world.base, world.probe, report=ignore)
    assert (caught.value.cause, world.made.kept) == ("build-metadata", {})


async def test_what_was_built_before_is_used_where_building_is_not_allowed_any_more(world: World):
    """But it is not built again."""
    lock = await world.lock("a", "legacy")
    world.make(allowed=False)
    assert await world.lock("a", "legacy") == lock
    await world.sources.have(lock, world.base, world.probe, report=ignore)
    world.made.kept.clear()
    with pytest.raises(UnresolvableRequest, match="has to be built from source, which this hub does not do"):
        await world.sources.have(lock, world.base, world.probe, report=ignore)


async def test_a_lock_file_with_a_source_is_used_on_the_base_at_hand(world: World):
    """Its pins hold; the identity is that of a build in this base."""
    (wheel,) = (one for one in (await world.lock("a", "legacy")).wheels if one.source is not None)
    profile = ProfileRequest(slug="fixed", pylock=to_pylock(Lock(wheels=(wheel,))))
    assert (await world.lock("a", profile=profile)).wheels == (wheel,)
    (elsewhere,) = (await world.lock("a", profile=profile, base=base_image("2"))).wheels
    assert elsewhere.source is not None
    assert (elsewhere.source.base_digest, elsewhere.version) == ("2" * 64, "2.0")
    assert elsewhere.sha256 != wheel.sha256


async def test_closing_ends_builds_and_releases_what_they_hold(world: World):
    await world.sources.close()
    assert (world.sandbox.switches.calls["close"], world.index.switches.calls["close"]) == (1, 1)
