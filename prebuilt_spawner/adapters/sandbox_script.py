"""Runs in a container of a base image, as an ordinary user who reaches nothing: builds one wheel (PEP 517).

It is sent as text, so it stands alone: the standard library of Python 3.8, nothing of ours. Standard input is a tar
archive, and stays open after it: when it ends, this process ends, and with it everything in the container.

    job.json              {"source": file name, "asked": [requirement, …] or null, "seconds": number}
    source/<file name>    the source distribution
    wheels/<file name>    what is to be installed for the build
    tools/…               Python packages: installer, pyproject_hooks, toml_reader

Standard output is one line of JSON, and after the first of these the wheel:

    {"wheel": file name, "size": bytes}
    {"requires": [requirement, …]}
    {"flaw": "failed" | "unreadable" | "no-wheel" | "disk"}

What the build prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import traceback
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLACE = Path("/tmp")  # noqa: S108 - the only folder that can be written, and empty
_LEGACY_REQUIRES = ("setuptools", "wheel")
_LEGACY_BACKEND = "setuptools.build_meta:__legacy__"
_MOST_REQUIREMENTS = 100
_MOST_CHARACTERS = 500
_LITTLE_BYTES = 1 << 20
_GRACE_SECONDS = 30


class Flawed(Exception):
    """The build cannot go on: the answer's word for it, and what is printed."""

    def __init__(self, flaw: str, words: str) -> None:
        super().__init__(words)
        self.flaw = flaw


def _unpacked(path: Path, folder: Path) -> Path:
    """The source's own folder in the archive."""
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as zipped:
                zipped.extractall(folder)  # noqa: S202 - there is nothing here but the build itself
        else:
            with tarfile.open(path) as archive:
                if hasattr(tarfile, "data_filter"):
                    archive.extractall(folder, filter="data")
                else:
                    archive.extractall(folder)  # noqa: S202
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise Flawed("unreadable", repr(error)) from error
    found = list(folder.iterdir())
    return found[0] if len(found) == 1 and found[0].is_dir() else folder


def _toml(path: Path) -> dict[str, Any]:
    """The tables of a file that may be missing."""
    try:
        import tomllib as reader
    except ImportError:
        import toml_reader as reader  # type: ignore[import-not-found,no-redef]
    try:
        with path.open("rb") as stream:
            found: dict[str, Any] = reader.load(stream)
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise Flawed("failed", f"pyproject.toml cannot be read: {error!r}") from error
    return found


def _texts(value: Any) -> list[str]:
    """A list of short texts, if it is one."""
    is_list = isinstance(value, (list, tuple)) and len(value) <= _MOST_REQUIREMENTS
    if not is_list or not all(isinstance(text, str) and len(text) <= _MOST_CHARACTERS for text in value):
        raise Flawed("failed", f"not a list of requirements: {value!r:.200}")
    return list(value)


def _build_system(source: Path) -> tuple[list[str], str, list[str] | None]:
    """(requires, build-backend, backend-path), as PEP 517 and PEP 518 say."""
    table = _toml(source / "pyproject.toml").get("build-system")
    if not isinstance(table, dict):
        return list(_LEGACY_REQUIRES), _LEGACY_BACKEND, None
    requires = _texts(table.get("requires", _LEGACY_REQUIRES))
    if "build-backend" not in table:
        return requires, _LEGACY_BACKEND, None
    path = table.get("backend-path")
    return requires, str(table["build-backend"]), None if path is None else _texts(path)


def _environment(wheels: Sequence[Path]) -> Path:
    """A virtual environment with these wheels, and of the base only its standard library; its interpreter."""
    import venv

    from installer import install
    from installer.destinations import SchemeDictionaryDestination
    from installer.sources import WheelFile

    root = _PLACE / "environment"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(root)
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = root / "lib" / name / "site-packages"
    interpreter = root / "bin" / "python"
    scheme = {
        "purelib": str(site),
        "platlib": str(site),
        "headers": str(root / "include" / "site" / name),
        "scripts": str(root / "bin"),
        "data": str(root),
    }
    for wheel in wheels:
        with WheelFile.open(wheel) as opened:
            destination = SchemeDictionaryDestination(scheme, interpreter=str(interpreter), script_kind="posix")
            install(opened, destination=destination, additional_metadata={})
    return interpreter


