"""Keeping the cache folder within its size: what was used longest ago goes.

A *use* is a time that we set on a file ourselves (`note_use`), because most disks keep no times of reading. No index
says what is here: several hubs may share a folder, and whoever looks sees what is there. Everything that goes can be
downloaded or made again, and whoever misses something says so and does that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .uv_cache import UV_FOLDER, clean_uv_cache

_log = logging.getLogger(__name__)

BUILT_FOLDER = "built"
_KEPT_FOLDERS = ("wheels", "installed", "fragments", BUILT_FOLDER)
"""Whose entries go one by one. What is known of bases (`probes`, `base-metadata`) is small and always stays."""

_TEMPORARY = ".new-"
_TEMPORARY_SECONDS = 24 * 60 * 60
_USE_STEP_SECONDS = 60
"""How exact times of use are: noting one costs a write."""

LOOK_SECONDS = 300
"""How often the folder is looked at, at most."""

_AIM = 0.9
"""How full the folder is left once something had to go, so that not every build has something to remove."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What goes as a whole: a wheel with its folder, or a body with its index."""

    files: tuple[Path, ...]
    used_at: float
    size_bytes: int


def note_use(*files: Path) -> None:
    """Files were used now. Their times of change stay what they are."""
    now = time.time()
    for file in files:
        with suppress(OSError):
            found = file.stat()
            if found.st_atime < now - _USE_STEP_SECONDS:
                os.utime(file, (now, found.st_mtime))


