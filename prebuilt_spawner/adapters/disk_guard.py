"""Whether there is room for a build, on the disk of the cache and on the engine's."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
from docker.transport import UnixHTTPAdapter

from ..errors import PrebuiltError, StorageFailure
from .docker_client import DockerClient

_log = logging.getLogger(__name__)


class DiskGuard:
    """Refuses builds where a disk is nearly full. Starting what is ready needs no room, and is nobody's business here.

    Args:
        cache_dir: Its disk is looked at.
        min_free_bytes: What must be free on each disk; 0 for anything.
        client_kwargs: For `docker.APIClient`, before what the environment says. The disk of the engine's data is looked
            at where it is on this machine: the engine is reached by a Unix socket, and says a folder that is here.
    """

    def __init__(self, cache_dir: Path, *, min_free_bytes: int, client_kwargs: Mapping[str, Any] | None = None) -> None:
        self._cache_dir = cache_dir.absolute()
        self._min_free_bytes = min_free_bytes
        self._docker = DockerClient(client_kwargs or {}, threads=1)
        self._engine_folder: Path | None = None

    async def check(self) -> None:
        """Raise where something is to be built and there is no room for it.

        Raises:
            StorageFailure: A disk is nearly full, or cannot be looked at. The detail says which, and how full.
        """
        if self._min_free_bytes <= 0:
            return
        await asyncio.to_thread(self._check_folder, self._cache_dir, "the cache")
        folder = await self._engines_folder()
        if folder is not None:
            await asyncio.to_thread(self._check_folder, folder, "the engine's data")

    async def close(self) -> None:
        """Release connections and threads."""
        await self._docker.close()

    async def _engines_folder(self) -> Path | None:
        """None where it cannot be seen, and while the engine does not answer, which others say better."""
        if self._engine_folder is None:
            try:
                self._engine_folder = await self._docker.run(_local_data_folder)
            except PrebuiltError as error:
                _log.debug("The engine's disk cannot be looked at: %s (%s)", error.message, error.detail)
        # It may be another machine's, or outside of the container that the hub is in.
        there = self._engine_folder is not None and await asyncio.to_thread(self._engine_folder.is_dir)
        return self._engine_folder if there else None

    def _check_folder(self, folder: Path, what: str) -> None:
        try:
            free_bytes = free_bytes_of(folder)
        except OSError as error:
            raise StorageFailure(
                "The hub's disk cannot be used, so nothing new can be built. Servers whose environment is ready still "
                "start. Tell your administrator.",
                detail=f"the disk of {what} ({folder}): {error}",
            ) from error
        if free_bytes < self._min_free_bytes:
            raise StorageFailure(
                "The hub's disk is nearly full, so nothing new can be built. Servers whose environment is ready still "
                "start. Tell your administrator.",
                detail=f"the disk of {what} ({folder}) has {free_bytes / 1e9:.2f} GB free, and min_free_bytes is "
                f"{self._min_free_bytes / 1e9:.2f} GB: make room, for instance with `prebuilt-spawner gc`",
            )


def free_bytes_of(folder: Path) -> int:
    """What is free, for others than root, on the disk that a folder is on or will be made on.

    Raises:
        OSError: It cannot be looked at.
    """
    for place in (folder, *folder.parents):
        try:
            found = os.statvfs(place)
        except FileNotFoundError:
            continue
        return found.f_bavail * found.f_frsize
    raise FileNotFoundError(folder)


def _local_data_folder(client: docker.APIClient, stop: threading.Event) -> Path | None:
    if not isinstance(client.adapters.get("http+docker://"), UnixHTTPAdapter):
        return None
    name = client.info().get("DockerRootDir")
    return Path(name) if name else None
