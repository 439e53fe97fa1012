"""Wheels that were built from source, in the cache folder, under names that what made them gives them.

    built/<identity[:2]>/<identity>/<file name>    the wheel; beside it `log.txt`, and `made.json` about it
    built/<key[:2]>/<key>.toml                     what was made last of a source in a base, as a lock (PEP 751)

A folder appears whole under its name or not at all, so that several hubs can share it: who is second takes what is
there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..build.failure import disk_failure
from ..build.sources import MadeWheel
from ..environment.base import BaseImage, BaseProbe
from ..environment.digest import canonical_json
from ..environment.lock import Lock, LockedFile, LockedWheel, parse_pylock, to_pylock
from ..errors import RequestError
from ..image.whole_file import appearing_whole
from .cache_folder import make_folder
from .cache_limit import BUILT_FOLDER, note_use

T = TypeVar("T")

_LOG = "log.txt"
_MADE = "made.json"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class BuiltFile:
    """A wheel that was built, on the disk."""

    path: Path
    sha256: str


def built_file(cache_dir: Path, identity: str) -> BuiltFile | None:
    """The wheel that was made by what this stands for, whole as far as its size tells. Blocks.

    Raises:
        OSError: It cannot be read.
    """
    folder = _folder(cache_dir, identity)
    try:
        made = json.loads((folder / _MADE).read_bytes())
        name, sha256, size_bytes = str(made["filename"]), str(made["sha256"]), made["size_bytes"]
        if Path(name).name != name or (folder / name).stat().st_size != size_bytes:
            return None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    note_use(folder / name, folder / _MADE, folder / _LOG)
    return BuiltFile(path=folder / name, sha256=sha256)


class BuiltWheels:
    """Implements `prebuilt_spawner.build.sources.MadeWheels` in a folder.

    Args:
        cache_dir: The cache folder; made when needed.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir.absolute()
        self._built = self._cache_dir / BUILT_FOLDER

    async def find(self, wheel: LockedWheel) -> MadeWheel | None:
        """See `MadeWheels.find`."""
        return await _on_disk(self._find, wheel)

    async def known(self, source: LockedFile, base: BaseImage, probe: BaseProbe) -> MadeWheel | None:
        """See `MadeWheels.known`."""
        return await _on_disk(self._known, source, base, probe)

    @asynccontextmanager
    async def workplace(self) -> AsyncIterator[Path]:
        """See `MadeWheels.workplace`."""
        folder = await _on_disk(self._new_folder)
        try:
            yield folder
        finally:
            await asyncio.shield(_on_disk(lambda: shutil.rmtree(folder, ignore_errors=True)))

    async def keep(self, wheel: LockedWheel, made: Path, log: str) -> MadeWheel:
        """See `MadeWheels.keep`."""
        return await _on_disk(self._keep, wheel, made, log)

    async def note(self, wheel: LockedWheel) -> None:
        """See `MadeWheels.note`."""
        await _on_disk(self._note, wheel)

    async def drop(self, wheel: LockedWheel) -> None:
        """See `MadeWheels.drop`."""
        folder = _folder(self._cache_dir, wheel.sha256)
        await _on_disk(lambda: shutil.rmtree(folder, ignore_errors=True))

    def _find(self, wheel: LockedWheel) -> MadeWheel | None:
        found = built_file(self._cache_dir, wheel.sha256)
        return None if found is None else MadeWheel(wheel=wheel, path=found.path)

    def _known(self, source: LockedFile, base: BaseImage, probe: BaseProbe) -> MadeWheel | None:
        note = self._note_path(source, base.digest)
        try:
            wheels = parse_pylock(note.read_text("utf-8"), probe, base_digest=base.digest).wheels
        except (FileNotFoundError, UnicodeDecodeError, RequestError):
            return None  # or damaged
        note_use(note)
        fits = len(wheels) == 1 and wheels[0].source is not None and wheels[0].source.sha256 == source.sha256
        return self._find(wheels[0]) if fits else None

    def _note(self, wheel: LockedWheel) -> None:
        if wheel.source is None:
            raise ValueError(f"{wheel.filename} is not built from source")
        note = self._note_path(wheel.source, wheel.source.base_digest)
        make_folder(note.parent, cache_dir=self._cache_dir)
        with appearing_whole(note) as stream:
            stream.write(to_pylock(Lock(wheels=(wheel,))).encode())

    def _note_path(self, source: LockedFile, base_digest: str) -> Path:
        form = {"kind": "source in base", "sha256": source.sha256, "base": base_digest}
        key = hashlib.sha256(canonical_json(form)).hexdigest()
        return self._built / key[:2] / f"{key}.toml"

    def _new_folder(self) -> Path:
        make_folder(self._built, cache_dir=self._cache_dir)
        return Path(tempfile.mkdtemp(dir=self._built, prefix=".new-"))

    def _keep(self, wheel: LockedWheel, made: Path, log: str) -> MadeWheel:
        target, new = _folder(self._cache_dir, wheel.sha256), self._new_folder()
        try:
            description = {"filename": made.name, "sha256": _sha256(made), "size_bytes": made.stat().st_size}
            made.rename(new / made.name)
            (new / _LOG).write_text(log, encoding="utf-8", errors="replace")
            (new / _MADE).write_text(json.dumps(description))
            make_folder(target.parent, cache_dir=self._cache_dir)
            for _ in range(2):
                with suppress(OSError):  # there is one already
                    new.rename(target)
                found = self._find(wheel)
                if found is not None:
                    return found
                # A piece is missing of what is there.
                shutil.rmtree(target, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        raise FileNotFoundError(f"{target} could not be made")


def _folder(cache_dir: Path, identity: str) -> Path:
    # A path is not made from whatever a text says.
    if len(identity) != 64 or not identity.isalnum():
        raise ValueError(f"no identity of a source: {identity!r}")
    return cache_dir.absolute() / BUILT_FOLDER / identity[:2] / identity


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


async def _on_disk(work: Callable[..., T], *arguments: object) -> T:
    try:
        return await asyncio.to_thread(work, *arguments)
    except OSError as error:
        raise disk_failure(error).error(detail=str(error)) from error
