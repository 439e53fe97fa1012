"""Engines that share Debian's registry: what one hub has made, another fetches; and whatever goes wrong with the
registry, everybody gets an image."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from prebuilt_spawner.adapters.docker_transfers import PullLimits
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.manager import BuildManager
from prebuilt_spawner.build.provider import Environment, EnvironmentRequest
from prebuilt_spawner.build.sources import SourceBuildLimits
from prebuilt_spawner.hub.runtime import RuntimeSettings, build_manager

from ..index_server import IndexServer
from ..registry_server import RegistryServer
from .private_engine import PrivateEngine
from .registry import Registry, registry
from .small_bases import SmallBase, docker_archive, published_index
from .trees import differing, tree

HEAVY_BYTES = 11 << 20
REPOSITORY = "prebuilt-spawner-test/shared"


@pytest.fixture(scope="module")
def index() -> Iterator[IndexServer]:
    with IndexServer() as index:
        index.add_wheel("demo-heavy", "1.0", files={"demo_heavy/data": secrets.token_bytes(HEAVY_BYTES)})
        index.add_wheel("demo-lib", "1.0", files={"demo_lib.py": "what = 'lib'\n"})
        index.add_wheel("old-demo", "2.0", files={"old_demo/__init__.py": "what = 'new'\n"})
        for number in range(10):
            index.add_wheel(f"demo-{number}", "1.0", files={f"demo_{number}.py": f"what = {number}\n"})
        yield index


@pytest.fixture(scope="module")
def loaded(small: SmallBase) -> Callable[[PrivateEngine], str]:
    """Has a base ready that came from no registry: returns its name."""
    name = f"loaded-base:{secrets.token_hex(4)}"
    archive = docker_archive(small.layers(2), small.config, name)

    def put(engine: PrivateEngine) -> str:
        if not engine.has(name):
            engine.load(iter([archive]))
        return name

    return put


def small_index(small: SmallBase) -> Iterator[tuple[str, bytes]]:
    """A base of two compressed layers, as builders push it."""
    return published_index(small.layers(2), small.config)


class Hub:
    """One hub with an engine, a cache and a ledger of its own."""

    def __init__(self, manager: BuildManager, engine: PrivateEngine, base: str) -> None:
        self.manager, self.engine, self.base = manager, engine, base

    async def ensure(self, *requirements: str) -> Environment:
        request = EnvironmentRequest(user="anybody", requirements=requirements, base=self.base)
        return await self.manager.ensure(request, report=ignore)

    async def starts(self, *requirements: str) -> Environment:
        """The same, and its packages are there."""
        environment = await self.ensure(*requirements)
        module = requirements[0].partition(">")[0].replace("-", "_")
        await asyncio.to_thread(self.engine.python, environment.image, f"import {module}")
        return environment

    @property
    def looks(self) -> dict[str, int]:
        """What came of looking into the registry."""
        return dict(self._shared.watch.counts)

    @property
    def pushes(self) -> dict[str, int]:
        """What came of pushing."""
        return dict(self._pushes.watch.counts)

    async def owed(self) -> int:
        """How many pushes are still to be made."""
        memory: Any = self.manager._ledger
        return len(await memory.owed_pushes(hub=self._pushes._hub, place=self._pushes._place, limit=100))

    async def settled(self) -> None:
        """Wait until all is pushed."""

        async def wait() -> None:
            while await self.owed():
                await asyncio.sleep(0.02)

        await asyncio.wait_for(wait(), 60)

    def retry_at_once(self) -> None:
        """Do not wait between attempts to push."""
        self._pushes._first_pause_seconds = self._pushes._pause_seconds = 0.05

    def give_up_pulls_after(self, seconds: float) -> None:
        """Wait for a pull no longer than so."""
        self._shared._transfers._limits = PullLimits(seconds=seconds)

    def give_up_looks_after(self, seconds: float) -> None:
        """Wait for a look no longer than so."""
        self._shared._look_seconds = seconds

    @property
    def _shared(self) -> Any:
        shared = self.manager._provider._shared
        assert shared is not None
        return shared

    @property
    def _pushes(self) -> Any:
        pushes = self.manager._provider._pushes
        assert pushes is not None
        return pushes


@pytest.fixture
async def hub(index: IndexServer, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Makes a hub on an engine; it is closed, and its images are removed, after the test."""
    made: list[Hub] = []

    async def make(engine: PrivateEngine, host: str, base: str) -> Hub:
        folder = tmp_path / f"hub{len(made)}"
        folder.mkdir()
        settings = RuntimeSettings(
            repository=REPOSITORY,
            registry=host,
            immutable=True,
            index_url=index.url,
            extra_index_urls=(),
            db_url=f"sqlite:///{folder}/ledger.sqlite",
            cache_dir=str(folder),
            max_concurrent_builds=2,
            max_queued_builds=50,
            failure_ttl=0,
            allow_source_builds=True,
            source_build_limits=SourceBuildLimits(),
            max_cache_bytes=0,
            min_free_bytes=0,
            client_kwargs={"base_url": engine.url},
        )
        made.append(Hub(await build_manager(settings), engine, base))
        made[-1].retry_at_once()
        return made[-1]

    yield make
    for one in made:
        await one.manager.close()
        for image in one.engine.client.images(filters={"label": "prebuilt_spawner.digest"}):
            for name in image["RepoTags"] or ():
                if f"/{REPOSITORY}:" in name:
                    one.engine.remove_image(name)