class CacheLimit:
    """Keeps a cache folder within its size, on a thread of its own, at most every few minutes.

    Args:
        cache_dir: The folder.
        max_bytes: Its size; 0 for no limit.
        in_use_seconds: What was used within this time stays, whatever the size: a build may need it. No build takes
            longer.
        look_seconds: How often it is looked at, at most.
    """

    def __init__(
        self, cache_dir: Path, *, max_bytes: int, in_use_seconds: float, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._cache_dir = cache_dir.absolute()
        self._max_bytes = max_bytes
        self._in_use_seconds = in_use_seconds
        self._look_seconds = look_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prebuilt-cache-limit")
        self._last_look: float | None = None
        self._running: asyncio.Future[None] | None = None

    def after_build(self) -> None:
        """Have the folder looked at, unless that was done a moment ago or is going on. Returns at once; what goes
        wrong is in the log only. To be called in the event loop."""
        if self._max_bytes <= 0 or (self._running is not None and not self._running.done()):
            return
        now = time.monotonic()
        if self._last_look is not None and now - self._last_look < self._look_seconds:
            return
        self._last_look = now
        self._running = asyncio.get_running_loop().run_in_executor(self._thread, self._look)

    async def idle(self) -> None:
        """Until nothing is looked at."""
        if self._running is not None:
            await asyncio.wait([self._running])

    async def close(self) -> None:
        """Start nothing more. What goes on ends by itself."""
        self._max_bytes = 0
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> None:
        try:
            enforce(self._cache_dir, max_bytes=self._max_bytes, in_use_seconds=self._in_use_seconds)
        except OSError as error:
            _log.error("The cache %s cannot be kept within its size: %s", self._cache_dir, error)


def enforce(
    cache_dir: Path,
    *,
    max_bytes: int,
    in_use_seconds: float,
    now: float | None = None,
    clean_uv: Callable[[Path], None] = clean_uv_cache,
) -> int:
    """Remove what was used longest ago until the folder has its size. Blocks.

    Args:
        cache_dir: The folder; it need not exist.
        max_bytes: Its size at most.
        in_use_seconds: What was used within this time stays.
        now: Seconds since 1970.
        clean_uv: Empties uv's own cache.

    Returns:
        How many bytes are there afterwards.

    Raises:
        OSError: The folder cannot be read. What cannot be removed is logged and stays.
    """
    now = time.time() if now is None else now
    _remove_old_temporaries(cache_dir, now)
    total_bytes = _size(cache_dir)
    if total_bytes <= max_bytes:
        return total_bytes
    before_bytes, aim_bytes = total_bytes, int(max_bytes * _AIM)
    entries = sorted(_entries(cache_dir), key=lambda entry: entry.used_at)
    for entry in entries:
        if total_bytes <= aim_bytes or entry.used_at > now - in_use_seconds:
            break
        total_bytes -= _removed(entry)
    uv_cache = cache_dir / UV_FOLDER
    if total_bytes > max_bytes and uv_cache.is_dir():
        # Last: without it each resolution asks the index for everything anew.
        clean_uv(uv_cache)
        total_bytes = _size(cache_dir)
    _log.info("Made the cache smaller: %.1f MB of %.1f MB are left", total_bytes / 1e6, before_bytes / 1e6)
    if total_bytes > max_bytes:
        _log.warning(
            "The cache %s has %.1f MB, more than max_cache_bytes: the rest is in use", cache_dir, total_bytes / 1e6
        )
    return total_bytes


def _entries(cache_dir: Path) -> Iterator[_Entry]:
    for name in _KEPT_FOLDERS:
        for folder in _listed(cache_dir / name):
            if folder.name.startswith(_TEMPORARY):
                continue
            for group in _groups(folder):
                entry = _entry(group)
                if entry is not None:
                    yield entry


def _groups(folder: Path) -> Iterator[tuple[Path, ...]]:
    """What belongs together in `wheels/ab` (`<sha256>/<file>`) or `installed/ab` (`<key>.tar`, `<key>.json`)."""
    by_key: dict[str, list[Path]] = {}
    for path in _listed(folder):
        if path.is_dir():
            files = _listed(path)
            if not files:
                _remove_empty(path)
            yield tuple(file for file in files if not file.name.startswith(_TEMPORARY))
        elif not path.name.startswith(_TEMPORARY):
            by_key.setdefault(path.stem, []).append(path)
    for files in by_key.values():
        # The index first: without it the body is not looked at.
        yield tuple(sorted(files))


def _entry(files: tuple[Path, ...]) -> _Entry | None:
    try:
        found = [file.stat() for file in files]
    except FileNotFoundError:  # another hub was faster
        return None
    if not found:
        return None
    return _Entry(
        files=files,
        # A file that is written is used: its time of change counts as well.
        used_at=max(max(each.st_atime, each.st_mtime) for each in found),
        size_bytes=sum(_on_disk(each) for each in found),
    )


def _removed(entry: _Entry) -> int:
    """How many bytes went."""
    now = _entry(entry.files)
    if now is None or now.used_at > entry.used_at:
        return 0  # it went, or was used, since we looked
    for file in entry.files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s cannot be removed from the cache: %s", file, error)
            return 0
    return entry.size_bytes


def _remove_empty(folder: Path) -> None:
    """Remove a wheel's folder that has been empty for long: somebody may be about to write into a newer one."""
    with suppress(OSError):
        if folder.stat().st_mtime < time.time() - _TEMPORARY_SECONDS:
            folder.rmdir()


def _remove_old_temporaries(cache_dir: Path, now: float) -> None:
    """Remove what was being written by somebody who was killed."""
    for name in (*_KEPT_FOLDERS, "probes", "base-metadata"):
        for folder, folders, files in os.walk(cache_dir / name):
            for temporary in (*folders, *files):
                path = Path(folder) / temporary
                if temporary.startswith(_TEMPORARY):
                    with suppress(OSError):
                        found = path.lstat()
                        if found.st_mtime < now - _TEMPORARY_SECONDS:
                            _log.info("Removing %s, which a hub that was killed left behind", path)
                            if stat.S_ISDIR(found.st_mode):
                                shutil.rmtree(path, ignore_errors=True)
                            else:
                                path.unlink()


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(folder: Path) -> int:
    """What a folder takes on the disk; a file with several names (uv makes such) counts once."""
    total_bytes, seen = 0, set()
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                found = (Path(parent) / name).lstat()
                if found.st_nlink > 1:
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                total_bytes += _on_disk(found)
    return total_bytes


def _on_disk(found: os.stat_result) -> int:
    return found.st_blocks * 512
