"""The in-memory double of the inventory, over the images of a `MemoryEngine`."""

from __future__ import annotations

import json

from ..build.inventory import InventoryImage
from ..environment.reference import repository_places
from ..image.names import BASE_DIGEST_LABEL, DIGEST_LABEL, PACKAGES_LABEL
from .memory import MemoryEngine
from .memory_switches import Switches


class MemoryInventory:
    """Implements `prebuilt_spawner.build.inventory.ImageInventory`.

    Attributes:
        switches: By the names of the interface's methods.
        left_helpers: The hub of each container that was left behind.
    """

    def __init__(self, engine: MemoryEngine, *, repository: str, registry: str = "") -> None:
        self.switches = Switches()
        self.left_helpers: list[str] = []
        self._engine = engine
        self._places = repository_places(repository, registry)

    async def images(self) -> list[InventoryImage]:
        """See `ImageInventory.images`."""
        await self._pass("images")
        found = []
        for image_id, plan in self._engine.plans.items():
            names = tuple(sorted(name for name, named in self._engine.names.items() if named == image_id))
            if names and not any(name.rpartition(":")[0] in self._places for name in names):
                continue
            base = self._engine.bases.get(plan.base.reference)
            size_bytes = sum(layer.size_bytes for layer in plan.layers)
            found.append(
                InventoryImage(
                    image_id=image_id,
                    digest=plan.labels[DIGEST_LABEL],
                    base_digest=plan.labels.get(BASE_DIGEST_LABEL, ""),
                    base_digest_now="" if base is None else base.digest,
                    packages=tuple(json.loads(plan.labels.get(PACKAGES_LABEL, "[]"))),
                    names=names,
                    size_bytes=size_bytes,
                    added_bytes=size_bytes,
                    in_use=image_id in self._engine.in_use,
                )
            )
        return found

    async def remove(self, name: str) -> bool:
        """See `ImageInventory.remove`."""
        await self._pass("remove")
        image_id = self._engine.names.get(name)
        if image_id in self._engine.in_use:
            return False
        if image_id is not None:
            self._engine.remove(name)
        return True

    async def discard(self, image_id: str) -> None:
        """See `ImageInventory.discard`."""
        await self._pass("discard")
        if image_id not in self._engine.names.values() and image_id not in self._engine.in_use:
            self._engine.plans.pop(image_id, None)

    async def remove_left_helpers(self, *, hub: str) -> int:
        """See `ImageInventory.remove_left_helpers`. Those of other hubs never ended a while ago."""
        await self._pass("remove_left_helpers")
        removed = self.left_helpers.count(hub)
        self.left_helpers = [other for other in self.left_helpers if other != hub]
        return removed

    async def close(self) -> None:
        """See `ImageInventory.close`."""
        self.switches.calls["close"] += 1

    async def _pass(self, method: str) -> None:
        await self.switches.pass_through(method)
        if self._engine.unavailable is not None:
            raise self._engine.unavailable
