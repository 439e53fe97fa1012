"""Wheels that were made to do harm, asked for through a real hub: each is refused, or does nothing to anybody else.

They come from an index on loopback that lies as its operator likes; the base is that of the other tests, with a
server that costs little.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..index_server import IndexServer, PublishedFile
from ..unit.image.wheels import Member, make_wheel
from .hub import Hub


def _entry_points(*names: str) -> str:
    return "[console_scripts]\n" + "".join(f"{name} = evil:main\n" for name in names)


def _scripts(name: str, content: bytes = b"#!python\nimport evil\n") -> dict[str, Any]:
    return {"files": {"evil-1.0.data/scripts/" + name: Member(content, 0o100755)}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # Commands of the container's start, of the health check and of the server.
    **{
        f"command {name}": ({"entry_points": _entry_points(name)}, name)
        for name in ("jupyterhub-singleuser", "jupyter-lab", "id", "tini", "start.sh", "start-notebook.py")
    },
    **{f"script {name}": (_scripts(name), name) for name in ("start.sh", "id", "env", "python3", "bash", "ls")},
    "hook": (_scripts("before-notebook.d/50-evil.sh", b"id\n"), "50-evil.sh"),
    "hook in data": ({"files": {"evil-1.0.data/data/bin/start-notebook.d/x.sh": b"id\n"}}, "x.sh"),
    # Files of the server, and what would come before them.
    "file of the server": ({"files": {"jupyterhub/singleuser/__init__.py": b"raise SystemExit\n"}}, "jupyterhub"),
    "module before the server's": ({"files": {"tornado.py": b"raise SystemExit\n"}}, "tornado"),
    "metadata of the server": ({"files": {"jupyterhub-9.egg-info/PKG-INFO": b"Version: 9\n"}}, "jupyterhub"),
    # Ways out.
    "parent": ({"files": {"../../../etc/cron.d/evil": b"* * * * * root id\n"}}, "evil"),
    "parent in scripts": ({"files": {"evil-1.0.data/scripts/../../../../etc/profile": b"id\n"}}, "profile"),
    "absolute": ({"files": {"/etc/ld.so.preload": b"/tmp/x.so\n"}}, "ld.so.preload"),
    "symlink": ({"files": {"evil/link": Member(b"/etc/shadow", stat.S_IFLNK | 0o777)}}, "link"),
    "device": ({"files": {"evil/disk": Member(b"", stat.S_IFBLK | 0o666)}}, "disk"),
    "whiteout": ({"files": {".wh.jupyterhub": b""}}, "jupyterhub"),
    # Lies.
    "record": ({"files": {"evil.py": Member(b"x", record="sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,1")}}, ""),
    "not in record": ({"files": {"evil.py": Member(b"x", listed=False)}}, "evil.py"),
    "another's name": ({"metadata": b"Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n"}, "another name"),
    "bomb": ({"files": {}}, "too large"),
}


def _wheel(folder: Path, **how: Any) -> tuple[str, bytes]:
    wheel = make_wheel(folder, **{"files": {"evil.py": b"def main(): ...\n"}, "name": "evil", **how})
    return wheel.name, wheel.read_bytes()


def _publish(index: IndexServer, filename: str, content: bytes) -> None:
    """With right metadata beside it, so that the resolver has no need to look into the wheel."""
    metadata = b"Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n"
    index.add_file(PublishedFile(name="evil", version="1.0", filename=filename, content=content, metadata=metadata))


def _announcing_more(content: bytes) -> bytes:
    """The wheel, whose directory now says of each file that it has 4 GB."""
    parts = content.split(b"PK\x01\x02")
    said = (2**32 - 2).to_bytes(4, "little")
    return b"PK\x01\x02".join([parts[0], *(part[:20] + said + part[24:] for part in parts[1:])])


@pytest.fixture(scope="module")
def index() -> Iterator[IndexServer]:
    with IndexServer() as server:
        yield server


@pytest.fixture(scope="module")
def hub(make_hub, index: IndexServer, light_base: str, tmp_path_factory: pytest.TempPathFactory) -> Hub:
    hub = make_hub(
        base=light_base,
        cache_dir=tmp_path_factory.mktemp("cache"),
        settings=f"c.PrebuiltSpawner.index_url = {index.url!r}\nc.PrebuiltSpawner.failure_ttl = 0\n",
    )
    hub.start()
    return hub


@pytest.mark.parametrize("what", REFUSED)
def test_a_wheel_that_would_do_harm_is_refused(hub: Hub, index: IndexServer, tmp_path: Path, what: str):
    """With a sentence that names it, and no server starts."""
    how, word = REFUSED[what]
    filename, content = _wheel(tmp_path, **how)
    _publish(index, filename, _announcing_more(content) if what == "bomb" else content)
    user, before = hub.user("victim"), hub.derived_tags()
    outcome = hub.start_server(user, {"packages": ["evil"], "refresh": True})
    assert (outcome.status, outcome.ready) == (422, False), outcome
    assert "evil" in outcome.message
    assert word in outcome.message
    assert not hub.runs(user)
    assert hub.derived_tags() == before


def test_what_a_wheel_may_bring_harms_nobody_else(hub: Hub, index: IndexServer, tmp_path: Path):
    """A start hook of Python runs in the session of who asked for it, as its user, and neither on the hub nor while
    the image is made; setuid bits are lost; what RECORD says of other files is not believed; nobody else has any of
    it."""
    ran = tmp_path / "ran"
    hook = f"import os; open('/tmp/ran-as', 'w').write(str(os.getuid())); os.system('touch {ran} 2>/dev/null')\n"
    files = {
        "evil.py": b"def main(): ...\n",
        "evil.pth": hook.encode(),
        "evil-1.0.data/scripts/become-root": Member(b"#!/bin/sh\nid -u\n", stat.S_IFREG | 0o6755),
        "evil-1.0.data/data/lib/become-root": Member(b"x", stat.S_IFREG | 0o4755),
        "evil-1.0.data/scripts/innocent": b"#!python\nprint('here')\n",
    }
    (tmp_path / "first").mkdir()
    make_wheel(tmp_path / "first", files, name="evil")
    with zipfile.ZipFile(tmp_path / "first" / "evil-1.0-py3-none-any.whl") as archive:
        record = archive.read("evil-1.0.dist-info/RECORD")
    lies = b"../../../../../etc/passwd,,\n../../../bin/python3,,\n"
    _publish(index, *_wheel(tmp_path, files=files, record=lies + record))
    user, other = hub.user("curious"), hub.user("bystander")
    assert hub.start_server(user, {"packages": ["evil"], "refresh": True}).ready
    assert hub.start_server(other, {}).ready
    assert hub.execute(user, "python", "-c", "")[0] == 0
    assert hub.execute(user, "cat", "/tmp/ran-as") == (0, hub.execute(user, "id", "-u")[1].strip())
    assert hub.execute(user, "id", "-u")[1].strip() != "0"
    assert not ran.exists()
    prefix = hub.python(user, "import sys; print(sys.prefix)")
    for program in ("bin/become-root", "lib/become-root"):
        mode, owner = hub.execute(user, "stat", "-c", "%a %U", f"{prefix}/{program}")[1].split()
        assert mode in ("755", "644")
        assert owner == "root"
    assert hub.execute(user, "innocent") == (0, "here\n")
    listed = "import importlib.metadata as m; print(*(str(f) for f in m.files('evil')))"
    paths = hub.python(user, listed).split()
    assert not [path for path in paths if "passwd" in path or "python3" in path.rpartition("/")[2]]
    assert hub.execute(other, "innocent")[0] != 0
    assert hub.execute(other, "python", "-c", "import evil")[0] != 0
    assert hub.image(user)["RootFS"]["Layers"][: len(_base_layers(hub))] == _base_layers(hub)


def _base_layers(hub: Hub) -> list[str]:
    layers: list[str] = hub.client.inspect_image(hub.base)["RootFS"]["Layers"]
    return layers
