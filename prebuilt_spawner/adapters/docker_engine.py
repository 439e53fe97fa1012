"""The Docker Engine, on its graphdriver store and on the containerd image store."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound

from ..build.events import Report
from ..build.interface import Carrier, DerivedImage
from ..environment.base import BaseImage, BaseProbe
from ..environment.reference import parse_reference
from ..errors import LayersGone, PrebuiltError
from ..image.layer import ImagePlan
from .base_probe import ProbeShelf
from .docker_bases import BaseLimits, DockerBases, repository_of
from .docker_build import HOLD_REPOSITORY
from .docker_client import DockerClient
from .docker_handover import DockerHandover, Handover
from .docker_holds import hold_tag, release_hold, release_stale, take_hold
from .docker_images import discard, find, present
from .docker_layers import DockerLayers

_BASE_LIMITS = BaseLimits()


class DockerEngine:
    """Implements `prebuilt_spawner.build.interface.Engine` over Docker's API.

    Args:
        repository: Where derived images are named; the names that hold bases for a while are made there too.
        cache_dir: Folder for what was learnt about bases; made when needed.
        client_kwargs: For `docker.APIClient`, before what the environment says.
        labels: Put on every container that this makes, besides our own.
        base_limits: What pulling and probing a base may cost.
        handover: How images get into the engine: "archive" (layers that it has are left out) or "build" (by its own
            builder); "auto" finds out before the first image whether it takes such archives.
    """

    def __init__(
        self,
        *,
        repository: str,
        cache_dir: Path,
        client_kwargs: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        base_limits: BaseLimits = _BASE_LIMITS,
        handover: Handover = "auto",
    ) -> None:
        self._repository = repository
        self._docker = DockerClient(client_kwargs or {})
        containers = dict(labels or {})
        self._bases = DockerBases(self._docker, ProbeShelf(cache_dir / "probes"), labels=containers, limits=base_limits)
        self._layers = DockerLayers(self._docker, cache_dir / "layers")
        self._handover = DockerHandover(self._docker, self._layers, labels=containers, way=handover)
        self._naming = asyncio.Lock()
        self._stale_released = False

    # -- bases -------------------------------------------------------------------------------------------------------

    async def resolve_base(self, reference: str) -> BaseImage:
        return await self._bases.resolve(reference)

    async def probe(self, base: BaseImage) -> BaseProbe:
        return await self._bases.probe(base)

    async def known_base(self, reference: str) -> tuple[BaseImage, BaseProbe] | None:
        return await self._bases.known(reference)

    @asynccontextmanager
    async def hold(self, image_id: str) -> AsyncIterator[None]:
        if not self._stale_released:
            self._stale_released = True
            with contextlib.suppress(PrebuiltError):
                await self._docker.run_slow(
                    lambda client, stop: release_stale(client, [self._repository, HOLD_REPOSITORY])
                )
        tag = hold_tag(image_id)

        def take(client: docker.APIClient, stop: threading.Event) -> None:
            take_hold(client, image_id, self._repository, tag)
            if stop.is_set():  # and `release` may have run already
                release_hold(client, self._repository, tag)

        preparing = None
        try:
            await self._docker.run(take)
            preparing = asyncio.ensure_future(self._prepare(image_id))
            yield
        finally:
            if preparing is not None:
                preparing.cancel()
            await asyncio.shield(self._docker.run(lambda client, stop: release_hold(client, self._repository, tag)))

    async def _prepare(self, image_id: str) -> None:
        with contextlib.suppress(PrebuiltError):  # whoever needs it will say so
            await self._handover.prepare(image_id)

    # -- derived images ----------------------------------------------------------------------------------------------

    async def find(self, reference: str) -> DerivedImage | None:
        return await self._docker.run(lambda client, stop: find(client, reference))

    async def present(self, references: Collection[str]) -> Collection[str]:
        return await self._docker.run(lambda client, stop: present(client, references, stop))

    @asynccontextmanager
    async def carry(self, base: BaseImage, digest: str) -> AsyncIterator[Carrier]:
        carrier = self._handover.carrier(base, digest)
        try:
            yield carrier
        finally:
            with contextlib.suppress(PrebuiltError):
                await asyncio.shield(carrier.leave())

    async def assemble(self, plan: ImagePlan, *, report: Report) -> DerivedImage:
        return await self._handover.assemble(plan, report=report)

    async def tag(self, image: DerivedImage, reference: str) -> DerivedImage:
        def work(client: docker.APIClient, stop: threading.Event) -> DerivedImage:
            there = find(client, reference)
            if there is not None:
                return there
            name = parse_reference(reference)
            with contextlib.suppress(NotFound):
                client.tag(image.image_id, repository_of(reference), name.tag)
            named = find(client, reference)
            if named is None:  # somebody pruned the engine
                raise LayersGone(
                    "The image that was made has gone. Start again.", detail=f"{image.image_id} cannot be named"
                )
            return named

        async with self._naming:
            return await self._docker.run(work)

    async def discard(self, image: DerivedImage) -> None:
        await self._docker.run(lambda client, stop: discard(client, image.image_id))

    async def close(self) -> None:
        await self._bases.close()
        await self._layers.close()
        await self._docker.close()
