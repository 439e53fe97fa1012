"""The container: from which image, with which settings, and whose it may be."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from docker.errors import NotFound

from prebuilt_spawner.hub.container import CONTAINER_LABEL, PROFILE_LABEL

from ..ports import free_ports
from .doubles import HOME, REPOSITORY, Hub

LABEL = "prebuilt_spawner.container"


async def test_the_container_carries_the_servers_name_as_a_label(hub: Hub) -> None:
    """The administrator's own labels stay; a name with braces in it is not rendered as a template."""
    hub.configure(extra_create_kwargs={"labels": {"course": "{username}"}})
    await hub.start("ada", server="lab")
    assert CONTAINER_LABEL == LABEL
    labels = hub.container("ada", "lab")["Config"]["Labels"]
    assert labels == {"course": "ada", LABEL: "ada/lab", PROFILE_LABEL: ""}
    await hub.start("{prefix}")
    (name,) = (name for name in hub.docker.containers if "lab" not in name)
    assert hub.docker.containers[name]["Config"]["Labels"][LABEL] == "{prefix}/"


@pytest.mark.parametrize("labels", [["course"], {"course": ""}, None])
async def test_labels_may_be_given_in_each_of_dockers_forms(hub: Hub, labels: Any) -> None:
    async def later(spawner: Any) -> dict[str, Any]:
        return {"labels": labels} if labels else {}

    hub.configure(extra_create_kwargs=later)
    await hub.start("ada")
    assert hub.container("ada")["Config"]["Labels"][LABEL] == "ada/"
    assert ("course" in hub.container("ada")["Config"]["Labels"]) == bool(labels)


async def test_a_stopped_container_with_the_same_environment_is_started_again(hub: Hub) -> None:
    await hub.start("ada", {"packages": ["six"]})
    first = hub.container("ada")["Id"]
    await hub.stop("ada")
    await hub.start("ada")
    assert hub.container("ada")["Id"] == first
    assert hub.docker.removed == []


async def test_a_container_is_made_anew_for_another_list_and_no_volume_goes_with_it(hub: Hub) -> None:
    await hub.start("ada", {"packages": ["six"]})
    first = hub.container("ada")
    await hub.stop("ada")
    await hub.start("ada", {"packages": ["attrs"]})
    second = hub.container("ada")
    assert first["Id"] != second["Id"]
    assert first["Config"]["Image"] != second["Config"]["Image"]
    assert hub.docker.removed == [("jupyter-ada", False)]


async def test_a_container_is_made_anew_for_another_profile_with_the_same_packages(hub: Hub) -> None:
    """The other profile may set other limits."""
    small = {"display_name": "Small", "slug": "small", "spawner_override": {"mem_limit": "1G"}}
    big = {"display_name": "Big", "slug": "big", "spawner_override": {"mem_limit": "8G"}}
    hub.configure(profile_list=[small, big])
    await hub.start("ada", {"profile": "small"})
    await hub.stop("ada")
    await hub.start("ada", {"profile": "big"})
    assert hub.created("ada")["host_config"]["Memory"] == 8 * 1024**3


async def test_a_container_of_ours_that_still_runs_is_stopped_before_it_is_replaced(hub: Hub) -> None:
    hub.docker.add("jupyter-ada", image="old", labels={LABEL: "ada/"}, running=True)
    assert (await hub.start("ada")).status == 201
    assert hub.docker.stopped == ["jupyter-ada"]
    assert hub.container("ada")["Config"]["Image"].startswith(REPOSITORY)


@pytest.mark.parametrize("remove", [False, True])
@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("labels", [{}, {LABEL: "bob/"}, {LABEL: "ada/lab"}])
async def test_a_foreign_container_is_reported_and_neither_stopped_nor_removed(
    hub: Hub, remove: bool, running: bool, labels: dict[str, str]
) -> None:
    """It has our container's name and not our label: it may hold somebody's data."""
    hub.configure(remove=remove)
    hub.docker.add("jupyter-ada", image="postgres", labels=labels, running=running)
    for _ in range(2):
        answer = await hub.start("ada", {"packages": ["six"]})
        assert answer.status == 503
        assert "jupyter-ada" in answer.message
    assert hub.docker.containers["jupyter-ada"]["State"]["Running"] == running
    assert hub.docker.removed == hub.docker.stopped == []


async def test_a_running_container_from_before_is_polled_and_stopped_as_its_own(hub: Hub) -> None:
    """DockerSpawner made it without our label, and the hub has recorded its ID."""
    await hub.start("ada")
    del hub.container("ada")["Config"]["Labels"][LABEL]
    assert await hub.spawner("ada").poll() is None
    await hub.stop("ada")
    assert hub.docker.stopped == ["jupyter-ada"]
    assert (await hub.start("ada")).status == 503


