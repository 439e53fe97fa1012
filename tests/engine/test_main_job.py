"""A package list becomes an image becomes a running server."""

from __future__ import annotations

import json
import re

import docker
import pytest

from .hub import Hub, changed_base

SHARE = "/usr/local/share/prebuilt-spawner"


def _builds(hub: Hub) -> int:
    return len(re.findall(r"\bBuilding ", hub.log()))


def _resolves(hub: Hub) -> int:
    return len(re.findall(r"\bResolving ", hub.log()))


def test_a_package_list_becomes_a_running_server(hub: Hub, client: docker.APIClient):
    """A list sent over REST gives a server that answers through the proxy, in whose container the packages import,
    from an image whose tag is its digest label and that holds its lock and a Dockerfile."""
    user = hub.user("first")
    outcome = hub.start_server(user, {"packages": ["xlsxwriter", "python-docx>=1"]})
    assert outcome.ready, outcome
    assert "kernels" in hub.answers(user)
    assert hub.python(user, "import xlsxwriter, docx; print('both')") == "both"
    image = hub.image(user)
    labels = image["Config"]["Labels"]
    digest = labels["prebuilt_spawner.digest"]
    assert hub.tag(user) == f"{hub.repository}:{digest}"
    assert hub.tag(user) in image["RepoTags"]
    packages = json.loads(labels["prebuilt_spawner.packages"])
    assert packages == sorted(packages)
    assert {"python-docx", "xlsxwriter", "lxml"} <= {package.partition("==")[0] for package in packages}
    status, listing = hub.execute(user, "ls", SHARE)
    assert status == 0
    assert {"Dockerfile", "pylock.toml"} < set(listing.split())
    assert "prebuilt_spawner.container" not in labels


def test_the_same_request_in_other_words_is_the_same_image(hub: Hub):
    """Another spelling and order by another user starts the same image: nothing is resolved or built for it."""
    one, two = hub.user("speller1"), hub.user("speller2")
    assert hub.start_server(one, {"packages": ["xlsxwriter", "python-docx>=1"]}).ready
    before = (_builds(hub), _resolves(hub))
    assert min(before) > 0
    assert hub.start_server(two, {"packages": "Python_DOCX >= 1.0\n# reports\nXlsxWriter"}).ready
    assert (_builds(hub), _resolves(hub)) == before
    assert hub.container(one)["Image"] == hub.container(two)["Image"]


def test_requests_that_lock_to_the_same_wheels_share_an_image(hub: Hub):
    """`pandas` and `numpy, pandas` are two requests and one environment."""
    one, two = hub.user("sharer1"), hub.user("sharer2")
    assert hub.start_server(one, {"packages": ["pandas"]}).ready
    builds = _builds(hub)
    assert hub.start_server(two, {"packages": ["numpy", "pandas"]}).ready
    assert _builds(hub) == builds
    assert hub.container(one)["Image"] == hub.container(two)["Image"]
    assert hub.python(two, "import pandas; print(int(pandas.Series([1, 2]).sum()))") == "3"


def test_what_we_added_is_readable_and_not_writable(hub: Hub):
    """As the notebook user every file of ours can be read, and none can be written or replaced."""
    user = hub.user("reader")
    assert hub.start_server(user, {"packages": ["xlsxwriter", "python-docx>=1"]}).ready
    program = f"""
import importlib.metadata, os
added = [str(f.locate()) for name in ("xlsxwriter", "python-docx", "lxml") for f in importlib.metadata.files(name)]
added += [os.path.join(folder, name) for folder, _, names in os.walk("{SHARE}") for name in names]
added += [folder for folder, _, _ in os.walk("{SHARE}")]
added = [os.path.realpath(path) for path in added if not path.endswith(".pyc") or os.path.exists(path)]
assert len(added) > 100
print([path for path in added if not os.access(path, os.R_OK)],
      [path for path in added if os.access(path, os.W_OK)],
      [path for path in added if os.stat(path).st_uid != 0])
"""
    assert hub.python(user, program) == "[] [] []"


def test_the_derived_image_behaves_as_its_base(hub: Hub, client: docker.APIClient, base: str):
    """Entry point, command, user, folder, environment, ports and health check are the base's, but for what we say."""
    user = hub.user("alike")
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready
    ours, theirs = hub.image(user)["Config"], client.inspect_image(base)["Config"]
    for key in ("Entrypoint", "Cmd", "User", "WorkingDir", "ExposedPorts", "Healthcheck", "Volumes", "StopSignal"):
        assert ours.get(key) == theirs.get(key), key
    variables, before = (dict(line.split("=", 1) for line in config["Env"]) for config in (ours, theirs))
    assert variables == {
        **before,
        "PYTHONNOUSERSITE": "1",
        "PATH": f"{SHARE}/bin:{before['PATH']}",
        "JUPYTER_PATH": "/tmp/prebuilt-try/jupyter",
    }
    added = {key for key in ours["Labels"] if key not in (theirs.get("Labels") or {})}
    assert all(key.startswith(("prebuilt_spawner.", "org.opencontainers.image.")) for key in added)
    assert hub.becomes_healthy(user)


def test_the_hook_folders_of_the_base_are_kept_and_run(make_hub, client: docker.APIClient, base: str, run: str):
    """A start hook in the base runs in the derived container, and the hook folders are as in the base."""
    name = f"prebuilt-spawner-test/{run}-hooked:1"
    hook = "/usr/local/bin/before-notebook.d/50-mark.sh"
    changed_base(client, base, name, f"echo 'touch /tmp/hooked' > {hook} && chmod 755 {hook}", run)
    hub = make_hub(base=name)
    hub.start()
    user = hub.user("hooked")
    assert hub.start_server(user, {"packages": ["xlsxwriter"]}).ready
    assert hub.execute(user, "test", "-e", "/tmp/hooked")[0] == 0
    assert hub.execute(user, "ls", "/usr/local/bin/start-notebook.d")[0] == 0


@pytest.mark.parametrize("asked", ["jupyterhub==4.0.0", "jupyter_server==1.24.0"])
def test_a_request_that_the_server_cannot_live_with_is_a_422(hub: Hub, asked: str):
    """Another version of the base's server packages is refused, and the message names the conflict."""
    user = hub.user("conflict")
    outcome = hub.start_server(user, {"packages": [asked]})
    name = asked.partition("==")[0].replace("_", "-")
    assert not outcome.ready
    assert outcome.status in (422, 202)
    assert name in outcome.message.replace("_", "-"), outcome
    assert "needs" in outcome.message, outcome


def test_a_package_without_a_wheel_is_a_422_where_nothing_is_built_from_source(make_hub):
    """A package that exists as source only is refused with its name; the log has the number of the build."""
    hub: Hub = make_hub(settings="c.PrebuiltSpawner.allow_source_builds = False\n")
    hub.start()
    user = hub.user("sourceonly")
    outcome = hub.start_server(user, {"packages": ["docx"]})
    assert not outcome.ready
    assert outcome.status in (422, 202)
    assert "docx" in outcome.message
    assert "wheel" in outcome.message
    ((build_id,),) = hub.ledger(f"SELECT build_id FROM build_users WHERE user = '{user}'")
    assert f"environment of {user} (build {build_id}, source-only)" in hub.log()
    assert f"Build {build_id} was not resolved" in hub.log()
