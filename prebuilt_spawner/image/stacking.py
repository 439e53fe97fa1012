"""On which image that exists a new one is stacked. Pure: whether it exists is asked elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StackedLayer:
    """A layer of an image of ours, as the ledger remembers it.

    Attributes:
        diff_id: The uncompressed layer's digest (`sha256:…`).
        wheels: SHA-256 of the wheels whose fragments it holds, each whole; none for whiteouts.
    """

    diff_id: str
    wheels: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The layers that an image of ours has on top of its base, but for the last, which holds notes about the image.

    Attributes:
        digest: The environment digest of the image.
        layers: Lowest first.
    """

    digest: str
    layers: tuple[StackedLayer, ...]

    @property
    def wheels(self) -> frozenset[str]:
        """Those of all its layers."""
        return frozenset().union(*(layer.wheels for layer in self.layers))


def usable(stack: Stack, *, wheels: Iterable[str], whiteouts: str | None) -> Stack:
    """The lowest layers of a stack that an environment can have, too.

    Args:
        stack: Of an image on the same base, of the same layout version.
        wheels: SHA-256 of the environment's wheels.
        whiteouts: The digest of the layer that takes its replaced packages away; None where it replaces none. On
            layers that take nothing away, it can still be put.
    """
    wanted = frozenset(wheels)
    layers: list[StackedLayer] = []
    for layer in stack.layers:
        if not (layer.wheels <= wanted if layer.wheels else layer.diff_id == whiteouts):
            break
        layers.append(layer)
    if all(not layer.wheels for layer in layers):
        layers.clear()  # whiteouts alone are not worth another image's company
    return Stack(digest=stack.digest, layers=tuple(layers))


def best_first(
    stacks: Iterable[Stack], *, sizes_bytes: Mapping[str, int], whiteouts: str | None, max_layers: int
) -> list[Stack]:
    """What an environment can be stacked on: the usable layers of each stack, those that save most first.

    Args:
        stacks: Of images on the same base, of the same layout version.
        sizes_bytes: Of the fragments of the environment's wheels, by the wheel's SHA-256.
        whiteouts: See `usable`.
        max_layers: Leave out what is deeper.
    """
    found = [usable(stack, wheels=sizes_bytes, whiteouts=whiteouts) for stack in stacks]
    worth = [stack for stack in found if 0 < len(stack.layers) <= max_layers]
    return sorted(
        worth, key=lambda stack: (-sum(sizes_bytes[wheel] for wheel in stack.wheels), len(stack.layers), stack.digest)
    )