def published(registry: Registry) -> dict[str, str]:
    """Manifest digest by tag."""
    url = f"http://{registry.host}/v2/{REPOSITORY}"
    answer = requests.get(f"{url}/tags/list", timeout=10)
    tags = (answer.json().get("tags") or ()) if answer.status_code == 200 else ()
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    return {
        tag: requests.head(f"{url}/manifests/{tag}", headers=accept, timeout=10).headers["Docker-Content-Digest"]
        for tag in tags
    }


def layers(registry: Registry, tag: str) -> dict[str, int]:
    """Bytes by digest of the layers of an image in the registry."""
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    url = f"http://{registry.host}/v2/{REPOSITORY}/manifests/{tag}"
    return {one["digest"]: one["size"] for one in requests.get(url, headers=accept, timeout=10).json()["layers"]}


def under(registry: Registry, tag: str) -> bytes:
    """What the registry has under a tag, byte for byte."""
    return requests.get(f"http://{registry.host}/v2/{REPOSITORY}/manifests/{tag}", timeout=10).content


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[Registry]:
    """One for this test alone."""
    with registry(tmp_path) as started:
        yield started


# -- fetched -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pulled", "loaded"])
async def test_what_is_made_on_one_engine_is_only_fetched_by_the_others(
    private_engines: dict[str, PrivateEngine], own_registry, small, loaded, hub, kind: str
):
    """Made on this machine's engine, started on 26.1 with each store, and on the former again: pulled, not built; one
    tag, and one tree."""
    base = own_registry.push("bases/small", "1", small_index(small)) if kind == "pulled" else ""
    first = await hub(private_engines["machine"], own_registry.host, base or loaded(private_engines["machine"]))
    made = await first.starts("demo-lib", "demo-heavy", "old-demo>=2")
    await first.settled()
    assert (first.looks, first.pushes) == ({"absent": 1}, {"pushed": 1})
    files = tree(first.engine.client, made.image)
    for other_kind in ("graphdriver", "containerd") if kind == "loaded" else ("containerd",):
        engine = private_engines[other_kind]
        other = await hub(engine, own_registry.host, base or loaded(engine))
        fetched = await other.starts("demo-lib", "demo-heavy", "old-demo>=2")
        assert fetched.image == made.image == f"{own_registry.host}/{REPOSITORY}:{made.digest}"
        assert differing(tree(engine.client, fetched.image), files) == {}
        assert other.looks == {"pulled": 1}
        assert await other.owed() == 0
    assert set(published(own_registry)) == {made.digest}
    machine = private_engines["machine"]
    machine.remove_image(made.image)
    again = await hub(machine, own_registry.host, first.base)
    fetched = await again.starts("demo-lib", "demo-heavy", "old-demo>=2")
    assert again.looks == {"pulled": 1}
    assert differing(tree(machine.client, fetched.image), files) == {}


