"""What images bring for the people in their sessions."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt_spawner.environment.base import FolderEntry
from prebuilt_spawner.image.session import session_environment, session_files

from .wheels import make_base, make_probe

SHARE = "usr/local/share/prebuilt-spawner"
PROGRAMS = f"{SHARE}/bin"
SITE = "opt/env/lib/python3.11/site-packages"
FOLDER = FolderEntry(mode=0o755, uid=0, gid=0)


def files(*, installed: tuple[str, ...] = (), folders: tuple[str, ...] = (), **changes: Any) -> dict[str, bytes]:
    probe = make_probe()
    probe = replace(probe, folders={**probe.folders, **dict.fromkeys(folders, FOLDER)}, **changes)
    return session_files(make_base(), probe, installed=installed)


def test_the_notice_is_where_pip_and_uv_look_for_it() -> None:
    """PEP 668's file, with the words of the notice as its `Error`; not in a virtual environment, where none looks."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(files()["opt/env/lib/python3.11/EXTERNALLY-MANAGED"].decode())
    error = parser.get("externally-managed", "Error")
    assert error.split() == files()[f"{SHARE}/notice.txt"].decode().split()
    for words in ("Hub Control Panel", "stop this server", "start it again", "prebuilt-try"):
        assert words in error
    assert not any(path.endswith("EXTERNALLY-MANAGED") for path in files(virtual=True))


@pytest.mark.parametrize("tool", ["conda", "mamba", "uv"])
def test_a_tool_is_wrapped_where_the_base_has_it(tool: str) -> None:
    """And nowhere else: a command that is not there stays unknown."""
    assert f"{PROGRAMS}/{tool}" not in files()
    assert f"{PROGRAMS}/{tool}" in files(executables={tool: f"/opt/env/bin/{tool}"})


def test_uv_is_wrapped_where_the_environment_brings_it() -> None:
    assert f"{PROGRAMS}/uv" in files(installed=("uv",))


def test_a_base_without_pip_has_a_pip_that_advises() -> None:
    """One that has it, or gets it, keeps its own."""
    assert f"{PROGRAMS}/pip" in files()
    assert f"{PROGRAMS}/pip" not in files(installed=("pip",))
    assert f"{PROGRAMS}/pip" not in files(executables={"pip": "/opt/env/bin/pip"})


def test_conda_finds_its_own_notice() -> None:
    """`frozen` (conda's enhancement proposal 22) beside its records, in bases that have these."""
    content = files(folders=("/opt/env/conda-meta",))["opt/env/conda-meta/frozen"]
    assert "Hub Control Panel" in json.loads(content)["message"]
    assert not any(path.endswith("frozen") for path in files())


def test_login_shells_get_the_images_path() -> None:
    """Where the base has a place for it."""
    assert not any("profile.d" in path for path in files())
    script = files(folders=("/etc/profile.d",))["etc/profile.d/prebuilt-spawner.sh"].decode()
    said = subprocess.run(
        ["sh", "-c", f"PATH=/bin:/usr/bin\n{script}\n{script}\necho $PATH"], check=True, capture_output=True, text=True
    )
    assert said.stdout.split() == [f"/{PROGRAMS}:/opt/env/bin:/usr/bin:/bin:/usr/bin"]


def test_the_variables_stand_before_the_bases() -> None:
    """Our programs come first on PATH; a base that says nothing has what engines say for it."""
    variables = session_environment(make_base(config={"Env": ["PATH=/x", "JUPYTER_PATH=/y"]}))
    assert variables["PATH"] == f"/{PROGRAMS}:/x"
    assert variables["JUPYTER_PATH"] == "/tmp/prebuilt-try/jupyter:/y"
    assert session_environment(make_base(config={}))["PATH"].startswith(f"/{PROGRAMS}:/usr/local/sbin:")


# -- the advice for pip ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def is_in_vain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], bool]:
    """The program's own judgement, where the folder of packages cannot be written."""
    names: dict[str, Any] = {"__name__": "advice"}
    exec(files()[f"{SHARE}/pip-advice"], names)  # as Python does it at its start
    names["can_be_written"] = lambda folder: folder.startswith("/home")
    judge: Callable[[list[str]], bool] = names["is_in_vain"]
    return judge


@pytest.mark.parametrize(
    ("command", "in_vain"),
    [
        ("python -m pip install six", True),
        ("python -mpip install six", True),
        ("python -Im pip install six", True),
        ("python -X utf8 -W ignore -m pip -q --log x install six", True),
        ("/opt/env/bin/python3 /opt/env/bin/pip install six", True),
        ("python /opt/env/bin/pip3.11 uninstall -y six", True),
        ("pip install --target /opt/x six", True),
        ("pip install --prefix=/opt/x six", True),
        ("pip install -t /home/jovyan/x six", False),
        ("pip install -t/home/jovyan/x six", False),
        ("pip --python /home/jovyan/env/bin/python install six", False),
        ("pip --python=/home/jovyan/env install six", False),
        ("pip install --dry-run six", False),
        ("pip install --help", False),
        ("pip list", False),
        ("pip download install", False),
        ("pip", False),
        ("python", False),
        ("python -c pip install", False),
        ("python -m json.tool pip install", False),
        ("python -m pipx install six", False),
        ("python program.py pip install", False),
        ("python pipeline.py install", False),
        ("python -m", False),
        ("python -W", False),
    ],
)
def test_pip_is_stopped_where_it_could_only_fail(is_in_vain, command: str, in_vain: bool, monkeypatch) -> None:
    """And only there: what does not change the image's own environment is pip's."""
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    words = command.split()
    assert is_in_vain(words if words[0] != "pip" else ["python", "/opt/env/bin/pip", *words[1:]]) is in_vain


@pytest.mark.parametrize(
    ("variable", "value", "in_vain"),
    [
        ("PIP_TARGET", "/home/jovyan/x", False),
        ("PIP_TARGET", "/opt/x", True),
        ("PIP_PYTHON", "/home/jovyan/env", False),
    ],
)
def test_pips_variables_count(is_in_vain, variable: str, value: str, in_vain: bool, monkeypatch) -> None:
    monkeypatch.setenv(variable, value)
    assert is_in_vain(["python", "-m", "pip", "install", "six"]) is in_vain


def test_the_hook_is_silent_where_pip_is_not_meant(tmp_path: Path) -> None:
    """Python reads the line at its start, and neither stops nor says a word; the advice is not looked for."""
    (tmp_path / "advice.pth").write_bytes(files()[f"{SITE}/prebuilt_spawner_advice.pth"])
    said = subprocess.run(
        [sys.executable, "-c", "import site; site.addsitedir('.'); print('went on')"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "went on\n", "")
