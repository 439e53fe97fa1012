"""Tests of `BuildManager.preview` and `BuildManager.recent`, on the in-memory doubles."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from prebuilt_spawner.build import previews
from prebuilt_spawner.build.events import BuildEvent, ignore
from prebuilt_spawner.build.history import Outcome
from prebuilt_spawner.build.preview import Preview, Readiness
from prebuilt_spawner.build.provider import EnvironmentRequest, ProfileRequest
from prebuilt_spawner.errors import (
    EngineFailure,
    EngineUnavailable,
    IndexUnavailable,
    StorageFailure,
    UnbuildableEnvironment,
    UnresolvableRequest,
)

from .locking_world import base_image, base_probe
from .test_manager import World as ManagerWorld

DATA = ProfileRequest(slug="data", requirements=("alpha", "beta"))
UNBUILT = Preview(readiness=Readiness.UNBUILT)
CHANGES = ("resolve_base", "probe", "assemble", "tag", "hold")


class World(ManagerWorld):
    """The manager's world, in which time passes when a test says so."""

    def __init__(self, **limits) -> None:
        super().__init__(**limits)
        self.restart()

    def restart(self) -> None:
        """As after a restart of the hub: nothing but the ledger and the engine remembers."""
        manager = self.manager
        manager._failures._failures.clear()
        manager._now = lambda: self.seconds
        manager._previews._now = manager._previews._bases._now = manager._previews._usual._now = manager._now
        manager._previews.forget()

    async def start_request(self, request: EnvironmentRequest, report=ignore) -> None:
        await self.manager.ensure(request, report=report)

    async def preview(self, *requirements: str, user: str = "a", **more) -> Preview:
        (found,) = await self.manager.preview([self.request(*requirements, user=user, **more)])
        return found

    async def profile(self, profile: ProfileRequest = DATA, **more) -> Preview:
        return await self.preview(*profile.requirements, profile=profile, **more)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    for gate in (*world.engine.switches.gates.values(), *world.resolver.switches.gates.values()):
        gate.set()
    await world.manager.close()


async def test_of_a_base_that_was_never_probed_nothing_is_known(world):
    """And it is neither pulled nor probed for a preview."""
    assert await world.preview("alpha") == UNBUILT
    assert not [method for method in CHANGES if world.engine.switches.calls[method]]


async def test_what_was_never_asked_for_is_unbuilt_and_is_not_resolved(world):
    await world.ensure("a", "gamma")
    assert await world.preview("alpha", user="b") == Preview(readiness=Readiness.UNBUILT, seconds=0.0)
    assert len(world.resolver.requests) == 1


async def test_an_environment_that_is_there_is_ready_with_what_it_adds(world):
    await world.ensure("a", "alpha", "beta")
    ready = Preview(readiness=Readiness.READY, packages=("alpha==1.0", "beta==1.0"), size_bytes=2000)
    for user in ("a", "b"):
        assert await world.preview("alpha", "beta", user=user) == ready


async def test_a_preview_changes_nothing(world):
    """Nothing is resolved, made or held; also where everything is known."""
    await world.ensure("a", "alpha")
    resolved = len(world.resolver.requests)
    for double in (world.engine, world.wheel_store):
        double.switches.calls.clear()
    for request in (("alpha",), ("beta",), ()):
        await world.preview(*request, user="new")
    assert set(world.engine.switches.calls) <= {"known_base", "present"}
    assert not world.wheel_store.switches.calls
    assert len(world.resolver.requests) == resolved
    assert await world.ledger.build(2) is None