async def test_two_hubs_that_are_asked_for_ten_environments_at_once_make_one_image_of_each(
    private_engines: dict[str, PrivateEngine], own_registry, small, hub
):
    """And what each would push by itself has the digest of what is there."""
    base = own_registry.push("bases/small", "1", small_index(small))
    hubs = [await hub(private_engines[kind], own_registry.host, base) for kind in ("machine", "containerd")]
    starts = [one.ensure(f"demo-{number}", "demo-lib") for number in range(10) for one in hubs]
    environments = await asyncio.gather(*starts)
    for one in hubs:
        await one.settled()
    there = published(own_registry)
    assert set(there) == {environment.digest for environment in environments}
    assert len(there) == 10
    for one in hubs:
        assert not {"refused", "unreachable", "wrong"} & {*one.looks, *one.pushes}
        environment = await one.ensure("demo-3", "demo-lib")
        async with one.manager._provider.planned(environment) as plan:
            transfers = one._pushes._transfers
            elsewhere = one._pushes._registry.__class__(
                own_registry.host, f"{REPOSITORY}-{one.engine.kind}", one._pushes._registry._network
            )
            push = await elsewhere.push(environment.digest, plan, await transfers.content(environment.base))
            await elsewhere.close()
        assert push.manifest_digest == there[environment.digest]
        assert not push.was_there


