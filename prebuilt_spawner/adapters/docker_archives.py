"""Images handed to a Docker Engine with `POST /images/load`, without the layers that it has.

The engine looks a layer up by its chain before it reads it (moby `image/tarexport/load.go`); containerd's import skips
blobs that it has. A graphdriver store reads docker-archives, a containerd store OCI layouts.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import docker

from ..build.events import BuildEvent, Phase, Report
from ..image.archive import layer_digest, oci_archive
from ..image.config import derived_config, oci_manifest
from ..image.layer import ImagePlan
from .docker_client import Cancelled, engine_error
from .docker_images import discard


def load_oci_archive(
    client: docker.APIClient,
    stop: threading.Event,
    plan: ImagePlan,
    diff_ids: Sequence[str],
    report: Report,
    *,
    lower_layers: Sequence[Mapping[str, Any]],
) -> tuple[str, list[dict[str, Any]]]:
    """Load the planned image into a containerd store, without a name.

    Args:
        diff_ids: The digests of the plan's layers, lowest first.
        lower_layers: The descriptors of the layers below.

    Returns:
        The image's ID, and the descriptors of all its layers. When it fails, nothing is left behind.
    """
    config = derived_config(plan, diff_ids)
    image_id, archive = oci_archive(plan, config, diff_ids, lower_layers)
    load_archive(client, image_id, reported(archive, stop, plan, report))
    return image_id, json.loads(oci_manifest(plan, config, diff_ids, lower_layers))["layers"]


def own_diff_ids(plan: ImagePlan) -> tuple[str, ...]:
    """The digests of the plan's layers: each is read once."""
    return tuple(layer_digest(layer) for layer in plan.layers)


@dataclass
class Sent:
    """How many bytes of an image were sent, in one archive or more, and how many were told of."""

    sent_bytes: int = 0
    told_bytes: int = 0


def reported(
    chunks: Iterator[bytes], stop: threading.Event, plan: ImagePlan, report: Report, sent: Sent | None = None
) -> Iterator[bytes]:
    """The chunks, with word of how far it is, until the waiter leaves."""
    sent = sent or Sent()
    total_bytes = sum(layer.size_bytes for layer in plan.layers)
    step_bytes = max(total_bytes // 20, 16 << 20)
    for chunk in chunks:
        if stop.is_set():
            raise Cancelled
        yield chunk
        sent.sent_bytes += len(chunk)
        if sent.sent_bytes - sent.told_bytes >= step_bytes:
            sent.told_bytes = sent.sent_bytes
            done = min(sent.sent_bytes, total_bytes)
            report(BuildEvent(phase=Phase.SAVING, message="Saving to the engine", done=done, total=total_bytes))


def load_archive(client: docker.APIClient, image_id: str, chunks: Iterator[bytes]) -> None:
    """Load an archive. The engine reports failures in its answer's stream, under HTTP 200."""
    try:
        response = client._post(client._url("/images/load"), data=chunks, stream=True, timeout=None)
        with contextlib.closing(response):
            client._raise_for_status(response)
            for line in response.iter_lines():
                message = json.loads(line) if line else {}
                if "error" in message:
                    raise engine_error(str(message["error"]))
    except BaseException:
        # The containerd store keeps a record of what failed, which can be inspected and tagged, and not started.
        with contextlib.suppress(Exception):
            discard(client, image_id)
        raise