async def test_an_image_that_was_removed_is_built_first_in_the_time_that_it_took_last(world):
    environment = await world.ensure("a", "alpha")
    world.engine.remove(environment.image)
    build_id = await world.ledger.begin_build(
        hub="h", digest=environment.digest, base="base:1", requirements=["alpha"], user="a"
    )
    await world.ledger.end_build(build_id, outcome=Outcome.DONE, phase_seconds={"saving": 20})
    assert await world.preview("alpha") == Preview(
        readiness=Readiness.UNBUILT, packages=("alpha==1.0",), size_bytes=1000, seconds=20
    )
    assert (await world.preview("beta")).seconds == 10  # the median of 0 and 20


async def test_users_who_wait_are_counted_once_each_as_they_come_and_go(world):
    """At once, although the rest of the answer is shared."""
    await world.ensure("a", "gamma")
    gate = world.gate("assemble")
    waiting = [world.start("a", "alpha")]
    await world.until("assemble", 2)
    assert await world.preview("alpha", user="z") == Preview(
        readiness=Readiness.BUILDING, packages=("alpha==1.0",), size_bytes=1000, seconds=0.0, waiting=1
    )
    waiting += [world.start("b", "alpha"), world.start("b", "alpha"), world.start("c", "alpha")]
    while world.room.taken < 4:
        await asyncio.sleep(0.001)
    assert (await world.preview("alpha", user="z")).waiting == 3
    waiting.pop().cancel()
    while world.room.taken > 3:
        await asyncio.sleep(0.001)
    assert (await world.preview("alpha", user="z")).waiting == 2
    gate.set()
    await asyncio.gather(*waiting)
    assert (await world.preview("alpha", user="z")).readiness is Readiness.READY


async def test_what_this_hub_resolved_and_built_shows_at_once(world):
    assert (await world.profile()).readiness is Readiness.UNBUILT
    await world.start_request(world.request(*DATA.requirements, profile=DATA))
    assert (await world.profile(user="b")).readiness is Readiness.READY


async def test_what_others_change_shows_after_a_short_while(world):
    await world.start_request(world.request(*DATA.requirements, profile=DATA))
    assert (await world.profile()).readiness is Readiness.READY
    world.engine.remove(next(iter(world.engine.names)))
    world.seconds += previews.SHARED_SECONDS - 0.1
    assert (await world.profile(user="b")).readiness is Readiness.READY
    world.seconds += 0.1
    assert (await world.profile(user="b")).readiness is Readiness.UNBUILT


async def test_a_change_is_not_missed_by_who_asks_while_an_older_answer_is_being_found(world, monkeypatch):
    environment = await world.ensure("a", "alpha")
    world.engine.remove(environment.image)
    looked, gate, present = asyncio.Event(), asyncio.Event(), world.engine.present

    async def slow(references):
        found = await present(references)
        if not looked.is_set():
            looked.set()
            await gate.wait()
        return found

    monkeypatch.setattr(world.engine, "present", slow)
    early = asyncio.create_task(world.preview("alpha"))
    await looked.wait()
    await world.ensure("a", "alpha")
    assert (await world.preview("alpha")).readiness is Readiness.READY
    gate.set()
    assert (await early).readiness is Readiness.UNBUILT


async def test_many_users_at_once_share_what_is_everybodys(world):
    """Forty forms ask the engine as often as one."""
    await world.start_request(world.request(*DATA.requirements, profile=DATA))
    profiles = [DATA, ProfileRequest(slug="bare"), ProfileRequest(slug="other", requirements=("gamma",))]
    world.engine.switches.calls.clear()

    async def form(user: str) -> list[Preview]:
        requests = [world.request(*one.requirements, user=user, profile=one) for one in profiles]
        return list(await world.manager.preview(requests))

    forms = await asyncio.gather(*(form(f"u{number}") for number in range(40)))
    assert [one.readiness for one in forms[0]] == [Readiness.READY, Readiness.UNBUILT, Readiness.UNBUILT]
    assert forms == [forms[0]] * 40
    assert world.engine.switches.calls == {"known_base": 1, "present": 1}


