"""What an engine promises: `prebuilt_spawner.build.interface.Engine`."""

from __future__ import annotations

import asyncio
import secrets
import threading
from dataclasses import replace

import pytest

from prebuilt_spawner.build.events import BuildEvent, Phase, ignore
from prebuilt_spawner.build.interface import DerivedImage
from prebuilt_spawner.environment.base import BaseImage
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.errors import (
    BaseImageUnavailable,
    EngineFailure,
    EngineUnavailable,
    LayersGone,
    MalformedRequest,
)
from prebuilt_spawner.image.archive import layer_digest
from prebuilt_spawner.image.layer import ImagePlan, Layer, LowerLayers
from prebuilt_spawner.image.names import BASE_DIGEST_LABEL, DIGEST_LABEL, STEP_LABEL
from prebuilt_spawner.image.plan import plan_image
from tests.stores.plans import plan_of

from .engine_worlds import EngineWorld


@pytest.fixture
def world(engine_world) -> EngineWorld:
    return engine_world


@pytest.fixture
def digest(world) -> str:
    """An environment digest that nobody else has."""
    return new_digest(world)


def new_digest(world: EngineWorld) -> str:
    digest = secrets.token_hex(32)
    assert world.images(digest) == set()
    return digest


async def planned(
    world: EngineWorld, digest: str, *, base: BaseImage | None = None, content: bytes = b"x"
) -> ImagePlan:
    base = base or await world.engine.resolve_base(world.base)
    return plan_image(
        base=base,
        probe=await world.engine.probe(base),
        lock=Lock(),
        fragments=(),
        own_files={"opt/contract/file": content},
        labels={DIGEST_LABEL: digest, BASE_DIGEST_LABEL: base.digest},
        environment={"CONTRACT": "yes"},
        digest=digest,
    )


async def assembled(world: EngineWorld, digest: str, **how) -> DerivedImage:
    return await world.engine.assemble(await planned(world, digest, **how), report=ignore)


def named(world: EngineWorld, digest: str) -> str:
    return f"{world.repository}:{digest}"


async def until(condition) -> None:
    """Until the engine's threads are done with what they stop."""
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not happen within twenty seconds")


# -- bases -------------------------------------------------------------------------------------------------------------


async def test_a_base_is_what_its_name_says_and_has_an_identity(world):
    base = await world.engine.resolve_base(world.base)
    assert base.reference == world.base
    assert len(base.digest) == 64
    assert base.diff_ids
    assert all(diff_id.startswith("sha256:") for diff_id in base.diff_ids)
    assert base.platform.startswith("linux/")
    assert await world.engine.resolve_base(world.base) == base


async def test_a_base_has_the_same_identity_under_another_name(world):
    base = await world.engine.resolve_base(world.base)
    other = "base:same" if world.base == "base:1" else base.image_id
    assert (await world.engine.resolve_base(other)).digest == base.digest


async def test_another_base_has_another_identity(world):
    base = await world.engine.resolve_base(world.base)
    assert (await world.engine.resolve_base(world.own_base())).digest != base.digest


async def test_a_base_that_is_absent_and_cannot_be_pulled_is_named(world):
    with pytest.raises(BaseImageUnavailable) as caught:
        await world.engine.resolve_base(world.absent)
    assert world.absent in caught.value.message


async def test_a_base_is_known_once_it_was_probed_and_as_long_as_it_is_there(world):
    reference = world.own_base()
    assert await world.engine.known_base(reference) is None
    base = await world.engine.resolve_base(reference)
    assert await world.engine.known_base(reference) is None
    probe = await world.engine.probe(base)
    assert await world.engine.known_base(reference) == (base, probe)
    world.forget(reference)
    assert await world.engine.known_base(reference) is None


async def test_what_is_absent_or_no_base_is_not_known_and_nothing_is_pulled(world, digest):
    await world.engine.tag(await assembled(world, digest), named(world, digest))
    for reference in (world.absent, named(world, digest), "Not A Name"):
        assert await world.engine.known_base(reference) is None


async def test_an_image_of_ours_is_no_base(world, digest):
    await world.engine.tag(await assembled(world, digest), named(world, digest))
    with pytest.raises(MalformedRequest):
        await world.engine.resolve_base(named(world, digest))


async def test_a_probe_tells_of_the_interpreter_and_leaves_nothing_behind(world):
    before = world.bystanders()
    base = await world.engine.resolve_base(world.base)
    probes = await asyncio.gather(*(world.engine.probe(base) for _ in range(3)))
    assert probes[0] == probes[1] == probes[2]
    assert probes[0].implementation == "cpython"
    assert probes[0].scheme.purelib.startswith("/")
    assert probes[0].python_version.count(".") == 2
    assert world.bystanders() == before


# -- making images -----------------------------------------------------------------------------------------------------


