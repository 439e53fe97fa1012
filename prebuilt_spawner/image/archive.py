"""The archives in which an engine takes an image whose lower layers it has: the new ones only.

An engine that keeps images in a graphdriver store (overlay2) reads docker-archives; one that keeps them in containerd
reads OCI layouts. Both look for a layer in their store before they look for it in the archive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import StorageFailure
from .config import MANIFEST_MEDIA_TYPE, canonical, descriptor, oci_manifest, sha256_of
from .layer import FileRange, ImagePlan, Layer, Part
from .paths import parents
from .tar import END_OF_ARCHIVE, padding, tar_header

CHUNK_BYTES = 1024 * 1024

_FILE_MODE = 0o644
_FOLDER_MODE = 0o755


def layer_digest(layer: Layer) -> str:
    """The digest of the uncompressed layer (`sha256:…`), its diff ID."""
    hashed = hashlib.sha256()
    for chunk in read_parts(layer.parts):
        hashed.update(chunk)
    return f"sha256:{hashed.hexdigest()}"


def docker_archive(plan: ImagePlan, config: bytes, diff_ids: Sequence[str]) -> tuple[str, Iterator[bytes]]:
    """A docker-archive without name, for the graphdriver stores.

    Args:
        plan: The image.
        config: Its configuration, `derived_config(plan, diff_ids)`.
        diff_ids: The digests of its own layers, lowest first.

    Returns:
        The image's ID in such a store (its configuration's digest), and the archive in pieces of at most `CHUNK_BYTES`.
        Reading raises `StorageFailure` where a fragment is gone from the hub's disk.
    """
    image_id, parts = docker_archive_parts(plan, config, diff_ids)
    return image_id, read_parts(parts)


def docker_archive_parts(plan: ImagePlan, config: bytes, diff_ids: Sequence[str]) -> tuple[str, tuple[Part, ...]]:
    """`docker_archive` before anything is read; `parts_size_bytes` says how long it is."""
    image_id = sha256_of(config)
    config_name = f"{_hex(image_id)}.json"
    names = [f"{_hex(diff_id)}.tar" for diff_id in (*plan.lower.diff_ids, *diff_ids)]
    manifest = canonical([{"Config": config_name, "RepoTags": None, "Layers": names}])
    entries: dict[str, tuple[Part, ...]] = {"manifest.json": (manifest,), config_name: (config,)}
    for layer, name in zip(plan.layers, names[len(plan.lower.diff_ids) :], strict=True):
        entries[name] = layer.parts
    return image_id, _archive(entries)


def oci_archive(
    plan: ImagePlan, config: bytes, diff_ids: Sequence[str], lower_layers: Sequence[Mapping[str, Any]]
) -> tuple[str, Iterator[bytes]]:
    """An OCI layout without name, for the containerd store.

    Args:
        plan: The image.
        config: Its configuration, `derived_config(plan, diff_ids)`.
        diff_ids: The digests of its own layers, lowest first.
        lower_layers: The descriptors of the layers below, as the manifest of the image that has them says.

    Returns:
        The image's ID in such a store (its manifest's digest), and the archive in pieces of at most `CHUNK_BYTES`.
        Reading raises `StorageFailure` where a fragment is gone from the hub's disk.

    Raises:
        ValueError: There is not a descriptor for each of the layers below.
    """
    image_id, parts = oci_archive_parts(plan, config, diff_ids, lower_layers)
    return image_id, read_parts(parts)


def oci_archive_parts(
    plan: ImagePlan, config: bytes, diff_ids: Sequence[str], lower_layers: Sequence[Mapping[str, Any]]
) -> tuple[str, tuple[Part, ...]]:
    """`oci_archive` before anything is read; `parts_size_bytes` says how long it is."""
    manifest = oci_manifest(plan, config, diff_ids, lower_layers)
    platform = {"os": plan.base.os, "architecture": plan.base.architecture}
    if plan.base.variant:
        platform["variant"] = plan.base.variant
    index = {"schemaVersion": 2, "manifests": [{**descriptor(MANIFEST_MEDIA_TYPE, manifest), "platform": platform}]}
    entries: dict[str, tuple[Part, ...]] = {
        "oci-layout": (canonical({"imageLayoutVersion": "1.0.0"}),),
        "index.json": (canonical(index),),
        _blob(sha256_of(manifest)): (manifest,),
        _blob(sha256_of(config)): (config,),
    }
    for layer, diff_id in zip(plan.layers, diff_ids, strict=True):
        entries[_blob(diff_id)] = layer.parts
    return sha256_of(manifest), _archive(entries)


def build_context_parts(dockerfile: bytes, layers: Sequence[Layer]) -> tuple[Part, ...]:
    """What an engine's builder works from: the Dockerfile, and the layers as `0.tar`, `1.tar` and so on."""
    return _archive({"Dockerfile": (dockerfile,), **{f"{n}.tar": layer.parts for n, layer in enumerate(layers)}})


def parts_size_bytes(parts: Iterable[Part]) -> int:
    """How long the parts are together."""
    return sum(len(part) if isinstance(part, bytes) else part.length_bytes for part in parts)


def read_parts(parts: Iterable[Part]) -> Iterator[bytes]:
    """The bytes of the parts, in pieces of at most `CHUNK_BYTES`.

    Raises:
        StorageFailure: A file is gone, shorter than it was, or cannot be read.
    """
    for part in parts:
        if isinstance(part, bytes):
            for start in range(0, len(part), CHUNK_BYTES):
                yield part[start : start + CHUNK_BYTES]
        else:
            yield from _read_range(part)


def _read_range(piece: FileRange) -> Iterator[bytes]:
    missing_bytes = piece.length_bytes
    try:
        with piece.path.open("rb", buffering=0) as file:
            file.seek(piece.offset_bytes)
            while missing_bytes:
                chunk = file.read(min(CHUNK_BYTES, missing_bytes))
                if not chunk:
                    raise OSError(f"{piece.path} is shorter than it was")
                missing_bytes -= len(chunk)
                yield chunk
    except OSError as error:
        raise StorageFailure(
            "A package that was prepared cannot be read from the hub's disk any more. Try again.", detail=str(error)
        ) from error


def _archive(entries: Mapping[str, tuple[Part, ...]]) -> tuple[Part, ...]:
    """A tar of these files, in this order, after their folders."""
    folders = sorted({folder for name in entries for folder in parents(name)})
    parts: list[Part] = [b"".join(tar_header(folder, mode=_FOLDER_MODE, kind="folder") for folder in folders)]
    for name, content in entries.items():
        size_bytes = parts_size_bytes(content)
        parts += [tar_header(name, size_bytes=size_bytes, mode=_FILE_MODE, kind="file"), *content, padding(size_bytes)]
    return (*parts, END_OF_ARCHIVE)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _hex(digest: str) -> str:
    return digest.partition(":")[2]
