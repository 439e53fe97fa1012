"""What an inventory promises: `prebuilt_spawner.build.inventory.ImageInventory`."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import docker
import pytest

from prebuilt_spawner.adapters.docker_inventory import DockerInventory
from prebuilt_spawner.adapters.memory_inventory import MemoryInventory
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.interface import DerivedImage
from prebuilt_spawner.build.inventory import ImageInventory, InventoryImage
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.errors import EngineUnavailable
from prebuilt_spawner.image.names import (
    BASE_DIGEST_LABEL,
    CHECK_LABEL,
    COMPILER_LABEL,
    DIGEST_LABEL,
    HUB_LABEL,
    PACKAGES_LABEL,
    PROBE_LABEL,
    SANDBOX_LABEL,
)
from prebuilt_spawner.image.plan import plan_image

from .engine_worlds import TEST_BASE, EngineWorld, MemoryWorld


@pytest.fixture
def world(engine_world) -> EngineWorld:
    return engine_world


@pytest.fixture
async def inventory(world) -> AsyncIterator[ImageInventory]:
    if isinstance(world, MemoryWorld):
        made = MemoryInventory(world.engine, repository=world.repository)
    else:
        made = DockerInventory(repository=world.repository)
    yield made
    await made.close()


async def assembled(world: EngineWorld, *, base: str = "") -> DerivedImage:
    """An image of ours without a name."""
    found = await world.engine.resolve_base(base or world.base)
    digest = secrets.token_hex(32)
    world.images(digest)
    plan = plan_image(
        base=found,
        probe=await world.engine.probe(found),
        lock=Lock(),
        fragments=(),
        own_files={"opt/contract/file": b"x" * 5000},
        labels={
            DIGEST_LABEL: digest,
            BASE_DIGEST_LABEL: found.digest,
            PACKAGES_LABEL: json.dumps(["numpy==2.0", "pandas==3.0"]),
            "org.opencontainers.image.base.name": found.reference,
        },
        environment={},
        digest=digest,
    )
    return await world.engine.assemble(plan, report=ignore)


async def made(world: EngineWorld, *, base: str = "") -> DerivedImage:
    image = await assembled(world, base=base)
    return await world.engine.tag(image, f"{world.repository}:{image.digest}")


async def listed(inventory: ImageInventory, image: DerivedImage) -> InventoryImage | None:
    found = [each for each in await inventory.images() if each.digest == image.digest]
    assert len(found) <= 1
    return found[0] if found else None


async def test_an_image_is_listed_with_what_decides_about_it(world, inventory):
    image = await made(world)
    base = await world.engine.resolve_base(world.base)
    found = await listed(inventory, image)
    assert found is not None
    assert found.image_id == image.image_id
    assert found.names == (image.reference,)
    assert found.packages == ("numpy==2.0", "pandas==3.0")
    assert found.base_digest == found.base_digest_now == base.digest
    assert found.size_bytes == image.size_bytes
    assert 5000 <= found.added_bytes < 1_000_000
    assert not found.in_use


async def test_an_image_without_a_name_is_listed_too(world, inventory):
    image = await assembled(world)
    assert (await listed(inventory, image)).names == ()


async def test_an_image_that_a_container_uses_is_said_to_be_used(world, inventory):
    image = await made(world)
    world.use(image.image_id)
    assert (await listed(inventory, image)).in_use


async def test_all_names_are_told(world, inventory):
    image = await made(world)
    world.name(image.image_id, f"{world.repository}:other")
    assert (await listed(inventory, image)).names == tuple(sorted((image.reference, f"{world.repository}:other")))


async def test_images_of_other_repositories_and_of_others_are_not_listed(world, inventory):
    image = await assembled(world)
    world.name(image.image_id, f"{world.repository}-elsewhere:1")
    assert await listed(inventory, image) is None
    world.forget(f"{world.repository}-elsewhere:1")


async def test_what_the_bases_name_stands_for_now_is_told(world, inventory):
    own = world.own_base()
    image = await made(world, base=own)
    first = (await listed(inventory, image)).base_digest_now
    assert first == image.base_digest
    world.forget(own)
    assert (await listed(inventory, image)).base_digest_now == ""


async def test_removing_the_last_name_removes_the_image(world, inventory):
    image = await made(world)
    assert await inventory.remove(image.reference)
    assert await world.engine.find(image.reference) is None
    assert world.images(image.digest) == set()


async def test_removing_one_of_two_names_leaves_the_other(world, inventory):
    image = await made(world)
    world.name(image.image_id, f"{world.repository}:other")
    assert await inventory.remove(image.reference)
    assert (await listed(inventory, image)).names == (f"{world.repository}:other",)


async def test_removing_what_is_not_there_is_as_good(world, inventory):
    assert await inventory.remove(f"{world.repository}:{'0' * 64}")


@pytest.mark.parametrize("names", [1, 2])
async def test_an_image_that_a_container_uses_is_not_removed_and_keeps_its_names(world, inventory, names):
    """Also with another name, where the engine would let this one go; the next start needs it."""
    image = await made(world)
    if names == 2:
        world.name(image.image_id, f"{world.repository}:other")
    world.use(image.image_id)
    assert not await inventory.remove(image.reference)
    assert image.reference in (await listed(inventory, image)).names


async def test_discarding_removes_an_image_without_a_name(world, inventory):
    image = await assembled(world)
    await inventory.discard(image.image_id)
    assert world.images(image.digest) == set()
    await inventory.discard(image.image_id)


async def test_discarding_leaves_what_has_a_name_or_is_used(world, inventory):
    named, used = await made(world), await assembled(world)
    world.use(used.image_id)
    for image in (named, used):
        await inventory.discard(image.image_id)
        assert world.images(image.digest) == {image.image_id}


async def test_an_engine_that_cannot_be_reached_is_said(world, tmp_path):
    world.stop_engine()
    if isinstance(world, MemoryWorld):
        inventory: ImageInventory = MemoryInventory(world.engine, repository=world.repository)
    else:
        settings = {"base_url": f"unix://{tmp_path}/no.sock", "version": "1.41"}
        inventory = DockerInventory(repository=world.repository, client_kwargs=settings)
    with pytest.raises(EngineUnavailable):
        await inventory.images()
    with pytest.raises(EngineUnavailable):
        await inventory.remove(f"{world.repository}:{'0' * 64}")
    await inventory.close()


async def test_the_double_counts_helpers(memory_engine_world):
    inventory = MemoryInventory(memory_engine_world.engine, repository="r")
    inventory.left_helpers = ["hub", "other", "hub"]
    assert await inventory.remove_left_helpers(hub="hub") == 2
    assert await inventory.remove_left_helpers(hub="hub") == 0
    assert await inventory.remove_left_helpers(hub="other") == 1


@pytest.mark.skipif(not TEST_BASE and os.environ.get("REQUIRE_ENGINE") != "1", reason="`make unit` has no engine")
@pytest.mark.parametrize("label", [PROBE_LABEL, COMPILER_LABEL, SANDBOX_LABEL, CHECK_LABEL])
async def test_helpers_that_were_left_are_removed_and_no_other_container(docker_engine_world, label):
    """This hub's go in any state. Another's stays while it runs, has ended just now, or was made a moment ago; and what
    is no helper stays."""
    word = secrets.token_hex(4)
    client = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto")
    made = []

    def container(command: list[str], labels: dict[str, str], *, start: bool = True) -> str:
        entrypoint = {"entrypoint": command[:1], "command": command[1:]}
        found = client.create_container(TEST_BASE, **entrypoint, labels={"prebuilt_spawner.test": word, **labels})["Id"]
        made.append(found)
        if start:
            client.start(found)
        return found

    def left() -> set[str]:
        found = client.containers(all=True, filters={"label": f"prebuilt_spawner.test={word}"})
        return {each["Id"] for each in found}

    try:
        own, theirs = {label: word, HUB_LABEL: "hub"}, {label: word, HUB_LABEL: "another hub"}
        ended, other = container(["true"], theirs), container(["true"], {HUB_LABEL: "hub"})
        runs, waits = container(["sleep", "600"], theirs), container(["true"], theirs, start=False)
        own_runs, own_waits = container(["sleep", "600"], own), container(["true"], own, start=False)
        for each in (ended, other):
            client.wait(each)
        # Limited to these: others may use the engine meanwhile.
        about = {"repository": docker_engine_world.repository, "labels": {"prebuilt_spawner.test": word}}
        patient = DockerInventory(**about, helper_grace=timedelta(hours=1))
        await patient.remove_left_helpers(hub="a third hub")
        assert left() == {ended, other, runs, waits, own_runs, own_waits}
        assert await patient.remove_left_helpers(hub="hub") == 2
        await patient.close()
        assert left() == {ended, other, runs, waits}
        inventory = DockerInventory(**about, helper_grace=timedelta())
        assert await inventory.remove_left_helpers(hub="hub") == 1
        await inventory.close()
        assert left() == {other, runs, waits}
    finally:
        for each in made:
            with contextlib.suppress(docker.errors.NotFound):
                client.remove_container(each, force=True, v=True)
        client.close()


async def test_with_a_registry_images_are_listed_and_removed_by_their_names_there(world) -> None:
    """And by those without it, from before."""
    registry = "registry.test:5000"
    if isinstance(world, MemoryWorld):
        inventory: ImageInventory = MemoryInventory(world.engine, repository=world.repository, registry=registry)
    else:
        inventory = DockerInventory(repository=world.repository, registry=registry)
    names = []
    for place in (f"{registry}/{world.repository}", world.repository):
        image = await assembled(world)
        names.append((await world.engine.tag(image, f"{place}:{image.digest}")).reference)
    try:
        assert {name for image in await inventory.images() for name in image.names} == set(names)
    finally:
        for name in names:
            assert await inventory.remove(name)
        await inventory.close()
    assert await world.engine.present(names) == set()