async def test_two_hundred_profiles_are_few_questions(world, monkeypatch):
    """However many have no lock yet; the engine is asked once."""
    await world.start_request(world.request(*DATA.requirements, profile=DATA))
    questions: Counter[str] = Counter()
    read = world.ledger._database.read

    async def counted(question):
        questions["ledger"] += 1
        return await read(question)

    monkeypatch.setattr(world.ledger._database, "read", counted)
    profiles = [ProfileRequest(slug=f"p{number}", requirements=("alpha",)) for number in range(199)]
    requests = [world.request(*one.requirements, profile=one) for one in (DATA, *profiles)]
    world.engine.switches.calls.clear()
    found = await world.manager.preview(requests)
    assert [one.readiness for one in found] == [Readiness.READY] + [Readiness.UNBUILT] * 199
    assert world.engine.switches.calls == {"known_base": 1, "present": 1}
    assert questions["ledger"] <= 20


async def test_each_user_sees_the_lock_that_they_hold(world):
    """Somebody else's refresh is for those who come first afterwards."""
    await world.ensure("a", "alpha")
    world.resolver.publish("alpha", "2.0")
    await world.ensure("b", "alpha", refresh=True)
    found = [(await world.preview("alpha", user=user)).packages for user in ("a", "b", "c")]
    assert found == [("alpha==1.0",), ("alpha==2.0",), ("alpha==2.0",)]


async def test_a_profile_and_more_is_known_once_somebody_started_it(world):
    requirements = ("alpha", "beta", "gamma")
    assert (await world.preview(*requirements, profile=DATA)).readiness is Readiness.UNBUILT
    await world.start_request(world.request(*requirements, profile=DATA))
    found = await world.preview(*requirements, user="b", profile=DATA)
    assert (found.readiness, found.packages) == (Readiness.READY, ("alpha==1.0", "beta==1.0", "gamma==1.0"))


async def test_a_patched_base_is_to_be_resolved_once_more(world):
    """Its lock is carried over at the next start, which a preview is not."""
    await world.ensure("a", "alpha")
    world.engine.add_base(base_image("2"), base_probe())
    await world.engine.probe(base_image("2"))
    found = await world.preview("alpha")
    assert (found.readiness, found.packages) == (Readiness.UNBUILT, None)


async def test_a_refresh_is_to_be_resolved_and_one_that_is_refused_says_why(world):
    await world.start_request(world.request(*DATA.requirements, profile=DATA))
    found = await world.preview("alpha", refresh=True)
    assert (found.readiness, found.packages) == (Readiness.UNBUILT, None)
    refused = await world.profile(refresh=True)
    assert refused.readiness is Readiness.FAILED
    assert "administrator renews" in refused.error


async def test_a_lock_file_that_cannot_be_read_says_so_and_harms_no_other_request(world):
    await world.ensure("a", "alpha")
    bad = ProfileRequest(slug="fixed", requirements=("alpha",), pylock="no TOML [")
    failed, ready = await world.manager.preview([world.request("alpha", profile=bad), world.request("alpha")])
    assert failed.readiness is Readiness.FAILED
    assert "profile fixed" in failed.error
    assert ready.readiness is Readiness.READY


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_could_not_be_resolved_has_failed_until_it_works(world, restarted):
    """Whether it is remembered here or in the ledger alone; for everybody."""
    with pytest.raises(UnresolvableRequest) as failure:
        await world.ensure("a", "delta")
    if restarted:
        world.restart()
    for user in ("a", "b"):
        found = await world.preview("delta", user=user)
        assert (found.readiness, found.error) == (Readiness.FAILED, failure.value.message)
    world.resolver.publish("delta", "1.0")
    await world.ensure("b", "delta", refresh=True)
    assert (await world.preview("delta")).readiness is Readiness.READY


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_could_not_be_built_has_failed_until_it_works(world, restarted):
    world.wheel_store.bad_wheels["alpha"] = UnbuildableEnvironment("alpha is malformed. Try another version.")
    with pytest.raises(UnbuildableEnvironment):
        await world.ensure("a", "alpha")
    if restarted:
        world.restart()
    found = await world.preview("alpha")
    assert (found.readiness, found.error) == (Readiness.FAILED, "alpha is malformed. Try another version.")
    assert found.packages == ("alpha==1.0",)
    del world.wheel_store.bad_wheels["alpha"]
    await world.ensure("a", "alpha", refresh=True)
    assert (await world.preview("alpha")).readiness is Readiness.READY