async def test_containers_that_are_removed_when_stopped_start_as_well(hub: Hub) -> None:
    hub.configure(remove=True)
    for _ in range(2):
        assert (await hub.start("ada", {"packages": ["six"]})).status == 201
        await hub.stop("ada")
        assert hub.docker.containers == {}


async def test_our_images_are_never_pulled(hub: Hub) -> None:
    """Whoever takes the name in a public registry could put anything in: an absent image is a 503."""
    hub.manager.present = False
    for policy in ("ifnotpresent", "always"):
        hub.configure(pull_policy=policy)
        answer = await hub.start("ada", {"packages": ["six"]})
        assert answer.status == 503
        assert "removed" in answer.message
    assert hub.docker.pulled == []


async def test_images_that_are_named_after_a_registry_are_started_and_not_pulled_either(hub: Hub) -> None:
    """What is fetched from there is judged first; DockerSpawner's own pull would not."""
    hub.manager.place = f"registry.test:5000/{REPOSITORY}"
    for policy in ("ifnotpresent", "always"):
        hub.configure(pull_policy=policy, registry="registry.test:5000", remove=True)
        assert (await hub.start("ada", {"packages": ["six"]})).status == 201
        (created,) = hub.docker.containers.values()
        assert created["Config"]["Image"].startswith(f"registry.test:5000/{REPOSITORY}:")
        await hub.stop("ada")
        hub.manager.present = False
        hub.docker.images.clear()
        assert (await hub.start("ada", {"packages": ["six"]})).status == 503
        hub.manager.present = True
    assert hub.docker.pulled == []


async def test_an_image_that_took_the_name_of_ours_is_not_started(hub: Hub) -> None:
    """Between the moment at which the environment was found and the start of its container."""
    await hub.start("ada", {"packages": ["six"]})
    await hub.stop("ada")
    hub.configure(remove=True)
    hub.docker.foreign.update(hub.docker.images)
    answer = await hub.start("ada", {"packages": ["six"]})
    assert (answer.status, "not made by this hub" in answer.message) == (503, True)
    assert not any(found["State"]["Running"] for found in hub.docker.containers.values())


async def test_other_images_are_pulled_as_dockerspawner_does(hub: Hub) -> None:
    """Its helper for certificates needs that."""
    await hub.start("ada")
    await hub.spawner("ada").pull_image("busybox:1.30.1")
    assert hub.docker.pulled == ["busybox:1.30.1"]
    hub.configure(pull_policy="never")
    await hub.start("bob")
    with pytest.raises(NotFound):
        await hub.spawner("bob").pull_image("busybox:2")


async def test_a_start_without_preparation_is_refused(hub: Hub) -> None:
    """As under wrapspawner, which calls `start` and no hook; a prepared environment is good for one start."""
    await hub.start("ada", {"packages": ["six"]})
    spawner = hub.spawner("ada")
    await hub.stop("ada")
    hub.docker.containers.clear()
    with pytest.raises(Exception, match="no environment was prepared") as caught:
        await spawner.start()
    assert caught.value.status_code == 503
    fresh = hub.spawner_class(user=spawner.user, orm_spawner=spawner.orm_spawner, config=hub.app.config)
    fresh.user_options = {"packages": ["six"]}
    with pytest.raises(Exception, match="no environment was prepared"):
        await fresh.start()
    assert hub.docker.containers == {}


async def test_an_environment_is_good_only_for_the_options_it_was_prepared_for(hub: Hub) -> None:
    await hub.start("ada", {"packages": ["six"]})
    spawner = hub.spawner("ada")
    await hub.stop("ada")
    await spawner.apply_group_overrides()
    await spawner._run_apply_user_options(spawner.user_options)
    await spawner.run_pre_spawn_hook()
    spawner.user_options = {"packages": ["attrs"]}
    with pytest.raises(Exception, match="no environment was prepared"):
        await spawner.start()


async def test_an_immutable_container_has_a_read_only_root_and_scratch_space(hub: Hub) -> None:
    await hub.start("ada")
    host_config = hub.created("ada")["host_config"]
    assert host_config["ReadonlyRootfs"] is True
    assert set(host_config["Tmpfs"]) == {"/tmp", "/var/tmp", "/run"}
    assert hub.created("ada")["environment"]["PYTHONNOUSERSITE"] == "1"


