"""The layer descriptors of an image, read from what the engine saves of it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import EngineFailure

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SMALL_BYTES = 4 << 20
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


class _Chunks(io.RawIOBase):
    """The file that `tarfile` reads a stream of chunks from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        target = memoryview(buffer)
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def saved_layers(chunks: Iterable[bytes], *, platform: str, diff_ids: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """An image's own layer descriptors (digests and sizes, compressed or not), from `GET /images/{id}/get`.

    Reads no further than needed: the small entries of the OCI layout are kept, layers are skipped.

    Args:
        chunks: The archive.
        platform: Of the image, for the log.
        diff_ids: The image's uncompressed layers, or the lowest of them.

    Raises:
        EngineFailure: The layout holds no manifest of an image with these layers.
    """
    entries: dict[str, Any] = {}
    with tarfile.open(fileobj=io.BufferedReader(_Chunks(chunks), 1 << 20), mode="r|") as archive:
        for member in archive:
            if not member.isfile() or member.size > _SMALL_BYTES:
                continue
            file = archive.extractfile(member)
            if file is None or not _is_document(member.name):
                continue
            try:
                entries[member.name.removeprefix("./")] = json.loads(file.read())
            except (ValueError, UnicodeDecodeError):
                continue  # a small layer, not a document
            found = _manifest_layers(entries, diff_ids)
            if found is not None:
                return found
    raise EngineFailure(
        "The container engine does not say what the base image is made of. Tell your administrator.",
        detail=f"no manifest for {platform} with these layers in what was saved: {sorted(entries)}",
    )


def _is_document(name: str) -> bool:
    return name.endswith("index.json") or "blobs/sha256/" in name


def _manifest_layers(entries: Mapping[str, Any], diff_ids: tuple[str, ...]) -> tuple[dict[str, Any], ...] | None:
    index = entries.get("index.json")
    if index is None:
        return None
    for manifest in _manifests(index, entries):
        layers = manifest.get("layers") or []
        config = entries.get(_blob(manifest.get("config") or {}))
        if config is None:
            continue
        found = tuple((config.get("rootfs") or {}).get("diff_ids") or ())
        if len(layers) == len(found) and found[: len(diff_ids)] == diff_ids:
            return tuple(layers)
    return None


def _manifests(index: Mapping[str, Any], entries: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every image manifest that was read, indexes descended. Attestations have other layers than the image."""
    for descriptor in index.get("manifests") or []:
        document = entries.get(_blob(descriptor))
        if not isinstance(document, dict):
            continue
        if document.get("mediaType") in _INDEX_TYPES or "manifests" in document:
            yield from _manifests(document, entries)
        else:
            yield document


def _blob(descriptor: Mapping[str, Any]) -> str:
    return "blobs/sha256/" + str(descriptor.get("digest", "")).removeprefix("sha256:")
