"""Wheels that would hide parts of the server, wherever those lie."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from prebuilt_spawner.environment.base import BaseProbe
from prebuilt_spawner.errors import UnbuildableEnvironment
from prebuilt_spawner.image.fragment import Fragment
from prebuilt_spawner.image.plan import plan_image

from .wheels import SITE, fragment_of, make_base, make_distribution, make_lock, make_probe

SYSTEM = "/usr/lib/python3/dist-packages"
PROTECTED = frozenset({"jupyterhub", "jupyter-server"})


def planned(fragment: Fragment, probe: BaseProbe, protected: frozenset[str] = PROTECTED) -> None:
    """A plan with this fragment."""
    plan_image(
        base=make_base(),
        probe=probe,
        lock=make_lock(fragment.distribution),
        fragments=[fragment],
        own_files={},
        labels={},
        environment={},
        digest="d" * 64,
        protected=protected,
    )


def server_with(*files: str, location: str = SYSTEM) -> BaseProbe:
    """A base whose jupyterhub has these files, relative to where it lies."""
    return make_probe(
        make_distribution("jupyterhub", *(f"{location}/{file}" for file in files), location=location),
        make_distribution("other", f"{location}/other/__init__.py", location=location),
    )


HIDING: dict[str, Mapping[str, bytes]] = {
    "the same file": {"jupyterhub/__init__.py": b""},
    "the same data file": {"hub.pth": b""},
    "another file of the package": {"jupyterhub/evil.py": b""},
    "a module of its name": {"jupyterhub.py": b""},
    "an extension module of its name": {"jupyterhub.cpython-311-x86_64-linux-gnu.so": b""},
    "a package in place of a module": {"hubtool/__init__.py": b""},
    "by way of the data folder": {"demo-1.0.data/data/lib/python3.11/site-packages/jupyterhub/__init__.py": b""},
    "the other site folder": {"demo-1.0.data/platlib/jupyterhub/__init__.py": b""},
    "a part of a namespace": {"ns/hub/__init__.py": b""},
    "a whole namespace": {"ns/__init__.py": b""},
}


@pytest.mark.parametrize("location", [SYSTEM, SITE])
@pytest.mark.parametrize("what", HIDING)
def test_a_wheel_that_hides_a_part_of_the_server_is_refused(tmp_path: Path, what: str, location: str) -> None:
    """Wherever the server lies: the message names wheel, file and whose it is."""
    probe = server_with(
        "jupyterhub/__init__.py", "jupyterhub/app.py", "hub.pth", "hubtool.py", "ns/hub/__init__.py", location=location
    )
    fragment = fragment_of(tmp_path, "demo", HIDING[what])
    with pytest.raises(UnbuildableEnvironment, match=r'demo has a file ".*" that .* the server \(jupyterhub\)'):
        planned(fragment, probe)


def test_what_stays_and_is_not_the_servers_may_be_hidden(tmp_path: Path) -> None:
    """Debian's other packages are shadowed, as ever."""
    planned(fragment_of(tmp_path, "demo", {"other/__init__.py": b""}), server_with("jupyterhub/__init__.py"))


@pytest.mark.parametrize(
    "path",
    [
        "demo/jupyterhub/__init__.py",
        "jupyterhub_demo/__init__.py",
        "jupyterhub.json",
        "ns/demo/__init__.py",
        "ns/hubs.py",
        "__pycache__.py",
        "demo-1.0.data/data/share/jupyterhub/x.py",
    ],
)
def test_names_that_only_look_alike_are_no_matter(tmp_path: Path, path: str) -> None:
    """Deeper down, longer, not importable, bytecode, beside the server in a namespace, outside of the site folders."""
    probe = server_with("jupyterhub/__init__.py", "ns/hub/__init__.py", "__pycache__/hubtool.cpython-311.pyc")
    planned(fragment_of(tmp_path, "demo", {path: b""}), probe)


@pytest.mark.parametrize("path", ["jupyter_server/__init__.py", "jupyter_server.py", "Jupyter_Server/x.py"])
def test_without_a_list_of_files_the_name_is_protected(tmp_path: Path, path: str) -> None:
    """Debian's packages have no RECORD."""
    probe = make_probe(make_distribution("jupyter-server", files=None, location=SYSTEM))
    fragment = fragment_of(tmp_path, "demo", {path: b""})
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*server \(jupyter-server\)"):
        planned(fragment, probe)
    planned(fragment, probe, protected=frozenset())


def test_the_folder_of_the_server_counts_where_a_wheel_reaches_it(tmp_path: Path) -> None:
    """A scheme whose data folder holds the system's packages."""
    location = "/opt/env/lib/python3/dist-packages"
    probe = make_probe(make_distribution("jupyter-server", files=None, location=location))
    path = "demo-1.0.data/data/lib/python3/dist-packages/jupyter_server/evil.py"
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*server \(jupyter-server\)"):
        planned(fragment_of(tmp_path, "demo", {path: b""}), probe)


def test_a_newer_version_of_a_protected_package_may_take_its_place(tmp_path: Path) -> None:
    """Where the lock has it, it does not stay; the resolver has seen to it that the server goes on working."""
    probe = server_with("jupyterhub/__init__.py")
    planned(fragment_of(tmp_path, "jupyterhub", {"jupyterhub/__init__.py": b"new"}), probe)


def test_a_package_may_bring_again_what_it_shared(tmp_path: Path) -> None:
    """A file that the replaced version had already is no news to the server."""
    probe = make_probe(
        make_distribution("jupyterhub", "jupyterhub/__init__.py"), make_distribution("plugin", "jupyterhub/plugin.py")
    )
    planned(fragment_of(tmp_path, "plugin", {"jupyterhub/plugin.py": b"new"}), probe)
    with pytest.raises(UnbuildableEnvironment, match=r"plugin .*jupyterhub/more\.py"):
        planned(fragment_of(tmp_path, "plugin", {"jupyterhub/more.py": b"new"}), probe)
