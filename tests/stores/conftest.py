"""Engines of every version and store, and small bases in them.

The first fixtures are the machine's engine and those that `dev/engine26` started, which hold the real base; the others
are engines of these tests' own, with nothing in them but what the tests put there.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from prebuilt_spawner.adapters.docker_engine import DockerEngine

from .private_engine import ENGINES, PrivateEngine
from .registry import Registry, registry
from .small_bases import SmallBase, docker_archive, published_index, small_base, tiny_rootfs, unique

MAKE = "run the tests with `make test-engine26`"


@pytest.fixture(scope="session")
def base() -> str:
    """The real base."""
    reference = os.environ.get("PREBUILT_SPAWNER_TEST_BASE")
    assert reference, f"PREBUILT_SPAWNER_TEST_BASE names no base image: {MAKE}"
    return reference


@pytest.fixture(scope="session")
def addresses() -> list[str]:
    """Of engines that have the real base."""
    addresses = os.environ.get("PREBUILT_SPAWNER_TEST_ENGINES", "").split()
    assert len(addresses) > 1, f"PREBUILT_SPAWNER_TEST_ENGINES names no engines: {MAKE}"
    return addresses


@pytest.fixture(scope="session")
def small(base: str) -> SmallBase:
    client = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto", timeout=120)
    try:
        return small_base(client, base, "s" + secrets.token_hex(4))
    finally:
        client.close()


@pytest.fixture(scope="session")
def private_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, PrivateEngine]]:
    """By kind."""
    engines: dict[str, PrivateEngine] = {}
    try:
        for kind in ENGINES:
            engines[kind] = PrivateEngine(kind, tmp_path_factory.mktemp(kind))
        yield engines
    finally:
        for engine in engines.values():
            engine.remove()


@pytest.fixture(params=ENGINES)
def private(request: pytest.FixtureRequest, private_engines: dict[str, PrivateEngine]) -> PrivateEngine:
    """Each engine in turn."""
    return private_engines[request.param]


@pytest.fixture
def containerd(private_engines: dict[str, PrivateEngine]) -> PrivateEngine:
    """The one with the containerd store."""
    return private_engines["containerd"]


@pytest.fixture
def own_base() -> Callable[..., str]:
    """Puts a base into an engine, of which no other image has a layer: returns its name."""

    def put(engine: PrivateEngine, name: str = "") -> str:
        name = name or f"own-base:{secrets.token_hex(6)}"
        engine.load(iter([docker_archive([unique(tiny_rootfs())], {"Env": ["TINY=yes"]}, name)]))
        return name

    return put


@pytest.fixture
async def connected(tmp_path: Path):
    """Makes an engine object of ours for an engine; closes it after the test."""
    made: list[DockerEngine] = []

    def connect(engine: PrivateEngine, **how) -> DockerEngine:
        made.append(
            DockerEngine(
                repository="prebuilt-spawner-test/env",
                cache_dir=tmp_path / "cache",
                client_kwargs={"base_url": engine.url},
                **how,
            )
        )
        return made[-1]

    yield connect
    for one in made:
        await one.close()


@pytest.fixture(scope="session")
def local_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture(scope="session")
def published(small: SmallBase, local_registry: Registry) -> str:
    """A base of three compressed layers that engines can pull: an index of platforms, with attestations."""
    return local_registry.push("bases/small", "1", published_index(small.layers(3), small.config))


@pytest.fixture(scope="session")
def many_layered(small: SmallBase) -> Callable[[PrivateEngine], str]:
    """Has a base of sixty layers ready in an engine: returns its name."""
    name = "many-layered:1"
    archive = docker_archive(small.layers(60), small.config, name)

    def put(engine: PrivateEngine) -> str:
        if not engine.has(name):
            engine.load(iter([archive]))
        return name

    return put
