"""Names of ours that keep images in a Docker Engine for a while."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import docker
from docker.errors import APIError, NotFound

from ..errors import LayersGone
from ..image.names import CHECK_LABEL, HOLD_TAG, STEP_LABEL
from .docker_images import remove, step

_log = logging.getLogger(__name__)

_STALE_SECONDS = 24 * 60 * 60


def hold_tag(image_id: str) -> str:
    """A tag of ours alone, with the time in it: a process that is killed leaves it behind."""
    return f"hold-{image_id.rpartition(':')[2][:16]}-{int(time.time()):08x}-{secrets.token_hex(4)}"


def take_hold(client: docker.APIClient, image_id: str, repository: str, tag: str) -> None:
    """Give an image this name.

    Raises:
        LayersGone: There is no such image.
    """
    try:
        client.tag(image_id, repository, tag)
    except NotFound as error:
        raise LayersGone("An image that was needed has gone. Start again.", detail=str(error)) from error


def release_hold(client: docker.APIClient, repository: str, tag: str) -> None:
    """Take the name away, and the image with it if that was its last one."""
    with contextlib.suppress(NotFound):
        remove(client, f"{repository}:{tag}")


@contextmanager
def held(client: docker.APIClient, image_id: str, repository: str) -> Iterator[str]:
    """The image's name while entered.

    Raises:
        LayersGone: There is no such image.
    """
    tag = hold_tag(image_id)
    take_hold(client, image_id, repository, tag)
    try:
        yield f"{repository}:{tag}"
    finally:
        release_hold(client, repository, tag)


def release_stale(client: docker.APIClient, repositories: Iterable[str]) -> None:
    """Remove the names of holds, the images on a builder's way and the containers of checks that no process can need
    any more. Other processes, on other machines too, may hold images in these repositories, so only age tells."""
    oldest = time.time() - _STALE_SECONDS
    for repository in repositories:
        for image in client.images(repository):
            for name in image.get("RepoTags") or ():
                made = HOLD_TAG.fullmatch(name.removeprefix(f"{repository}:"))
                if made is not None and int(made[1], 16) < oldest:
                    _log.info("Removing %s, which a process that was killed left behind", name)
                    with contextlib.suppress(APIError):
                        remove(client, name)
    # Of newer ones something may be made yet. Those that something was made of are refused.
    for image in client.images(all=True, filters={"label": STEP_LABEL}):
        if image["Created"] < oldest and step(client, image["Id"]) is not None:
            with contextlib.suppress(APIError):
                remove(client, image["Id"])
    for container in client.containers(all=True, filters={"label": CHECK_LABEL, "status": "created"}):
        if container["Created"] < oldest:
            _log.info("Removing the container %s, which a process that was killed left behind", container["Id"])
            with contextlib.suppress(APIError):
                client.remove_container(container, v=True)
