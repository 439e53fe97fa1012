"""What cleaning up needs of the world, and the values that cross the border; as in `interface`, from the adapters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ..environment.lock import Lock


class EnvironmentUse(Protocol):
    """What the memory knows that decides which images are still wanted. Everything may raise `StorageFailure`."""

    async def last_uses(self, digests: Collection[str]) -> Mapping[str, datetime]:
        """When each of these environments was made or used last, by digest; those that are not known are left out."""

    async def profile_locks(self) -> Mapping[str, Sequence[Lock]]:
        """The locks that each profile holds, by its slug: the last one for each request."""

    async def digests_being_built(self) -> Collection[str]:
        """The environments that some hub builds now."""

    async def begin_removal(self, digest: str, *, unused_since: datetime) -> bool:
        """The image of this environment is about to be removed; False where it was used after that time, is being
        built, or somebody else removes it. Until the removal ends, `Ledger.use_environment` waits."""

    async def end_removal(self, digest: str, *, removed: bool) -> None:
        """A removal has ended. Where it `removed` the image, nothing can be stacked on it any more."""


@dataclass(frozen=True, kw_only=True)
class InventoryImage:
    """An image of ours as an engine lists it.

    Attributes:
        image_id: The engine's own ID.
        digest: The environment digest, from its label.
        base_digest: The base's identity by content, from its label.
        base_digest_now: That of what the engine has under the base's name today; "" where it has nothing.
        packages: `name==version` of what its lock installs, from its label.
        names: All of them.
        size_bytes: As the engine counts it, shared layers included.
        added_bytes: The same without its base, where that is there.
        in_use: Whether a container uses it, running or not.
    """

    image_id: str
    digest: str
    base_digest: str
    base_digest_now: str
    packages: tuple[str, ...]
    names: tuple[str, ...]
    size_bytes: int
    added_bytes: int
    in_use: bool


class ImageInventory(Protocol):
    """The images and helper containers of ours that an engine holds.

    Everything may raise `EngineUnavailable` and `EngineFailure`.
    """

    async def images(self) -> Sequence[InventoryImage]:
        """The images of ours that have a name in our repository, or none at all. With a registry it is in either of
        `environment.reference.repository_places`."""

    async def remove(self, name: str) -> bool:
        """Take a name away, and the image with its last one. Where it is not there, that is as good; False where a
        container uses the image, which keeps its name then."""

    async def discard(self, image_id: str) -> None:
        """Remove an image that has no name and that no container uses; otherwise do nothing."""

    async def remove_left_helpers(self, *, hub: str) -> int:
        """Remove the containers that probe bases, compile for them or check images and were left behind: all that this
        hub made, which makes none yet, and those of others that ended a while ago; returns how many."""

    async def close(self) -> None:
        """Release connections and threads."""
