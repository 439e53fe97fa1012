"""Hubs in memory that share a registry: each with an engine, a ledger and a cache of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from prebuilt_spawner.adapters.memory import MemoryEngine
from prebuilt_spawner.adapters.memory_registry import MemoryRegistry, MemoryTransfers
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.provider import Environment, Provider
from prebuilt_spawner.build.pushes import Pushes
from prebuilt_spawner.build.shared_cache import SharedCache
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.ledger import SqlLedger

from ..image.wheels import fragment_of, make_base, make_lock, make_probe
from .test_provider import FragmentShelf

NAMES = ("alpha", "beta", "gamma", "delta")
REGISTRY, REPOSITORY = "registry.test:5000", "test/env"
PLACE = f"{REGISTRY}/{REPOSITORY}"


class Hub:
    """One hub.

    Attributes:
        seconds: Its clock.
    """

    def __init__(self, folder: Path, registry: MemoryRegistry, *, name: str = "a hub", **how: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.name, self.registry, self.seconds = name, registry, 0.0
        self.engine = MemoryEngine()
        self.base, self.probe = make_base(), make_probe()
        self.engine.add_base(self.base, self.probe)
        self.ledger = SqlLedger(f"sqlite:///{folder}/ledger.sqlite")
        self.transfers = MemoryTransfers(self.engine, registry)
        self.shas = {package: str(number) * 64 for number, package in enumerate(NAMES)}
        self.fragments = {
            package: replace(
                fragment_of(folder, package, {f"{package}.py": package.encode() * 100}), wheel_sha256=self.shas[package]
            )
            for package in NAMES
        }
        store: Any = FragmentShelf(self.fragments)
        self.shared = SharedCache(registry, self.transfers, now=lambda: self.seconds, **how)
        self.pushes = self.new_pushes()
        self.provider = Provider(
            engine=self.engine,
            wheel_store=store,
            ledger=self.ledger,
            repository=REPOSITORY,
            registry=REGISTRY,
            shared=self.shared,
            pushes=self.pushes,
        )

    def new_pushes(self, **how: Any) -> Pushes:
        """What pays for the hub's debts, as after a restart."""
        given: dict[str, Any] = {"pause_seconds": 0.001, "hub": self.name, "place": PLACE, **how}
        return Pushes(registry=self.registry, transfers=self.transfers, engine=self.engine, memory=self.ledger, **given)

    def environment(self, *names: str) -> Environment:
        lock = Lock(wheels=tuple(replace(wheel, sha256=self.shas[wheel.name]) for wheel in make_lock(*names).wheels))
        return self.provider.name(base=self.base, probe=self.probe, lock=lock)

    async def make(self, *names: str) -> Environment:
        """What a start does where the engine does not have the image."""
        environment = self.environment(*names)
        await self.provider.make(environment, report=ignore)
        assert environment.image in self.engine.names
        return environment

    async def owed(self) -> list[str]:
        """The digests of what is still to be pushed."""
        return [owed.digest for owed in await self.ledger.owed_pushes(hub=self.name, place=PLACE, limit=100)]

    @property
    def built(self) -> int:
        """How many images were made here."""
        return self.engine.switches.calls["assemble"]

    async def close(self) -> None:
        await self.provider.close()
        await self.ledger.close()


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Wait for something that goes on beside the test."""

    async def wait() -> None:
        while not await condition():
            await asyncio.sleep(0.002)

    await asyncio.wait_for(wait(), 10)
