"""A large image is loaded in pieces, one on top of the other: what is left is the image, or nothing."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from prebuilt_spawner.adapters import docker_archives, docker_pieces
from prebuilt_spawner.adapters.docker_pieces import in_pieces
from prebuilt_spawner.build.events import BuildEvent, Phase, ignore
from prebuilt_spawner.environment.base import BaseImage
from prebuilt_spawner.errors import EngineFailure, LayersGone, StorageFailure
from prebuilt_spawner.image.archive import layer_digest
from prebuilt_spawner.image.layer import FileRange, ImagePlan, Layer
from tests.stores.plans import plan_of

from .engine_worlds import REQUIRED, TEST_BASE, DockerWorld
from .test_engine import until

needs_engine = pytest.mark.skipif(not TEST_BASE and not REQUIRED, reason="the double loads nothing")
LAYERS = 4


@pytest.fixture
def world(docker_engine_world, monkeypatch) -> DockerWorld:
    monkeypatch.setattr(docker_pieces, "PIECE_BYTES", 10_000)
    return docker_engine_world


class Loads:
    """The archives that are loaded; `before` is called with the number of each, from 0, as its last bytes are sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images: list[str] = []
        self.before: Callable[[int], None] = lambda number: None
        self._load = docker_archives.load_archive
        monkeypatch.setattr(docker_archives, "load_archive", self)

    def __call__(self, client: Any, image_id: str, chunks: Iterator[bytes]) -> None:
        number = len(self.images)
        self.images.append(image_id)

        def hooked() -> Iterator[bytes]:
            yield from chunks
            self.before(number)

        self._load(client, image_id, hooked())


@pytest.fixture
def loads(monkeypatch) -> Loads:
    return Loads(monkeypatch)


async def own_base(world: DockerWorld) -> BaseImage:
    """One that has been built on, so that the engine is known to take archives."""
    base = await world.engine.resolve_base(world.own_base())
    image = await world.engine.assemble(plan_of(base, {"opt/first": b"first"}), report=ignore)
    await world.engine.discard(image)
    return base


def planned(world: DockerWorld, base: BaseImage) -> ImagePlan:
    plan = plan_of(base, *({f"opt/{number}": secrets.token_bytes(20_000)} for number in range(LAYERS)))
    world.images(plan.digest)  # removed after the test
    return plan


@needs_engine
async def test_an_image_in_pieces_is_the_image_and_leaves_none_on_the_way(world, loads):
    base = await own_base(world)
    loads.images.clear()
    plan, events = planned(world, base), []
    image = await world.engine.assemble(plan, report=events.append)
    assert len(loads.images) == LAYERS
    assert world.images_on(base) == {image.image_id} == {loads.images[-1]}
    assert image.diff_ids == (*base.diff_ids, *docker_archives.own_diff_ids(plan))
    config = world.config(image.image_id)
    assert {*config["Labels"]} == {*base.config.get("Labels", {}), *plan.labels}
    sent = [event for event in events if event.phase is Phase.SAVING]
    assert all(isinstance(event, BuildEvent) for event in sent)


@needs_engine
async def test_in_pieces_or_whole_it_is_the_same_image(world, loads, monkeypatch):
    base = await own_base(world)
    plan = planned(world, base)
    in_many = await world.engine.assemble(plan, report=ignore)
    await world.engine.discard(in_many)
    monkeypatch.setattr(docker_pieces, "PIECE_BYTES", 1 << 30)
    loads.images.clear()
    whole = await world.engine.assemble(plan, report=ignore)
    assert len(loads.images) == 1
    assert whole == in_many


@needs_engine
async def test_two_at_once_make_one_image_and_do_not_disturb_each_other(world):
    base = await own_base(world)
    plan = planned(world, base)
    first, second = await asyncio.gather(*(world.engine.assemble(plan, report=ignore) for _ in range(2)))
    assert first == second
    assert world.images_on(base) == {first.image_id}


@needs_engine
@pytest.mark.parametrize("number", range(LAYERS))
async def test_a_piece_that_fails_leaves_nothing_and_says_why(world, loads, number):
    base = await own_base(world)

    def fail(at: int) -> None:
        if at == 1 + number:  # the first is the one with which the engine was tried
            raise EngineFailure("The disk is full.")

    loads.images[:] = loads.images[:1]
    loads.before = fail
    with pytest.raises(EngineFailure) as caught:
        await world.engine.assemble(planned(world, base), report=ignore)
    assert caught.value.message == "The disk is full."
    assert world.images_on(base) == set()


@needs_engine
async def test_a_fragment_that_has_gone_leaves_nothing(world, tmp_path):
    base = await own_base(world)
    plan = planned(world, base)
    gone = Layer(comment="gone", parts=(FileRange(path=tmp_path / "gone", offset_bytes=0, length_bytes=20_000),))
    with pytest.raises(StorageFailure):
        await world.engine.assemble(replace(plan, layers=(*plan.layers, gone)), report=ignore)
    assert world.images_on(base) == set()


