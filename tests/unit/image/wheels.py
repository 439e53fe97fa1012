"""Wheels, bases and trees that tests make up."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prebuilt_spawner.environment.base import (
    BaseImage,
    BaseProbe,
    FolderEntry,
    InstalledDistribution,
    InstallScheme,
)
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.image.archive import read_parts
from prebuilt_spawner.image.bytecode import with_bytecode
from prebuilt_spawner.image.fragment import Fragment, InstalledWheel
from prebuilt_spawner.image.install import install_wheel
from prebuilt_spawner.image.layer import FileRange, Layer

SITE = "/opt/env/lib/python3.11/site-packages"
SCHEME = InstallScheme(
    purelib=SITE,
    platlib="/opt/env/lib64/python3.11/site-packages",
    headers="/opt/env/include/site/python3.11",
    scripts="/opt/env/bin",
    data="/opt/env",
)
INTERPRETER = "/opt/env/bin/python3"


@dataclass(frozen=True)
class Member:
    """A file of a wheel. `mode` is the Unix mode with the file type; `listed` False leaves it out of RECORD."""

    content: bytes
    mode: int = stat.S_IFREG | 0o644
    listed: bool = True
    record: str | None = None


def make_wheel(
    folder: Path,
    files: Mapping[str, bytes | Member] | Iterable[tuple[str, bytes | Member]] = (),
    *,
    name: str = "demo_pkg",
    version: str = "1.0",
    purelib: bool = True,
    filename: str | None = None,
    metadata: bytes | None = None,
    wheel_file: bytes | None = None,
    entry_points: str = "",
    dist_info: str | None = None,
    record: bytes | None = None,
) -> Path:
    """Write a wheel, right in all that the arguments do not say otherwise."""
    info = dist_info or f"{name}-{version}.dist-info"
    members = [(path, member) for path, member in (files.items() if isinstance(files, Mapping) else files)]
    if metadata is None:
        metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n".encode()
    members.append((f"{info}/METADATA", metadata))
    if wheel_file is None:
        wheel_file = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: {str(purelib).lower()}\n".encode()
    members.append((f"{info}/WHEEL", wheel_file))
    if entry_points:
        members.append((f"{info}/entry_points.txt", entry_points.encode()))
    path = folder / (filename or f"{name}-{version}-py3-none-any.whl")
    rows = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member_path, value in members:
            member = value if isinstance(value, Member) else Member(value)
            _write(archive, member_path, member)
            if member.listed and not member_path.endswith("/"):
                digest = base64.urlsafe_b64encode(hashlib.sha256(member.content).digest()).decode().rstrip("=")
                row = f"sha256={digest},{len(member.content)}" if member.record is None else member.record
                quoted = f'"{member_path}"' if "," in member_path else member_path
                rows.append(f"{quoted},{row}")
        rows.append(f"{info}/RECORD,,")
        content = ("\n".join(rows) + "\n").encode() if record is None else record
        _write(archive, f"{info}/RECORD", Member(content))
    return path


def _write(archive: zipfile.ZipFile, path: str, member: Member) -> None:
    info = zipfile.ZipInfo(path, date_time=(2020, 1, 1, 0, 0, 0))
    info.external_attr = member.mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, member.content)


def installed_wheel(wheel: Path, folder: Path, **options: Any) -> InstalledWheel:
    """The wheel as it is installed in `SCHEME`, before anything is compiled."""
    settings: dict[str, Any] = {"scheme": SCHEME, "interpreter": INTERPRETER, **options}
    return install_wheel(wheel, wheel_sha256="0" * 64, body=folder / f"{wheel.name}.tar", **settings)


def installed(wheel: Path, folder: Path, **options: Any) -> Fragment:
    """The wheel's fragment in `SCHEME`, of which nothing is compiled."""
    return with_bytecode(installed_wheel(wheel, folder, **options), {}, body=folder / f"{wheel.name}.compiled.tar")


def fragment_bytes(fragment: Fragment) -> bytes:
    """All tar entries of a fragment."""
    ranges = [
        FileRange(path=file.body, offset_bytes=file.offset_bytes, length_bytes=file.length_bytes)
        for file in fragment.files
    ]
    return b"".join(read_parts(ranges))


