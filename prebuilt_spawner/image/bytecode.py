"""The compiled part of a fragment: what the base's interpreter made of a wheel's modules, and RECORD."""

from __future__ import annotations

import csv
import hashlib
import io
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .fragment import Fragment, FragmentFile, InstalledWheel
from .tar import padding, tar_header
from .wheel import path_flaw
from .whole_file import appearing_whole

MAX_MODULE_BYTES = 16 * 1024**2
"""A larger module is not compiled: that would need a hundred times as much memory."""
MAX_BATCH_MODULES = 250
MAX_BATCH_BYTES = 4 * 1024**2

_MODE = 0o644


@dataclass(frozen=True, kw_only=True)
class Module:
    """A source file that is to be compiled.

    Attributes:
        path: Absolute in the image, with the leading slash; it stands in tracebacks.
        source: Where its content is.
        target: Where its bytecode goes, absolute in the image without the leading slash.
    """

    path: str
    source: FragmentFile
    target: str


def modules_of(installed: InstalledWheel, *, cache_tag: str) -> tuple[Module, ...]:
    """The modules of a wheel, sorted by path: every file that ends in `.py`, as pip compiles it.

    Left out are those whose bytecode could have no name, and those that are too large.
    """
    modules = []
    for file in installed.files:
        target = _bytecode_path(file.path, cache_tag)
        if target is not None and file.size_bytes <= MAX_MODULE_BYTES and path_flaw(target) is None:
            modules.append(Module(path=f"/{file.path}", source=file, target=target))
    return tuple(modules)


def batches_of(modules: Sequence[Module]) -> list[Sequence[Module]]:
    """The modules in pieces that one process compiles: of so many modules and bytes at most, always the same."""
    batches: list[list[Module]] = []
    size_bytes = 0
    for module in modules:
        size_bytes += module.source.size_bytes
        if not batches or len(batches[-1]) == MAX_BATCH_MODULES or size_bytes > MAX_BATCH_BYTES:
            batches.append([])
            size_bytes = module.source.size_bytes
        batches[-1].append(module)
    return list(batches)


def with_bytecode(installed: InstalledWheel, bytecode: Mapping[str, bytes], *, body: Path) -> Fragment:
    """Write the compiled part.

    Args:
        installed: The wheel.
        bytecode: By `Module.target`: the pyc files of the modules that compile.
        body: The file to write. It appears whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    site = posixpath.dirname(posixpath.dirname(installed.record_path))
    # As pip lists it: what is compiled has neither hash nor size in RECORD.
    rows = [(posixpath.relpath(path, site), "", "") for path in bytecode]
    contents = {**bytecode, installed.record_path: _record([*installed.record_rows, *rows])}
    files = []
    offset_bytes = 0
    with appearing_whole(body) as stream:
        for path, content in sorted(contents.items()):
            header = tar_header(path, size_bytes=len(content), mode=_MODE, kind="file")
            entry = header + content + padding(len(content))
            stream.write(entry)
            files.append(
                FragmentFile(
                    path=path,
                    mode=_MODE,
                    size_bytes=len(content),
                    sha256=hashlib.sha256(content).hexdigest(),
                    body=body,
                    offset_bytes=offset_bytes,
                    length_bytes=len(entry),
                )
            )
            offset_bytes += len(entry)
    return Fragment(
        wheel_sha256=installed.wheel_sha256,
        distribution=installed.distribution,
        files=(*installed.files, *files),
    )


def _bytecode_path(path: str, cache_tag: str) -> str | None:
    """Where the interpreter looks for a source's bytecode (PEP 3147); None for what is no source."""
    folder, _, name = path.rpartition("/")
    if not name.endswith(".py") or name == ".py":
        return None
    return f"{folder}/__pycache__/{name[:-3]}.{cache_tag}.pyc"


def _record(rows: Iterable[tuple[str, str, str]]) -> bytes:
    # Written here and not by `installer`, whose order of rows depends on its version.
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(sorted(rows))
    return text.getvalue().encode()
