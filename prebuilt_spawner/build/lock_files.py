"""Reading the lock files that administrators keep for profiles."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from ..environment.base import BaseImage, BaseProbe
from ..environment.lock import Lock, parse_pylock
from ..errors import RequestError
from .events import ignore
from .failure import TELL
from .provider import ProfileRequest
from .sharing import SharedTasks

_KEPT_LOCKS: Final = 256
"""How many results are kept: more than a hub has profiles with a file, times the bases that they are used on. The
form asks for all of them; one takes some tens of KB."""


class LockFiles:
    """Reads lock files on a thread and keeps the last results: a long file takes half a second at every start."""

    def __init__(self) -> None:
        # By profile as well: a message names it.
        self._kept: dict[tuple[str, str, str], Lock] = {}
        self._reading: SharedTasks[Lock] = SharedTasks()

    async def read(self, profile: ProfileRequest, base: BaseImage, probe: BaseProbe) -> Lock:
        """What the profile's file installs on this base.

        Raises:
            MalformedRequest, UnresolvableRequest: As `parse_pylock`; read again at the next call.
        """
        key = (profile.slug, hashlib.sha256(profile.pylock.encode()).hexdigest(), base.digest)
        lock = self._kept.pop(key, None)
        if lock is None:
            source = f"the lock file of the profile {profile.slug}"
            lock = await self._reading.run(
                key, lambda _: asyncio.to_thread(_parsed, profile.pylock, base, probe, source), report=ignore
            )
        self._kept.pop(key, None)  # to the end: the first one is the one that was used longest ago
        self._kept[key] = lock
        if len(self._kept) > _KEPT_LOCKS:
            del self._kept[next(iter(self._kept))]
        return lock

    async def close(self) -> None:
        """Wait for nothing more. A thread that reads ends by itself."""
        await self._reading.close()


def _parsed(text: str, base: BaseImage, probe: BaseProbe, source: str) -> Lock:
    try:
        return parse_pylock(text, probe, source=source, base_digest=base.digest)
    except RequestError as error:
        # The file is not the user's, whatever it is that should be written in it.
        raise type(error)(
            f"{error.message} {TELL}", detail=error.detail, package=error.package, cause=error.cause
        ) from error
