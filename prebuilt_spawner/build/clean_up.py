"""Removing images that are not wanted any more, while hubs go on starting servers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import SurroundingsError
from .inventory import EnvironmentUse, ImageInventory, InventoryImage
from .retention import ALWAYS_KEPT, Kept, ProfilePackages, Reason, Retention, retention

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What a clean-up did, or would do.

    Attributes:
        removed: What is gone, or would be.
        kept: The rest.
        failures: What went wrong with an image that stays therefore.
    """

    removed: tuple[InventoryImage, ...]
    kept: tuple[Kept, ...]
    failures: tuple[SurroundingsError, ...] = ()


async def clean_up(
    inventory: ImageInventory,
    use: EnvironmentUse,
    *,
    repository: str,
    registry: str = "",
    profiles: Collection[ProfilePackages],
    older_than: timedelta,
    now: Callable[[], datetime],
    dry_run: bool = False,
) -> Cleaned:
    """Remove the images of ours that `retention` says may go.

    A start that has just found such an image does not lose it: each removal is noted in the ledger first, unless the
    image was used meanwhile; whoever wants to use it waits then (`Ledger.use_environment`), and builds it anew.

    Raises:
        SurroundingsError: The engine or the ledger cannot be asked. What fails at one image is in `Cleaned.failures`.
    """
    # Builds first: one that ends between the two looks has noted its use by then.
    being_built = await use.digests_being_built()
    images = await inventory.images()
    found: Retention = retention(
        images,
        repository=repository,
        registry=registry,
        last_uses=await use.last_uses([image.digest for image in images]),
        being_built=being_built,
        profiles=profiles,
        older_than=older_than,
        now=now(),
    )
    if dry_run:
        return Cleaned(removed=found.remove, kept=found.keep)
    removed, kept = [], list(found.keep)
    failures: list[SurroundingsError] = []
    for image in found.remove:
        try:
            reason = await _removed(inventory, use, image, now() - max(older_than, ALWAYS_KEPT))
        except SurroundingsError as error:
            _log.warning("The image of %s was not removed: %s (%s)", image.digest, error.message, error.detail)
            failures.append(error)
            continue
        if reason is None:
            removed.append(image)
        else:
            kept.append(Kept(image=image, reason=reason))
    return Cleaned(removed=tuple(removed), kept=tuple(kept), failures=tuple(failures))


async def _removed(
    inventory: ImageInventory, use: EnvironmentUse, image: InventoryImage, unused_since: datetime
) -> Reason | None:
    """None where it is gone, else why it stays."""
    if not await use.begin_removal(image.digest, unused_since=unused_since):
        return Reason.USED_LATELY
    removed = False
    try:
        for name in image.names:
            removed = await inventory.remove(name)
    finally:
        await use.end_removal(image.digest, removed=removed)
    return None if removed else Reason.IN_USE
