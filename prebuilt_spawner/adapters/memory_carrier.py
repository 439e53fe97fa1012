"""Layers ahead of their image, in memory."""

from __future__ import annotations

import secrets
from collections.abc import MutableMapping

from ..environment.base import BaseImage
from ..image.archive import layer_digest
from ..image.layer import ImagePlan, Layer, LowerLayers
from ..image.names import DIGEST_LABEL


class MemoryCarrier:
    """Implements `prebuilt_spawner.build.interface.Carrier`.

    Args:
        plans: What each image of the engine was made from, by image ID.
        base: What the layers are put on.
        digest: The environment digest.
    """

    def __init__(self, plans: MutableMapping[str, ImagePlan], base: BaseImage, digest: str) -> None:
        self._plans = plans
        self._base = base
        self._digest = digest
        self._layers: list[Layer] = []
        self._image_id = f"sha256:{secrets.token_hex(32)}"

    def add(self, layer: Layer) -> bool:
        """See `Carrier.add`."""
        self._layers.append(layer)
        return True

    async def settle(self) -> LowerLayers | None:
        """See `Carrier.settle`."""
        if not self._layers:
            return None
        lower = LowerLayers(image_id=self._base.image_id, diff_ids=self._base.diff_ids)
        self._plans[self._image_id] = ImagePlan(
            base=self._base,
            lower=lower,
            layers=tuple(self._layers),
            labels={DIGEST_LABEL: self._digest},
            environment={},
            digest=self._digest,
        )
        diff_ids = (*lower.diff_ids, *map(layer_digest, self._layers))
        return LowerLayers(image_id=self._image_id, diff_ids=diff_ids)

    def leave(self) -> None:
        """Remove the image."""
        self._plans.pop(self._image_id, None)
