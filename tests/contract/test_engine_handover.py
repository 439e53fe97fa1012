"""Which way images take into a real engine, and what its builder makes of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from prebuilt_spawner.adapters import docker_archives, docker_build, docker_handover
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.interface import DerivedImage
from prebuilt_spawner.environment.base import BaseImage
from prebuilt_spawner.errors import EngineFailure, EngineUnavailable, LayersGone, PrebuiltError
from prebuilt_spawner.image.layer import Layer, LowerLayers
from prebuilt_spawner.image.tar import END_OF_ARCHIVE, tar_header

from .engine_worlds import REQUIRED, TEST_BASE, DockerWorld
from .test_engine import new_digest, planned, until

pytestmark = pytest.mark.skipif(not TEST_BASE and not REQUIRED, reason="the double has one way only")


@pytest.fixture
def world(docker_engine_world) -> DockerWorld:
    return docker_engine_world


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged of the choice, with its level."""
    caplog.set_level(logging.INFO, docker_handover.__name__)
    return lambda: [f"{record.levelname}: {record.getMessage()}" for record in caplog.records]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


class Loads:
    """The loads that the engine is asked for; what it does then is decided here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.answers: list[PrebuiltError | None] = []
        self.lost = False
        self._load = docker_archives.load_archive
        monkeypatch.setattr(docker_archives, "load_archive", self)

    def __call__(self, client, image_id: str, chunks: Iterator[bytes]) -> None:
        self.count += 1
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        if not self.lost:
            self._load(client, image_id, chunks)


async def made(world: DockerWorld, count: int = 1, base: BaseImage | None = None) -> list[bool]:
    """Whether images that are made at once came as archives."""
    plans = [await planned(world, new_digest(world), base=base, content=b"%d" % number) for number in range(count)]
    images = await asyncio.gather(*(world.engine.assemble(plan, report=ignore) for plan in plans))
    return [came_as_archive(world, image) for image in images]


def came_as_archive(world: DockerWorld, image: DerivedImage) -> bool:
    """The builder writes down when it made an image."""
    return world.created(image.image_id).startswith("1980-")


# -- the choice --------------------------------------------------------------------------------------------------------


async def test_an_engine_that_takes_archives_is_given_archives_after_one_trial_that_leaves_nothing(world, loads, said):
    base = await world.engine.resolve_base(world.own_base())
    assert await made(world, 3, base) == [True] * 3
    assert len(world.images_on(base)) == 3
    assert await made(world) == [True]
    assert loads.count == 5
    (word,) = said()
    assert word.startswith("INFO: The container engine takes images without the layers that it has")


async def test_an_engine_that_refuses_them_is_asked_once_and_builds_from_then_on(world, loads, said):
    loads.answers = [EngineFailure("It refused.", detail="no such\nlayer")]
    assert await made(world, 3) == [False] * 3
    assert await made(world) == [False]
    assert loads.count == 1
    (word,) = said()
    assert word.startswith(
        "WARNING: The container engine refuses images without the layers that it has (no such layer)"
    )


async def test_an_engine_that_takes_them_and_has_no_image_then_builds(world, loads, said):
    loads.lost = True
    assert await made(world) == [False]
    assert [word.partition(":")[0] for word in said()] == ["WARNING"]


async def test_an_engine_that_cannot_be_reached_is_tried_again(world, loads, said):
    loads.answers = [EngineUnavailable("It is down."), EngineUnavailable("It is down.")]
    plan = await planned(world, new_digest(world))
    outcomes = await asyncio.gather(
        *(world.engine.assemble(plan, report=ignore) for _ in range(2)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [EngineUnavailable] * 2
    assert said() == []
    assert await made(world) == [True]


async def test_layers_that_have_gone_say_nothing_about_the_engine(world, loads, said):
    plan = await planned(world, new_digest(world))
    gone = LowerLayers(image_id="sha256:" + "f" * 64, diff_ids=(*plan.lower.diff_ids, "sha256:" + "f" * 64))
    with pytest.raises(LayersGone):
        await world.engine.assemble(replace(plan, lower=gone), report=ignore)
    assert said() == []
    assert await made(world) == [True]


async def test_a_trial_that_is_left_is_made_by_who_waits_next(world, loads, said):
    plans = [await planned(world, new_digest(world), content=b"%d" % number) for number in range(2)]
    first, second = (asyncio.ensure_future(world.engine.assemble(plan, report=ignore)) for plan in plans)
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert came_as_archive(world, await second)
    assert len(said()) == 1


# -- what the builder makes --------------------------------------------------------------------------------------------


@pytest.fixture
def builder(docker_build_engine_world) -> DockerWorld:
    return docker_build_engine_world


async def test_a_base_with_build_triggers_is_not_built_on(builder):
    """The builder would run them."""
    base = await builder.engine.resolve_base(builder.own_base(changes=["ONBUILD RUN touch /triggered"]))
    digest = new_digest(builder)
    with pytest.raises(EngineFailure) as caught:
        await builder.engine.assemble(await planned(builder, digest, base=base), report=ignore)
    assert base.reference in caught.value.message
    assert builder.images(digest) == set()


async def test_a_builder_that_takes_whiteouts_for_files_is_found_out_and_nothing_is_left(builder, monkeypatch):
    """BuildKit does."""
    monkeypatch.setattr(docker_build, "BUILDER", "2")
    digest = new_digest(builder)
    plan = await planned(builder, digest)
    header = tar_header("etc", mode=0o755, kind="folder") + tar_header("etc/.wh.passwd", mode=0o644, kind="file")
    whiteouts = Layer(comment="whiteouts", parts=(header, END_OF_ARCHIVE))
    with pytest.raises(EngineFailure) as caught:
        await builder.engine.assemble(replace(plan, layers=(whiteouts, *plan.layers)), report=ignore)
    assert "/etc/.wh.passwd" in caught.value.detail
    assert builder.images(digest) == set()


async def test_a_build_that_fails_leaves_none_of_the_images_that_it_went_through(builder):
    base = await builder.engine.resolve_base(builder.own_base())
    plan = await planned(builder, new_digest(builder), base=base)
    broken = Layer(comment="cut off", parts=(tar_header("opt/cut", size_bytes=4096, mode=0o644, kind="file"),))
    with pytest.raises(EngineFailure):
        await builder.engine.assemble(replace(plan, layers=(*plan.layers, broken)), report=ignore)
    assert builder.images_on(base) == set()


async def test_a_build_that_is_left_in_the_middle_leaves_nothing(builder, monkeypatch):
    base = await builder.engine.resolve_base(builder.own_base())
    plan = await planned(builder, new_digest(builder), base=base)
    loop, messages = asyncio.get_running_loop(), docker_build._messages

    def until_the_second(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
        for number, message in enumerate(messages(lines)):
            if number == 1:
                loop.call_soon_threadsafe(task.cancel)
            yield message

    monkeypatch.setattr(docker_build, "_messages", until_the_second)
    task = asyncio.ensure_future(builder.engine.assemble(plan, report=ignore))
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    other = await planned(builder, new_digest(builder), base=base, content=b"another")
    image = await builder.engine.assemble(other, report=ignore)
    await builder.engine.discard(image)
    await until(lambda: builder.images_on(base) == set())
