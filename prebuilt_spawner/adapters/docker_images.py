"""Images as a Docker Engine has them: found, checked and thrown away."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import docker
from docker.errors import APIError, NotFound

from ..build.interface import DerivedImage
from ..environment.digest import runtime_config
from ..environment.reference import Reference, parse_reference
from ..errors import EngineFailure, MalformedRequest
from ..image.config import derived_config
from ..image.layer import ImagePlan, LowerLayers
from ..image.names import BASE_DIGEST_LABEL, CHECK_LABEL, DIGEST_LABEL, STEP_LABEL
from .docker_bases import labels_of
from .docker_client import Cancelled, engine_error

_log = logging.getLogger(__name__)

_FEW = 20
"""How many images are inspected one by one (1.2 ms each); listing 300 takes 35 ms, however many are meant."""


def find(client: docker.APIClient, reference: str) -> DerivedImage | None:
    """See `prebuilt_spawner.build.interface.Engine.find`."""
    try:
        found = client.inspect_image(reference)
    except NotFound:
        return None
    if labels_of(found).get(DIGEST_LABEL) != parse_reference(reference).tag:
        _log.error("The image %s was not made by this spawner: it is left alone and not used", reference)
        return None
    return derived_image(found, reference=reference)


def present(client: docker.APIClient, references: Collection[str], stop: threading.Event) -> set[str]:
    """See `prebuilt_spawner.build.interface.Engine.present`."""
    if len(references) <= _FEW:
        there = set()
        for reference in references:
            if stop.is_set():
                raise Cancelled
            if find(client, reference) is not None:
                there.add(reference)
        return there
    # All of ours, whatever their names are: the engine has its own idea of how the names in a filter are written.
    listed = client.images(filters={"label": DIGEST_LABEL})
    names = {
        str(name)
        for image in listed
        for name in map(_name, image.get("RepoTags") or ())
        if name is not None and name.tag == (image.get("Labels") or {}).get(DIGEST_LABEL)
    }
    return {reference for reference in references if str(parse_reference(reference)) in names}


def _name(tag: str) -> Reference | None:
    """A name in the engine's list, where a nameless image may be `<none>:<none>`."""
    try:
        return parse_reference(tag)
    except MalformedRequest:
        return None


def checked(
    client: docker.APIClient,
    image_id: str,
    plan: ImagePlan,
    *,
    labels: Mapping[str, str],
    own_layers: Iterable[str] | None = None,
    absent: Iterable[str] = (),
) -> DerivedImage:
    """The image that was made of a plan, if the engine has it as it was sent and can start it.

    Args:
        labels: For the container that is made for a moment.
        own_layers: The digests of the plan's layers; None where the engine packed them itself.
        absent: Absolute paths that may not be in the image.

    Raises:
        EngineFailure: It has not, or cannot.
        docker.errors.NotFound: There is no such image.
    """
    found = client.inspect_image(image_id)
    layers, lower = tuple(found["RootFS"].get("Layers") or ()), plan.lower.diff_ids
    own = layers[len(lower) :]
    if layers[: len(lower)] != lower or len(own) != len(plan.layers) or own != tuple(own_layers or own):
        raise _not_as_sent(image_id, f"it has the layers {layers}")
    wanted = runtime_config(json.loads(derived_config(plan, own))["config"])
    config = found.get("Config") or {}
    written = {label: value for label, value in labels_of(found).items() if label != STEP_LABEL}
    config = runtime_config({**config, "Labels": written})
    if "Env" in config and not any(map(_is_path, wanted.get("Env", ()))):
        # The builder writes down the PATH that containers of such an image have anyway.
        config = runtime_config({**config, "Env": [entry for entry in config["Env"] if not _is_path(entry)]})
    if config != wanted or labels_of(found).get(DIGEST_LABEL) != plan.digest:
        different = sorted(key for key in wanted.keys() | config.keys() if wanted.get(key) != config.get(key))
        raise _not_as_sent(image_id, f"its configuration differs in {different}")
    require_startable(client, image_id, labels=labels, absent=absent)
    if not _is_whole(client, image_id, filters={"label": [f"{DIGEST_LABEL}={plan.digest}"]}):
        raise _not_as_sent(image_id, "some of its layers' content is not there")
    return derived_image(found, reference="")


