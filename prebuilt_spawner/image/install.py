"""A wheel, installed: not into a folder, but into tar entries (https://packaging.python.org/en/latest/specifications/binary-distribution-format/)."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shlex
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import installer
from installer.destinations import WheelDestination
from installer.records import Hash, RecordEntry
from installer.utils import Scheme

from ..environment.base import InstallScheme
from .fragment import FragmentFile, InstalledWheel
from .paths import look, parents
from .tar import padding, tar_header
from .wheel import MAX_METADATA_BYTES, CheckedWheel, WheelMember, path_flaw, printable
from .whole_file import appearing_whole

MAX_UNPACKED_BYTES = 8 * 1024**3
INSTALLER = b"prebuilt-spawner\n"

_FILE_MODE = 0o644
_PROGRAM_MODE = 0o755
_GENERIC_SHEBANG = b"#!python"
_MAX_SHEBANG_BYTES = 127
"""What Linux before 5.1 reads of a first line."""
_HOOK_FOLDERS = frozenset({"start-notebook.d", "before-notebook.d"})
"""The Jupyter images' start.sh runs what lies in folders of these names, as root where the container starts as root."""


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A file to be written: what it is called in the image, and where its content comes from."""

    path: str
    mode: int
    content: bytes | WheelMember

    @property
    def size_bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.info.file_size


def install_wheel(
    wheel: Path,
    *,
    wheel_sha256: str,
    scheme: InstallScheme,
    interpreter: str,
    body: Path,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
) -> InstalledWheel:
    """Write the tar entries of a wheel's files, as installed in this scheme, but for RECORD.

    The same wheel, scheme and interpreter give the same bytes, whatever machine, time zone, locale, umask and
    version of the libraries. The wheel is never in memory as a whole.

    Args:
        wheel: The wheel; the last part of the path is its file name. It was verified before: its own hash is not
            checked again, the hashes of its files are.
        wheel_sha256: Its SHA-256, 64 hex digits.
        scheme: Where its files go.
        interpreter: Absolute path that its scripts name.
        body: The file to write. It appears whole or not at all.
        max_unpacked_bytes: Refuse a wheel whose files are larger than this together.

    Raises:
        UnbuildableEnvironment: The wheel is malformed or holds what may not be installed.
        OSError: The wheel cannot be read or the body cannot be written.
    """
    with CheckedWheel.opened(wheel, max_unpacked_bytes=max_unpacked_bytes) as source:
        destination = _TargetList(source, scheme=scheme, interpreter=interpreter)
        with source.readable():
            installer.install(source, destination, {"INSTALLER": INSTALLER})
        with appearing_whole(body) as stream:
            files = tuple(_write_targets(destination.in_order(), source, stream, body))
    return InstalledWheel(
        wheel_sha256=wheel_sha256,
        distribution=source.name,
        body=body,
        files=files,
        record_path=destination.record_path,
        record_rows=tuple(destination.record_rows),
    )


def shebang(interpreter: str) -> bytes:
    """The lines with which a Python script names its interpreter.

    A path that is long or has a space cannot stand after `#!`. Such a script is begun by the shell, which runs
    `exec` with the interpreter, while Python sees the same lines as a string: distlib's way, that pip and uv follow.
    """
    path = interpreter.encode()
    if b" " not in path and len(path) + len(b"#!\n") <= _MAX_SHEBANG_BYTES:
        return b"#!" + path + b"\n"
    return b"#!/bin/sh\n'''exec' " + shlex.quote(interpreter).encode() + b' "$0" "$@"\n' + b"' '''\n"


def launcher(interpreter: str, *, module: str, attribute: str) -> bytes:
    """The script of an entry point. Not the library's, so that its text changes with the layout version only."""
    imported = attribute.partition(".")[0]
    code = f'import sys\n\nfrom {module} import {imported}\n\nif __name__ == "__main__":\n    sys.exit({attribute}())\n'
    return shebang(interpreter) + code.encode()


