"""What goes wrong between hub and store: noticed, cleaned, and no hindrance to the next try."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator

import pytest

from prebuilt_spawner.adapters import docker_archives, docker_build
from prebuilt_spawner.adapters.docker_engine import DockerEngine
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.interface import DerivedImage
from prebuilt_spawner.errors import EngineFailure, EngineUnavailable, LayersGone
from prebuilt_spawner.image.archive import oci_archive
from prebuilt_spawner.image.config import derived_config
from prebuilt_spawner.image.layer import ImagePlan

from .plans import plan_of
from .private_engine import PrivateEngine
from .test_saving import saved_diff_ids

REPOSITORY = "prebuilt-spawner-test/env"
FILES = {"opt/here": b"here"}
LARGE = {"opt/large": secrets.token_bytes(8 << 20)}


def records(private: PrivateEngine) -> set[str]:
    """All that the engine has of images, also where it does not list them. A hold that nobody could release is a name
    of an image that was there before, and released a day later."""
    names = private.ctr("images", "ls", "--quiet").split() if private.has_containerd_store else []
    return {*private.ids(), *(name for name in names if ":hold-" not in name)}


async def assert_a_try_works(private: PrivateEngine, engine: DockerEngine, plan: ImagePlan) -> DerivedImage:
    made = await engine.assemble(plan, report=ignore)
    named = await engine.tag(made, f"{REPOSITORY}:{plan.digest}")
    assert private.starts(named.reference)
    assert saved_diff_ids(private.client, named.reference) == named.diff_ids
    return named


# -- transfers that break off ------------------------------------------------------------------------------------------


def breaking(monkeypatch: pytest.MonkeyPatch, handover: str, breaks: Callable[[], None]) -> None:
    """Have something happen in the middle of the next transfer."""
    module = docker_build if handover == "build" else docker_archives
    reported = module.reported

    def broken(chunks: Iterator[bytes], *others) -> Iterator[bytes]:
        for number, chunk in enumerate(reported(chunks, *others)):
            if number == 5:
                monkeypatch.undo()
                breaks()
            yield chunk

    monkeypatch.setattr(module, "reported", broken)


@pytest.mark.parametrize("handover", ["archive", "build"])
async def test_a_connection_that_breaks_in_the_middle_of_a_load_leaves_nothing(
    private, connected, own_base, monkeypatch, handover
):
    engine = connected(private, handover=handover)
    plan = plan_of(await engine.resolve_base(own_base(private)), LARGE, FILES)
    before = records(private)

    def breaks() -> None:
        raise OSError("the connection broke")

    breaking(monkeypatch, handover, breaks)
    with pytest.raises(EngineUnavailable):
        await engine.assemble(plan, report=ignore)
    assert records(private) == before
    await assert_a_try_works(private, engine, plan)


@pytest.mark.parametrize("handover", ["archive", "build"])
async def test_an_engine_that_is_killed_in_the_middle_of_a_load_keeps_nothing_of_it(
    private, connected, own_base, monkeypatch, handover
):
    engine = connected(private, handover=handover)
    name = own_base(private)
    plan = plan_of(await engine.resolve_base(name), LARGE, FILES)
    before = records(private)
    breaking(monkeypatch, handover, private.kill)
    with pytest.raises(EngineUnavailable):
        await engine.assemble(plan, report=ignore)
    private.start()
    assert records(private) == before
    await assert_a_try_works(private, engine, plan)


# -- a containerd store that is not whole ------------------------------------------------------------------------------


def manifest(containerd: PrivateEngine, image_id: str) -> dict:
    return json.loads(containerd.ctr("content", "get", image_id))


def lose_layer(containerd: PrivateEngine, image_id: str) -> None:
    containerd.ctr("content", "rm", manifest(containerd, image_id)["layers"][0]["digest"])


def lose_configuration(containerd: PrivateEngine, image_id: str) -> None:
    containerd.ctr("content", "rm", manifest(containerd, image_id)["config"]["digest"])


def lose_all(containerd: PrivateEngine, image_id: str) -> None:
    (diff_id,) = containerd.client.inspect_image(image_id)["RootFS"]["Layers"]
    containerd.ctr("snapshots", "rm", diff_id)  # possible as long as nothing has been stacked on it
    lose_layer(containerd, image_id)


@pytest.mark.parametrize(
    ("lose", "known"), [(lose_layer, True), (lose_layer, False), (lose_configuration, True), (lose_all, False)]
)
async def test_a_base_whose_record_is_there_and_whose_content_is_not_is_missed(
    containerd, connected, own_base, lose, known
):
    """An inspection of it may work, and so may a container; loading it again mends it."""
    engine = connected(containerd, handover="archive")
    name = own_base(containerd)
    base = await engine.resolve_base(name)
    saved = list(containerd.client.get_image(name, chunk_size=1 << 20))
    if known:
        await engine.discard(await engine.assemble(plan_of(base, FILES), report=ignore))
    plan = plan_of(base, FILES)
    lose(containerd, base.image_id)
    before = records(containerd)
    with pytest.raises(LayersGone):
        await engine.assemble(plan, report=ignore)
    assert records(containerd) == before
    containerd.load(iter(saved))
    assert (await engine.resolve_base(name)).image_id == base.image_id
    await assert_a_try_works(containerd, engine, plan)


async def test_a_broken_record_under_the_images_id_is_mended(containerd, connected, own_base, monkeypatch):
    """As a hub leaves it that is killed after a load failed: it can be inspected, and not started."""
    engine = connected(containerd, handover="archive")
    name = own_base(containerd)
    base = await engine.resolve_base(name)
    saved = list(containerd.client.get_image(name, chunk_size=1 << 20))
    plan = plan_of(base, FILES)
    lower_layers = manifest(containerd, base.image_id)["layers"]
    containerd.remove_image(name)
    monkeypatch.setattr(docker_archives, "discard", lambda *_: None)
    diff_ids = docker_archives.own_diff_ids(plan)
    with pytest.raises(EngineFailure):
        docker_archives.load_oci_archive(
            containerd.client, threading.Event(), plan, diff_ids, ignore, lower_layers=lower_layers
        )
    monkeypatch.undo()
    left, _ = oci_archive(plan, derived_config(plan, diff_ids), diff_ids, lower_layers)
    assert containerd.has(left)
    assert not containerd.starts(left)
    containerd.load(iter(saved))
    assert (await assert_a_try_works(containerd, engine, plan)).image_id == left