def has_lower_layers(client: docker.APIClient, lower: LowerLayers, *, labels: Mapping[str, str]) -> bool:
    """Whether the image that has these layers is there, and all of it. For when something failed: it takes a while."""
    try:
        layers = tuple(client.inspect_image(lower.image_id)["RootFS"].get("Layers") or ())
        require_startable(client, lower.image_id, labels=labels)
    except (NotFound, EngineFailure):
        return False
    return layers[: len(lower.diff_ids)] == lower.diff_ids and _is_whole(client, lower.image_id)


def discard(client: docker.APIClient, image_id: str) -> None:
    """Remove an image that has no name. IDs follow from content: one that has a name is somebody's."""
    with contextlib.suppress(NotFound):
        if not client.inspect_image(image_id).get("RepoTags"):
            # Refused where a container uses it, which is as it should be.
            with contextlib.suppress(APIError):
                remove(client, image_id)


def remove(client: docker.APIClient, reference: str) -> None:
    """Take a name away, and with the last one the image, and what the builder made only on the way to it.

    `rmi` without `--no-prune` would take every nameless image below along, a base that has lost its name too.

    Raises:
        docker.errors.APIError: The image or the name is used.
    """
    parent = client.inspect_image(reference).get("Parent")
    client.remove_image(reference, noprune=True)
    while parent and (below := step(client, parent)) is not None:
        try:
            client.remove_image(parent, noprune=True)
        except APIError:  # another image is made of it, or somebody else was quicker
            break
        parent = below.get("Parent")


def step(client: docker.APIClient, image_id: str) -> Mapping[str, Any] | None:
    """The image, if a builder made it on the way to one of ours and nobody has given it a name."""
    try:
        found: Mapping[str, Any] = client.inspect_image(image_id)
    except NotFound:
        return None
    labels = labels_of(found)
    return found if STEP_LABEL in labels and DIGEST_LABEL not in labels and not found.get("RepoTags") else None


def require_startable(
    client: docker.APIClient, image_id: str, *, labels: Mapping[str, str], absent: Iterable[str] = ()
) -> None:
    """Make a container of the image, which needs all its layers unpacked, and remove it. It is never started.

    The containerd store keeps a record of an image that it failed to load, which can be inspected and tagged.
    """
    try:
        container = client.create_container(
            image_id,
            entrypoint=["/"],
            labels={**labels, CHECK_LABEL: image_id},
            host_config=client.create_host_config(network_mode="none"),
        )
    except APIError as error:
        raise engine_error(f"no container of {image_id} can be made: {error}") from error
    try:
        for path in absent:
            answer = client.head(
                client._url("/containers/{0}/archive", container["Id"]), params={"path": path}, timeout=client.timeout
            )
            if answer.status_code != 404:
                raise _not_as_sent(image_id, f"it has {path} (status {answer.status_code})")
    finally:
        with contextlib.suppress(NotFound):
            client.remove_container(container, force=True, v=True)


def _is_whole(client: docker.APIClient, image_id: str, *, filters: Mapping[str, Any] | None = None) -> bool:
    """Whether the content of all layers is there, without which an image may run, but not be saved or pushed.

    An inspection speaks from the record alone. The list leaves such images out (26.1), or says so where it is asked for
    manifests (API 1.47); for a graphdriver store there is nothing to say.
    """
    params = {"all": 1, "manifests": 1, **({"filters": json.dumps(dict(filters))} if filters else {})}
    images = client._result(client._get(client._url("/images/json"), params=params), True)
    manifests = [image.get("Manifests") or () for image in images if image["Id"] == image_id]
    return any(
        not each or any(manifest.get("Available") for manifest in each if manifest.get("Kind", "image") == "image")
        for each in manifests
    )


def _is_path(variable: str) -> bool:
    return variable.startswith("PATH=")


def _not_as_sent(image_id: str, why: str) -> EngineFailure:
    return EngineFailure(
        "The container engine did not store the image as it was sent. Try again, or tell your administrator.",
        detail=f"{image_id}: {why}",
    )


def derived_image(found: Mapping[str, Any], *, reference: str) -> DerivedImage:
    """An image of ours as `inspect_image` shows it."""
    labels = labels_of(found)
    return DerivedImage(
        reference=reference,
        image_id=found["Id"],
        digest=labels[DIGEST_LABEL],
        base_digest=labels.get(BASE_DIGEST_LABEL, ""),
        size_bytes=int(found.get("Size") or 0),
        diff_ids=tuple(found["RootFS"]["Layers"]),
    )