async def test_scratch_space_has_the_places_and_sizes_that_are_set(hub: Hub) -> None:
    """Also for one profile: a size of None takes a place away."""
    override = {"scratch": {"/tmp": 5 * 1024**3, "/run": None}}
    hub.configure(
        scratch={"/tmp": 1024**3, "/run": 0, "/opt/cache": 4096},
        profile_list=[{"display_name": "Plain"}, {"display_name": "Big", "spawner_override": override}],
    )
    await hub.start("ada")
    tmpfs = hub.created("ada")["host_config"]["Tmpfs"]
    assert set(tmpfs) == {"/tmp", "/run", "/opt/cache"}
    assert tmpfs["/tmp"] == "rw,exec,nosuid,nodev,mode=1777,size=1073741824"
    assert tmpfs["/run"] == "rw,noexec,nosuid,nodev,mode=1777"
    await hub.start("eva", {"profile": "big"})
    tmpfs = hub.created("eva")["host_config"]["Tmpfs"]
    assert set(tmpfs) == {"/tmp", "/opt/cache"}
    assert tmpfs["/tmp"].endswith(",size=5368709120")


async def test_a_mutable_container_is_dockerspawners_own(hub: Hub) -> None:
    hub.configure(immutable=False)
    await hub.start("ada")
    host_config = hub.created("ada")["host_config"]
    assert not host_config.get("ReadonlyRootfs")
    assert not host_config.get("Tmpfs")
    assert "PYTHONNOUSERSITE" not in hub.created("ada")["environment"]


@pytest.mark.parametrize("tmpfs", [{"/tmp": "size=1m", "/scratch": ""}, ["/tmp:size=1m", "/scratch"]])
async def test_what_the_administrator_sets_wins(hub: Hub, tmpfs: Any) -> None:
    hub.configure(
        extra_host_config=lambda spawner: {"read_only": False, "tmpfs": tmpfs},
        environment={"PYTHONNOUSERSITE": ""},
        volumes={"data": "/run"},
    )
    await hub.start("ada")
    host_config = hub.created("ada")["host_config"]
    assert not host_config.get("ReadonlyRootfs")
    assert host_config["Tmpfs"]["/tmp"] == "size=1m"
    assert host_config["Tmpfs"]["/scratch"] == ""
    assert "/run" not in host_config["Tmpfs"]
    assert hub.created("ada")["environment"]["PYTHONNOUSERSITE"] == ""


async def test_the_home_is_a_volume_of_the_user_and_server(hub: Hub) -> None:
    await hub.start("ada")
    await hub.start("ada", server="lab")
    assert hub.created("ada")["host_config"]["Binds"] == [f"prebuilt-spawner-home-ada:{HOME}:rw"]
    assert hub.created("ada", "lab")["host_config"]["Binds"] == [f"prebuilt-spawner-home-ada--lab:{HOME}:rw"]


MOUNTED_HOMES: list[dict[str, Any]] = [
    {"volumes": {"home-{username}": HOME}},
    {"volumes": {"/srv/{username}": {"bind": f"{HOME}/", "mode": "rw"}}},
    {"read_only_volumes": {"homes": "/home"}},
    {"mounts": [{"type": "volume", "source": "home-{username}", "target": HOME}]},
    {"extra_host_config": {"binds": [f"homes:{HOME}:rw"]}},
    {"extra_host_config": {"binds": {"homes": {"bind": "/home", "mode": "rw"}}}},
    {"extra_host_config": {"tmpfs": [f"{HOME}:size=1g"]}},
]


async def test_a_home_that_the_administrator_mounts_is_left_alone(hub: Hub) -> None:
    for number, settings in enumerate(MOUNTED_HOMES):
        hub.configure(**{"volumes": {}, "read_only_volumes": {}, "mounts": [], "extra_host_config": {}, **settings})
        answer = await hub.start(f"u{number}")
        assert answer.status == 201, answer.text
        assert "prebuilt-spawner-home" not in str(hub.created(f"u{number}")["host_config"]), settings


