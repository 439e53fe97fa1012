"""One build manager for each hub, whichever spawner asks first."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from packaging.utils import canonicalize_name

from ..adapters.built_wheels import BuiltWheels
from ..adapters.cache_limit import CacheLimit
from ..adapters.disk_guard import DiskGuard
from ..adapters.docker_compiler import DockerCompiler
from ..adapters.docker_engine import DockerEngine
from ..adapters.docker_inventory import DockerInventory
from ..adapters.docker_sandbox import DockerSandbox
from ..adapters.network import NetworkSettings
from ..adapters.simple_index import SimpleIndex
from ..adapters.uv_resolver import PROTECTED, UvResolver
from ..adapters.wheel_store import DiskWheelStore
from ..build.events import Report
from ..build.locking import Locksmith
from ..build.manager import BuildLimits, BuildManager
from ..build.preview import Preview
from ..build.provider import Environment, EnvironmentRequest, Provider
from ..build.queue import WaitingRoom, seats_below
from ..build.recovery import recover
from ..build.remembered import RememberedFailures
from ..build.source_builds import SourceBuilds
from ..build.sources import SourceBuildLimits
from ..image.names import HUB_LABEL
from ..ledger import SqlLedger
from .registry import shared_registry

_LONGEST_BUILD_SECONDS = 3600
"""What was used within this time stays in the cache, because a build may be at it."""


class Manager(Protocol):
    """What the spawner needs of a build manager."""

    async def ensure(self, request: EnvironmentRequest, *, report: Report) -> Environment:
        """See `BuildManager.ensure`."""

    async def preview(self, requests: Sequence[EnvironmentRequest]) -> Sequence[Preview]:
        """See `BuildManager.preview`."""

    async def recent(self, *, user: str, since: datetime | None = None, limit: int = 5) -> Sequence[Mapping[str, Any]]:
        """See `BuildManager.recent`."""

    async def close(self) -> None:
        """See `BuildManager.close`."""


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """The part of the configuration that is the hub's and not a user's.

    Attributes:
        client_kwargs: For `docker.APIClient`.
        concurrent_spawn_limit: JupyterHub's; 0 is none.
        The others are the traits of the same names.
    """

    repository: str
    immutable: bool
    index_url: str = field(repr=False)
    extra_index_urls: tuple[str, ...] = field(repr=False)
    allow_source_builds: bool
    source_build_limits: SourceBuildLimits
    db_url: str = field(repr=False)
    cache_dir: str
    max_concurrent_builds: int
    max_queued_builds: int
    failure_ttl: int
    max_cache_bytes: int
    min_free_bytes: int
    registry: str = ""
    concurrent_spawn_limit: int = 0
    client_kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)


async def build_manager(settings: RuntimeSettings) -> BuildManager:
    """The real thing, wired together.

    Raises:
        StorageFailure: The database cannot be used.
    """
    cache_dir = Path(settings.cache_dir)
    network = NetworkSettings.from_environment(
        os.environ, index_url=settings.index_url or None, extra_index_urls=settings.extra_index_urls or None
    )
    ledger = SqlLedger(settings.db_url)
    await ledger.open()
    hub = _hub_name(cache_dir)
    inventory = DockerInventory(
        repository=settings.repository, registry=settings.registry, client_kwargs=settings.client_kwargs
    )
    try:
        await recover(ledger, inventory, hub=hub)
    finally:
        await inventory.close()
    labels = {HUB_LABEL: hub}
    engine = DockerEngine(
        repository=settings.repository, cache_dir=cache_dir, client_kwargs=settings.client_kwargs, labels=labels
    )
    compiler = DockerCompiler(client_kwargs=settings.client_kwargs, labels=labels)
    wheel_store = DiskWheelStore(network, cache_dir, compiler)
    failures = RememberedFailures(settings.failure_ttl)
    room = WaitingRoom(seats_below(settings.concurrent_spawn_limit))
    disks = _Disks(settings)
    resolver = UvResolver(network, cache_dir, protected=PROTECTED, seen=ledger.package_names)
    sources = SourceBuilds(
        resolver=resolver,
        index=SimpleIndex(network),
        sandbox=DockerSandbox(client_kwargs=settings.client_kwargs, labels=labels, limits=settings.source_build_limits),
        made_wheels=BuiltWheels(cache_dir),
        wheel_store=wheel_store,
        allowed=settings.allow_source_builds,
        limits=settings.source_build_limits,
        max_concurrent=settings.max_concurrent_builds,
        failures=failures,
        guard=disks,
    )
    shared, pushes = shared_registry(settings, engine=engine, memory=ledger, hub=hub, labels=labels)
    provider = Provider(
        engine=engine,
        wheel_store=wheel_store,
        ledger=ledger,
        repository=settings.repository,
        sources=sources,
        immutable=settings.immutable,
        protected=frozenset(canonicalize_name(name) for name in PROTECTED),
        registry=settings.registry,
        shared=shared,
        pushes=pushes,
    )
    if pushes is not None:
        pushes.begin(provider)
    return BuildManager(
        engine=engine,
        wheel_store=wheel_store,
        ledger=ledger,
        history=ledger,
        hub=hub,
        failures=failures,
        room=room,
        guard=disks,
        sources=sources,
        limits=BuildLimits(
            max_concurrent_builds=settings.max_concurrent_builds, max_queued_builds=settings.max_queued_builds
        ),
        locksmith=Locksmith(
            ledger,
            resolver,
            index_url=settings.index_url or None,
            extra_index_urls=settings.extra_index_urls,
            sources=sources,
            failures=failures,
            room=room,
        ),
        provider=provider,
    )


class _Disks:
    """Implements `prebuilt_spawner.build.guard.Guard`."""

    def __init__(self, settings: RuntimeSettings) -> None:
        cache_dir = Path(settings.cache_dir)
        self._guard = DiskGuard(cache_dir, min_free_bytes=settings.min_free_bytes, client_kwargs=settings.client_kwargs)
        self._limit = CacheLimit(cache_dir, max_bytes=settings.max_cache_bytes, in_use_seconds=_LONGEST_BUILD_SECONDS)

    async def check(self) -> None:
        """See `Guard`."""
        await self._guard.check()

    def tidy(self) -> None:
        """See `Guard`."""
        self._limit.after_build()

    async def close(self) -> None:
        """See `Guard`."""
        await self._guard.close()
        await self._limit.close()


def _hub_name(cache_dir: Path) -> str:
    """The same each time this hub is started, and another hub's is another one."""
    return hashlib.sha256(f"{socket.gethostname()}:{cache_dir.absolute()}".encode()).hexdigest()[:16]


# A hub is an event loop: tests have several in one process, one after the other.
_managers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[Manager]] = weakref.WeakKeyDictionary()


async def shared_manager(make: Callable[[], Awaitable[Manager]]) -> Manager:
    """The running hub's manager, made by `make` where there is none yet, closed when the hub ends.

    Raises:
        Exception: What `make` raised; the next call tries again.
    """
    loop = asyncio.get_running_loop()
    making = _managers.get(loop)
    if making is None or (making.done() and (making.cancelled() or making.exception())):
        # A task of its own: the start that asks first may be cancelled, and others wait for it too.
        making = _managers[loop] = loop.create_task(_made(make))
    return await asyncio.shield(making)


async def _made(make: Callable[[], Awaitable[Manager]]) -> Manager:
    manager = await make()
    keeper = asyncio.get_running_loop().create_task(_close_at_the_end(manager))
    _keepers.add(keeper)
    keeper.add_done_callback(_keepers.discard)
    return manager


_keepers: set[asyncio.Task[None]] = set()


async def _close_at_the_end(manager: Manager) -> None:
    """Waits for the hub's end: JupyterHub, like `asyncio.run`, cancels all tasks and waits for them then."""
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await manager.close()
