"""All that an image holds, path by path."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import docker

# Made by the engine for each container.
NOT_OF_THE_IMAGE = {".dockerenv", "dev", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "proc", "sys"}


class Entry(NamedTuple):
    """One path: what kind it is, whose, and what it holds."""

    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: float
    what: str


def tree(client: docker.APIClient, image: str) -> Mapping[str, Entry]:
    """The files of an image by their paths, from a container that is never started."""
    container = client.create_container(image, entrypoint=["/"])
    try:
        with _opened(client.export(container, chunk_size=1 << 20)) as archive:
            return dict(_entries(archive))
    finally:
        client.remove_container(container, v=True)


def without_times(files: Mapping[str, Entry]) -> Mapping[str, Entry]:
    """The same, but for when each was changed last."""
    return {path: entry._replace(mtime=0) for path, entry in files.items()}


def differing(one: Mapping[str, Entry], other: Mapping[str, Entry]) -> dict[str, tuple[Entry | None, Entry | None]]:
    """What is not the same in both."""
    return {
        path: (one.get(path), other.get(path)) for path in sorted({*one, *other}) if one.get(path) != other.get(path)
    }


def _opened(chunks: Iterator[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(b"".join(chunks)))


def _entries(archive: tarfile.TarFile) -> Iterator[tuple[str, Entry]]:
    for member in archive:
        path = member.name.strip("/")
        if not path or path in NOT_OF_THE_IMAGE or path.partition("/")[0] in NOT_OF_THE_IMAGE:
            continue
        file = archive.extractfile(member) if member.isreg() else None
        what = hashlib.sha256(file.read()).hexdigest() if file is not None else member.linkname
        # The engine puts files of its own into /etc.
        mtime = 0 if path == "etc" else member.mtime
        yield path, Entry(member.type, member.mode & 0o7777, member.uid, member.gid, mtime, what)