@pytest.mark.parametrize(
    "settings",
    [
        {"volumes": {"work-{username}": f"{HOME}/work"}},
        {"extra_host_config": {"binds": ["work-ada:/home/jovyan/work:rw"]}},
        {"mounts": [{"type": "volume", "source": "work", "target": f"{HOME}/work"}]},
    ],
)
async def test_where_a_part_of_the_home_is_mounted_the_rest_is_ours_and_the_log_says_so_once(
    hub: Hub, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As in jupyterhub-deploy-docker. The administrator's part stays on top."""
    hub.spawner_class._partial_homes = set()
    hub.configure(**settings)
    hub.app.log.propagate = True
    with caplog.at_level(logging.WARNING):
        await hub.start("ada")
        await hub.start("bob")
    host_config = hub.created("ada")["host_config"]
    assert f"prebuilt-spawner-home-ada:{HOME}:rw" in host_config["Binds"]
    assert f"{HOME}/work" in str(host_config)
    warnings = {record.getMessage() for record in caplog.records if "part of the home" in record.getMessage()}
    assert len(warnings) == 1
    assert f"{HOME}/work" in warnings.pop()


async def test_volumes_that_the_image_declares_in_the_home_are_kept_too(hub: Hub) -> None:
    """The engine would make a nameless volume for each container."""
    hub.manager.declared = (f"{HOME}/work", "/data")
    await hub.start("ada")
    binds = hub.created("ada")["host_config"]["Binds"]
    assert len(binds) == 2
    assert any(f":{HOME}/work:" in bind for bind in binds)
    assert not any("/data" in bind for bind in binds)


async def test_a_container_name_that_holds_the_image_stays_known_while_it_runs(hub: Hub) -> None:
    """Changing `image` renders DockerSpawner's name anew."""
    hub.configure(name_template="{prefix}-{username}-{imagename}")
    assert (await hub.start("ada", {"packages": ["six"]})).status == 201
    assert await hub.spawner("ada").poll() is None
    await hub.stop("ada")
    assert len(hub.docker.stopped) == 1


async def test_servers_cannot_be_renamed(hub: Hub) -> None:
    """Their home and container belong to the name."""
    import jupyterhub

    if jupyterhub.version_info < (6,):
        pytest.skip("JupyterHub 5 renames no servers")
    await hub.start("ada", server="lab")
    await hub.stop("ada", "lab")
    answer = await hub.call("PATCH", "/users/ada/servers/lab", {"name": "other"})
    assert answer.status == 400
    assert "renamed" in answer.message


@pytest.mark.parametrize(
    ("immutable", "options", "last_words", "to_the_user", "to_the_log"),
    [
        (True, {}, "mkdir: cannot create /opt/x: Read-only file system", "nothing can be written", "immutable = False"),
        (
            True,
            {"packages": ["six"]},
            "OSError: [Errno 30] Read-only file system: '/srv'",
            "nothing can be written",
            "/srv",
        ),
        (False, {}, "OSError: [Errno 30] Read-only file system: '/mnt'", "Tell your administrator", "/mnt"),
        (True, {"packages": ["six"]}, "ImportError: broken", "Remove the packages that you added", "ImportError"),
        (True, {}, "ImportError: broken", "Tell your administrator", "ImportError: broken"),
        (True, {}, "", "Tell your administrator", "status 1"),
    ],
)
async def test_a_server_that_ends_as_it_starts_is_reported_at_once(
    hub: Hub,
    caplog: pytest.LogCaptureFixture,
    immutable: bool,
    options: dict[str, Any],
    last_words: str,
    to_the_user: str,
    to_the_log: str,
) -> None:
    """And not when `http_timeout` is over: the user is told what to do, the log has what the container printed last.
    The next start is as good as any."""
    hub.configure(immutable=immutable, http_timeout=300, start_timeout=300)
    hub.app.log.propagate = True
    answering = hub.docker.port_number
    (hub.docker.port_number,) = free_ports(1)
    hub.docker.last_words = last_words
    answer = await hub.start("ada", options)
    assert answer.status == 503
    assert answer.message.startswith("Your server ended as soon as it started")
    assert to_the_user in answer.message
    assert "OSError" not in answer.message
    assert to_the_log in caplog.text
    hub.docker.last_words, hub.docker.port_number = None, answering
    assert (await hub.start("ada")).status == 201


async def test_a_server_that_ends_before_its_port_is_known_is_reported_as_well(hub: Hub) -> None:
    hub.docker.last_words, hub.docker.has_no_port_of_the_dead = "ImportError: broken", True
    answer = await hub.start("ada")
    assert (answer.status, "ended as soon as it started" in answer.message) == (503, True)


async def test_a_container_is_made_anew_with_other_scratch_space(hub: Hub) -> None:
    """And started again where only the order of the settings is another."""
    scratch = {"/tmp": 0, "/srv/state": 1 << 20}
    hub.configure(scratch=scratch)
    await hub.start("ada")
    first = hub.container("ada")["Id"]
    await hub.stop("ada")
    hub.configure(scratch=dict(reversed(scratch.items())))
    await hub.start("ada")
    assert hub.container("ada")["Id"] == first
    await hub.stop("ada")
    hub.configure(scratch={**scratch, "/srv/state": 2 << 20})
    await hub.start("ada")
    assert hub.container("ada")["Id"] != first


async def test_a_container_that_is_removed_as_it_starts_is_reported_too(hub: Hub) -> None:
    """By somebody else, or by the engine."""
    (hub.docker.port_number,) = free_ports(1)
    port = hub.docker.port

    def last_seen(*args: Any) -> Any:
        found = port(*args)
        hub.docker.containers.clear()
        return found

    hub.docker.port = last_seen  # type: ignore[method-assign]
    answer = await hub.start("ada")
    assert (answer.status, "ended as soon as it started" in answer.message) == (503, True)