def _variables(interpreter: Path) -> dict[str, str]:
    """The base's own, without those that lead Python elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "JUPYTER"))}
    home = _PLACE / "home"
    home.mkdir(exist_ok=True)
    return {
        **kept,
        "PATH": os.pathsep.join([str(interpreter.parent), kept.get("PATH", os.defpath)]),
        "VIRTUAL_ENV": str(interpreter.parents[1]),
        "HOME": str(home),
        "USER": "nobody",
        "TMPDIR": str(_PLACE),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        # As far as we can see to it, the same source gives the same wheel.
        "SOURCE_DATE_EPOCH": "315532800",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_NO_INDEX": "1",
    }


def _work(job: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """The answer, and the wheel's path where there is one."""
    source = _unpacked(_PLACE / "source" / job["source"], _PLACE / "work")
    requires, backend, backend_path = _build_system(source)
    asked: list[str] | None = job["asked"]
    if asked is not None and not set(requires) <= set(asked):
        return {"requires": requires}, None

    from pyproject_hooks import BackendUnavailable, BuildBackendHookCaller, HookMissing, UnsupportedOperation

    interpreter = _environment(sorted((_PLACE / "wheels").glob("*.whl")))
    variables = _variables(interpreter)

    def run(cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None) -> None:
        subprocess.run(  # noqa: S603 - the build, for which all this is here
            cmd, cwd=cwd, env={**variables, **(extra_environ or {})}, check=True, stdin=subprocess.DEVNULL
        )

    made = _PLACE / "made"
    made.mkdir()
    caller = BuildBackendHookCaller(
        str(source), backend, backend_path=backend_path, runner=run, python_executable=str(interpreter)
    )
    try:
        if asked is not None:
            further = _texts(caller.get_requires_for_build_wheel())
            if not set(further) <= set(asked):
                return {"requires": list(dict.fromkeys(requires + further))}, None
        name = str(caller.build_wheel(str(made)))
    except BackendUnavailable as error:
        raise Flawed("failed", str(getattr(error, "traceback", "") or repr(error))) from error
    except (HookMissing, UnsupportedOperation, subprocess.CalledProcessError, ValueError, OSError) as error:
        raise Flawed("failed", repr(error)) from error
    path = made / Path(name).name
    if path.suffix != ".whl" or path.is_symlink() or not path.is_file():
        raise Flawed("no-wheel", f"the build says that it made {name!r:.200}")
    return {"wheel": path.name, "size": path.stat().st_size}, path


def _answered(job: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """As `_work`, whatever goes wrong."""
    try:
        return _work(job)
    except Flawed as error:
        flaw, words = error.flaw, str(error)
    except Exception:
        flaw, words = "failed", traceback.format_exc()
    print(words, file=sys.stderr, flush=True)
    return {"flaw": "disk" if shutil.disk_usage(_PLACE).free < _LITTLE_BYTES else flaw}, None


def _end_with(stream: BinaryIO) -> None:
    """End when nobody waits any more."""
    while stream.read(4096):
        pass
    os._exit(1)


def main() -> None:
    """Do the job that comes in."""
    # Whatever is printed here goes to standard error; the processes of the build do not get the answer's channel.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    stream = os.fdopen(os.dup(0), "rb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            archive.extract(member, _PLACE)
    threading.Thread(target=_end_with, args=(stream,), daemon=True).start()
    job = json.loads((_PLACE / "job.json").read_bytes())
    # The hub ends what takes too long; this does where there is no hub any more.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(int(job["seconds"]) + _GRACE_SECONDS)
    sys.path.insert(0, str(_PLACE / "tools"))
    head, path = _answered(job)
    answers.write(json.dumps(head).encode() + b"\n")
    if path is not None:
        with path.open("rb") as wheel:
            shutil.copyfileobj(wheel, answers)
    answers.flush()
    # Whatever the build has left running ends with the container's first process.
    os._exit(0)


if __name__ == "__main__":
    main()
