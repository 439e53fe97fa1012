"""What prune, rmi and a store's own garbage collection do to bases and derived images. See docs/how-to/prune.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from prebuilt_spawner.adapters.docker_engine import DockerEngine
from prebuilt_spawner.adapters.docker_handover import DockerHandover
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.interface import DerivedImage
from prebuilt_spawner.errors import LayersGone
from prebuilt_spawner.image.layer import LowerLayers
from prebuilt_spawner.image.names import DIGEST_LABEL

from ..assembling import assembled
from ..index_server import IndexServer
from .plans import plan_of
from .private_engine import PrivateEngine
from .test_saving import saved_diff_ids

REPOSITORY = "prebuilt-spawner-test/env"
FILES = {"opt/here": b"here"}


@pytest.fixture
def engine(private: PrivateEngine, connected: Callable[..., DockerEngine]) -> DockerEngine:
    return connected(private)


async def derived(engine: DockerEngine, base: str, lower: DerivedImage | None = None) -> DerivedImage:
    """An environment on this base, with its name; on the layers of another but for its last one."""
    image = await engine.resolve_base(base)
    below = LowerLayers(image_id=lower.image_id, diff_ids=lower.diff_ids[:-1]) if lower is not None else None
    plan = plan_of(image, {"opt/more": b"more"} if lower is not None else FILES, {"opt/notes": b""}, lower=below)
    made = await engine.assemble(plan, report=ignore)
    return await engine.tag(made, f"{REPOSITORY}:{plan.digest}")


def is_well(private: PrivateEngine, image: DerivedImage) -> bool:
    """Whether it starts, and what is saved of it is whole."""
    assert private.starts(image.image_id)
    assert saved_diff_ids(private.client, image.image_id) == image.diff_ids
    return True


async def test_a_prune_leaves_what_has_a_name(private, engine, own_base):
    base = own_base(private)
    image = await derived(engine, base)
    private.prune()
    assert private.has(base)
    assert is_well(private, image)


async def test_a_prune_of_all_leaves_what_containers_use_whole(private, engine, own_base):
    """And removes what none uses: environments, and bases too."""
    base = own_base(private)
    used, unused = await derived(engine, base), await derived(engine, base)
    with private.running(used.reference):
        private.prune(dangling=False)
        assert not private.has(base)
        assert await engine.find(unused.reference) is None
        assert await engine.find(used.reference) == used
        assert is_well(private, used)


async def test_a_container_that_was_never_started_keeps_a_base_in_a_prune_of_all(private, engine, own_base):
    base = own_base(private)
    container = private.client.create_container(base, command=["true"])
    private.prune(dangling=False)
    assert private.has(base)
    assert is_well(private, await derived(engine, base))
    private.client.remove_container(container)


async def test_a_prune_of_all_but_what_has_our_label_leaves_environments(private, engine, own_base):
    base = own_base(private)
    image = await derived(engine, base)
    private.prune(**{"dangling": False, "label!": DIGEST_LABEL})
    assert not private.has(base)
    assert await engine.find(image.reference) == image
    assert is_well(private, image)


@pytest.mark.parametrize("handover", ["archive", "build"])
@pytest.mark.parametrize("force", [False, True])
async def test_an_environment_outlives_its_base(private, connected, own_base, force, handover):
    engine = connected(private, handover=handover)
    base = own_base(private)
    image = await derived(engine, base)
    private.remove_image(base, force=force)
    assert not private.has(base)
    private.prune()
    assert is_well(private, image)


async def test_an_environment_outlives_the_one_that_it_is_stacked_on(private, engine, own_base):
    base = own_base(private)
    below = await derived(engine, base)
    above = await derived(engine, base, below)
    private.remove_image(below.reference, force=True)
    private.remove_image(base, force=True)
    private.prune()
    assert not private.has(below.image_id)
    assert is_well(private, above)


async def test_a_base_that_is_held_can_lose_its_name_and_be_pruned(private, engine, own_base):
    name = own_base(private)
    base = await engine.resolve_base(name)
    async with engine.hold(base.image_id):
        private.remove_image(name)
        private.prune()
        image = await engine.assemble(plan_of(base, FILES), report=ignore)
    assert is_well(private, image)
    await engine.discard(image)
    assert not private.has(base.image_id)


async def test_a_base_that_is_held_can_be_replaced_under_its_name(private, engine, own_base):
    name = own_base(private)
    base = await engine.resolve_base(name)
    async with engine.hold(base.image_id):
        own_base(private, name)
        assert (await engine.resolve_base(name)).image_id != base.image_id
        private.prune()
        image = await engine.assemble(plan_of(base, FILES), report=ignore)
    private.prune(dangling=False)
    assert not private.has(image.image_id)


@pytest.mark.parametrize("act", ["rmi --force ID", "prune --all"])
async def test_a_base_that_is_removed_although_it_is_held_is_missed_before_anything_has_a_name(
    private, engine, own_base, act
):
    name = own_base(private)
    base = await engine.resolve_base(name)
    plan = plan_of(base, FILES)
    async with engine.hold(base.image_id):
        if act == "rmi --force ID":
            private.remove_image(base.image_id, force=True)
        else:
            private.prune(dangling=False)
        with pytest.raises(LayersGone):
            await engine.assemble(plan, report=ignore)
    assert not private.has(base.image_id)
    assert private.client.images(all=True, filters={"label": f"{DIGEST_LABEL}={plan.digest}"}) == []


async def test_a_base_that_is_removed_under_a_container_is_missed_where_images_cannot_do_without(
    private, engine, own_base
):
    """Its layers are unpacked still. For a graphdriver store that is all; a containerd store takes it for enough too,
    and could not save what is made."""
    name = own_base(private)
    base = await engine.resolve_base(name)
    await engine.discard(await engine.assemble(plan_of(base, FILES), report=ignore))  # all is known of the base
    plan = plan_of(base, FILES)
    container = private.client.create_container(name, command=["true"])
    private.remove_image(base.image_id, force=True)
    assert not private.has(base.image_id)
    if private.has_containerd_store:
        with pytest.raises(LayersGone):
            await engine.assemble(plan, report=ignore)
    else:
        assert is_well(private, await engine.assemble(plan, report=ignore))
    private.client.remove_container(container)


async def test_an_image_that_is_pruned_before_it_has_a_name_gets_none(private, engine, own_base):
    base = await engine.resolve_base(own_base(private))
    plan = plan_of(base, FILES)
    image = await engine.assemble(plan, report=ignore)
    private.prune()
    with pytest.raises(LayersGone):
        await engine.tag(image, f"{REPOSITORY}:{plan.digest}")
    assert await engine.find(f"{REPOSITORY}:{plan.digest}") is None


async def test_an_engine_that_is_pruned_between_plan_and_load_has_the_image_in_the_end(
    private, published, tmp_path, monkeypatch, caplog
):
    """It is planned once more, on the base alone, which is pulled again."""
    assemble = DockerHandover.assemble
    pruned: list[bool] = []

    async def after_a_prune(self, plan, **how):
        if not pruned:
            pruned.append(True)
            await asyncio.to_thread(private.prune, dangling=False)
        return await assemble(self, plan, **how)

    with IndexServer() as index:
        for name in ("demo-one", "demo-two"):
            index.add_wheel(name, "1.0")
        how = {"base": published, "repository": REPOSITORY, "folder": tmp_path, "index_url": index.url}
        how["client_kwargs"] = {"base_url": private.url}
        below = await assembled(["demo-one", "demo-two"], **how)
        monkeypatch.setattr(DockerHandover, "assemble", after_a_prune)
        # Nothing is compiled for this one: no container keeps the base.
        environment = await assembled(["demo-one"], **how)
    assert not private.has(below.image)
    assert "once more" in caplog.text
    assert private.python(environment.image, "import demo_one; print(demo_one.__version__)") == "1.0"


async def test_a_prune_of_volumes_leaves_named_ones_from_api_1_42_on(private):
    """Homes are named volumes."""
    version = tuple(map(int, private.client.api_version.split(".")))
    private.client.create_volume("home")
    private.client.prune_volumes()
    left = private.client.volumes({"name": "home"})["Volumes"]
    assert bool(left) is (version >= (1, 42))
    if left:
        private.client.prune_volumes({"all": True})
        assert not private.client.volumes({"name": "home"})["Volumes"]


async def test_nothing_keeps_the_content_of_images_that_are_gone(containerd, connected, own_base):
    """What is read or loaded is leased meanwhile, and no longer."""
    engine = connected(containerd)
    containerd.collect_garbage()
    before = held_by(containerd)
    name = own_base(containerd)
    image = await derived(engine, name)
    containerd.remove_image(image.reference)
    containerd.remove_image(name)
    assert held_by(containerd) == before


def held_by(containerd: PrivateEngine) -> dict[str, set[str]]:
    """All that the containerd store has, and what keeps it."""
    found = {what: containerd.ctr(what, "ls", "--quiet").split() for what in ("content", "images", "leases")}
    found["snapshots"] = [line.split()[0] for line in containerd.ctr("snapshots", "ls").splitlines()]
    return {what: set(names) for what, names in found.items()}
