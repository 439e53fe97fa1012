"""How the provider makes an image: what it asks of the plan, what it stacks on, what it does when layers go away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from prebuilt_spawner.adapters.memory import MemoryEngine
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.provider import Environment, Provider
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.errors import LayersGone, UnbuildableEnvironment
from prebuilt_spawner.image.fragment import Fragment
from prebuilt_spawner.ledger import SqlLedger

from ..image.wheels import fragment_of, make_base, make_distribution, make_lock, make_probe


class FragmentShelf:
    """A wheel store whose fragments a test has made, by name of the distribution."""

    def __init__(self, fragments: Mapping[str, Fragment]) -> None:
        self._fragments = fragments

    async def fetch(self, wheels: Sequence[LockedWheel], **_: object) -> None: ...

    async def fragments(
        self, wheels: Sequence[LockedWheel], *_: object, made: Any, **__: object
    ) -> tuple[Fragment, ...]:
        for wheel in wheels:
            made(self._fragments[wheel.name])
        return tuple(self._fragments[wheel.name] for wheel in wheels)

    async def close(self) -> None: ...


class World:
    """A provider with a base and four wheels."""

    def __init__(self, folder: Path) -> None:
        self.engine = MemoryEngine()
        self.base, self.probe = make_base(), make_probe()
        self.engine.add_base(self.base, self.probe)
        self.ledger = SqlLedger("sqlite://")
        names = ("alpha", "beta", "gamma", "delta")
        self.shas = {name: str(number) * 64 for number, name in enumerate(names)}
        made = {name: fragment_of(folder, name, {f"{name}.py": name.encode() * 100}) for name in names}
        store: Any = FragmentShelf(
            {name: replace(fragment, wheel_sha256=self.shas[name]) for name, fragment in made.items()}
        )
        self.provider = Provider(engine=self.engine, wheel_store=store, ledger=self.ledger, repository="test/env")

    def environment(self, *names: str) -> Environment:
        lock = Lock(wheels=tuple(replace(wheel, sha256=self.shas[wheel.name]) for wheel in make_lock(*names).wheels))
        return self.provider.name(base=self.base, probe=self.probe, lock=lock)

    async def made(self, *names: str) -> str:
        """The ID of the image of these packages."""
        return (await self.provider.make(self.environment(*names), report=ignore)).image_id

    def stands_on(self, image_id: str) -> str:
        """The ID of the image that it was stacked on."""
        return self.engine.plans[image_id].lower.image_id

    def fail_once(self, method: str, then: Any = lambda: None) -> None:
        """The engine's layers go away at this step, once; after it `then` is called."""
        switches = self.engine.switches
        passing = switches.pass_through

        async def pass_through(name: str) -> None:
            await passing(name)
            if name == method:
                switches.pass_through = passing  # type: ignore[method-assign]
                then()
                raise LayersGone("An image that was needed has gone. Start again.")

        switches.pass_through = pass_through  # type: ignore[method-assign]

    @property
    def held(self) -> bool:
        return any(map(self.engine.held, [self.base.image_id, *self.engine.plans]))


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    assert not world.held, "nothing is held longer than it is needed"
    await world.ledger.close()


# -- stacking ----------------------------------------------------------------------------------------------------------


async def test_an_environment_is_stacked_on_the_one_that_saves_most(world: World) -> None:
    """On a subset of it that exists, the largest; the first one of all on the base."""
    small = await world.made("alpha")
    large = await world.made("alpha", "beta")
    assert world.stands_on(small) == world.base.image_id
    assert world.stands_on(large) == small
    assert world.stands_on(await world.made("alpha", "beta", "gamma")) == large
    assert world.stands_on(await world.made("delta")) == world.base.image_id


async def test_notes_about_another_environment_are_not_in_it(world: World) -> None:
    """The last layer of what it is stacked on is left out."""
    below = await world.made("alpha")
    plan = world.engine.plans[await world.made("alpha", "beta")]
    found = await world.engine.find(world.environment("alpha").image)
    assert found is not None
    assert plan.lower.diff_ids == found.diff_ids[:-1]
    assert len(plan.lower.diff_ids) == len(world.base.diff_ids) + 1
    assert below == plan.lower.image_id


