"""What a hub that was killed left behind, put in order when it starts again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from ..errors import SurroundingsError
from .history import BuildHistory, BuildRecord, Outcome
from .inventory import EnvironmentUse, ImageInventory

_log = logging.getLogger(__name__)


class BuildMemory(BuildHistory, EnvironmentUse, Protocol):
    """What recovery needs of a ledger."""


async def recover(ledger: BuildMemory, inventory: ImageInventory, *, hub: str) -> Sequence[BuildRecord]:
    """Mark the builds that this hub left running as interrupted, and remove what they left half-made.

    That are images without a name, and the containers that probe, compile and check. Images that another hub makes at
    this moment stay, and so does everything that a container of somebody else uses. To be called once, before the first
    build.

    Returns:
        The builds that were interrupted, oldest first.

    Raises:
        StorageFailure: The ledger cannot be used. What fails at the engine is in the log only: it is tried again at the
            next start, and a hub may start before its engine.
    """
    interrupted = await ledger.interrupt_builds(hub=hub)
    for record in interrupted:
        _log.warning("The hub ended during build %d (%s)", record.id, record.digest[:12] or "not resolved yet")
    try:
        containers = await inventory.remove_left_helpers(hub=hub)
        images = await _remove_half_made(ledger, inventory)
    except SurroundingsError as error:
        _log.error("What interrupted builds left behind was not removed: %s (%s)", error.message, error.detail)
    else:
        if containers or images:
            _log.info("Removed %d half-made images and %d containers of interrupted builds", images, containers)
    return interrupted


async def _remove_half_made(ledger: BuildMemory, inventory: ImageInventory) -> int:
    """Remove the nameless images of builds that did not get to their end; how many there were."""
    images = [image for image in await inventory.images() if not image.names and not image.in_use]
    removed = 0
    for image in images:
        last = await ledger.last_builds(digest=image.digest)
        # One that is not known may be another hub's, with a ledger of its own.
        if not last or last[0].outcome is Outcome.DONE or image.digest in await ledger.digests_being_built():
            continue
        await inventory.discard(image.image_id)
        removed += 1
    return removed