def fragment_of(folder: Path, name: str, files: Mapping[str, bytes | Member], **options: Any) -> Fragment:
    """The fragment of a wheel of this distribution with these files."""
    own = folder / name
    own.mkdir(exist_ok=True)
    return installed(make_wheel(own, files, name=name.replace("-", "_"), **options), own)


def entries(tar: bytes) -> list[tarfile.TarInfo]:
    """The tar's entries as the standard library reads them."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getmembers()


def tree(fragment: Fragment) -> dict[str, tuple[int, bytes]]:
    """Mode and content by path."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(fragment_bytes(fragment) + bytes(1024))) as archive:
        for entry in archive:
            stream = archive.extractfile(entry)
            assert stream is not None
            found[entry.name] = (entry.mode, stream.read())
    return found


def layer_bytes(layer: Layer) -> bytes:
    """The whole layer."""
    return b"".join(read_parts(layer.parts))


def make_base(**changes: Any) -> BaseImage:
    """An image with two layers."""
    values: dict[str, Any] = {
        "reference": "base:1",
        "image_id": "sha256:" + "a" * 64,
        "digest": "b" * 64,
        "diff_ids": ("sha256:" + "1" * 64, "sha256:" + "2" * 64),
        "config": {
            "Env": ["PATH=/opt/env/bin:/usr/bin", "LANG=C.UTF-8"],
            "Labels": {"org.example": "x"},
            "User": "jovyan",
            "Cmd": ["start-notebook.py"],
            "Entrypoint": ["tini", "--"],
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 3000000000},
            "WorkingDir": "/home/jovyan",
            "ExposedPorts": {"8888/tcp": {}},
            "Volumes": {"/data": {}},
            "StopSignal": "SIGINT",
            "Shell": ["/bin/bash", "-c"],
        },
        "os": "linux",
        "architecture": "amd64",
    }
    return BaseImage(**{**values, **changes})


def make_probe(*distributions: InstalledDistribution, **changes: Any) -> BaseProbe:
    """A base with these distributions; every folder of theirs exists."""
    folders = {
        path: FolderEntry(mode=0o755, uid=0, gid=0)
        for place in (SITE, SCHEME.platlib, SCHEME.headers, SCHEME.scripts, SCHEME.data)
        for path in _with_parents(place)
    }
    for distribution in distributions:
        for file in distribution.files or ():
            for path in _with_parents(file.rpartition("/")[0]):
                folders.setdefault(path, FolderEntry(mode=0o755, uid=0, gid=0))
    values: dict[str, Any] = {
        "python_version": "3.11.2",
        "implementation": "cpython",
        "abi": "cp311",
        "cache_tag": "cpython-311",
        "machine": "x86_64",
        "glibc": (2, 36),
        "interpreter": INTERPRETER,
        "stdlib": "/opt/env/lib/python3.11",
        "virtual": False,
        "markers": {},
        "scheme": SCHEME,
        "user": "jovyan",
        "uid": 1000,
        "gid": 100,
        "home": "/home/jovyan",
        "distributions": {distribution.name: distribution for distribution in distributions},
        "folders": folders,
        "executables": {"python3": INTERPRETER, "sh": "/usr/bin/sh"},
    }
    return BaseProbe(**{**values, **changes})


def _with_parents(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return ["/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def make_distribution(name: str, *files: str, version: str = "0.9", **changes: Any) -> InstalledDistribution:
    """A distribution of the base; files are relative to `SITE` unless absolute. Its metadata files are added."""
    metadata = f"{name.replace('-', '_')}-{version}.dist-info"
    paths = (*files, f"{metadata}/METADATA", f"{metadata}/RECORD")
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "location": SITE,
        "metadata_directory": metadata,
        "files": tuple(path if path.startswith("/") else f"{SITE}/{path}" for path in paths),
    }
    return InstalledDistribution(**{**values, **changes})


def make_lock(*names: str) -> Lock:
    """A lock of these distributions at 1.0."""
    return Lock(
        wheels=tuple(
            LockedWheel(
                name=name,
                version="1.0",
                filename=f"{name.replace('-', '_')}-1.0-py3-none-any.whl",
                url=f"https://files.example/{name}.whl",
                sha256="0" * 64,
            )
            for name in sorted(names)
        )
    )