async def test_an_image_that_was_removed_is_not_stacked_on(world: World) -> None:
    """The ledger remembers it; the engine is asked."""
    await world.made("alpha")
    world.engine.remove(world.environment("alpha").image)
    assert world.stands_on(await world.made("alpha", "beta")) == world.base.image_id


async def test_an_image_that_was_made_in_another_way_is_not_stacked_on(world: World) -> None:
    """Another hub's, say, with a ledger of its own: its layers are not those that this ledger remembers."""
    await world.made("alpha")
    foreign = await world.made("delta")
    image = world.environment("alpha").image
    world.engine.remove(image)
    plan, digest = world.engine.plans[foreign], image.rpartition(":")[2]
    disguised = replace(plan, digest=digest, labels={**plan.labels, "prebuilt_spawner.digest": digest})
    await world.engine.tag(await world.engine.assemble(disguised, report=ignore), image)
    assert world.stands_on(await world.made("alpha", "beta")) == world.base.image_id


async def test_it_is_held_while_others_are_stacked_on_it(world: World) -> None:
    """Somebody who removes it meanwhile does not take its layers away."""
    below = await world.made("alpha")
    seen: list[bool] = []
    assembling = world.engine.assemble

    async def assemble(plan: Any, *, report: Any) -> Any:
        seen.append(world.engine.held(below))
        world.engine.remove(world.environment("alpha").image)
        return await assembling(plan, report=report)

    world.engine.assemble = assemble  # type: ignore[method-assign]
    assert world.stands_on(await world.made("alpha", "beta")) == below
    assert seen == [True]


# -- layers that go away -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["hold", "assemble"])
async def test_where_layers_go_away_it_is_planned_once_more_on_the_base(world: World, step: str) -> None:
    """Somebody pruned the engine in the middle: the user does not notice."""
    await world.made("alpha")
    world.fail_once(step)
    assert world.stands_on(await world.made("alpha", "beta")) == world.base.image_id


async def test_a_base_that_came_back_under_another_id_is_used_as_it_is_now(world: World) -> None:
    """The containerd store gives a base that is pulled again another ID where the registry has it in another form."""
    again = replace(world.base, image_id="sha256:" + "e" * 64)
    world.fail_once("assemble", lambda: world.engine.add_base(again, world.probe))
    assert world.stands_on(await world.made("alpha")) == again.image_id


async def test_a_base_that_was_replaced_by_another_one_is_an_error_that_says_so(world: World) -> None:
    """The environment stands on what the base was; the next start is on what it is."""
    other = make_base(digest="f" * 64, diff_ids=("sha256:" + "9" * 64,))
    world.fail_once("assemble", lambda: world.engine.add_base(other, world.probe))
    with pytest.raises(LayersGone, match=r"base:1 was replaced just now\. Start again"):
        await world.made("alpha")
    assert world.engine.plans == {}


async def test_layers_that_go_away_again_and_again_are_an_error(world: World) -> None:
    """It is tried twice and not for ever."""
    world.engine.switches.failures["assemble"] = LayersGone("An image that was needed has gone. Start again.")
    with pytest.raises(LayersGone):
        await world.made("alpha")
    assert world.engine.switches.calls["assemble"] == 2


# -- what is asked of the plan -----------------------------------------------------------------------------------------


async def test_what_the_server_needs_is_protected_as_the_server_is(tmp_path: Path) -> None:
    """A wheel with a file of a package that jupyterhub depends on, at second hand, is refused."""
    probe = make_probe(
        make_distribution("jupyterhub", "jupyterhub/__init__.py", requires=("kit",)),
        make_distribution("kit", "kit.py", requires=("Tool_Box>1",)),
        make_distribution(
            "tool-box", files=("/usr/lib/python3/dist-packages/box.py",), location="/usr/lib/python3/dist-packages"
        ),
    )
    engine = MemoryEngine()
    engine.add_base(make_base(), probe)
    store: Any = FragmentShelf({"demo": fragment_of(tmp_path, "demo", {"box.py": b""})})
    ledger = SqlLedger("sqlite://")
    provider = Provider(
        engine=engine, wheel_store=store, ledger=ledger, repository="env", protected=frozenset({"jupyterhub"})
    )
    environment = provider.name(base=make_base(), probe=probe, lock=make_lock("demo"))
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*server \(tool-box\)"):
        await provider.make(environment, report=ignore)
    await ledger.close()
