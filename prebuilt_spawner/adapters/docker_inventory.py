"""What a Docker Engine holds of ours: images, and the containers that probe, compile, build and check."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import docker
from docker.errors import APIError, NotFound

from ..build.inventory import InventoryImage
from ..environment.reference import repository_places
from ..image.names import (
    BASE_DIGEST_LABEL,
    CHECK_LABEL,
    COMPILER_LABEL,
    DIGEST_LABEL,
    HUB_LABEL,
    PACKAGES_LABEL,
    PROBE_LABEL,
    SANDBOX_LABEL,
)
from .docker_bases import base_of, labels_of
from .docker_client import DockerClient
from .docker_images import remove

_log = logging.getLogger(__name__)

_BASE_NAME_LABEL = "org.opencontainers.image.base.name"

HELPER_GRACE = timedelta(seconds=10)
"""How long a helper container may have ended without being removed: another hub may be about to read what it said."""
_NEVER_STARTED_GRACE = timedelta(minutes=10)


class DockerInventory:
    """Implements `prebuilt_spawner.build.inventory.ImageInventory` over Docker's API.

    Args:
        repository: Where our images are named.
        registry: What is before it in their names; "" for nothing.
        client_kwargs: For `docker.APIClient`, before what the environment says.
        labels: What helper containers carry besides our own labels; others are left alone.
        helper_grace: See `HELPER_GRACE`.
    """

    def __init__(
        self,
        *,
        repository: str,
        registry: str = "",
        client_kwargs: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        helper_grace: timedelta = HELPER_GRACE,
    ) -> None:
        self._places = repository_places(repository, registry)
        self._helper_labels = [f"{key}={value}" for key, value in (labels or {}).items()]
        self._helper_grace = helper_grace
        self._docker = DockerClient(client_kwargs or {}, threads=2)

    async def images(self) -> list[InventoryImage]:
        """See `ImageInventory.images`."""
        return await self._docker.run_slow(lambda client, stop: _images(client, self._places, stop))

    async def remove(self, name: str) -> bool:
        """See `ImageInventory.remove`."""
        return await self._docker.run_slow(lambda client, stop: _remove(client, name))

    async def discard(self, image_id: str) -> None:
        """See `ImageInventory.discard`."""
        await self._docker.run_slow(lambda client, stop: _discard(client, image_id))

    async def remove_left_helpers(self, *, hub: str) -> int:
        """See `ImageInventory.remove_left_helpers`."""
        return await self._docker.run_slow(
            lambda client, stop: _remove_left_helpers(client, self._helper_labels, hub, self._helper_grace)
        )

    async def close(self) -> None:
        """See `ImageInventory.close`."""
        await self._docker.close()


def _images(client: docker.APIClient, places: Collection[str], stop: threading.Event) -> list[InventoryImage]:
    # A container names its image by ID or by name, whichever still means it.
    used = {value for one in client.containers(all=True) for value in (one.get("ImageID"), one.get("Image"))}
    bases: dict[str, tuple[str, int]] = {}
    found = []
    for image in client.images(filters={"label": DIGEST_LABEL}):
        if stop.is_set():
            break
        # A nameless one is listed as `<none>:<none>` by some versions, and one that was pulled also by its digest.
        listed = image.get("RepoTags") or ()
        names = tuple(sorted(name for name in listed if name != "<none>:<none>" and "@" not in name))
        if names and not any(name.rpartition(":")[0] in places for name in names):
            continue
        labels = image.get("Labels") or {}
        base_name = labels.get(_BASE_NAME_LABEL) or ""
        if base_name not in bases:
            bases[base_name] = _base(client, base_name)
        base_digest_now, base_bytes = bases[base_name]
        size_bytes = int(image.get("Size") or 0)
        same_base = base_digest_now == labels.get(BASE_DIGEST_LABEL)
        found.append(
            InventoryImage(
                image_id=image["Id"],
                digest=labels[DIGEST_LABEL],
                base_digest=labels.get(BASE_DIGEST_LABEL) or "",
                base_digest_now=base_digest_now,
                packages=_packages(labels.get(PACKAGES_LABEL)),
                names=names,
                size_bytes=size_bytes,
                added_bytes=max(size_bytes - base_bytes, 0) if same_base else size_bytes,
                in_use=not used.isdisjoint({image["Id"], *names}),
            )
        )
    return found


def _base(client: docker.APIClient, name: str) -> tuple[str, int]:
    """The digest and size of what is under a base's name; ("", 0) where there is nothing."""
    if not name:
        return "", 0
    try:
        found = client.inspect_image(name)
    except NotFound:
        return "", 0
    return base_of(found, name).digest, int(found.get("Size") or 0)


def _packages(label: str | None) -> tuple[str, ...]:
    try:
        found = json.loads(label or "[]")
    except ValueError:
        return ()
    return tuple(str(package) for package in found) if isinstance(found, list) else ()


def _remove(client: docker.APIClient, name: str) -> bool:
    try:
        image_id = client.inspect_image(name)["Id"]
        # The engine refuses to remove the last name of an image that is used, but no other.
        if _is_used(client, image_id):
            return False
        remove(client, name)
    except NotFound:
        return True
    except APIError as error:
        if error.status_code == 409:
            return False
        raise
    return True


def _is_used(client: docker.APIClient, image_id: str) -> bool:
    return any(one.get("ImageID") == image_id for one in client.containers(all=True, filters={"ancestor": image_id}))


def _discard(client: docker.APIClient, image_id: str) -> None:
    with contextlib.suppress(NotFound):
        if not client.inspect_image(image_id).get("RepoTags"):
            try:
                remove(client, image_id)
            except APIError as error:
                if error.status_code != 409:
                    raise


def _remove_left_helpers(client: docker.APIClient, labels: list[str], hub: str, grace: timedelta) -> int:
    # The engine's clock and ours may differ by more than the grace; its own word of now has no other source.
    now = _time(client.info().get("SystemTime")) or datetime.now(timezone.utc)
    removed = 0
    for container in _helpers(client, labels):
        try:
            state = client.inspect_container(container)
            own = labels_of(state).get(HUB_LABEL) == hub
            if not own and not _has_ended(state, now, grace):
                continue
            client.remove_container(container, v=True, force=own)
        except NotFound:
            continue
        except APIError as error:
            if error.status_code != 409:  # it is being removed already
                raise
            continue
        _log.info("Removed the container %s, which a hub that was killed left behind", state["Name"].lstrip("/"))
        removed += 1
    return removed


def _helpers(client: docker.APIClient, labels: list[str]) -> Iterable[str]:
    for label in (PROBE_LABEL, COMPILER_LABEL, SANDBOX_LABEL, CHECK_LABEL):
        for container in client.containers(all=True, filters={"label": [label, *labels]}):
            yield container["Id"]


def _has_ended(found: Mapping[str, Any], now: datetime, grace: timedelta) -> bool:
    state = found["State"]
    if state["Status"] == "created":
        created = _time(found.get("Created"))
        return created is not None and created < now - max(grace, _NEVER_STARTED_GRACE)
    finished = _time(state.get("FinishedAt"))
    return state["Status"] in ("exited", "dead") and finished is not None and finished <= now - grace


def _time(text: str | None) -> datetime | None:
    """The time that the engine writes as `2030-01-01T12:00:00.123456789+02:00`; None where it is none."""
    if not text:
        return None
    seconds, _, rest = text.replace("Z", "+00:00").partition(".")
    zone = next((rest[index:] for index, letter in enumerate(rest) if letter in "+-"), "")
    try:
        found = datetime.fromisoformat(seconds + zone if rest else seconds)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
