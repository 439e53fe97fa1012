"""The command `prebuilt-spawner`, for terminals and cron.

It ends with 0 when it is done, 1 when what was asked cannot be, 2 when it was called wrong, and 3 when the engine, the
ledger or a disk failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from ._version import __version__
from .adapters.docker_inventory import DockerInventory
from .build.clean_up import Cleaned, clean_up
from .build.inventory import EnvironmentUse, InventoryImage
from .build.retention import ProfilePackages
from .errors import PrebuiltError, RequestError, StorageFailure
from .hub.config_file import HubConfiguration
from .ledger import SqlLedger

DONE, REQUEST_FAULT, USAGE, SURROUNDINGS_FAULT = 0, 1, 2, 3
_SHOWN_PACKAGES = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_gc(options))
    except PrebuiltError as error:
        _tell(error)
        return REQUEST_FAULT if isinstance(error, RequestError) else SURROUNDINGS_FAULT
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prebuilt-spawner", description="Looks after the images of PrebuiltSpawner.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    gc = commands.add_parser(
        "gc",
        help="remove images that nobody needs",
        description="Removes images of ours that no container uses, no profile names, and nobody started a server from "
        "for some days. Run it in the hub's working folder; the hub may go on working.",
    )
    gc.add_argument(
        "--older-than",
        required=True,
        type=_days,
        metavar="DAYS",
        help="days since the last use; 0 also removes images whose last use the ledger does not know",
    )
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    gc.add_argument("--json", action="store_true", help="print one JSON object")
    gc.add_argument(
        "--config",
        type=_file,
        default="jupyterhub_config.py",
        metavar="FILE",
        help="the hub's configuration (default: %(default)s)",
    )
    return parser


def _days(text: str) -> timedelta:
    days = float(text)
    if not (math.isfinite(days) and 0 <= days <= 36500):
        raise ValueError
    return timedelta(days=days)


_days.__name__ = "number of days"  # what argparse calls it in its message


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path


async def _gc(options: argparse.Namespace) -> int:
    configuration = HubConfiguration(options.config)
    settings = configuration.settings.for_runtime()
    _require_ledger(settings.db_url)
    ledger = SqlLedger(settings.db_url)
    inventory = DockerInventory(
        repository=settings.repository, registry=settings.registry, client_kwargs=settings.client_kwargs
    )
    try:
        cleaned = await clean_up(
            inventory,
            ledger,
            repository=settings.repository,
            registry=settings.registry,
            profiles=[*configuration.packages_without_locks(), *await _locked(configuration, ledger)],
            older_than=options.older_than,
            now=lambda: datetime.now(timezone.utc),
            dry_run=options.dry_run,
        )
        # What is gone is not known any more.
        uses = await ledger.last_uses([image.digest for image in cleaned.removed]) if options.dry_run else {}
    finally:
        await inventory.close()
        await ledger.close()
    if options.json:
        print(json.dumps(_as_json(cleaned, dry_run=options.dry_run), indent=2))
    else:
        _print(cleaned, uses, dry_run=options.dry_run)
    for failure in cleaned.failures:
        _tell(failure)
    return SURROUNDINGS_FAULT if cleaned.failures else DONE


def _require_ledger(db_url: str) -> None:
    """Refuse to make a ledger: an empty one knows no use and no profile's lock.

    Raises:
        StorageFailure: There is none.
    """
    try:
        url = make_url(db_url)
    except (SQLAlchemyError, ValueError):
        return  # said by the ledger itself
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    if is_file and not str(url.database).startswith("file:") and not Path(str(url.database)).is_file():
        raise StorageFailure(
            f"There is no ledger {url.database}. Run this in the hub's working folder, or give db_url an absolute path."
        )


async def _locked(configuration: HubConfiguration, use: EnvironmentUse) -> list[ProfilePackages]:
    """What the profiles install whose locks the ledger has; those that are not configured any more do not count."""
    profiles = configuration.profiles
    configured = None if profiles is None else {profile.slug for profile in profiles if not profile.lock}
    return [
        ProfilePackages(packages=frozenset(lock.packages))
        for slug, locks in (await use.profile_locks()).items()
        if configured is None or slug in configured
        for lock in locks
    ]


def _as_json(cleaned: Cleaned, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "removed": [_image_as_json(image) for image in cleaned.removed],
        "removed_bytes": sum(image.added_bytes for image in cleaned.removed),
        "kept": [{**_image_as_json(kept.image), "reason": kept.reason.name.lower()} for kept in cleaned.kept],
        "failures": [failure.message for failure in cleaned.failures],
    }


def _image_as_json(image: InventoryImage) -> dict[str, Any]:
    return {
        "names": list(image.names),
        "digest": image.digest,
        "id": image.image_id,
        "packages": list(image.packages),
        "bytes": image.added_bytes,
    }


def _print(cleaned: Cleaned, uses: Mapping[str, datetime], *, dry_run: bool) -> None:
    for image in cleaned.removed:
        used = f", used last on {uses[image.digest]:%Y-%m-%d}" if image.digest in uses else ""
        print(f"{', '.join(image.names)}: {_size(image.added_bytes)}{used}, {_packages(image)}")
    total = _size(sum(image.added_bytes for image in cleaned.removed))
    images = "1 image" if len(cleaned.removed) == 1 else f"{len(cleaned.removed)} images"
    # Layers that others share count for each, and stay: what is free afterwards may be less.
    print(f"{'Would remove' if dry_run else 'Removed'} {images}, at most {total} besides their bases.")
    for reason, count in Counter(kept.reason for kept in cleaned.kept).most_common():
        print(f"Kept {count}: {reason.value}.")


def _packages(image: InventoryImage) -> str:
    if not image.packages:
        return "no packages"
    more = f" and {len(image.packages) - _SHOWN_PACKAGES} more" if len(image.packages) > _SHOWN_PACKAGES else ""
    return ", ".join(image.packages[:_SHOWN_PACKAGES]) + more


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def _tell(error: PrebuiltError) -> None:
    print(f"prebuilt-spawner: {error.message}", file=sys.stderr)
    if error.detail:
        print(error.detail, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
