"""Environments that were made here, brought to the registry in the background.

What is still to be pushed is in the ledger, so that it outlives the hub: it is noted when the image is named, and
forgotten when the registry has it. One push goes on at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Protocol

from ..environment.lock import Lock
from ..errors import PrebuiltError, RegistryRefusal, RegistryUnavailable
from .interface import Engine
from .provider import Environment, Provider
from .registry import Push, Registry, Transfers
from .registry_watch import RegistryWatch

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 15.0
_LONGEST_PAUSE_SECONDS = 600.0
KEPT = timedelta(days=14)
"""For how long a push is tried. Not so many times: credentials may have run out, or an engine be down, for days."""


@dataclass(frozen=True, kw_only=True)
class OwedPush:
    """An environment that a hub has made and the registry does not have.

    Attributes:
        digest: The environment's.
        base: The base image's reference.
        base_digest: Of its content.
        lock: What was installed.
        attempts: How often it was tried in vain.
        since: When the image was made.
    """

    digest: str
    base: str
    base_digest: str
    lock: Lock
    attempts: int
    since: datetime


class PushMemory(Protocol):
    """What hubs owe to registries. A *place* is `<registry>/<repository>`. Everything may raise `StorageFailure`."""

    async def owe_push(self, *, hub: str, place: str, digest: str, base: str, base_digest: str, lock: Lock) -> None:
        """From now on this hub owes this push, if it did not before."""

    async def owed_pushes(self, *, hub: str, place: str, limit: int = 1) -> Sequence[OwedPush]:
        """What this hub owes to this place: those first that were tried least, then the oldest."""

    async def count_push_attempt(self, *, hub: str, place: str, digest: str) -> None:
        """It was tried in vain."""

    async def settle_push(self, *, hub: str, place: str, digest: str) -> None:
        """It is not owed any more."""


class Pushes:
    """Pays what this hub owes.

    Attributes:
        watch: What came of it: "pushed", "present" (somebody else had been quicker), "refused", "unreachable".

    Args:
        hub: This hub's name in the ledger.
        place: `<registry>/<repository>`.
        pause_seconds: The wait after a failure, doubled for each further one, to ten minutes.
        now: The clock: returns aware times.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        transfers: Transfers,
        engine: Engine,
        memory: PushMemory,
        hub: str,
        place: str,
        pause_seconds: float = _FIRST_PAUSE_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._registry = registry
        self._transfers = transfers
        self._engine = engine
        self._memory = memory
        self._hub = hub
        self._place = place
        self._first_pause_seconds = self._pause_seconds = pause_seconds
        self._now = now
        self._owed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self.watch = RegistryWatch(
            "pushing environments", "they are kept on this hub and pushed later", pause_seconds=0, now=time.monotonic
        )

    def begin(self, provider: Provider) -> None:
        """Pay what is owed from now on, also from before the hub's last end."""
        self._owed.set()
        self._worker = asyncio.get_running_loop().create_task(self._work(provider))

    async def owe(self, environment: Environment) -> None:
        """The environment's image was made here. Never raises: what cannot be noted is not pushed."""
        try:
            await self._memory.owe_push(
                hub=self._hub,
                place=self._place,
                digest=environment.digest,
                base=environment.base.reference,
                base_digest=environment.base.digest,
                lock=environment.lock,
            )
        except PrebuiltError as error:
            _log.error("%s will not be pushed to the registry: %s", environment.digest, error.message)
        self._owed.set()

    async def close(self) -> None:
        """Stop pushing; what is half-sent is not there afterwards, and is sent after the next start."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._registry.close()

    async def _work(self, provider: Provider) -> None:
        while True:
            await self._owed.wait()
            try:
                while await self._pay_next(provider):
                    pass
            except PrebuiltError as error:  # the ledger
                _log.warning("What is to be pushed to the registry cannot be read: %s", error.message)
            except Exception:
                _log.exception("Pushing to the registry failed")
            else:
                continue
            await self._pause()
            self._owed.set()

    async def _pay_next(self, provider: Provider) -> bool:
        """Push what is next; False where nothing is owed."""
        self._owed.clear()  # before the look: what is owed from now on is not missed
        for owed in await self._memory.owed_pushes(hub=self._hub, place=self._place):
            try:
                done = await self._push(owed, provider)
            except PrebuiltError as error:
                self.watch.failed(error)
                await self._failed(owed, error)
            except Exception as error:
                _log.exception("Pushing %s to the registry failed", owed.digest)
                await self._failed(
                    owed, PrebuiltError("An error of this program. Tell your administrator.", detail=str(error))
                )
            else:
                self._pause_seconds = self._first_pause_seconds
                self._tell(owed, done)
                await self._settle(owed)
            return True
        return False

    async def _push(self, owed: OwedPush, provider: Provider) -> Push | None:
        """None where it cannot be made any more."""
        base = await self._engine.resolve_base(owed.base)
        environment = provider.name(base=base, probe=await self._engine.probe(base), lock=owed.lock)
        if base.digest != owed.base_digest or environment.digest != owed.digest:
            return None
        async with provider.planned(environment) as plan:
            return await self._registry.push(owed.digest, plan, await self._transfers.content(base))

    def _tell(self, owed: OwedPush, done: Push | None) -> None:
        if done is None:
            _log.info("%s is not pushed to the registry any more: its base image is another one now", owed.digest)
        elif done.was_there:
            self.watch.answered("present")
            _log.info("The registry has %s already (%s)", owed.digest, done.manifest_digest)
        else:
            self.watch.answered("pushed")
            _log.info(
                "Pushed %s to the registry (%s): %d bytes sent, %d taken over, %d there before",
                *(owed.digest, done.manifest_digest, done.sent_bytes, done.mounted_bytes, done.present_bytes),
            )

    async def _failed(self, owed: OwedPush, error: PrebuiltError) -> None:
        registrys = isinstance(error, RegistryUnavailable | RegistryRefusal)
        if self._now() - owed.since > KEPT:
            _log.error("Pushing %s to the registry is given up: %s (%s)", owed.digest, error.message, error.detail)
            await self._settle(owed)
            return
        # What is the matter with the registry has been said, once.
        level = logging.DEBUG if registrys else logging.INFO
        _log.log(level, "%s is pushed to the registry later: %s (%s)", owed.digest, error.message, error.detail)
        await self._memory.count_push_attempt(hub=self._hub, place=self._place, digest=owed.digest)
        # What is this one's own trouble is none of those that come next.
        await self._pause(for_all=registrys)

    async def _settle(self, owed: OwedPush) -> None:
        await self._memory.settle_push(hub=self._hub, place=self._place, digest=owed.digest)

    async def _pause(self, *, for_all: bool = True) -> None:
        """Wait; a new debt ends it where what is the matter is not the registry's or the ledger's."""
        if for_all:
            await asyncio.sleep(self._pause_seconds)
        else:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._owed.wait(), self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