async def test_a_second_environment_with_the_same_heavy_wheel_sends_only_new_layers(
    private_engines: dict[str, PrivateEngine], own_registry, small, hub, caplog
):
    """Of more than 11 MB some KB; the layers of the base are taken over from its own repository."""
    base = own_registry.push("bases/small", "1", small_index(small))
    first = await hub(private_engines["graphdriver"], own_registry.host, base)
    with caplog.at_level("INFO", "prebuilt_spawner.build.pushes"):
        one = await first.ensure("demo-heavy")
        await first.settled()
        two = await first.ensure("demo-heavy", "demo-lib")
        await first.settled()
    lines = [record.args for record in caplog.records if record.getMessage().startswith("Pushed ")]
    (_, _, sent_first, mounted_first, _), (_, _, sent_second, mounted_second, present) = lines
    assert sent_first > HEAVY_BYTES
    assert mounted_first > 0
    assert mounted_second == 0
    assert sent_second < 40_000
    assert present > HEAVY_BYTES
    new = {
        digest: size
        for digest, size in layers(own_registry, two.digest).items()
        if digest not in layers(own_registry, one.digest)
    }
    assert len(new) == 2  # the light wheels, and the notes
    assert sum(new.values()) < sent_second


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_with_credentials_as_docker_has_them_all_works_and_without_them_it_is_built(
    private_engines: dict[str, PrivateEngine], small, hub, tmp_path: Path, monkeypatch
):
    """Base, look, push and pull; a while without them ends with a build, and with a push when they are back."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "locked").mkdir()
    config = tmp_path / "config.json"
    with registry(tmp_path / "locked", locked=True) as locked:
        base = locked.push("bases/small", "1", small_index(small))
        locked.log_in(config)
        first = await hub(private_engines["machine"], locked.host, base)
        await first.ensure("demo-1")
        await first.settled()
        await asyncio.to_thread(config.unlink)
        made = await first.starts("demo-2")
        assert first.looks == {"absent": 1, "refused": 1}
        while not first.pushes.get("refused"):
            await asyncio.sleep(0.01)
        locked.log_in(config)
        await first.settled()
        other = await hub(private_engines["graphdriver"], locked.host, base)
        assert (await other.starts("demo-2")).image == made.image
        assert other.looks == {"pulled": 1}


async def test_with_a_registry_that_is_stopped_all_is_built_and_pushed_when_it_is_back(
    private_engines: dict[str, PrivateEngine], loaded, hub, tmp_path: Path
):
    (tmp_path / "registry").mkdir()
    with registry(tmp_path / "registry") as stopped:
        host = stopped.host
    engine = private_engines["machine"]
    one = await hub(engine, host, loaded(engine))
    made = await one.starts("demo-1")
    assert one.looks == {"unreachable": 1}
    assert await one.owed() == 1
    with registry(tmp_path / "registry", host=host) as back:
        await one.settled()
        assert set(published(back)) == {made.digest}


async def test_with_a_registry_that_is_read_only_all_is_built_and_pushed_when_it_is_not(
    private_engines: dict[str, PrivateEngine], loaded, hub, tmp_path: Path
):
    """What is there is fetched all the same."""
    (tmp_path / "registry").mkdir()
    engine = private_engines["graphdriver"]
    with registry(tmp_path / "registry", read_only=True) as closed:
        one = await hub(engine, closed.host, loaded(engine))
        made = await one.starts("demo-1")
        while not one.pushes.get("refused"):
            await asyncio.sleep(0.01)
        assert one.looks == {"absent": 1}
        assert published(closed) == {}
    with registry(tmp_path / "registry", host=closed.host) as opened:
        await one.settled()
        assert set(published(opened)) == {made.digest}


async def test_another_image_under_the_tag_is_not_started_and_stays_where_it_is(
    private_engines: dict[str, PrivateEngine], own_registry, small, loaded, hub
):
    """Which somebody has pushed who may write there."""
    engine, other = private_engines["graphdriver"], private_engines["containerd"]
    first = await hub(engine, own_registry.host, loaded(engine))
    made = await first.starts("demo-1")
    await first.settled()
    own_registry.push(REPOSITORY, made.digest, small_index(small))
    before = under(own_registry, made.digest)
    second = await hub(other, own_registry.host, loaded(other))
    assert (await second.starts("demo-1")).image == made.image
    await second.settled()
    assert second.looks == {"wrong": 1}
    assert under(own_registry, made.digest) == before


async def test_a_registry_that_is_slow_or_dies_in_the_middle_of_a_push_costs_nobody_a_start(
    private_engines: dict[str, PrivateEngine], small, loaded, hub
):
    """What a pull leaves undone is built, and of a push that broke off nothing is left; the next one works."""
    engine, other = private_engines["machine"], private_engines["graphdriver"]
    with RegistryServer() as server:
        server.behaviour.dies_after_bytes = 100_000
        first = await hub(engine, server.host, loaded(engine))
        made = await first.starts("demo-heavy")
        await first.settled()
        assert server.behaviour.dies_after_bytes is None
        assert (first.pushes, server.tags(REPOSITORY)) == ({"unreachable": 1, "pushed": 1}, {made.digest})
        assert server.uploads == {}
        server.behaviour.seconds_per_chunk = 0.5
        second = await hub(other, server.host, loaded(other))
        second.give_up_pulls_after(1)
        before = other.ids()
        assert (await second.starts("demo-heavy")).image == made.image
        assert second.looks == {"broken": 1}
        assert len(other.ids() - before) == 1
        server.behaviour.silent.add("GET ")
        third = await hub(private_engines["containerd"], server.host, loaded(private_engines["containerd"]))
        third.give_up_looks_after(0.2)
        assert (await third.starts("demo-heavy")).image == made.image
        assert third.looks == {"unreachable": 1}