async def test_a_failure_says_nothing_of_another_lock_of_the_same_request(world):
    """Here the first one failed, and a refresh found another version since, whose build was cancelled."""
    world.wheel_store.bad_wheels["alpha"] = UnbuildableEnvironment("alpha is malformed. Try another version.")
    with pytest.raises(UnbuildableEnvironment):
        await world.ensure("a", "alpha")
    world.resolver.publish("alpha", "2.0")
    del world.wheel_store.bad_wheels["alpha"]
    world.gate("assemble")
    waiter = asyncio.create_task(world.ensure("a", "alpha", refresh=True))
    await world.until("assemble", 1)
    waiter.cancel()
    await asyncio.wait([waiter])
    found = await world.preview("alpha")
    assert (found.readiness, found.packages, found.error) == (Readiness.UNBUILT, ("alpha==2.0",), "")


async def test_what_the_surroundings_failed_at_is_only_unbuilt(world):
    await world.ensure("a", "gamma")
    world.engine.switches.failures["assemble"] = EngineFailure("The container engine broke off.")
    with pytest.raises(EngineFailure):
        await world.ensure("a", "alpha")
    world.resolver.switches.failures["resolve"] = IndexUnavailable("The index is down.")
    with pytest.raises(IndexUnavailable):
        await world.ensure("a", "beta")
    for requirement in ("alpha", "beta"):
        found = await world.preview(requirement)
        assert (found.readiness, found.error) == (Readiness.UNBUILT, "")


async def test_a_build_that_was_cancelled_is_only_unbuilt(world):
    world.gate("assemble")
    waiter = world.start("a", "alpha")
    await world.until("assemble", 1)
    waiter.cancel()
    await asyncio.wait([waiter])
    found = await world.preview("alpha")
    assert (found.readiness, found.error) == (Readiness.UNBUILT, "")


@pytest.mark.parametrize("method", ["known_base", "present"])
async def test_of_an_engine_that_is_away_nothing_is_claimed(world, method):
    """Also not of what failed: nobody can say that its image is not there."""
    await world.ensure("a", "alpha")
    with pytest.raises(UnresolvableRequest):
        await world.ensure("a", "delta")
    world.restart()
    world.engine.switches.failures[method] = EngineUnavailable("The container engine cannot be reached.")
    found = await world.manager.preview([world.request("alpha"), world.request("delta")])
    assert [one.readiness for one in found] == [Readiness.UNKNOWN, Readiness.UNKNOWN]
    del world.engine.switches.failures[method]
    world.seconds += previews.SHARED_SECONDS
    assert (await world.preview("alpha")).readiness is Readiness.READY


@pytest.mark.parametrize(
    ("question", "readiness"),
    [("look_up", Readiness.UNKNOWN), ("last_of_requests", Readiness.UNBUILT), ("usual_times", Readiness.UNBUILT)],
)
async def test_a_ledger_that_is_away_raises_nothing(world, monkeypatch, question, readiness):
    """And nothing is claimed of what cannot be known without it."""
    await world.ensure("a", "alpha")

    async def away(*args, **more):
        raise StorageFailure("The database cannot be used.")

    monkeypatch.setattr(world.ledger, question, away)
    found = await world.manager.preview([world.request("alpha"), world.request("beta"), world.request()])
    assert [one.error for one in found] == ["", "", ""]
    assert found[1].readiness is readiness


