"""Layers of heavy wheels are handed to the engine while other wheels are still prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..image.fragment import Fragment
from ..image.layer import Layer
from ..image.plan import Contents, fragment_layer, is_heavy, most_heavy_layers
from ..image.stacking import Stack, StackedLayer
from .interface import Carrier

if TYPE_CHECKING:
    from .provider import Environment

MIN_WHEELS_BYTES = 32 << 20
"""Of the wheels together, which are compressed: with less, nothing is gained."""


class Ahead:
    """The layers of one environment that are on their way.

    Args:
        carrier: Takes them.
    """

    def __init__(self, environment: Environment, carrier: Carrier) -> None:
        self._environment = environment
        self._carrier = carrier
        self._most = most_heavy_layers(len(environment.base.diff_ids))
        self._layers: list[Layer] = []

    def add(self, fragment: Fragment) -> None:
        """A wheel has been prepared."""
        if not is_heavy(fragment) or len(self._layers) == self._most:
            return
        layer = fragment_layer([fragment], lock=self._environment.lock, probe=self._environment.probe)
        if layer is not None and self._carrier.add(layer):
            self._layers.append(layer)

    async def below(self, what: Contents) -> tuple[Stack, str] | None:
        """What the image can be stacked on, and the ID of the image that has it; None where there is nothing."""
        lower = await self._carrier.settle() if self._layers else None
        if lower is None or what.replaced.former:
            return None
        diff_ids = lower.diff_ids[len(self._environment.base.diff_ids) :]
        layers = (
            StackedLayer(diff_id=diff_id, wheels=layer.wheels)
            for diff_id, layer in zip(diff_ids, self._layers, strict=True)
        )
        return Stack(digest=self._environment.digest, layers=tuple(layers)), lower.image_id


def is_worth_it(environment: Environment) -> bool:
    """Whether there is much to hand over, and nothing of the base goes: that would have to lie below."""
    lock, probe = environment.lock, environment.probe
    wheels_bytes = sum(wheel.size_bytes or 0 for wheel in lock.wheels)
    return wheels_bytes >= MIN_WHEELS_BYTES and lock.pins.keys().isdisjoint(probe.distributions)
