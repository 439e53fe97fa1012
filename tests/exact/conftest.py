"""Fixtures for the comparison of images on every kind of base: they fail, and are never skipped, without an engine."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from ..assembling import assembled
from .images import PYLOCK, Base, Images, installed_by_pip
from .machines import Machine, Server, remove_all_of

KINDS = ("venv", "system", "conda")


@pytest.fixture(scope="session")
def client() -> Iterator[docker.APIClient]:
    """The engine that the environment names."""
    client = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto", timeout=300)
    yield client
    client.close()


@pytest.fixture(scope="session")
def run(client: docker.APIClient) -> Iterator[str]:
    """A word that names this run; what carries it is removed at the end."""
    word = "x" + secrets.token_hex(4)
    yield word
    remove_all_of(client, word)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub's cache folder, in which each wheel is downloaded once."""
    return tmp_path_factory.mktemp("cache")


# For the whole session, so that all tests on one kind run one after the other: then its images go.
@pytest.fixture(scope="session", params=KINDS)
def base(request: pytest.FixtureRequest, client: docker.APIClient, run: str, cache: Path) -> Iterator[Base]:
    """Each kind of base in turn."""
    kind: str = request.param
    variable = f"PREBUILT_SPAWNER_TEST_BASE_{kind.upper()}"
    reference = os.environ.get(variable)
    assert reference, f"{variable} names no base image: run the tests with `make test`"
    machine = Machine(client, reference, run=run)
    yield Base(kind=kind, reference=reference, machine=machine, tree=machine.tree())
    remove_all_of(client, run)
    # No other kind can use them, and they are as large as the images.
    shutil.rmtree(cache / "fragments", ignore_errors=True)


@pytest.fixture(scope="session")
def make_images(client: docker.APIClient, run: str, cache: Path, base: Base) -> Callable[..., Images]:
    """Makes an environment of requirements, and what pip makes of its lock; removed with all others of its kind."""

    def make(*requirements: str) -> Images:
        environment = asyncio.run(
            assembled(requirements, base=base.reference, repository=f"prebuilt-spawner-test/{run}", folder=cache)
        )
        ours = Machine(client, environment.image, run=run)
        pips = Machine(client, base.reference, run=run)
        places = {environment.probe.scheme.purelib, environment.probe.scheme.platlib}
        distributions = environment.probe.distributions
        pylock = ours.texts([PYLOCK])[PYLOCK]
        beside = {name for name, found in distributions.items() if found.location not in places}
        with ThreadPoolExecutor(1) as thread:
            our_tree = thread.submit(ours.tree, base.tree)
            installed_by_pip(base, pips, environment.lock, pylock, cache / "wheels", beside=beside)
        return Images(
            base=base,
            environment=environment,
            ours=ours,
            pips=pips,
            our_tree=our_tree.result(),
            pips_tree=pips.tree(base.tree),
        )

    return make


@pytest.fixture
def start_server(client: docker.APIClient, run: str) -> Iterator[Callable[[str], Server]]:
    """Starts servers of images, which are removed after the test."""
    servers: list[Server] = []

    def start(image: str) -> Server:
        servers.append(Server(client, image, run=run))
        return servers[-1]

    yield start
    for server in servers:
        server.remove()
