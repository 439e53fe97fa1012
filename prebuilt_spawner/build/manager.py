"""One manager per hub: it owns the builds, whoever waits for them."""

from __future__ import annotations

import asyncio
import logging

from .events import BuildEvent, Phase, Report
from .interface import DerivedImage, Engine, Ledger, WheelStore
from .locking import Locksmith
from .provider import Environment, EnvironmentRequest, Provider
from .sharing import SharedTasks

_log = logging.getLogger(__name__)


class BuildManager:
    """Runs each build once, for all who wait for it.

    Args:
        max_concurrent_builds: How many images are made at once; further ones wait in the order of their arrival.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        wheel_store: WheelStore,
        ledger: Ledger,
        locksmith: Locksmith,
        provider: Provider,
        max_concurrent_builds: int = 2,
    ) -> None:
        self._engine = engine
        self._wheel_store = wheel_store
        self._ledger = ledger
        self._locksmith = locksmith
        self._provider = provider
        self._slots = asyncio.Semaphore(max_concurrent_builds)
        self._builds: SharedTasks[DerivedImage] = SharedTasks()

    async def ensure(self, request: EnvironmentRequest, *, report: Report) -> Environment:
        """The environment that the request stands for, built if no image of it exists.

        Raises:
            PrebuiltError: See `prebuilt_spawner.errors`; its `message` is for the user.
        """
        base = await self._engine.resolve_base(request.base)
        probe = await self._engine.probe(base)
        lock = await self._locksmith.lock_for(request, base, probe, report=report)
        environment = self._provider.name(base=base, probe=probe, lock=lock)
        image = await self._provider.present(environment)
        if image is None:
            image = await self._builds.run(
                environment.digest, lambda tell: self._build(environment, tell), report=report
            )
        await self._ledger.record_environment(
            digest=environment.digest, base_digest=base.digest, lock=lock, size_bytes=image.size_bytes
        )
        return environment

    async def close(self) -> None:
        """Stop every build and release what they hold."""
        await self._locksmith.close()
        await self._builds.close()
        await self._wheel_store.close()
        await self._engine.close()
        await self._ledger.close()

    async def _build(self, environment: Environment, report: Report) -> DerivedImage:
        if self._slots.locked():
            report(BuildEvent(phase=Phase.WAITING, message="Waiting for other builds to end"))
        async with self._slots:
            # Whoever asked just before another build of the same ended has not seen its image.
            return await self._provider.present(environment) or await self._provider.make(environment, report=report)
