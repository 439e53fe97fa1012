"""What a build needs of a registry that engines share, and the values that cross the border; as in `interface`.

Three answers are told apart: the image is not there (None), the hub may not look or write (`RegistryRefusal`), and
nobody knows (`RegistryUnavailable`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ..environment.base import BaseImage
from ..image.layer import ImagePlan
from .events import Report
from .interface import DerivedImage


@dataclass(frozen=True, kw_only=True)
class PublishedImage:
    """What a registry has under a tag.

    Attributes:
        manifest_digest: `sha256:…` of the manifest's bytes.
        config: The image's configuration file (OCI image spec), which the manifest names by its hash; None where the
            manifest is not that of an image for one platform.
        size_bytes: Of its layers as they are sent.
    """

    manifest_digest: str
    config: Mapping[str, Any] | None
    size_bytes: int


LayerTaker: TypeAlias = Callable[[str, Iterator[bytes]], None]
"""Takes a layer: its digest (`sha256:…`), "" where it is not known before it is read, and its uncompressed bytes. They
need not be read to the end."""


@dataclass(frozen=True, kw_only=True)
class BaseContent:
    """Where the layers of a base are.

    Attributes:
        names: `<registry>/<repository>@sha256:…` of the manifests that the engine pulled it by; sorted.
        save: Gives each of its layers to the taker, in any order; blocks the thread. It ends soon after the event is
            set. Raises the engine's errors, and what the taker raises.
    """

    names: tuple[str, ...]
    save: Callable[[LayerTaker, threading.Event], None]


@dataclass(frozen=True, kw_only=True)
class Push:
    """What a push did.

    Attributes:
        manifest_digest: What is under the tag now.
        was_there: Whether there was something before, which was left as it is.
        sent_bytes: Of blobs and the manifest.
        present_bytes: Of layers that the registry had.
        mounted_bytes: Of layers that it took over from another of its repositories.
    """

    manifest_digest: str
    was_there: bool
    sent_bytes: int = 0
    present_bytes: int = 0
    mounted_bytes: int = 0


class Registry(Protocol):
    """One repository of one registry, in which a tag is an environment digest.

    Everything may raise `RegistryRefusal` and `RegistryUnavailable`, and can be cancelled.
    """

    async def find(self, tag: str) -> PublishedImage | None:
        """What is under this tag; None where nothing is."""

    async def push(self, tag: str, plan: ImagePlan, base: BaseContent) -> Push:
        """Put an image there that stands on nothing but its base, unless there is something under the tag already: a
        tag is never moved. The tag comes last, so that nothing half-made is ever under it.

        Raises:
            StorageFailure: A fragment is gone from the hub's disk.
            EngineUnavailable, EngineFailure: The base's layers cannot be had.
        """

    async def close(self) -> None:
        """Stop what runs."""


class Transfers(Protocol):
    """What an engine does with a registry. Everything may raise `EngineUnavailable` and `EngineFailure`."""

    def pulled(self, manifest_digest: str, *, report: Report) -> AbstractAsyncContextManager[DerivedImage]:
        """While entered, the engine has the image of this manifest, checked that it can be started, without a name of
        ours. Afterwards it stays if it was tagged.

        Raises:
            EngineFailure: It cannot be pulled, or not in reasonable time.
        """

    async def content(self, base: BaseImage) -> BaseContent:
        """Where the layers of this base are.

        Raises:
            LayersGone: The engine does not have it.
        """

    async def close(self) -> None:
        """Release connections and threads."""
