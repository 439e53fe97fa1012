"""The registry as a cache that engines share: what one hub has made, others fetch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from ..environment.base import BaseImage
from ..errors import PrebuiltError, RegistryUnavailable
from .events import BuildEvent, Phase, Report
from .interface import DerivedImage
from .published import flaw_of
from .registry import PublishedImage, Registry, Transfers
from .registry_watch import RegistryWatch

_log = logging.getLogger(__name__)

LOOK_SECONDS = 6
"""How long a start may wait to learn whether the registry has its environment."""
_PAUSE_SECONDS = 30


class SharedCache:
    """Looks for environments in a registry and has them pulled. Whatever goes wrong with it, the image is built here.

    Attributes:
        watch: What came of looking: "pulled", "absent", "wrong", "broken" (found, and could not be pulled), "refused",
            "unreachable".

    Args:
        look_seconds: See `LOOK_SECONDS`.
        now: A clock in seconds that never goes back.
    """

    def __init__(
        self,
        registry: Registry,
        transfers: Transfers,
        *,
        look_seconds: float = LOOK_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._transfers = transfers
        self._look_seconds = look_seconds
        self.watch = RegistryWatch(
            "looking for environments", "they are built on this hub", pause_seconds=_PAUSE_SECONDS, now=now
        )

    @asynccontextmanager
    async def fetched(
        self,
        digest: str,
        *,
        base: BaseImage,
        labels: Mapping[str, str],
        environment: Mapping[str, str],
        report: Report,
    ) -> AsyncIterator[DerivedImage | None]:
        """While entered, the engine has the environment's image, pulled and checked, without a name; None where it has
        to be built. Afterwards it stays if it was tagged.

        Args:
            digest: The environment's.
            base, labels, environment: See `flaw_of`.
        """
        found = await self._found(digest, report)
        flaw = "" if found is None else flaw_of(found.config, base=base, labels=labels, environment=environment)
        if flaw:
            self.watch.answered("wrong")
            _log.error("What the registry has under %s is not used, and the environment is built: %s", digest, flaw)
        if found is None or flaw:
            yield None
            return
        async with AsyncExitStack() as pulling:
            image = await self._pulled(digest, found.manifest_digest, pulling, report)
            diff_ids = tuple(((found.config or {}).get("rootfs") or {}).get("diff_ids") or ())
            if image is not None and (image.digest, image.diff_ids) != (digest, diff_ids):
                self.watch.answered("wrong")
                _log.error("What was pulled from the registry as %s is another image: it is built", digest)
                image = None
            if image is not None:
                self.watch.answered("pulled")
            yield image

    async def close(self) -> None:
        """Stop what runs. The registry is others' too, and stays open."""
        await self._transfers.close()

    async def _found(self, digest: str, report: Report) -> PublishedImage | None:
        if self.watch.pausing:
            self.watch.counts["unreachable"] += 1
            return None
        report(BuildEvent(phase=Phase.WAITING, message="Looking for the environment in the registry"))
        try:
            found = await asyncio.wait_for(self._registry.find(digest), self._look_seconds)
        except asyncio.TimeoutError:
            self.watch.failed(
                RegistryUnavailable(
                    "The registry takes too long. Tell your administrator.",
                    detail=f"nothing within {self._look_seconds:g} seconds",
                )
            )
            return None
        except PrebuiltError as error:
            self.watch.failed(error)
            return None
        if found is None:
            self.watch.answered("absent")
        return found

    async def _pulled(
        self, digest: str, manifest_digest: str, pulling: AsyncExitStack, report: Report
    ) -> DerivedImage | None:
        try:
            return await pulling.enter_async_context(self._transfers.pulled(manifest_digest, report=report))
        except PrebuiltError as error:
            self.watch.answered("broken")
            _log.warning("%s is built, because it cannot be pulled: %s (%s)", digest, error.message, error.detail)
            return None
