"""What every registry does: the double, and one that is spoken to over HTTP. `tests/stores` runs it on Debian's too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prebuilt_spawner.errors import RegistryRefusal, RegistryUnavailable, StorageFailure
from prebuilt_spawner.image.names import DIGEST_LABEL

from .registry_worlds import (
    MemoryRegistryWorld,
    RegistryWorld,
    ServerRegistryWorld,
    base_content,
    base_image,
    from_file,
    layer,
    plan_of,
)

ONE, TWO = "1" * 64, "2" * 64
HEAVY, LIGHT, OTHER = layer("heavy", b"h" * 500_000), layer("light", b"l"), layer("other", b"o" * 3_000)


@pytest.fixture(params=[MemoryRegistryWorld, ServerRegistryWorld], ids=["memory", "server"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[RegistryWorld]:
    world: RegistryWorld = request.param()
    yield world
    await world.close()


async def test_where_nothing_is_there_nothing_is_found(world: RegistryWorld) -> None:
    """And that is no error."""
    assert await world.registry.find(ONE) is None


async def test_what_was_pushed_is_found_with_its_configuration(world: RegistryWorld) -> None:
    """By which it is judged before it is pulled."""
    pushed = await world.registry.push(ONE, plan_of(ONE, HEAVY, LIGHT), base_content())
    found = await world.registry.find(ONE)
    assert found is not None
    assert found.config is not None
    assert found.manifest_digest == pushed.manifest_digest
    assert found.config["config"]["Labels"][DIGEST_LABEL] == ONE
    assert tuple(found.config["rootfs"]["diff_ids"][:2]) == base_image().diff_ids
    assert len(found.config["rootfs"]["diff_ids"]) == 4
    assert not pushed.was_there


async def test_pushing_the_same_again_sends_nothing(world: RegistryWorld) -> None:
    first = await world.registry.push(ONE, plan_of(ONE, HEAVY), base_content())
    again = await world.registry.push(ONE, plan_of(ONE, HEAVY), base_content())
    assert (again.manifest_digest, again.was_there, again.sent_bytes) == (first.manifest_digest, True, 0)


async def test_two_that_push_the_same_at_once_make_one_image(world: RegistryWorld) -> None:
    """Whoever is quicker: the bytes are the same."""
    pushes = [world.registry.push(ONE, plan_of(ONE, HEAVY, LIGHT), base_content()) for _ in range(4)]
    digests = {push.manifest_digest for push in await asyncio.gather(*pushes)}
    assert set(world.tags().values()) == digests
    assert len(digests) == 1


async def test_of_an_environment_with_the_same_heavy_wheels_only_new_layers_are_sent(world: RegistryWorld) -> None:
    """The base's layers and the heavy one are there."""
    await world.registry.push(ONE, plan_of(ONE, HEAVY, LIGHT), base_content())
    second = await world.registry.push(TWO, plan_of(TWO, HEAVY, OTHER), base_content())
    assert OTHER.size_bytes < second.sent_bytes < OTHER.size_bytes + 5_000
    assert second.present_bytes >= HEAVY.size_bytes
    assert set(world.tags()) == {ONE, TWO}


async def test_a_tag_that_somebody_has_taken_is_left_as_it_is(world: RegistryWorld) -> None:
    """Though what is there is another image."""
    taken = world.take(ONE)
    push = await world.registry.push(ONE, plan_of(ONE, HEAVY), base_content())
    assert (push.manifest_digest, push.was_there) == (taken, True)
    assert world.tags()[ONE] == taken


async def test_a_tag_that_somebody_takes_meanwhile_is_left_as_it_is(world: RegistryWorld) -> None:
    """It is looked for once more just before the tag is set."""
    async with world.pushing(ONE, plan_of(ONE, HEAVY)) as push:
        taken = world.take(ONE)
    assert (await push).was_there
    assert world.tags()[ONE] == taken


async def test_an_image_that_is_no_image_of_ours_is_found_too(world: RegistryWorld) -> None:
    """Whoever looks decides; it is not as if nothing were there."""
    taken = world.take(ONE)
    found = await world.registry.find(ONE)
    assert found is not None
    assert found.manifest_digest == taken


async def test_who_is_not_let_in_is_told_so(world: RegistryWorld) -> None:
    """Which is something else than that nothing is there."""
    await world.registry.push(ONE, plan_of(ONE, LIGHT), base_content())
    world.refuse()
    with pytest.raises(RegistryRefusal):
        await world.registry.find(ONE)
    with pytest.raises(RegistryRefusal):
        await world.registry.push(TWO, plan_of(TWO, LIGHT), base_content())


async def test_who_may_only_read_can_look_and_not_push(world: RegistryWorld) -> None:
    """And nothing is there afterwards."""
    world.refuse_writing()
    assert await world.registry.find(ONE) is None
    with pytest.raises(RegistryRefusal):
        await world.registry.push(ONE, plan_of(ONE, LIGHT), base_content())
    assert await world.registry.find(ONE) is None


async def test_a_registry_that_is_not_there_is_a_third_thing(world: RegistryWorld) -> None:
    """Neither "not there" nor "not allowed"."""
    world.stop()
    with pytest.raises(RegistryUnavailable):
        await world.registry.find(ONE)
    with pytest.raises(RegistryUnavailable):
        await world.registry.push(ONE, plan_of(ONE, LIGHT), base_content())


async def test_a_push_that_is_cancelled_leaves_nothing_under_the_tag(world: RegistryWorld) -> None:
    """And the next one works."""
    async with world.pushing(ONE, plan_of(ONE, HEAVY)) as push:
        push.cancel()
    assert world.tags() == {}
    assert not (await world.registry.push(ONE, plan_of(ONE, HEAVY), base_content())).was_there


async def test_a_fragment_that_is_gone_leaves_nothing_under_the_tag(world: RegistryWorld, tmp_path: Path) -> None:
    """Nothing else than the environment is pushed."""
    with pytest.raises(StorageFailure):
        await world.registry.push(ONE, plan_of(ONE, LIGHT, from_file(tmp_path / "gone")), base_content())
    assert world.tags() == {}
