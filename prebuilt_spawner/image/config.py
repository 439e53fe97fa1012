"""The configuration and the manifest of a derived image, as canonical bytes (OCI image spec v1.1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from .layer import SOURCE_DATE_EPOCH, ImagePlan, JsonObject, Layer

CONFIG_MEDIA_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"

_CREATED = datetime.fromtimestamp(SOURCE_DATE_EPOCH, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
_CREATED_BY = "prebuilt-spawner"


def derived_config(plan: ImagePlan, diff_ids: Sequence[str]) -> bytes:
    """The image's configuration: the base's, with our labels, environment variables and layers.

    Args:
        plan: The image.
        diff_ids: The digests of its own layers (`sha256:…`), lowest first.
    """
    runtime = dict(plan.base.config)
    labels = {**(runtime.get("Labels") or {}), **plan.labels}
    variables = merged_environment(runtime.get("Env") or (), plan.environment)
    document: JsonObject = {
        "architecture": plan.base.architecture,
        "os": plan.base.os,
        "created": _CREATED,
        "config": {**runtime, **({"Labels": labels} if labels else {}), **({"Env": variables} if variables else {})},
        "rootfs": {"type": "layers", "diff_ids": [*plan.lower.diff_ids, *diff_ids]},
        "history": [
            *({"created": _CREATED, "created_by": "base image"} for _ in plan.base.diff_ids),
            *(
                {"created": _CREATED, "created_by": _CREATED_BY, "comment": "packages"}
                for _ in plan.lower.diff_ids[len(plan.base.diff_ids) :]
            ),
            *({"created": _CREATED, "created_by": _CREATED_BY, "comment": layer.comment} for layer in plan.layers),
        ],
    }
    if plan.base.variant:
        document["variant"] = plan.base.variant
    return canonical(document)


def oci_manifest(
    plan: ImagePlan, config: bytes, diff_ids: Sequence[str], lower_layers: Sequence[Mapping[str, Any]]
) -> bytes:
    """The image's manifest.

    Args:
        plan: The image.
        config: Its configuration.
        diff_ids: The digests of its own layers, which are not compressed: these are also the blobs' digests.
        lower_layers: The descriptors of the layers below, lowest first, as the manifest of the image that has them
            says.

    Raises:
        ValueError: There is not a descriptor for each of the layers below.
    """
    if len(lower_layers) != len(plan.lower.diff_ids):
        raise ValueError(f"{len(lower_layers)} descriptors for the {len(plan.lower.diff_ids)} layers below")
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "config": descriptor(CONFIG_MEDIA_TYPE, config),
        "layers": [
            *(dict(layer) for layer in lower_layers),
            *map(_layer_descriptor, plan.layers, diff_ids),
        ],
    }
    return canonical(document)


def merged_environment(variables: Iterable[str], ours: Mapping[str, str]) -> list[str]:
    """`NAME=value` entries: a variable of the same name is replaced in its place, a new one goes to the end."""
    merged = dict(entry.partition("=")[::2] for entry in variables)
    return [f"{name}={value}" for name, value in {**merged, **dict(sorted(ours.items()))}.items()]


def descriptor(media_type: str, content: bytes) -> JsonObject:
    """How a manifest or an index names a blob."""
    return {"mediaType": media_type, "digest": sha256_of(content), "size": len(content)}


def sha256_of(content: bytes) -> str:
    """`sha256:` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def canonical(document: Any) -> bytes:
    """JSON of which there is one form only: keys sorted, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _layer_descriptor(layer: Layer, diff_id: str) -> JsonObject:
    return {"mediaType": LAYER_MEDIA_TYPE, "digest": diff_id, "size": layer.size_bytes}
