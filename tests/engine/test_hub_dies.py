"""A hub that is killed while it prepares an environment: what is found after its restart."""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import docker
import pytest
import requests

from prebuilt_spawner.image.names import CHECK_LABEL, COMPILER_LABEL, DIGEST_LABEL, PROBE_LABEL, SANDBOX_LABEL

from ..crafted_sdists import sdist
from ..index_server import IndexServer
from .engine_socket import EngineSocket, socket_of_the_engine
from .hub import TEST_LABEL, Hub


class Point(NamedTuple):
    """What the engine is asked at the point where the hub is killed.

    Attributes:
        request: A regular expression of the request's first line.
        after: The engine has done it, and the hub does not know yet.
        first: It is asked only by a hub that has built nothing since it started.
        builds: How the user's builds ended, after the restart and the same request.
    """

    request: bytes
    after: bool = False
    first: bool = False
    builds: tuple[str, ...] = ("interrupted", "done")


POINTS = {
    "starting to compile": Point(rb"POST \S*/containers/\w+/start", first=True),
    "removing the trial": Point(rb"DELETE \S*/images/sha256", first=True),
    "handing over": Point(rb"POST \S*/images/load"),
    "checking": Point(rb"DELETE \S*/containers/"),
    "naming": Point(rb"POST \S*/tag\?\S*tag=[0-9a-f]{64}"),
    # The image is there, and nothing has to be built.
    "named, and not in the ledger yet": Point(
        rb"POST \S*/tag\?\S*tag=[0-9a-f]{64}", after=True, builds=("interrupted",)
    ),
}


@pytest.fixture(scope="module")
def index() -> Iterator[IndexServer]:
    """An index that has what `package` publishes."""
    with IndexServer() as index:
        yield index


@pytest.fixture
def package(index: IndexServer) -> Iterator[str]:
    """The name of a package of which nobody has made an environment."""
    name = f"pkg{secrets.token_hex(4)}"
    index.add_wheel(name, "1.0", files={f"{name}.py": f"word = {name!r}\n"})
    yield name
    index.behaviour.silent.clear()
    index.behaviour.stalled.clear()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, client: docker.APIClient) -> Iterator[EngineSocket]:
    """The hub's way to the engine."""
    door = EngineSocket(tmp_path_factory.mktemp("door") / "engine.sock", socket_of_the_engine())
    door.open()
    yield door
    door.close()


@pytest.fixture(scope="module")
def hub(
    make_hub: Callable[..., Hub],
    light_base: str,
    tmp_path_factory: pytest.TempPathFactory,
    index: IndexServer,
    door: EngineSocket,
) -> Hub:
    """A hub that has built something already: it knows its base, and how the engine takes images."""
    hub: Hub = make_hub(
        base=light_base,
        cache_dir=tmp_path_factory.mktemp("cache"),
        settings=f"c.PrebuiltSpawner.index_url = {index.url!r}\n"
        # Else each request for a server that has to wait is answered after ten seconds.
        "c.JupyterHub.tornado_settings = {'slow_spawn_timeout': 2}\n",
        environment={"DOCKER_HOST": f"unix://{door.path}"},
    )
    hub.start()
    index.add_wheel("before", "1.0", files={"before.py": f"word = {secrets.token_hex(8)!r}\n"})
    before = hub.user("before")
    assert hub.start_server(before, {"packages": ["before"]}).ready
    hub.stop_server(before)
    return hub


def kill_when(hub: Hub, package: str, reached: Callable[[], bool]) -> str:
    """Have a new user ask for the package, and kill the hub when it has come to a point; the user's name."""
    user = hub.user(package)

    def ask() -> None:
        with contextlib.suppress(requests.RequestException):  # the hub ends before it answers
            hub.api("POST", hub.server_path(user), hub.options_body({"packages": [package]}))

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(reached)
    hub.stop(signal.SIGKILL)
    asking.join()
    return user


