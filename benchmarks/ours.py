"""(e) Ours, through the face that the spawner has: a request to the build manager, until the image is named.

The parts are wired as a hub wires them; what is left out is the hub itself, whose own rows are in `hub_rows`.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from prebuilt_spawner.build.events import BuildEvent, Phase
from prebuilt_spawner.build.manager import BuildManager
from prebuilt_spawner.build.provider import Environment, EnvironmentRequest
from prebuilt_spawner.build.sources import SourceBuildLimits
from prebuilt_spawner.environment.base import BaseImage, BaseProbe
from prebuilt_spawner.environment.requirements import parse_requirements
from prebuilt_spawner.hub import runtime
from prebuilt_spawner.hub.runtime import RuntimeSettings, build_manager
from prebuilt_spawner.image.bytecode import Module

from .engine import RUN_LABEL, BenchEngine


@dataclass(kw_only=True)
class Steps:
    """When each step of a build was first heard of, in seconds after the request."""

    begun: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    def hear(self, event: BuildEvent) -> None:
        """A `Report`."""
        if event.phase is not Phase.WAITING:
            self.seconds.setdefault(event.phase.value, time.monotonic() - self.begun)


@dataclass(frozen=True, kw_only=True)
class Built:
    """An environment whose image is there.

    Attributes:
        seconds: From the request until then.
        steps: See `Steps`.
    """

    environment: Environment
    seconds: float
    steps: Mapping[str, float]


class NoBytecode:
    """Implements `prebuilt_spawner.build.interface.BytecodeCompiler`, and compiles nothing."""

    def __init__(self, **arguments: Any) -> None:
        """Takes what the real one takes."""

    async def compile(self, base: BaseImage, probe: BaseProbe, modules: Sequence[Module]) -> Mapping[str, bytes]:
        """See `BytecodeCompiler.compile`."""
        return {}

    async def close(self) -> None:
        """See `BytecodeCompiler.close`."""


class Ours:
    """A build manager in use. Made by `ours`."""

    def __init__(self, manager: BuildManager, engine: BenchEngine, repository: str) -> None:
        self.manager = manager
        self.repository = repository
        self._engine = engine

    async def make(self, packages: Sequence[str], *, user: str = "anybody", base: str = "") -> Built:
        """The environment of a list, typed as a user types it."""
        steps = Steps()
        requirements = parse_requirements(list(packages)) if packages else ()
        request = EnvironmentRequest(user=user, requirements=requirements, base=base or self._engine.base)
        environment = await self.manager.ensure(request, report=steps.hear)
        return Built(environment=environment, seconds=time.monotonic() - steps.begun, steps=steps.seconds)


@contextlib.asynccontextmanager
async def ours(
    engine: BenchEngine,
    *,
    folder: Path,
    index_url: str,
    repository: str,
    bytecode: bool = True,
    ledger: str = "ledger",
    base: str = "",
) -> AsyncIterator[Ours]:
    """A hub's parts as they are after it has started: they know their base, and how the engine takes images.

    Args:
        folder: The hub's cache; what was asked there before is there.
        repository: Where images are named; its images are removed with those of the run.
        ledger: Its file's name. With another one, nothing that was asked before is remembered.
        base: Another base than the engine's.
    """
    settings = RuntimeSettings(
        repository=repository,
        immutable=True,
        index_url=index_url,
        extra_index_urls=(),
        db_url=f"sqlite:///{folder}/{ledger}.sqlite",
        cache_dir=str(folder),
        max_concurrent_builds=2,
        max_queued_builds=50,
        failure_ttl=0,
        allow_source_builds=True,
        source_build_limits=SourceBuildLimits(),
        max_cache_bytes=0,
        min_free_bytes=0,
        client_kwargs=engine.client_kwargs,
    )
    with contextlib.ExitStack() as patches:
        if not bytecode:
            patches.enter_context(mock.patch.object(runtime, "DockerCompiler", NoBytecode))
        manager = await build_manager(settings)
    try:
        made = Ours(manager, engine, repository)
        await made.make((), base=base)
        yield made
    finally:
        await manager.close()


@contextlib.contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """A cache in which nothing is, removed at the end."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="cache-") as folder:
        yield Path(folder)


def folder_bytes(folder: Path) -> int:
    """What a hub's cache takes on its disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


__all__ = ["RUN_LABEL", "Built", "NoBytecode", "Ours", "Steps", "folder_bytes", "new_folder", "ours"]