@needs_engine
async def test_who_leaves_in_the_middle_leaves_nothing(world, loads):
    base = await own_base(world)
    loop, left = asyncio.get_running_loop(), threading.Event()

    def leave(at: int) -> None:
        if at == 3:
            loop.call_soon_threadsafe(task.cancel)
            left.wait(10)

    loads.images[:] = loads.images[:1]
    loads.before = leave
    task = asyncio.ensure_future(world.engine.assemble(planned(world, base), report=ignore))
    with pytest.raises(asyncio.CancelledError):
        await task
    left.set()
    await until(lambda: world.images_on(base) == set())


@needs_engine
async def test_where_somebody_removes_what_was_loaded_it_is_said_that_layers_have_gone(world, loads):
    """As `docker image prune` does: the images on the way have no name. Who builds starts again then."""
    base = await own_base(world)

    def prune(at: int) -> None:
        if at == 3:
            for image_id in world.images_on(base):
                world.remove(image_id)

    loads.images[:] = loads.images[:1]
    loads.before = prune
    with pytest.raises(LayersGone):
        await world.engine.assemble(planned(world, base), report=ignore)
    assert world.images_on(base) == set()


# -- layers ahead of their image ---------------------------------------------------------------------------------------


@needs_engine
async def test_an_image_is_stacked_on_layers_that_came_before_it(world):
    base = await own_base(world)
    plan = planned(world, base)
    *early, late = plan.layers
    async with world.engine.hold(base.image_id), world.engine.carry(base, plan.digest) as carrier:
        await takes(carrier, early[0])
        for layer in early[1:]:
            assert carrier.add(layer)
        lower = await carrier.settle()
        assert lower.diff_ids == (*base.diff_ids, *map(layer_digest, early))
        image = await world.engine.assemble(replace(plan, lower=lower, layers=(late,)), report=ignore)
    assert image.diff_ids == (*base.diff_ids, *map(layer_digest, plan.layers))
    assert world.images_on(base) == {image.image_id}


async def takes(carrier: Any, layer: Layer) -> None:
    """Who has just taken hold of the base finds out meanwhile which store the engine has."""
    for _ in range(100):
        if carrier.add(layer):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the engine takes no layers ahead")


@needs_engine
async def test_layers_whose_image_is_never_made_go(world):
    base = await own_base(world)
    plan = planned(world, base)
    async with world.engine.hold(base.image_id), world.engine.carry(base, plan.digest) as carrier:
        await takes(carrier, plan.layers[0])
        assert await carrier.settle()
    assert world.images_on(base) == set()


@needs_engine
async def test_a_carrier_that_is_left_in_the_middle_leaves_nothing(world, loads):
    base = await own_base(world)
    plan = planned(world, base)
    reached, left = threading.Event(), threading.Event()

    def wait_there(at: int) -> None:
        if at == 2:
            reached.set()
            left.wait(10)

    loads.images[:] = loads.images[:1]
    loads.before = wait_there
    async with world.engine.hold(base.image_id), world.engine.carry(base, plan.digest) as carrier:
        for layer in plan.layers:
            await takes(carrier, layer)
        await asyncio.to_thread(reached.wait, 10)
    left.set()
    await until(lambda: world.images_on(base) == set())


@needs_engine
async def test_a_carrier_that_fails_carries_nothing(world, loads):
    base = await own_base(world)
    plan = planned(world, base)

    def fail(at: int) -> None:
        if at == 1:
            raise EngineFailure("The disk is full.")

    loads.images[:] = loads.images[:1]
    loads.before = fail
    async with world.engine.hold(base.image_id), world.engine.carry(base, plan.digest) as carrier:
        await takes(carrier, plan.layers[0])
        assert await carrier.settle() is None
    assert world.images_on(base) == set()


@needs_engine
async def test_a_carrier_of_nothing_is_nothing(world):
    base = await own_base(world)
    async with world.engine.carry(base, "d" * 64) as carrier:
        assert await carrier.settle() is None


@needs_engine
async def test_an_engine_whose_builder_makes_the_images_takes_no_layers_ahead(docker_build_engine_world):
    world = docker_build_engine_world
    base = await world.engine.resolve_base(world.base)
    async with world.engine.hold(base.image_id), world.engine.carry(base, "d" * 64) as carrier:
        assert not carrier.add(planned(world, base).layers[0])
        assert await carrier.settle() is None


# -- which pieces ------------------------------------------------------------------------------------------------------


def test_pieces_are_large_and_hold_every_layer_once_in_order() -> None:
    sizes = [1, 70, 1, 30, 40, 200, 5, 5, 70, 1]
    layers = [Layer(comment=str(number), parts=(b"x" * 2**20,) * size) for number, size in enumerate(sizes)]
    pieces = list(in_pieces(layers))
    assert [layer for piece in pieces for layer in piece] == layers
    assert [sum(int(layer.size_bytes / 2**20) for layer in piece) for piece in pieces] == [71, 71, 200, 81]


def test_what_is_small_is_one_piece() -> None:
    layers = [Layer(comment="a", parts=(b"x",)), Layer(comment="b", parts=(b"y",))]
    assert list(in_pieces(layers)) == [tuple(layers)]
