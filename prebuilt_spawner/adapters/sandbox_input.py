"""What a sandbox gets: a tar archive of one job, written to a stream. See `sandbox_script`."""

from __future__ import annotations

import io
import json
import math
import sys
import tarfile
from collections.abc import Callable, Iterator
from importlib import resources, util
from pathlib import Path
from typing import BinaryIO

from ..build.failure import disk_failure
from ..build.sources import SandboxJob

_TOOLS = {
    "installer": "installer",
    "pyproject_hooks": "pyproject_hooks",
    "toml_reader": "tomllib" if sys.version_info >= (3, 11) else "tomli",
}
"""The packages that a sandbox gets, by the names that they have in it: pure Python, the hub's own."""


class _Stream(io.RawIOBase):
    """What `tarfile` writes to."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]  # tarfile writes bytes
        self._send(content)
        return len(content)


def send_job(job: SandboxJob, send: Callable[[bytes], None]) -> None:
    """Write the archive.

    Raises:
        StorageFailure: A file of the job has gone.
        Exception: What `send` raised.
    """
    head = {"source": job.source.name, "asked": job.asked, "seconds": math.ceil(job.seconds)}
    with tarfile.open(fileobj=_Stream(send), mode="w|") as archive:
        _add(archive, "job.json", json.dumps(head).encode())
        for name, content in _tools():
            _add(archive, f"tools/{name}", content)
        for folder, path in (("source", job.source), *(("wheels", wheel) for wheel in job.wheels)):
            with _opened(path) as stream:
                archive.addfile(_entry(f"{folder}/{path.name}", path.stat().st_size), stream)


def script() -> str:
    """What the container's interpreter runs."""
    return resources.files(__package__).joinpath("sandbox_script.py").read_text(encoding="utf-8")


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        # Not to be taken for the connection's.
        raise disk_failure(error).error(detail=str(error)) from error


def _tools() -> Iterator[tuple[str, bytes]]:
    for name, package in _TOOLS.items():
        found = util.find_spec(package)
        if found is None or found.origin is None:
            raise FileNotFoundError(f"the hub's Python has no {package}")
        folder = Path(found.origin).parent
        for module in sorted(folder.rglob("*.py")):
            yield f"{name}/{module.relative_to(folder).as_posix()}", module.read_bytes()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_entry(name, len(content)), io.BytesIO(content))


def _entry(name: str, size_bytes: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size_bytes, 0o644
    return entry