class _TargetList(WheelDestination):
    """Collects where everything goes. Nothing is written: the list is put in order first."""

    def __init__(self, wheel: CheckedWheel, *, scheme: InstallScheme, interpreter: str) -> None:
        self._wheel = wheel
        self._interpreter = interpreter
        self._folders = {
            "purelib": scheme.purelib,
            "platlib": scheme.platlib,
            "headers": posixpath.join(scheme.headers, str(wheel.metadata["Name"])),
            "scripts": scheme.scripts,
            "data": scheme.data,
        }
        self._targets: dict[str, _Target] = {}
        self.record_path = ""
        self.record_rows: list[tuple[str, str, str]] = []

    def write_script(self, name: str, module: str, attr: str, section: Literal["console", "gui"]) -> RecordEntry:
        """An entry point's script; on POSIX both sections are the same."""
        content = launcher(self._interpreter, module=module, attribute=attr)
        return self._add("scripts", name, content, mode=_PROGRAM_MODE)

    def write_file(
        self, scheme: Scheme, path: str | os.PathLike[str], stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        """A file of the wheel, or one that `installer` adds to its metadata."""
        content = stream if isinstance(stream, WheelMember) else stream.read()
        if scheme == "scripts" and isinstance(content, WheelMember) and self._is_generic_script(content):
            _, _, code = b"".join(self._wheel.read(content)).partition(b"\n")
            content = shebang(self._interpreter) + code
        if scheme == "scripts" and "/" in os.fspath(path):
            self._wheel.refuse("has a script in a folder of its own, which scripts cannot have", member=os.fspath(path))
        mode = _PROGRAM_MODE if is_executable or scheme == "scripts" else _FILE_MODE
        return self._add(scheme, os.fspath(path), content, mode=mode)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """Keep RECORD's rows, with paths relative to the folder that holds the metadata folder, as pip writes it.

        The file comes later, since it also lists what is compiled.
        """
        for place, record in records:
            absolute = posixpath.join(self._folders[place], record.path)
            relative = posixpath.relpath(absolute, self._folders[scheme])
            size = "" if record.size is None else str(record.size)
            self.record_rows.append((relative, str(record.hash_ or ""), size))
        self._add(scheme, record_file_path, b"", mode=_FILE_MODE)
        self.record_path = posixpath.join(self._folders[scheme], record_file_path).lstrip("/")

    def in_order(self) -> list[_Target]:
        """What is to be written, sorted by path; RECORD is not."""
        targets = [self._targets[path] for path in sorted(self._targets)]
        spellings: dict[str, str] = {}
        for target in targets:
            for folder in parents(target.path):
                if folder in self._targets:
                    self._wheel.refuse("has a file where it also has a folder", member=folder)
            other = spellings.setdefault(look(target.path), target.path)
            if other != target.path:
                self._wheel.refuse(
                    f'holds "{printable(other)}" and one whose name differs only in case or in how accents are encoded',
                    member=target.path,
                )
        return [target for target in targets if target.path != self.record_path]

    def _is_generic_script(self, member: WheelMember) -> bool:
        if not self._wheel.begins_with(member, _GENERIC_SHEBANG):
            return False
        if member.info.file_size > MAX_METADATA_BYTES:
            self._wheel.refuse("has a script of an absurd size", member=member.info.filename)
        return True

    def _add(self, scheme: str, path: str, content: bytes | WheelMember, *, mode: int) -> RecordEntry:
        absolute = posixpath.join(self._folders[scheme], path)
        in_image = absolute.lstrip("/")
        if path_flaw(path) is not None or path_flaw(in_image) is not None:
            self._wheel.refuse("names a file in a way that cannot be installed", member=path)
        if not _HOOK_FOLDERS.isdisjoint(in_image.split("/")[:-1]):
            self._wheel.refuse("has a file for a folder whose scripts run when a server starts", member=path)
        if in_image in self._targets:
            self._wheel.refuse("installs two files in one place", member=path)
        self._targets[in_image] = _Target(path=in_image, mode=mode, content=content)
        if isinstance(content, WheelMember):
            return RecordEntry(path, content.record.hash_, content.record.size)
        return _record_of(path, content)


def _record_of(path: str, content: bytes) -> RecordEntry:
    value = urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return RecordEntry(path, Hash("sha256", value), len(content))


def _write_targets(
    targets: Iterable[_Target], wheel: CheckedWheel, stream: BinaryIO, body: Path
) -> Iterator[FragmentFile]:
    offset_bytes = 0
    for target in targets:
        size_bytes = target.size_bytes
        header = tar_header(target.path, size_bytes=size_bytes, mode=target.mode, kind="file")
        stream.write(header)
        sha256 = _write_content(target.content, wheel, stream)
        fill = padding(size_bytes)
        stream.write(fill)
        length_bytes = len(header) + size_bytes + len(fill)
        yield FragmentFile(
            path=target.path,
            mode=target.mode,
            size_bytes=size_bytes,
            sha256=sha256,
            body=body,
            offset_bytes=offset_bytes,
            length_bytes=length_bytes,
        )
        offset_bytes += length_bytes


def _write_content(content: bytes | WheelMember, wheel: CheckedWheel, stream: BinaryIO) -> str:
    """Write it and return its SHA-256. Where RECORD has that, checking the file has computed it already."""
    if isinstance(content, bytes):
        stream.write(content)
        return hashlib.sha256(content).hexdigest()
    listed = content.listed_sha256
    hashed = hashlib.sha256()
    for chunk in wheel.read(content):
        stream.write(chunk)
        if listed is None:
            hashed.update(chunk)
    return hashed.hexdigest() if listed is None else listed
