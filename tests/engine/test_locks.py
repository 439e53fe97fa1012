"""The same request gives the same environment, until somebody asks for newer versions."""

from __future__ import annotations

import re
import shutil

import docker
import pytest

from ..index_server import IndexServer
from .hub import Hub, changed_base
from .programs import INSTALLED_FILES


@pytest.fixture
def index():
    with IndexServer() as server:
        yield server


def _settings(index: IndexServer) -> str:
    return f"c.PrebuiltSpawner.extra_index_urls = [{index.url!r}]\n"


def _module(version: str) -> dict[str, str]:
    return {"demo_pkg.py": f"version = {version!r}\n"}


def _resolves(hub: Hub) -> int:
    return len(re.findall(r"\bResolving ", hub.log()))


def test_locks_are_kept_and_refreshed_per_user(make_hub, index: IndexServer, client: docker.APIClient, tmp_path):
    """Two users keep 1.0, file by file, through a restart without images and caches though 1.1 is out; the one that
    refreshes has 1.1 from then on, the other does not."""
    index.add_wheel("demo-pkg", "1.0", files=_module("1.0"))
    hub: Hub = make_hub(settings=_settings(index), cache_dir=tmp_path / "cache")
    hub.start()
    a, b = hub.user("refresher"), hub.user("sitter")
    options = {"packages": ["demo-pkg"]}
    for user in (a, b):
        assert hub.start_server(user, options).ready
    first = hub.tag(a)
    assert hub.tag(b) == first
    before = hub.python(a, INSTALLED_FILES)
    assert "demo-pkg==1.0" in before
    for user in (a, b):
        hub.stop_server(user)
        client.remove_container(hub.container(user)["Id"])
    hub.stop()

    index.add_wheel("demo-pkg", "1.1", files=_module("1.1"))
    client.remove_image(first)
    shutil.rmtree(tmp_path / "cache")
    hub.start()
    for user in (a, b):
        assert hub.start_server(user, options).ready
        assert (hub.version_in(user, "demo-pkg"), hub.tag(user)) == ("1.0", first)
        assert hub.python(user, INSTALLED_FILES) == before
        hub.stop_server(user)

    assert hub.start_server(a, {**options, "refresh": True}).ready
    assert hub.version_in(a, "demo-pkg") == "1.1"
    second = hub.tag(a)
    assert second != first
    assert "refresh" not in hub.stored_options(a)
    hub.stop_server(a)
    resolves = _resolves(hub)
    assert hub.start_server(a, body={}).ready
    assert hub.tag(a) == second
    assert hub.start_server(b, body={}).ready
    assert hub.tag(b) == first
    assert _resolves(hub) == resolves

    newcomer = hub.user("newcomer")
    assert hub.start_server(newcomer, options).ready
    assert hub.tag(newcomer) == second


def test_a_patched_base_gives_another_tag_with_the_same_versions(
    make_hub, index: IndexServer, client: docker.APIClient, base: str, run: str
):
    """When the base's name points at other content, the same request gets another image with the versions it had,
    and a server that runs is not touched; the same content under another name is the same image."""
    index.add_wheel("demo-pkg", "1.0", files=_module("1.0"))
    repository = f"prebuilt-spawner-test/{run}-moving"
    client.tag(base, repository, "1")
    name = f"{repository}:1"
    hub: Hub = make_hub(base=name, settings=_settings(index))
    hub.start()
    early, late = hub.user("early"), hub.user("late")
    options = {"packages": ["demo-pkg"]}
    assert hub.start_server(early, options).ready
    before = hub.container(early)

    index.add_wheel("demo-pkg", "1.1", files=_module("1.1"))
    changed_base(client, base, name, "echo patched > /etc/patched", run)
    assert hub.start_server(late, options).ready
    assert hub.execute(late, "cat", "/etc/patched") == (0, "patched\n")
    assert hub.version_in(late, "demo-pkg") == "1.0"
    assert hub.tag(late) != hub.tag(early)
    after = hub.container(early)
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])

    client.tag(base, repository, "another-name")
    other: Hub = make_hub(base=f"{repository}:another-name", settings=_settings(index), cache_dir=hub.cache_dir)
    other.start()
    third = other.user("third")
    assert other.start_server(third, {"packages": ["demo-pkg==1.0"]}).ready
    assert other.tag(third) == hub.tag(early)
