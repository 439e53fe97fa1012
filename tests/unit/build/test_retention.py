"""Which images go and which stay, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from prebuilt_spawner.build.inventory import InventoryImage
from prebuilt_spawner.build.retention import ALWAYS_KEPT, ProfilePackages, Reason, retention

NOW = datetime(2030, 1, 31, tzinfo=timezone.utc)
DAY = timedelta(days=1)
DIGEST = "d" * 64
IMAGE = InventoryImage(
    image_id="sha256:1",
    digest=DIGEST,
    base_digest="base",
    base_digest_now="base",
    packages=("numpy==2.0", "pandas==3.0"),
    names=(f"ours/env:{DIGEST}",),
    size_bytes=20,
    added_bytes=10,
    in_use=False,
)
HOLD = "ours/env:hold-0123456789abcdef-01234567-89abcdef"


def decided(image: InventoryImage = IMAGE, *, used: timedelta | None = 30 * DAY, **changes) -> Reason | None:
    """Why it stays; None where it goes."""
    known = {
        "repository": "ours/env",
        "last_uses": {} if used is None else {image.digest: NOW - used},
        "being_built": (),
        "profiles": (),
        "older_than": 14 * DAY,
        "now": NOW,
    }
    found = retention([image], **{**known, **changes})
    assert [*found.remove, *(kept.image for kept in found.keep)] == [image]
    return found.keep[0].reason if found.keep else None


def test_what_was_not_used_for_long_goes():
    assert decided() is None


@pytest.mark.parametrize(("days", "reason"), [(13, Reason.USED_LATELY), (14, None), (15, None)])
def test_the_limit_is_how_long_it_was_not_used(days, reason):
    assert decided(used=days * DAY) is reason


def test_what_was_used_within_the_hour_stays_whatever_is_asked():
    assert decided(used=ALWAYS_KEPT - timedelta(seconds=1), older_than=timedelta()) is Reason.USED_LATELY
    assert decided(used=ALWAYS_KEPT, older_than=timedelta()) is None


def test_a_use_in_the_future_counts_as_lately():
    """Clocks of hub and ledger may differ."""
    assert decided(used=-DAY, older_than=timedelta()) is Reason.USED_LATELY


def test_what_the_ledger_does_not_know_goes_only_where_everything_may():
    assert decided(used=None) is Reason.UNKNOWN_USE
    assert decided(used=None, older_than=timedelta(seconds=1)) is Reason.UNKNOWN_USE
    assert decided(used=None, older_than=timedelta()) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"in_use": True}, Reason.IN_USE),
        ({"names": (f"ours/env:{DIGEST}", HOLD)}, Reason.HELD),
        ({"names": (HOLD,)}, Reason.HELD),
        ({"names": ()}, Reason.NAMELESS),
        ({"names": (f"ours/env:{DIGEST}", "copy:1")}, Reason.OTHER_NAME),
        ({"names": (f"ours/env:{'e' * 64}",)}, Reason.OTHER_NAME),
        ({"names": (f"theirs/env:{DIGEST}",)}, Reason.OTHER_NAME),
        ({"names": ("ours/env:hold-1",)}, Reason.OTHER_NAME),
    ],
)
def test_what_somebody_needs_stays_however_old_it_is(changes, reason):
    image = replace(IMAGE, **changes)
    assert decided(image, older_than=timedelta()) is reason
    assert decided(image, used=None, older_than=timedelta()) is reason


def test_what_is_being_built_stays():
    assert decided(used=None, older_than=timedelta(), being_built={DIGEST}) is Reason.BEING_BUILT


def test_what_a_profile_names_stays():
    named = ProfilePackages(packages=frozenset(IMAGE.packages))
    assert decided(profiles=[named]) is Reason.PROFILE
    assert decided(used=None, older_than=timedelta(), profiles=[named]) is Reason.PROFILE


@pytest.mark.parametrize("packages", [("numpy==2.0",), ("numpy==2.1", "pandas==3.0"), (*IMAGE.packages, "six==1"), ()])
def test_what_has_other_packages_than_the_profile_is_not_the_profiles(packages):
    assert decided(profiles=[ProfilePackages(packages=frozenset(packages))]) is None


def test_what_has_a_part_of_a_lock_file_may_be_its_profiles():
    """A lock file for several platforms has packages that one platform does not get."""
    wide = ProfilePackages(packages=frozenset([*IMAGE.packages, "pywin32==300"]), whole=False)
    assert decided(profiles=[wide]) is Reason.PROFILE
    assert decided(profiles=[replace(wide, packages=frozenset(["numpy==2.0"]))]) is None


def test_a_profiles_image_on_what_its_base_was_before_is_not_the_profiles_any_more():
    named = ProfilePackages(packages=frozenset(IMAGE.packages))
    assert decided(replace(IMAGE, base_digest_now="patched"), profiles=[named]) is None
    assert decided(replace(IMAGE, base_digest_now=""), profiles=[named]) is Reason.PROFILE, "the base is not there now"


def test_each_image_is_decided_by_itself_and_keeps_its_place():
    images = [replace(IMAGE, digest=f"{n}" * 64, names=(f"ours/env:{n}" + f"{n}" * 63,)) for n in range(4)]
    found = retention(
        images,
        repository="ours/env",
        last_uses={image.digest: NOW - n * 10 * DAY for n, image in enumerate(images)},
        being_built=(),
        profiles=(),
        older_than=14 * DAY,
        now=NOW,
    )
    assert list(found.remove) == images[2:]
    assert [kept.image for kept in found.keep] == images[:2]


def test_with_a_registry_both_names_of_an_image_are_ours():
    """That of today and that from before; a name in another registry is not."""
    with_registry = {"registry": "registry.test:5000"}
    full = f"registry.test:5000/ours/env:{DIGEST}"
    assert decided(replace(IMAGE, names=(full,)), **with_registry) is None
    assert decided(replace(IMAGE, names=IMAGE.names), **with_registry) is None
    assert decided(replace(IMAGE, names=(*IMAGE.names, full)), **with_registry) is None
    assert decided(replace(IMAGE, names=(full,))) is Reason.OTHER_NAME
    assert decided(replace(IMAGE, names=(f"other.test/ours/env:{DIGEST}",)), **with_registry) is Reason.OTHER_NAME
    assert decided(replace(IMAGE, names=(full, HOLD)), **with_registry) is Reason.HELD
