"""What is removed with `remove`: our container, and nothing that may hold somebody's data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests
from docker.errors import APIError, NotFound

from prebuilt_spawner.hub.removal import remove_container

from .doubles import HOME, Hub

LABEL = "prebuilt_spawner.container"


async def test_a_stopped_container_is_removed_without_its_nameless_volumes(hub: Hub) -> None:
    hub.configure(remove=True)
    await hub.start("ada")
    await hub.stop("ada")
    assert hub.docker.containers == {}
    assert hub.docker.removed == [("jupyter-ada", False)]


@pytest.mark.parametrize("immutable", [True, False])
@pytest.mark.parametrize("remove", [True, False])
async def test_the_engine_is_not_told_to_remove_containers_by_itself(hub: Hub, remove: bool, immutable: bool) -> None:
    """It would remove their nameless volumes too. The home does not matter: here the administrator mounts it."""
    hub.configure(remove=remove, immutable=immutable, volumes={"home-{username}": HOME})
    await hub.start("ada")
    assert not hub.created("ada")["host_config"].get("AutoRemove")


async def test_the_administrators_own_word_on_removal_by_the_engine_wins(hub: Hub) -> None:
    hub.configure(extra_host_config={"auto_remove": True})
    await hub.start("ada")
    assert hub.created("ada")["host_config"]["AutoRemove"] is True


async def test_the_container_of_a_server_that_ended_by_itself_is_removed_after_the_hook(hub: Hub) -> None:
    """The administrator's hook can still read its log."""
    seen: list[list[str]] = []

    def hook(spawner: Any) -> None:
        seen.append(list(hub.docker.containers))
        raise ValueError("a hook that fails")

    hub.configure(remove=True, post_stop_hook=hook)
    await hub.start("ada")
    hub.container("ada")["State"]["Running"] = False
    await hub.stop("ada")
    assert seen == [["jupyter-ada"]]
    assert hub.docker.removed == [("jupyter-ada", False)]


async def test_the_container_of_a_server_that_ended_by_itself_stays_without_remove(hub: Hub) -> None:
    await hub.start("ada")
    hub.container("ada")["State"]["Running"] = False
    await hub.stop("ada")
    assert list(hub.docker.containers) == ["jupyter-ada"]


@pytest.mark.parametrize("running", [True, False])
async def test_a_container_from_before_this_spawner_is_stopped_and_never_removed(hub: Hub, running: bool) -> None:
    """DockerSpawner made it, and without `volumes` the user's files are in it."""
    hub.configure(remove=True)
    await hub.start("ada")
    del hub.container("ada")["Config"]["Labels"][LABEL]
    hub.container("ada")["State"]["Running"] = running
    await hub.stop("ada")
    assert hub.container("ada")["State"]["Running"] is False
    assert hub.docker.removed == []


def _removed_by_the_engine(hub: Hub, *, after_looks: int) -> Callable[[str], None]:
    """A `stop` after which the engine removes the container, which is seen this many times more."""
    inspect, remove, stop = hub.docker.inspect_container, hub.docker.remove_container, hub.docker.stop
    state = {"removing": False, "looks": after_looks}

    def inspected(name: str) -> dict[str, Any]:
        if state["removing"] and name in (*hub.docker.containers, *(c["Id"] for c in hub.docker.containers.values())):
            if state["looks"] == 0:
                state["removing"] = False
                remove(name, v=True)
            state["looks"] -= 1
        return inspect(name)

    def removed(container: str, v: bool = False) -> None:
        if state["removing"]:
            raise _api_error(APIError, 409)
        remove(container, v=v)

    def stopped(container: str) -> None:
        stop(container)
        state["removing"] = state["looks"] >= 0  # the first container only

    hub.docker.inspect_container = inspected  # type: ignore[method-assign]
    hub.docker.remove_container = removed  # type: ignore[method-assign]
    return stopped


@pytest.mark.parametrize("after_looks", [0, 1, 3])
@pytest.mark.parametrize("remove", [True, False])
async def test_a_start_waits_for_a_container_that_the_engine_is_removing(
    hub: Hub, remove: bool, after_looks: int
) -> None:
    hub.configure(remove=remove)
    hub.docker.add("jupyter-ada", image="old", labels={LABEL: "ada/"}, running=True)
    hub.docker.stop = _removed_by_the_engine(hub, after_looks=after_looks)  # type: ignore[method-assign]
    old = hub.container("ada")["Id"]
    answer = await hub.start("ada")
    assert answer.status == 201, answer.text
    assert hub.container("ada")["Id"] != old


async def test_a_container_that_is_gone_already_is_removed() -> None:
    assert await remove_container(_engine(removal=NotFound, status=404), "c1")


async def test_a_removal_under_way_is_not_waited_for_without_end() -> None:
    engine = _engine(removal=APIError, status=409)
    assert not await remove_container(engine, "c1", wait_seconds=0.1)


async def test_a_running_container_is_refused_at_once() -> None:
    with pytest.raises(APIError):
        await remove_container(_engine(removal=APIError, status=409, running=True), "c1", wait_seconds=1000)


async def test_any_other_refusal_of_the_engine_is_raised() -> None:
    with pytest.raises(APIError):
        await remove_container(_engine(removal=APIError, status=500), "c1")


def _engine(*, removal: type[APIError], status: int, running: bool = False) -> Any:
    """An engine with one container that it does not remove."""

    async def call(method: str, container_id: str, **kwargs: Any) -> Any:
        if method == "remove_container":
            assert kwargs == {"v": False}
            raise _api_error(removal, status)
        return {"State": {"Running": running}}

    return call


def _api_error(kind: type[APIError], status: int) -> APIError:
    response = requests.Response()
    response.status_code = status
    return kind("the engine's words", response=response)
