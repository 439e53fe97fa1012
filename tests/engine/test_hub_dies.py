"""A hub that is killed while it prepares an environment: what is found after its restart."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import requests

from ..index_server import IndexServer
from .engine_socket import EngineSocket
from .hub import Hub

# What the engine is asked in each step; the hub is killed when it asks.
REQUESTS = {
    "compiling": (rb"POST \S*/containers/create", False),
    "handing over": (rb"POST \S*/images/load", False),
    "naming": (rb"POST \S*/tag\?\S*tag=[0-9a-f]{64}", False),
    "named, and not in the ledger yet": (rb"POST \S*/tag\?\S*tag=[0-9a-f]{64}", True),
}


@pytest.fixture
def index() -> Iterator[IndexServer]:
    """Two packages that nobody else has made environments of."""
    with IndexServer() as index:
        for name in ("first", "second"):
            index.add_wheel(name, "1.0", files={f"{name}.py": f"word = {secrets.token_hex(8)!r}\n"})
        yield index


@pytest.fixture
def hub(
    make_hub: Callable[..., Hub], light_base: str, tmp_path: Path, index: IndexServer, engine_socket: EngineSocket
) -> Hub:
    """A hub that knows its base already, and has nothing else that runs."""
    hub: Hub = make_hub(
        base=light_base,
        cache_dir=tmp_path / "cache",
        settings=f"c.PrebuiltSpawner.index_url = {index.url!r}\n",
        environment={"DOCKER_HOST": f"unix://{engine_socket.path}"},
    )
    hub.start()
    assert hub.start_server(hub.user("before"), {"packages": ["first"]}).ready
    hub.restart()
    return hub


def kill_when(hub: Hub, reached: Callable[[float], bool]) -> str:
    """Start a server, and kill the hub when it has come to a point; the name of the user."""
    user = hub.user("victim")

    def ask() -> None:
        # The hub ends before it answers.
        with pytest.raises(requests.RequestException):
            hub.api("POST", hub.server_path(user), hub.options_body({"packages": ["second"]}))

    asking = threading.Thread(target=ask)
    asking.start()
    assert reached(30), hub.log()[-3000:]
    hub.stop(signal.SIGKILL)
    asking.join()
    return user


def check_after_restart(hub: Hub, client: docker.APIClient, user: str, *, interrupted: int) -> None:
    """The same request works, the ledger is right, and nothing of the killed hub is left."""
    hub.start()
    assert hub.start_server(user, {"packages": ["second"]}).ready
    assert hub.python(user, "import second; print(bool(second.word))") == "True"
    outcomes = [outcome for (outcome,) in hub.ledger("SELECT outcome FROM builds ORDER BY id")]
    assert outcomes[0] == "done"
    assert outcomes.count("interrupted") == interrupted
    assert "running" not in outcomes
    ((uses,),) = hub.ledger(f"SELECT uses FROM environments WHERE digest = '{hub.tag(user).rpartition(':')[2]}'")
    assert uses >= 1
    nameless = client.images(filters={"label": "prebuilt_spawner.digest", "dangling": True})
    assert nameless == []
    deadline = time.monotonic() + 20
    while helpers(client, hub):
        assert time.monotonic() < deadline, helpers(client, hub)
        time.sleep(0.1)


def helpers(client: docker.APIClient, hub: Hub) -> list[str]:
    """Containers of the hub's that are no servers and have ended."""
    found = []
    for label in ("prebuilt_spawner.compiler", "prebuilt_spawner.probe", "prebuilt_spawner.check"):
        found += client.containers(all=True, filters={"label": label, "status": ["exited", "dead", "created"]})
    return [container["Id"] for container in found]


@pytest.mark.parametrize("step", REQUESTS)
def test_a_hub_that_is_killed_at_the_engine_leaves_nothing(
    hub: Hub, client: docker.APIClient, engine_socket: EngineSocket, step: str
):
    """While modules are compiled, layers handed over, and before and after the image got its name."""
    request, after = REQUESTS[step]
    engine_socket.hold(request, after=after)
    user = kill_when(hub, engine_socket.reached.wait)
    engine_socket.let_go()
    check_after_restart(hub, client, user, interrupted=1)


@pytest.mark.parametrize("step", ["resolving", "downloading"])
def test_a_hub_that_is_killed_at_the_index_leaves_nothing(
    hub: Hub, client: docker.APIClient, index: IndexServer, step: str
):
    """While versions are chosen, and while a wheel is half here."""
    if step == "resolving":
        index.behaviour.silent.add("/simple/second")
        path = "/simple/second"
    else:
        index.behaviour.stalled |= set(index.files)
        path = "/files/second-1.0-py3-none-any.whl"

    def reached(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while path not in index.paths("/") and f"{path}/" not in index.paths("/"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    user = kill_when(hub, reached)
    index.release()
    # What is not resolved yet is no build.
    check_after_restart(hub, client, user, interrupted=0 if step == "resolving" else 1)