async def test_an_engine_that_hangs_is_not_waited_for(world, monkeypatch):
    monkeypatch.setattr(previews, "PATIENCE_SECONDS", 0.05)
    await world.ensure("a", "alpha")
    gate = world.engine.switches.gates["present"] = asyncio.Event()
    assert await world.preview("alpha") == Preview(readiness=Readiness.UNKNOWN)
    gate.set()
    while (await world.preview("alpha")).readiness is not Readiness.READY:
        await asyncio.sleep(0.001)


async def test_who_leaves_takes_the_answer_from_nobody(world):
    await world.ensure("a", "alpha")
    gate = world.engine.switches.gates["present"] = asyncio.Event()
    leaver, stayer = (asyncio.create_task(world.preview("alpha")) for _ in range(2))
    await world.until("present", 1)
    leaver.cancel()
    await asyncio.wait([leaver])
    gate.set()
    assert (await stayer).readiness is Readiness.READY
    assert world.engine.switches.calls["present"] == 1


# -- what the start says -----------------------------------------------------------------------------------------------


async def summaries(world: World, *requirements: str, user: str = "a") -> list[str]:
    events: list[BuildEvent] = []
    await world.ensure(user, *requirements, report=events.append)
    return [event.summary for event in events if event.summary]


async def test_a_start_says_what_it_does_before_it_does_it(world):
    assert await summaries(world, "alpha") == ["Your environment is built first: adds 1 package, 1 kB."]
    assert await summaries(world, "alpha") == ["Your environment is ready and starts at once."]
    (said,) = await summaries(world, "beta", "gamma")
    assert said == "Your environment is built first: about 1 s, adds 2 packages, 2 kB."


async def test_who_joins_a_build_is_told_how_many_wait(world):
    gate = world.gate("assemble")
    events: list[BuildEvent] = []
    waiting = [world.start("a", "alpha"), world.start("b", "alpha")]
    await world.until("assemble", 1)
    while world.room.taken < 2:
        await asyncio.sleep(0.001)
    waiting.append(asyncio.create_task(world.ensure("c", "alpha", report=events.append)))
    while world.room.taken < 3:
        await asyncio.sleep(0.001)
    gate.set()
    await asyncio.gather(*waiting)
    assert [event.summary for event in events if event.summary] == [
        "Your environment is being built: 2 people wait for it."
    ]


async def test_a_start_whose_failure_is_remembered_says_nothing_of_a_build(world):
    world.wheel_store.bad_wheels["alpha"] = UnbuildableEnvironment("alpha is malformed. Try another version.")
    for _ in range(2):
        events: list[BuildEvent] = []
        with pytest.raises(UnbuildableEnvironment):
            await world.ensure("a", "alpha", report=events.append)
    assert not [event.summary for event in events if event.summary]


# -- recent choices ----------------------------------------------------------------------------------------------------


async def test_what_a_user_started_is_offered_again(world):
    """Once its environment was there, and not what failed."""
    await world.start_request(world.request("alpha", options={"packages": ["alpha"]}))
    await world.start_request(world.request("alpha", options={"packages": "ALPHA", "refresh": True}))
    await world.start_request(world.request("beta", options={"profile": "beta"}))
    await world.start_request(world.request())
    with pytest.raises(UnresolvableRequest):
        await world.start_request(world.request("delta", options={"packages": ["delta"]}))
    assert await world.manager.recent(user="a") == [{"profile": "beta"}, {"packages": "ALPHA"}]
    assert await world.manager.recent(user="a", limit=1) == [{"profile": "beta"}]
    assert await world.manager.recent(user="b") == []


async def test_a_ledger_that_is_away_has_no_recent_choices(world, monkeypatch):
    async def away(**more):
        raise StorageFailure("The database cannot be used.")

    monkeypatch.setattr(world.ledger, "recent", away)
    assert not await world.manager.recent(user="a")
