"""What an immutable image brings for the people in it: advice where their tools could only fail, and a way to try
packages. Texts and values only; what each file does is said in it."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Iterable
from importlib import resources

from ..environment.base import BaseImage, BaseProbe
from .names import SHARE_FOLDER
from .paths import in_image

PROGRAMS_FOLDER = f"{SHARE_FOLDER}/bin"
"""Comes before all others on PATH."""
TRY_FOLDER = "/tmp/prebuilt-try"  # noqa: S108  # scratch space in the container
"""Where temporary environments are made."""
PROFILE_FOLDER = "/etc/profile.d"
"""Whose `*.sh` login shells read, in bases that have it."""

_NOTICE = """\
Packages cannot be installed in a running server here: all servers of this environment share one image.
To add a package, open the Hub Control Panel (in JupyterLab: the menu "File"), stop this server,
start it again, and add the package to the list on the form.
To try a package until this server stops, run in a terminal: prebuilt-try PACKAGE"""

# JupyterLab's terminals are login shells, whose PATH many distributions set anew: it becomes the image's again.
_PROFILE = f"""\
case ":$PATH:" in
    *":{PROGRAMS_FOLDER}:"*) ;;
    *) PATH={{path}}":$PATH" ;;
esac
export PATH
"""
_HOOK = "prebuilt_spawner_advice.pth"
# One line, because Python runs the lines of such files one by one; pip is looked for first, because each start waits.
_HOOK_LINE = (
    'import sys; any("pip" in word for word in getattr(sys, "orig_argv", ())[1:8]) and '
    f'exec(__import__("pathlib").Path("{SHARE_FOLDER}/pip-advice").read_bytes(), {{"__name__": "pip_advice"}})\n'
)

_UV = {
    "ACTIVE": "VIRTUAL_ENV:-$CONDA_PREFIX",
    "LOOKS_HERE": '[ -z "$VIRTUAL_ENV" ] && [ -d .venv ] && ours=no',
    "ELSEWHERE": "-p* | --python | --python=* | -t* | --target | --target=* | --prefix | --prefix=*",
    "WITH_VALUE": "--directory | --project | --cache-dir | --config-file | --color | --allow-insecure-host",
    "CHANGING": '" pip install "* | " pip uninstall "* | " pip sync "*',
}
_CONDA = {
    "ACTIVE": "CONDA_PREFIX",
    "LOOKS_HERE": "",
    "ELSEWHERE": "-n* | --name | --name=* | -p* | --prefix | --prefix=* | -d",
    "WITH_VALUE": "-c | --channel | --file | --solver | --repodata-fn",
    "CHANGING": '" install "* | " remove "* | " uninstall "* | " update "* | " upgrade "*',
}


def session_files(base: BaseImage, probe: BaseProbe, *, installed: Iterable[str]) -> dict[str, bytes]:
    """These files by path, absolute without the leading slash. Those that begin with `#!` are programs.

    Args:
        base: What the image stands on.
        probe: What is in the base.
        installed: Names of the distributions that the image adds.
    """
    files = {
        f"{SHARE_FOLDER}/notice.txt": f"{_NOTICE}\n",
        f"{SHARE_FOLDER}/pip-advice": _text("pip-advice"),
        posixpath.join(probe.scheme.purelib, _HOOK): _HOOK_LINE,
        f"{PROGRAMS_FOLDER}/prebuilt-try": _text(
            "prebuilt-try", PYTHON=probe.interpreter, FOLDER=TRY_FOLDER, JUPYTER=f"{TRY_FOLDER}/jupyter"
        ),
    }
    if not probe.virtual:
        # In a virtual environment nobody looks for it.
        files[posixpath.join(probe.stdlib, "EXTERNALLY-MANAGED")] = externally_managed()
    present = {*probe.executables, *installed}
    if "pip" not in present:
        files[f"{PROGRAMS_FOLDER}/pip"] = f'#!/bin/sh\nexec {shlex.quote(probe.interpreter)} -m pip "$@"\n'
    if "uv" in present:
        files[f"{PROGRAMS_FOLDER}/uv"] = _tool("uv", probe, _UV)
    for tool in ("conda", "mamba"):
        if tool in probe.executables:
            files[f"{PROGRAMS_FOLDER}/{tool}"] = _tool(tool, probe, _CONDA)
    records = posixpath.join(probe.scheme.data, "conda-meta")
    if records in probe.folders:
        # Conda's own notice (its enhancement proposal 22), which also speaks where a shell function calls conda.
        files[f"{records}/frozen"] = json.dumps({"message": _NOTICE}) + "\n"
    if PROFILE_FOLDER in probe.folders:
        files[f"{PROFILE_FOLDER}/prebuilt-spawner.sh"] = _PROFILE.format(
            path=shlex.quote(session_environment(base)["PATH"])
        )
    return {in_image(path): text.encode() for path, text in files.items()}


def session_environment(base: BaseImage) -> dict[str, str]:
    """The variables that an immutable image has besides the base's, and in the place of those."""
    variables = dict(entry.partition("=")[::2] for entry in base.config.get("Env") or ())
    # What engines set where an image says nothing.
    path = variables.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    jupyter = variables.get("JUPYTER_PATH")
    return {
        "PYTHONNOUSERSITE": "1",
        "PATH": f"{PROGRAMS_FOLDER}:{path}",
        "JUPYTER_PATH": f"{TRY_FOLDER}/jupyter" + (f":{jupyter}" if jupyter else ""),
    }


def externally_managed() -> str:
    """PEP 668's notice; lines of a value after the first are indented."""
    return "[externally-managed]\nError=" + _NOTICE.replace("\n", "\n ") + "\n"


def _tool(name: str, probe: BaseProbe, words: dict[str, str]) -> str:
    paths = {
        "REAL": probe.executables.get(name) or posixpath.join(probe.scheme.scripts, name),
        "PREFIX": probe.scheme.data,
        "SITE": probe.scheme.purelib,
    }
    quoted = {key: shlex.quote(path) for key, path in paths.items()}
    return _text("tool", TOOL=name, SHARE=SHARE_FOLDER, **quoted, **words)


def _text(name: str, **values: str) -> str:
    text = resources.files(__package__).joinpath("session_files", name).read_text("utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text
