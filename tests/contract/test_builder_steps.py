"""An engine's builder makes images on the way to one of ours; none of them outlives it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from prebuilt_spawner.adapters.docker_inventory import DockerInventory
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.image.names import STEP_LABEL

from .engine_worlds import REQUIRED, TEST_BASE, DockerWorld
from .test_engine import assembled, named, new_digest, planned

pytestmark = pytest.mark.skipif(not TEST_BASE and not REQUIRED, reason="the double has no builder")


@pytest.fixture
def world(docker_build_engine_world) -> DockerWorld:
    return docker_build_engine_world


@pytest.fixture
async def inventory(world) -> AsyncIterator[DockerInventory]:
    made = DockerInventory(repository=world.repository)
    yield made
    await made.close()


async def test_with_an_images_last_name_go_the_images_on_the_way_to_it(world, inventory):
    base = await world.engine.resolve_base(world.own_base())
    digest = new_digest(world)
    await world.engine.tag(await assembled(world, digest, base=base), named(world, digest))
    assert len(world.made_of(base.image_id)) > 1
    assert await inventory.remove(named(world, digest))
    assert world.made_of(base.image_id) == set()


async def test_what_another_image_was_made_of_stays(world, inventory):
    base = await world.engine.resolve_base(world.own_base())
    first, second = new_digest(world), new_digest(world)
    for digest in (first, second):
        await world.engine.tag(await assembled(world, digest, base=base), named(world, digest))
    assert await inventory.remove(named(world, first))
    found = await world.engine.find(named(world, second))
    assert found is not None
    assert (await assembled(world, second, base=base)).image_id == found.image_id
    await inventory.remove(named(world, second))
    assert world.made_of(base.image_id) == set()


async def test_an_image_that_is_discarded_leaves_its_nameless_base(world, inventory):
    """Whoever takes a name away from a base has not said that it should go."""
    name = world.own_base()
    base = await world.engine.resolve_base(name)
    plan = await planned(world, new_digest(world), base=base)
    image = await world.engine.assemble(plan, report=ignore)
    world.unname(name)
    await world.engine.discard(image)
    try:
        assert world.made_of(base.image_id) == set()
        assert world.inspect(base.image_id)["RepoTags"] == []
    finally:
        world.remove(base.image_id)


async def test_what_a_killed_process_left_on_the_way_goes_after_a_day(world):
    base = await world.engine.resolve_base(world.base)
    own_base = await world.engine.resolve_base(world.own_base())
    old = world.load(await planned(world, new_digest(world), base=base), labels={STEP_LABEL: "yes"})
    named_old = world.load(await planned(world, new_digest(world), content=b"y"), labels={STEP_LABEL: "yes"})
    world.name(named_old, f"{world.repository}:somebodys")
    digest = new_digest(world)
    await assembled(world, digest, base=own_base)
    recent = world.made_of(own_base.image_id)
    async with world.engine.hold(base.image_id):
        assert not world.has(old)
        assert world.has(named_old)
        assert world.made_of(own_base.image_id) == recent
