"""Fixtures for tests on a real engine: they fail, and are never skipped, where there is none."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from .engine_socket import EngineSocket, socket_of_the_engine
from .hub import Hub, clean_up, remove_containers
from .light import make_light_base


@pytest.fixture(scope="session")
def base() -> str:
    """The reference of the base image that `make setup` printed."""
    reference = os.environ.get("PREBUILT_SPAWNER_TEST_BASE")
    assert reference, "PREBUILT_SPAWNER_TEST_BASE names no base image: run the tests with `make test`"
    return reference


@pytest.fixture(scope="session")
def client(base: str) -> Iterator[docker.APIClient]:
    """The engine that the environment names."""
    client = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto", timeout=120)
    client.inspect_image(base)
    yield client
    client.close()


@pytest.fixture(scope="session")
def run(client: docker.APIClient) -> Iterator[str]:
    """A word that names this run; what carries it is removed at the end."""
    word = "t" + secrets.token_hex(4)
    yield word
    clean_up(client, word)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that the hubs of this run share, so that real packages are downloaded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def make_hub(
    tmp_path_factory: pytest.TempPathFactory, run: str, base: str, client: docker.APIClient, wheels: Path
) -> Iterator[Callable[..., Hub]]:
    """Makes hubs (not started) that are stopped at the end of the module; arguments as of `Hub`."""
    hubs: list[Hub] = []

    def make(**arguments) -> Hub:
        arguments = {"base": base, "cache_dir": wheels, **arguments}
        hub = Hub(folder=tmp_path_factory.mktemp("hub"), run=run, client=client, **arguments)
        hubs.append(hub)
        return hub

    yield make
    for hub in hubs:
        hub.stop()
    # Servers that run cost the tests after them processor time: each has a health check every three seconds.
    remove_containers(client, run)


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., Hub]) -> Hub:
    """A hub that runs for the whole module; each test uses users of its own."""
    hub = make_hub()
    hub.start()
    return hub


@pytest.fixture
def engine_socket(tmp_path: Path, client: docker.APIClient) -> Iterator[EngineSocket]:
    """A way to the engine that a test can close."""
    door = EngineSocket(tmp_path / "engine.sock", socket_of_the_engine())
    door.open()
    yield door
    door.close()


@pytest.fixture(scope="session")
def light_base(client: docker.APIClient, base: str, run: str) -> str:
    """A base whose server is no more than an HTTP server, for many of them at once."""
    return make_light_base(client, base, run)