async def test_an_assembled_image_has_no_name_until_it_gets_one(world, digest):
    image = await assembled(world, digest)
    assert (image.reference, image.digest) == ("", digest)
    assert image.base_digest == (await world.engine.resolve_base(world.base)).digest
    assert image.size_bytes > 0
    assert await world.engine.find(named(world, digest)) is None
    tagged = await world.engine.tag(image, named(world, digest))
    assert tagged == replace(image, reference=named(world, digest))
    assert await world.engine.find(named(world, digest)) == tagged


async def test_an_image_runs_as_its_base_does_with_our_labels_and_variables(world, digest):
    base = await world.engine.resolve_base(world.base)
    image = await assembled(world, digest)
    config = dict(world.config(image.image_id))
    for key in ("Entrypoint", "Cmd", "User", "WorkingDir", "Healthcheck", "ExposedPorts"):
        assert (config.get(key) or None) == (base.config.get(key) or None), key
    assert config["Env"] == [*base.config.get("Env", ()), "CONTRACT=yes"]
    assert {label: value for label, value in config["Labels"].items() if label != STEP_LABEL} == {
        **base.config.get("Labels", {}),
        DIGEST_LABEL: digest,
        BASE_DIGEST_LABEL: base.digest,
    }


async def test_labels_and_variables_arrive_to_the_letter(world, digest):
    """Whatever they mean to a Dockerfile or a shell."""
    plan = await planned(world, digest)
    awkward = 'it\'s "so" $HOME ${PATH} \\ \\$x # \t\n FROM scratch\\'
    values = {
        "plain": "x",
        "quotes": "'\"'",
        "dollar": "$HOME ${HOME:-x} \\$HOME",
        "all": awkward,
        "none": "",
        "é": "é",
    }
    labels = {**plan.labels, **values, 'a "key" of $HOME': "y", "long": "z" * 70_000}
    image = await world.engine.assemble(
        replace(plan, labels=labels, environment={f"AWKWARD_{n}": value for n, value in enumerate(values.values())}),
        report=ignore,
    )
    config = world.config(image.image_id)
    assert {key: config["Labels"][key] for key in labels} == labels
    variables = dict(entry.partition("=")[::2] for entry in config["Env"])
    assert [variables[f"AWKWARD_{n}"] for n in range(len(values))] == list(values.values())


async def test_assembling_tells_that_it_saves_and_then_that_it_checks(world, digest):
    events: list[BuildEvent] = []
    await world.engine.assemble(await planned(world, digest), report=events.append)
    phases = list(dict.fromkeys(event.phase for event in events))
    assert phases == [Phase.SAVING, Phase.CHECKING]
    assert all(event.message for event in events)


async def test_one_plan_makes_one_image_however_often(world, digest):
    plan = await planned(world, digest)
    images = await asyncio.gather(*(world.engine.assemble(plan, report=ignore) for _ in range(2)))
    assert images[0] == images[1]
    assert world.images(digest) == {images[0].image_id}


async def test_a_plan_on_layers_that_the_engine_has_not_fails_and_leaves_nothing(world, digest):
    base = await world.engine.resolve_base(world.base)
    gone = LowerLayers(image_id="sha256:" + "f" * 64, diff_ids=(*base.diff_ids, "sha256:" + "f" * 64))
    plan = replace(await planned(world, digest), lower=gone)
    with pytest.raises(LayersGone):
        await world.engine.assemble(plan, report=ignore)
    assert world.images(digest) == set()


async def test_a_layer_that_is_no_archive_fails_and_leaves_nothing(world, digest):
    garbage = Layer(comment="garbage", parts=(b"these are not the bytes of a tar archive" * 100,))
    plan = await planned(world, digest)
    with pytest.raises(EngineFailure):
        await world.engine.assemble(replace(plan, layers=(*plan.layers, garbage)), report=ignore)
    assert world.images(digest) == set()


async def cancelled_at(world: EngineWorld, plan: ImagePlan, phase: Phase) -> None:
    """Assemble, and leave when that phase is reported; whoever reports from a thread goes on after that only."""
    loop, left = asyncio.get_running_loop(), threading.Event()

    def report(event: BuildEvent) -> None:
        if event.phase is not phase:
            return
        if threading.current_thread() is threading.main_thread():
            task.cancel()
        else:
            loop.call_soon_threadsafe(task.cancel)
            assert left.wait(10)

    task = asyncio.ensure_future(world.engine.assemble(plan, report=report))
    with pytest.raises(asyncio.CancelledError):
        await task
    left.set()


@pytest.mark.parametrize("phase", [Phase.SAVING, Phase.CHECKING])
async def test_an_assembly_that_is_left_leaves_nothing(world, digest, phase):
    await cancelled_at(world, await planned(world, digest), phase)
    # What goes on in a thread needs a moment; an assembly after it shows that the moment has passed.
    await assembled(world, new_digest(world))
    await until(lambda: world.images(digest) == set())