def check_after_restart(hub: Hub, client: docker.APIClient, user: str, package: str, builds: tuple[str, ...]) -> None:
    """Nothing of the killed hub is left but what is whole, the same request works, and the ledger is right."""
    hub.start()
    interrupted = [outcome for outcome in builds if outcome == "interrupted"]
    wait_until(lambda: outcomes(hub, user) == interrupted and not left_behind(client, hub))
    # JupyterHub looks for the server that it has lost.
    wait_until(lambda: not hub.api("GET", f"/users/{user}").body["pending"])
    assert hub.start_server(user, {"packages": [package]}).ready
    assert hub.python(user, f"import {package}; print({package}.word)") == package
    assert outcomes(hub, user) == list(builds)
    assert hub.ledger("SELECT id FROM builds WHERE ended_at IS NULL") == []
    digest = hub.tag(user).rpartition(":")[2]
    assert hub.ledger(f"SELECT uses FROM environments WHERE digest = '{digest}'")[0][0] >= 1
    assert len(client.images(filters={"label": f"{DIGEST_LABEL}={digest}"}, all=True)) == 1
    assert left_behind(client, hub) == []
    hub.stop_server(user)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def outcomes(hub: Hub, user: str) -> list[str]:
    """How the builds that the user waited for ended."""
    query = "SELECT outcome FROM builds JOIN build_users ON build_id = builds.id WHERE user = '{}' ORDER BY builds.id"
    return [outcome for (outcome,) in hub.ledger(query.format(user))]


def left_behind(client: docker.APIClient, hub: Hub) -> list[str]:
    """Images of this run without a name, and helper containers that do not run: they have the label of its base."""
    run = f"{TEST_LABEL}={hub.run}"
    left = [image["Id"] for image in client.images(filters={"label": [DIGEST_LABEL, run], "dangling": True})]
    for label in (PROBE_LABEL, COMPILER_LABEL, SANDBOX_LABEL, CHECK_LABEL):
        containers = client.containers(all=True, filters={"label": [label, run]})
        left += [container["Id"] for container in containers if container["State"] != "running"]
    return left


@pytest.mark.parametrize("point", POINTS)
def test_a_hub_that_is_killed_at_the_engine_leaves_nothing(
    hub: Hub, client: docker.APIClient, door: EngineSocket, package: str, point: str
):
    """While modules are compiled, layers handed over, and before and after the image got its name."""
    request, after, first, builds = POINTS[point]
    if first:
        hub.restart()
    door.hold(request, after=after)
    try:
        user = kill_when(hub, package, door.reached.is_set)
    finally:
        door.let_go()
    check_after_restart(hub, client, user, package, builds)


@pytest.mark.parametrize("step", ["resolving", "downloading"])
def test_a_hub_that_is_killed_at_the_index_leaves_nothing(
    hub: Hub, client: docker.APIClient, index: IndexServer, package: str, step: str
):
    """While versions are chosen, and while a wheel is half here."""
    wheel = f"{package}-1.0-py3-none-any.whl"
    if step == "resolving":
        path = f"/simple/{package}"
        index.behaviour.silent.add(path)
    else:
        path = f"/files/{wheel}"
        index.behaviour.stalled.add(wheel)

    user = kill_when(hub, package, lambda: path in [asked.rstrip("/") for asked in index.paths("/")])
    index.behaviour.silent.clear()
    index.behaviour.stalled.clear()
    # What is not resolved yet is no build.
    check_after_restart(hub, client, user, package, ("done",) if step == "resolving" else ("interrupted", "done"))


def test_a_hub_that_is_killed_while_it_builds_from_source_leaves_nothing(
    hub: Hub, client: docker.APIClient, index: IndexServer, package: str
):
    """No sandbox runs any more after the restart, nor before it as soon as the hub's end of the line has gone."""
    wheel = index.files[f"{package}-1.0-py3-none-any.whl"]
    index.remove(package)
    index.add_file(sdist(package, "1.0", "time.sleep(100000)"))

    def sandboxes(state: str) -> bool:
        filters = {"label": [SANDBOX_LABEL, f"{TEST_LABEL}={hub.run}"], "status": state}
        return bool(client.containers(all=True, filters=filters))

    user = kill_when(hub, package, lambda: sandboxes("running"))
    wait_until(lambda: not sandboxes("running"))
    index.remove(package)
    index.add_file(wheel)
    check_after_restart(hub, client, user, package, ("done",))
    assert not sandboxes("exited")
    assert not list(hub.cache_dir.glob("built/*/*/*.whl"))
