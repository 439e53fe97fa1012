"""In-memory doubles of a registry that engines share, and of what an engine does with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ..build.events import BuildEvent, Phase, Report
from ..build.interface import DerivedImage
from ..build.registry import BaseContent, PublishedImage, Push
from ..environment.base import BaseImage
from ..errors import EngineFailure, LayersGone
from ..image.archive import layer_digest
from ..image.config import LAYER_MEDIA_TYPE, derived_config, oci_manifest, sha256_of
from ..image.layer import ImagePlan
from .memory import MemoryEngine
from .memory_switches import Switches

_BASE_LAYER_BYTES = 1000


@dataclass(frozen=True, kw_only=True)
class _Held:
    """What is under a tag: of an image that was not pushed by the double there is no plan."""

    image: PublishedImage
    plan: ImagePlan | None


class MemoryRegistry:
    """Implements `prebuilt_spawner.build.registry.Registry`.

    Attributes:
        switches: For `find` and `push`; the gate and the failure "manifest" are those of the end of a push.
        blobs: Bytes by digest.
    """

    def __init__(self) -> None:
        self.switches = Switches()
        self.blobs: dict[str, int] = {}
        self._tags: dict[str, _Held] = {}

    @property
    def tags(self) -> Mapping[str, str]:
        """Manifest digest by tag."""
        return {tag: held.image.manifest_digest for tag, held in self._tags.items()}

    def put(self, tag: str, config: Mapping[str, Any] | None) -> None:
        """Move a tag to an image of this configuration, as others may."""
        digest = sha256_of(json.dumps(config).encode())
        self._tags[tag] = _Held(image=PublishedImage(manifest_digest=digest, config=config, size_bytes=0), plan=None)

    def plan(self, manifest_digest: str) -> ImagePlan | None:
        """What was pushed under this digest."""
        found = (held.plan for held in self._tags.values() if held.image.manifest_digest == manifest_digest)
        return next(found, None)

    async def find(self, tag: str) -> PublishedImage | None:
        """See `Registry.find`."""
        await self.switches.pass_through("find")
        held = self._tags.get(tag)
        return None if held is None else held.image

    async def push(self, tag: str, plan: ImagePlan, base: BaseContent) -> Push:
        """See `Registry.push`; every layer of a base has 1000 bytes."""
        await self.switches.pass_through("push")
        if tag in self._tags:
            return Push(manifest_digest=self.tags[tag], was_there=True)
        diff_ids = [layer_digest(layer) for layer in plan.layers]
        config = derived_config(plan, diff_ids)
        below = [
            {"mediaType": LAYER_MEDIA_TYPE, "digest": diff_id, "size": _BASE_LAYER_BYTES}
            for diff_id in plan.base.diff_ids
        ]
        manifest = oci_manifest(plan, config, diff_ids, below)
        sizes = {layer["digest"]: int(layer["size"]) for layer in json.loads(manifest)["layers"]}
        sizes[sha256_of(config)] = len(config)
        missing = {digest: size for digest, size in sizes.items() if digest not in self.blobs}
        self.blobs |= missing
        await self.switches.pass_through("manifest")
        if tag in self._tags:  # somebody was quicker
            return Push(manifest_digest=self.tags[tag], was_there=True, sent_bytes=sum(missing.values()))
        image = PublishedImage(
            manifest_digest=sha256_of(manifest), config=json.loads(config), size_bytes=sum(sizes.values()) - len(config)
        )
        self._tags[tag] = _Held(image=image, plan=plan)
        return Push(
            manifest_digest=image.manifest_digest,
            was_there=False,
            sent_bytes=sum(missing.values()) + len(manifest),
            present_bytes=sum(sizes.values()) - sum(missing.values()),
        )

    async def close(self) -> None:
        """See `Registry.close`."""
        self.switches.calls["close"] += 1


class MemoryTransfers:
    """Implements `prebuilt_spawner.build.registry.Transfers`.

    Attributes:
        switches: For `pulled` and `content`.
    """

    def __init__(self, engine: MemoryEngine, registry: MemoryRegistry) -> None:
        self.switches = Switches()
        self._engine = engine
        self._registry = registry

    @asynccontextmanager
    async def pulled(self, manifest_digest: str, *, report: Report) -> AsyncIterator[DerivedImage]:
        """See `Transfers.pulled`."""
        report(BuildEvent(phase=Phase.DOWNLOADING, message="Fetching the environment from the registry"))
        await self.switches.pass_through("pulled")
        plan = self._registry.plan(manifest_digest)
        if plan is None:
            raise EngineFailure("An image cannot be pulled from the registry. Tell your administrator.")
        image_id = sha256_of(derived_config(plan, [layer_digest(layer) for layer in plan.layers]))
        self._engine.plans[image_id] = plan
        image = self._engine.derived(image_id)
        try:
            yield image
        finally:
            await self._engine.discard(image)

    async def content(self, base: BaseImage) -> BaseContent:
        """See `Transfers.content`."""
        await self.switches.pass_through("content")
        if not any(one.image_id == base.image_id for one in self._engine.bases.values()):
            raise LayersGone("A base image has gone. Start again.")
        return BaseContent(names=(), save=lambda take, stop: None)

    async def close(self) -> None:
        """See `Transfers.close`."""
        self.switches.calls["close"] += 1