@pytest.mark.parametrize("phase", [Phase.SAVING, Phase.CHECKING])
async def test_an_assembly_that_is_left_does_not_take_the_same_image_from_others(world, digest, phase):
    """Two processes may make one environment at once: same bytes, same ID. One of them has named it already."""
    plan = await planned(world, digest)
    tagged = await world.engine.tag(await world.engine.assemble(plan, report=ignore), named(world, digest))
    await cancelled_at(world, plan, phase)
    for _ in range(20):
        assert await world.engine.find(named(world, digest)) == tagged
        await asyncio.sleep(0.02)


async def test_an_image_is_stacked_on_the_lower_layers_of_another(world, digest):
    """Only what is new is sent, and the engine keeps the lower layers with either image."""
    below = await world.engine.tag(await assembled(world, digest), named(world, digest))
    base = await world.engine.resolve_base(world.base)
    other = new_digest(world)
    lower = LowerLayers(image_id=below.image_id, diff_ids=below.diff_ids)
    plan = replace(await planned(world, other, content=b"above"), lower=lower)
    image = await world.engine.tag(await world.engine.assemble(plan, report=ignore), named(world, other))
    assert image.diff_ids[: len(below.diff_ids)] == below.diff_ids
    assert len(image.diff_ids) == len(below.diff_ids) + len(plan.layers)
    # Of the same image fewer layers may be wanted.
    fewer = new_digest(world)
    plan = replace(plan, lower=replace(lower, diff_ids=base.diff_ids), digest=fewer)
    plan = replace(plan, labels={**plan.labels, DIGEST_LABEL: fewer})
    assert (await world.engine.assemble(plan, report=ignore)).diff_ids[: len(base.diff_ids)] == base.diff_ids
    world.forget(named(world, digest))
    assert await world.engine.find(named(world, other)) == image


# -- names -------------------------------------------------------------------------------------------------------------


async def test_layers_that_came_ahead_are_below_the_image_and_leave_no_other(world, digest):
    """Where the engine takes none, none are there."""
    base = await world.engine.resolve_base(world.base)
    plan = plan_of(base, {"opt/ahead": secrets.token_bytes(100)}, {"opt/rest": b"rest"})
    plan = replace(plan, digest=digest, labels={**plan.labels, DIGEST_LABEL: digest})
    ahead, rest = plan.layers
    async with world.engine.hold(base.image_id), world.engine.carry(base, digest) as carrier:
        taken = carrier.add(ahead)
        lower = await carrier.settle()
        assert (lower is not None) is taken
        if lower is not None:
            assert lower.diff_ids == (*base.diff_ids, layer_digest(ahead))
            plan = replace(plan, lower=lower, layers=(rest,))
        image = await world.engine.assemble(plan, report=ignore)
    assert len(image.diff_ids) == len(base.diff_ids) + 2
    assert world.images(digest) == {image.image_id}


async def test_the_first_tag_wins_and_is_what_the_second_one_gets(world, digest):
    first, second = await assembled(world, digest), await assembled(world, digest, content=b"another plan")
    assert first.image_id != second.image_id
    tagged = await world.engine.tag(first, named(world, digest))
    assert await world.engine.tag(second, named(world, digest)) == tagged
    assert (await world.engine.find(named(world, digest))) == tagged


async def test_of_many_tags_at_once_one_wins_for_all(world, digest):
    images = [await assembled(world, digest, content=bytes([number])) for number in range(4)]
    tagged = await asyncio.gather(*(world.engine.tag(image, named(world, digest)) for image in images))
    assert len(set(tagged)) == 1
    assert await world.engine.find(named(world, digest)) == tagged[0]


async def test_a_name_that_no_image_has_finds_nothing(world, digest):
    assert await world.engine.find(named(world, digest)) is None


async def test_an_image_of_somebody_else_under_our_name_is_not_found(world, digest):
    world.name_foreign(named(world, digest))
    assert await world.engine.find(named(world, digest)) is None


async def test_an_image_of_ours_under_the_name_of_another_environment_is_not_found(world, digest):
    image = await assembled(world, digest)
    world.name(image.image_id, named(world, "f" * 64))
    assert await world.engine.find(named(world, "f" * 64)) is None


async def test_a_name_that_somebody_elses_image_has_becomes_ours(world, digest):
    world.name_foreign(named(world, digest))
    image = await assembled(world, digest)
    tagged = await world.engine.tag(image, named(world, digest))
    assert tagged.image_id == image.image_id
    assert await world.engine.find(named(world, digest)) == tagged


async def test_an_image_that_was_removed_is_not_found(world, digest):
    await world.engine.tag(await assembled(world, digest), named(world, digest))
    world.forget(named(world, digest))
    assert await world.engine.find(named(world, digest)) is None


