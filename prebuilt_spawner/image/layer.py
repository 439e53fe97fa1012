"""Layers as values: a layer is a list of byte ranges, so that nothing is copied before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..environment.base import BaseImage

SOURCE_DATE_EPOCH = 315532800
"""The one time that everything of ours in an image has, in seconds: 1980-01-01, the first that zip archives know."""

LAYOUT_VERSION = 3
"""Changes whenever the same wheels would give other files than before, in content, place or mode."""


@dataclass(frozen=True, kw_only=True)
class FileRange:
    """A piece of a file on the hub's disk."""

    path: Path
    offset_bytes: int
    length_bytes: int


Part: TypeAlias = bytes | FileRange


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One uncompressed tar layer, whole: folder entries, files, end-of-archive mark.

    Attributes:
        comment: What it holds, for the image's history.
        parts: Its bytes, in order.
        wheels: SHA-256 of the wheels whose fragments it holds, each whole.
    """

    comment: str
    parts: tuple[Part, ...]
    wheels: frozenset[str] = frozenset()

    @property
    def size_bytes(self) -> int:
        """Of the tar."""
        return sum(len(part) if isinstance(part, bytes) else part.length_bytes for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class LowerLayers:
    """What an image is stacked on.

    Attributes:
        image_id: An image that has these layers lowest, as the engine calls it; it may have more.
        diff_ids: The uncompressed layers' digests, lowest first.
    """

    image_id: str
    diff_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """An image to be made: what lies below, what is added, how it is configured.

    Attributes:
        base: The image that the environment stands on; the configuration is its own but for what is added.
        lower: The layers that the engine has already: the base's, and perhaps some of another environment's on top.
        layers: What is sent, lowest first.
        labels: Added to the base's; ours win.
        environment: Environment variables that are added to the base's; ours win.
        digest: The environment digest, 64 hex digits.
    """

    base: BaseImage
    lower: LowerLayers
    layers: tuple[Layer, ...]
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    digest: str


JsonObject: TypeAlias = dict[str, Any]
