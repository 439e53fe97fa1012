"""The layer descriptors of images in a containerd store: read from what the engine saves of an image, and kept.

Only an image's manifest has them, and the API shows no manifest. In what is saved the blobs come in the order of their
digests, and all of it has to be read: once for each base.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import docker

from ..build.events import ignore
from ..build.sharing import SharedTasks
from ..errors import EngineFailure
from ..image.layer import LowerLayers
from ..image.whole_file import appearing_whole
from .cache_folder import make_folder
from .docker_client import DockerClient

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_log = logging.getLogger(__name__)

Descriptors: TypeAlias = tuple[dict[str, Any], ...]

_SMALL_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 20
_KEPT = 1000
_INDEX = "index.json"
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


def chunks_file(chunks: Iterable[bytes]) -> io.BufferedReader:
    """A file to read that has these chunks."""
    return io.BufferedReader(_Chunks(chunks), _CHUNK_BYTES)


class DockerLayers:
    """Knows the descriptors of images' layers: told when an image is loaded, else read once, kept on the hub's disk.

    Args:
        folder: Where they are kept, in the cache folder; made when needed. The least recently used go first.
        kept: Of how many images.
    """

    def __init__(self, client: DockerClient, folder: Path, *, kept: int = _KEPT) -> None:
        self._docker = client
        self._folder = folder
        self._kept = kept
        self._reading: SharedTasks[tuple[tuple[str, ...], Descriptors]] = SharedTasks()

    async def of(self, lower: LowerLayers) -> Descriptors:
        """One descriptor for each of the lower layers, lowest first.

        Raises:
            EngineFailure: The engine does not have the image, or not whole.
        """
        diff_ids, layers = await self._all(lower.image_id)
        if diff_ids[: len(lower.diff_ids)] != lower.diff_ids:
            raise _unknown(f"{lower.image_id} has the layers {diff_ids}, not {lower.diff_ids}")
        return layers[: len(lower.diff_ids)]

    async def learn(self, image_id: str) -> None:
        """Have an image's descriptors before they are needed. Raises as `of` does. What is being read is read to the
        end and kept, also when nobody waits."""
        await self._all(image_id)

    def keep(self, image_id: str, diff_ids: Sequence[str], layers: Sequence[Mapping[str, Any]]) -> None:
        """From now on these are the descriptors of an image that has these layers. May take as long as a disk."""
        try:
            make_folder(self._folder, cache_dir=self._folder.parent)
            with appearing_whole(self._path(image_id)) as file:
                file.write(json.dumps({"diff_ids": list(diff_ids), "layers": list(map(dict, layers))}).encode())
            self._forget_oldest()
        except OSError as error:  # they can be read again
            _log.warning("The layers of %s cannot be written down: %s", image_id, error)

    async def close(self) -> None:
        """Leave what is being read. The threads end soon after; the client waits for them."""
        await self._reading.close()

    async def _all(self, image_id: str) -> tuple[tuple[str, ...], Descriptors]:
        def work(client: docker.APIClient, stop: threading.Event) -> tuple[tuple[str, ...], Descriptors]:
            diff_ids = tuple(client.inspect_image(image_id)["RootFS"].get("Layers") or ())
            layers = self._kept_of(image_id, diff_ids)
            if layers is None:
                layers = _read(client, image_id, diff_ids)
                self.keep(image_id, diff_ids, layers)
            return diff_ids, layers

        return await self._reading.run(image_id, lambda report: self._docker.run_slow(work), report=ignore)

    def _path(self, image_id: str) -> Path:
        return self._folder / f"{image_id.rpartition(':')[2]}.json"

    def _kept_of(self, image_id: str, diff_ids: tuple[str, ...]) -> Descriptors | None:
        path = self._path(image_id)
        try:
            kept = json.loads(path.read_bytes())
            # The ID may be that of an index, which names an image for each platform.
            if tuple(kept["diff_ids"]) != diff_ids or len(kept["layers"]) != len(diff_ids):
                return None
            os.utime(path)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return tuple(kept["layers"])

    def _forget_oldest(self) -> None:
        by_age = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in by_age[: -self._kept]:
            path.unlink(missing_ok=True)


def _read(client: docker.APIClient, image_id: str, diff_ids: tuple[str, ...]) -> Descriptors:
    # Not docker-py's `get_image`, which keeps its connection open where it is not read to the end.
    response = client._get(client._url("/images/{0}/get", image_id), stream=True)
    with contextlib.closing(response):
        client._raise_for_status(response)
        chunks = response.iter_content(_CHUNK_BYTES)
        try:
            return saved_layers(chunks, image_id=image_id, diff_ids=diff_ids)
        finally:
            # To the end, also when nobody waits any more: the engine (26.1) keeps what it saves from being removed
            # until then, and keeps it for ever where the connection is closed before.
            for _ in chunks:
                pass


def saved_layers(chunks: Iterable[bytes], *, image_id: str, diff_ids: tuple[str, ...]) -> Descriptors:
    """An image's own layer descriptors (digests and sizes, compressed or not), from `GET /images/{id}/get`.

    The small entries of the OCI layout are kept, layers are skipped.

    Args:
        chunks: The archive.
        image_id: In a containerd store the digest of the image's manifest, or of an index that names it.
        diff_ids: The image's uncompressed layers, which tell it from images for other platforms.

    Raises:
        EngineFailure: The layout holds no manifest of an image with these layers, or breaks off: so it does, under
            HTTP 200, where the content of a layer is not there.
    """
    entries: dict[str, Any] = {_INDEX: {"manifests": [{"digest": image_id}]}}
    try:
        for name, document in _documents(chunks):
            entries[name] = document
            found = _manifest_layers(entries, diff_ids)
            if found is not None:
                return found
    except tarfile.TarError as error:
        raise _unknown(f"what was saved of {image_id} breaks off: {error}") from error
    raise _unknown(f"no manifest with its layers in what was saved of {image_id}: {sorted(entries)}")


def _documents(chunks: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    with tarfile.open(fileobj=chunks_file(chunks), mode="r|") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.size <= _SMALL_BYTES and _is_blob(member.name) else None
            if file is not None:
                # A small layer is no document.
                with contextlib.suppress(ValueError):
                    yield member.name.removeprefix("./"), json.loads(file.read())


def _is_blob(name: str) -> bool:
    return name.removeprefix("./").startswith("blobs/sha256/")


def _unknown(detail: str) -> EngineFailure:
    return EngineFailure(
        "The container engine does not say what an image is made of. Tell your administrator.", detail=detail
    )


def _manifest_layers(entries: Mapping[str, Any], diff_ids: tuple[str, ...]) -> Descriptors | None:
    for manifest in _manifests(entries[_INDEX], entries):
        layers = manifest.get("layers") or []
        config = entries.get(_blob(manifest.get("config") or {}))
        if not isinstance(config, dict):
            continue
        found = tuple((config.get("rootfs") or {}).get("diff_ids") or ())
        if len(layers) == len(found) and found == diff_ids:
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