@pytest.mark.parametrize("others", [0, 30])
async def test_of_many_names_those_are_present_that_would_be_found(world, digest, others):
    """However many are asked for: an engine has another way for many."""
    first, contradicted, foreign, removed = (new_digest(world) for _ in range(4))
    image = await world.engine.tag(await assembled(world, digest), named(world, digest))
    await world.engine.tag(await assembled(world, first, content=b"y"), named(world, first))
    await world.engine.tag(await assembled(world, removed, content=b"z"), named(world, removed))
    world.forget(named(world, removed))
    world.name(image.image_id, named(world, contradicted))
    world.name_foreign(named(world, foreign))
    absent = [f"{number:064x}" for number in range(others)]
    asked = [named(world, one) for one in (digest, first, contradicted, foreign, removed, *absent)]
    assert set(await world.engine.present(asked)) == {named(world, digest), named(world, first)}
    assert not await world.engine.present([])


async def test_an_image_that_has_gone_gets_no_name(world, digest):
    image = await assembled(world, digest)
    await world.engine.discard(image)
    with pytest.raises(LayersGone):
        await world.engine.tag(image, named(world, digest))
    assert await world.engine.find(named(world, digest)) is None


# -- throwing away -----------------------------------------------------------------------------------------------------


async def test_an_image_without_a_name_can_be_discarded_twice(world, digest):
    image = await assembled(world, digest)
    await world.engine.discard(image)
    await world.engine.discard(image)
    assert world.images(digest) == set()


async def test_an_image_with_a_name_is_not_discarded(world, digest):
    image = await assembled(world, digest)
    tagged = await world.engine.tag(image, named(world, digest))
    for wanted in (image, tagged):
        await world.engine.discard(wanted)
    assert await world.engine.find(named(world, digest)) == tagged


async def test_an_image_that_a_container_uses_is_not_discarded(world, digest):
    image = await assembled(world, digest)
    world.use(image.image_id)
    await world.engine.discard(image)
    assert world.images(digest) == {image.image_id}


# -- holding -----------------------------------------------------------------------------------------------------------


async def test_a_base_that_is_held_can_be_built_on_after_its_last_name_went(world, digest):
    reference = world.own_base()
    base = await world.engine.resolve_base(reference)
    plan = await planned(world, digest, base=base)
    async with world.engine.hold(base.image_id):
        world.forget(reference)
        image = await world.engine.assemble(plan, report=ignore)
    assert world.images(digest) == {image.image_id}


async def test_a_hold_leaves_no_name_behind_however_it_ends(world):
    base = await world.engine.resolve_base(world.base)
    before = world.bystanders()
    with pytest.raises(ZeroDivisionError):
        async with world.engine.hold(base.image_id), world.engine.hold(base.image_id):
            raise ZeroDivisionError
    held = asyncio.Event()

    async def holds() -> None:
        async with world.engine.hold(base.image_id):
            held.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(holds())
    await held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.bystanders() == before


async def test_a_hold_that_is_left_as_it_begins_leaves_no_name_behind(world):
    base = await world.engine.resolve_base(world.base)
    before = world.bystanders()

    async def holds() -> None:
        async with world.engine.hold(base.image_id):
            await asyncio.Event().wait()

    for turns in range(4):
        task = asyncio.ensure_future(holds())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    # A call that is answered last has seen everything that was under way.
    await world.engine.find(named(world, "0" * 64))
    await until(lambda: world.bystanders() == before)


async def test_a_base_that_has_gone_cannot_be_held(world):
    reference = world.own_base()
    base = await world.engine.resolve_base(reference)
    world.forget(reference)
    with pytest.raises(LayersGone):
        async with world.engine.hold(base.image_id):
            raise AssertionError("it was entered")


# -- an engine that is not there ---------------------------------------------------------------------------------------


async def test_an_engine_that_cannot_be_reached_says_so_and_never_that_something_is_absent(world, digest):
    plan = await planned(world, digest)
    image = await assembled(world, digest)
    world.stop_engine()
    with pytest.raises(EngineUnavailable):
        await world.engine.resolve_base(world.base)
    with pytest.raises(EngineUnavailable):
        await world.engine.find(named(world, digest))
    with pytest.raises(EngineUnavailable):
        await world.engine.known_base(world.base)
    for names in (1, 30):
        with pytest.raises(EngineUnavailable):
            await world.engine.present([named(world, f"{number:064x}") for number in range(names)])
    with pytest.raises(EngineUnavailable):
        await world.engine.assemble(plan, report=ignore)
    with pytest.raises(EngineUnavailable):
        await world.engine.tag(image, named(world, digest))
    with pytest.raises(EngineUnavailable):
        async with world.engine.hold(plan.base.image_id):
            raise AssertionError("it was entered")
