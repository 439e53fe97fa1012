"""Nothing of anybody's is lost: homes, volumes, other people's containers."""

from __future__ import annotations

import docker

from .hub import TEST_LABEL, Hub


def test_a_changed_list_gets_a_new_container_with_the_old_home(hub: Hub):
    """With a stopped container there, another list starts another image, and the home's files are still there."""
    user = hub.user("changer")
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready
    assert hub.execute(user, "sh", "-c", "echo mine > $HOME/notes.txt")[0] == 0
    first = hub.container(user)
    hub.stop_server(user)
    assert hub.container(user)["State"]["Running"] is False
    assert hub.start_server(user, {"packages": ["python-docx"]}).ready
    assert hub.container(user)["Id"] != first["Id"]
    assert hub.python(user, "import docx; print(open('notes.txt').read())") == "mine"


def test_the_home_outlives_the_removed_container(make_hub):
    """After the server was stopped and its container removed, the next one has the home's files."""
    hub: Hub = make_hub(settings="c.PrebuiltSpawner.remove = True\n")
    hub.start()
    user = hub.user("culled")
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready
    assert hub.execute(user, "sh", "-c", "echo mine > $HOME/notes.txt")[0] == 0
    hub.stop_server(user, remove=False)
    assert hub.start_server(user, {"packages": ["python-docx"]}).ready
    assert hub.python(user, "print(open('notes.txt').read())") == "mine"


def test_a_nameless_volume_outside_the_home_outlives_the_removed_container(
    make_hub, client: docker.APIClient, base: str, run: str
):
    """With `remove`, the container goes when the server stops; the volume of the base's `VOLUME /data` stays."""
    name = f"prebuilt-spawner-test/{run}-volumes:1"
    made = client.create_container(base, entrypoint=["true"], command=[], labels={TEST_LABEL: run})
    theirs = client.inspect_image(base)["Config"]
    repository, _, tag = name.rpartition(":")
    config = {key: theirs.get(key) for key in ("Entrypoint", "Cmd", "User")} | {"Volumes": {"/data": {}}}
    client.commit(made, repository=repository, tag=tag, conf=config)
    client.remove_container(made)
    hub: Hub = make_hub(base=name, settings="c.PrebuiltSpawner.remove = True\n")
    hub.start()
    user = hub.user("volumes")
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready
    container = hub.container(user)
    (volume,) = (mount["Name"] for mount in container["Mounts"] if mount["Destination"] == "/data")
    try:
        assert hub.execute(user, "sh", "-c", "echo mine > /data/notes.txt", as_user="root")[0] == 0
        hub.stop_server(user)
        assert container["Id"] not in {one["Id"] for one in client.containers(all=True)}
        assert client.inspect_volume(volume)["Name"] == volume
        # The name is free at once.
        assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready
        (second,) = (mount["Name"] for mount in hub.container(user)["Mounts"] if mount["Destination"] == "/data")
        hub.stop_server(user)
        client.remove_volume(second)
    finally:
        client.remove_volume(volume, force=True)


def test_a_container_of_ours_that_still_runs_is_replaced(make_hub, client: docker.APIClient, run: str):
    """The engine removes it by itself as it stops, as one that was made with `auto_remove` does."""
    hub: Hub = make_hub(settings="c.PrebuiltSpawner.remove = True\n")
    hub.start()
    user = hub.user("running")
    made = client.create_container(
        hub.base,
        entrypoint=["sleep"],
        command=["600"],
        name=f"jupyter-{user}",
        labels={TEST_LABEL: run, "prebuilt_spawner.container": f"{user}/"},
        host_config=client.create_host_config(auto_remove=True, init=True),
    )
    client.start(made)
    assert hub.start_server(user, {}).ready
    assert hub.container(user)["Id"] != made["Id"]


def test_each_server_of_a_user_has_a_home_of_its_own(hub: Hub):
    """The default server and a named one do not share their homes."""
    user = hub.user("twohomes")
    assert hub.start_server(user, {}).ready
    assert hub.start_server(user, {}, name="lab").ready
    assert hub.execute(user, "sh", "-c", "echo default > $HOME/which.txt")[0] == 0
    assert hub.execute(user, "test", "-e", "which.txt", name="lab")[0] != 0


def test_a_foreign_container_of_the_same_name_survives(hub: Hub, client: docker.APIClient, base: str, run: str):
    """A container without our label that has our container's name is reported, and is there afterwards."""
    user = hub.user("foreign")
    made = client.create_container(
        base, command=["true"], entrypoint=[], name=f"jupyter-{user}", labels={TEST_LABEL: run}
    )
    outcome = hub.start_server(user, {"packages": ["xlsxwriter"]})
    assert not outcome.ready
    assert f"jupyter-{user}" in hub.log()
    assert client.inspect_container(made["Id"])["Name"] == f"/jupyter-{user}"
    client.remove_container(made["Id"])
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready


def test_a_mount_that_covers_part_of_the_home_is_said_in_the_log(make_hub, run: str):
    """With a volume at a folder of the home the rest is kept all the same, and the log says so."""
    hub: Hub = make_hub(settings=f"c.PrebuiltSpawner.volumes = {{'{run}work-{{username}}': '/home/jovyan/work'}}\n")
    hub.start()
    user = hub.user("partial")
    assert hub.start_server(user, {}).ready
    assert "/home/jovyan/work" in hub.log()
    mounts = {
        mount["Destination"]: mount["Name"] for mount in hub.container(user)["Mounts"] if mount["Type"] == "volume"
    }
    assert mounts["/home/jovyan/work"] == f"{run}work-{user}"
    assert "/home/jovyan" in mounts


def test_the_administrators_home_mount_is_used(make_hub, run: str):
    """Where the administrator mounts the home, no volume of ours is made."""
    hub: Hub = make_hub(settings=f"c.PrebuiltSpawner.volumes = {{'{run}home-{{username}}': '/home/jovyan'}}\n")
    hub.start()
    user = hub.user("mounted")
    assert hub.start_server(user, {}).ready
    assert [mount["Name"] for mount in hub.container(user)["Mounts"] if mount["Type"] == "volume"] == [
        f"{run}home-{user}"
    ]
