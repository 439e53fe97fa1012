"""A server that ended as soon as it started: JupyterHub waits out its `http_timeout` for it, and then says that it did
not answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from jupyterhub.utils import wait_for_http_server

from ..errors import ServerEnded

WATCHED_SECONDS = 15.0
"""How long a server is watched that neither answers nor ends. JupyterHub waits for it afterwards."""
LOG_LINES = 30
_FIRST_LOOK_SECONDS = 0.5
_READ_ONLY = re.compile(r"read-only file system", re.IGNORECASE)


async def ended(url: str, has_ended: Callable[[], Awaitable[bool]]) -> bool:
    """Whether a container ends before its server answers, or before it was watched long enough.

    Args:
        url: Where the server answers, with whatever status.
        has_ended: Looks at the container.
    """
    answered = asyncio.ensure_future(wait_for_http_server(url, timeout=WATCHED_SECONDS))
    pause_seconds = _FIRST_LOOK_SECONDS
    try:
        while not answered.done():
            # Each look costs the engine something: fewer and fewer.
            await asyncio.wait({answered}, timeout=pause_seconds)
            pause_seconds *= 2
            if not answered.done() and await has_ended():
                return True
        return not _succeeded(answered) and await has_ended()
    finally:
        answered.cancel()
        await asyncio.gather(answered, return_exceptions=True)


def _succeeded(task: asyncio.Future[object]) -> bool:
    return not task.cancelled() and task.exception() is None


def server_ended(*, log: str, status: int | None, immutable: bool, own_packages: bool) -> ServerEnded:
    """What to say of it.

    Args:
        log: The end of what the container printed.
        status: Its exit status.
        immutable: Whether its file system is read-only.
        own_packages: Whether the user has added packages.
    """
    said = f"It ended with status {status}, and printed last:\n{log}"
    if immutable and _READ_ONLY.search(log):
        return ServerEnded(
            "Your server ended as soon as it started, because its image wants to write where nothing can be written. "
            "Tell your administrator.",
            detail="Add the folder that is named below to c.PrebuiltSpawner.scratch, or, where that is not enough, set "
            f"c.PrebuiltSpawner.immutable = False. {said}",
        )
    what_to_do = (
        "Remove the packages that you added last, and start again. If that does not help, tell your administrator."
        if own_packages
        else "Tell your administrator."
    )
    return ServerEnded(f"Your server ended as soon as it started. {what_to_do}", detail=said)
