"""Which images of ours are not wanted any more: what there is, and how it is used, to what may go. Pure.

Nothing is looked up here, so that every rule can be tried. Where something is not known, the image stays: what is kept
too long costs disk, and what is removed too early costs somebody's start.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from ..environment.reference import repository_places
from ..image.names import HOLD_TAG
from .inventory import InventoryImage

ALWAYS_KEPT = timedelta(hours=1)
"""What was used within this time stays, whatever is asked: a server is about to be started from it."""


class Reason(str, Enum):
    """Why an image stays."""

    IN_USE = "a container uses it"
    HELD = "a build needs its layers"
    BEING_BUILT = "it is being built"
    NAMELESS = "it has no name, so a build may be making it"
    OTHER_NAME = "it has another name, which is not ours"
    PROFILE = "a profile names it"
    USED_LATELY = "it was used lately"
    UNKNOWN_USE = "the ledger does not know when it was used"


@dataclass(frozen=True, kw_only=True)
class ProfilePackages:
    """What a profile installs.

    Attributes:
        packages: `name==version` of each.
        whole: Whether an image of the profile has all of them. Otherwise (a lock file for several platforms) it has
            some of them, and nothing else.
    """

    packages: frozenset[str]
    whole: bool = True

    def names(self, image: InventoryImage) -> bool:
        """Whether this may be an image of the profile. It is not where the base's name stands for another content by
        now, because the profile's next start is on that."""
        if image.base_digest_now not in ("", image.base_digest):
            return False
        found = frozenset(image.packages)
        return found == self.packages if self.whole else found <= self.packages


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An image that stays."""

    image: InventoryImage
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What to do with each image."""

    remove: tuple[InventoryImage, ...]
    keep: tuple[Kept, ...]


def retention(
    images: Iterable[InventoryImage],
    *,
    repository: str,
    registry: str = "",
    last_uses: Mapping[str, datetime],
    being_built: Collection[str],
    profiles: Collection[ProfilePackages],
    older_than: timedelta,
    now: datetime,
) -> Retention:
    """Divide the images into those to remove and those to keep.

    An image whose use the ledger does not know goes only where `older_than` is zero: the images' own time of creation
    says nothing, since it is the same for all.

    Args:
        images: What the engine holds of ours.
        repository: Where our names are.
        registry: What is before it in them; "" for nothing.
        last_uses: As far as known, by digest.
        being_built: Digests.
        profiles: What they install.
        older_than: How long an image must not have been used.
        now: An aware time.
    """
    places = repository_places(repository, registry)
    remove: list[InventoryImage] = []
    keep: list[Kept] = []
    for image in images:
        reason = _unremovable(image, places, being_built) or _wanted(
            image, last_uses.get(image.digest), profiles, older_than, now
        )
        if reason is None:
            remove.append(image)
        else:
            keep.append(Kept(image=image, reason=reason))
    return Retention(remove=tuple(remove), keep=tuple(keep))


def _unremovable(image: InventoryImage, places: Collection[str], being_built: Collection[str]) -> Reason | None:
    """Why nobody may remove it now, however old it is."""
    if image.in_use:
        return Reason.IN_USE
    named = [name.rpartition(":") for name in image.names]
    if any(place in places and HOLD_TAG.fullmatch(tag) for place, _, tag in named):
        return Reason.HELD
    if image.digest in being_built:
        return Reason.BEING_BUILT
    if not image.names:
        return Reason.NAMELESS
    if any(place not in places or tag != image.digest for place, _, tag in named):
        return Reason.OTHER_NAME
    return None


def _wanted(
    image: InventoryImage,
    last_use: datetime | None,
    profiles: Collection[ProfilePackages],
    older_than: timedelta,
    now: datetime,
) -> Reason | None:
    if any(profile.names(image) for profile in profiles):
        return Reason.PROFILE
    if last_use is None:
        return Reason.UNKNOWN_USE if older_than else None
    return Reason.USED_LATELY if last_use > now - max(older_than, ALWAYS_KEPT) else None
