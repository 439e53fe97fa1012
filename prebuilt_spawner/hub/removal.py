"""Removing a container, and nothing that may hold somebody's data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from docker.errors import APIError, NotFound

CallDocker = Callable[..., Awaitable[Any]]
"""`docker(method, *args, **kwargs)` calls a method of `docker.APIClient`, as DockerSpawner's `docker` does."""

_POLL_SECONDS = 0.1


async def remove_container(docker: CallDocker, container_id: str, *, wait_seconds: float = 10) -> bool:
    """Remove a stopped container. Its volumes stay, the nameless ones too.

    Args:
        wait_seconds: How long to wait for a removal that the engine has begun already.

    Returns:
        Whether it is gone: False where the engine is still removing it after that time.

    Raises:
        APIError: The engine refuses, as for a container that runs.
    """
    try:
        await docker("remove_container", container_id, v=False)
        return True
    except NotFound:
        return True
    except APIError as error:
        # 409 is the answer for a container that runs, too.
        if error.status_code != 409 or not await _is_stopped_or_gone(docker, container_id):
            raise
    # No waiting in the engine: DockerSpawner's calls go one after the other.
    for _ in range(max(1, round(wait_seconds / _POLL_SECONDS))):
        try:
            await docker("inspect_container", container_id)
        except NotFound:
            return True
        await asyncio.sleep(_POLL_SECONDS)
    return False


async def _is_stopped_or_gone(docker: CallDocker, container_id: str) -> bool:
    try:
        found = await docker("inspect_container", container_id)
    except NotFound:
        return True
    return not found["State"]["Running"]
