"""What a Docker Engine does with a registry: pulls images of ours, and gives the layers of their bases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tarfile
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Any

import docker
import requests
from docker.errors import NotFound

from ..build.events import BuildEvent, Phase, Report
from ..build.interface import DerivedImage
from ..build.registry import BaseContent, LayerTaker
from ..environment.base import BaseImage
from ..errors import EngineFailure, LayersGone
from ..image.names import DIGEST_LABEL
from .docker_bases import labels_of, pull_response
from .docker_client import Cancelled, DockerClient, engine_error, translated
from .docker_images import derived_image, require_startable
from .docker_layers import chunks_file

_CHUNK_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
_BLOCK_BYTES = 512
# What the engine says while it only waits to try again is no progress.
_NO_PROGRESS = ("Retrying", "Waiting")


@dataclass(frozen=True, kw_only=True)
class PullLimits:
    """What a pull may cost before the image is built instead.

    Attributes:
        stall_seconds: How long it may make no progress.
        seconds: How long it may take.
    """

    stall_seconds: float = 60
    seconds: float = 900


_LIMITS = PullLimits()


class DockerTransfers:
    """Implements `prebuilt_spawner.build.registry.Transfers` over Docker's API.

    Args:
        place: `<registry>/<repository>` of our images.
        client_kwargs: For `docker.APIClient`, before what the environment says.
        labels: Put on the containers that are made to see that an image can be started.
    """

    def __init__(
        self,
        *,
        place: str,
        client_kwargs: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        limits: PullLimits = _LIMITS,
    ) -> None:
        self._place = place
        self._labels = dict(labels or {})
        self._limits = limits
        self._docker = DockerClient(client_kwargs or {}, threads=2)

    @asynccontextmanager
    async def pulled(self, manifest_digest: str, *, report: Report) -> AsyncIterator[DerivedImage]:
        """See `Transfers.pulled`."""
        name = f"{self._place}@{manifest_digest}"

        def pull(client: docker.APIClient, stop: threading.Event) -> DerivedImage:
            try:
                _pull(client, name, self._limits, stop, report)
                report(BuildEvent(phase=Phase.CHECKING, message="Checking the image"))
                found = client.inspect_image(name)
                require_startable(client, found["Id"], labels=self._labels)
                if DIGEST_LABEL not in labels_of(found):
                    raise _not_pulled(f"{name} has no label {DIGEST_LABEL}")
                if stop.is_set():
                    raise Cancelled
            except BaseException:
                with contextlib.suppress(Exception):
                    _forget(client, name)
                raise
            return derived_image(found, reference="")

        image = await self._docker.run_slow(pull)
        try:
            yield image
        finally:
            await asyncio.shield(self._docker.run_slow(lambda client, stop: _forget(client, name)))

    async def content(self, base: BaseImage) -> BaseContent:
        """See `Transfers.content`."""

        def names(client: docker.APIClient, stop: threading.Event) -> tuple[str, ...]:
            try:
                return tuple(sorted(client.inspect_image(base.image_id).get("RepoDigests") or ()))
            except NotFound as error:
                raise LayersGone("A base image has gone. Start again.", detail=base.reference) from error

        def save(take: LayerTaker, stop: threading.Event) -> None:
            with contextlib.closing(self._docker.open_client()) as client:
                _save(client, base, take, stop)

        return BaseContent(names=await self._docker.run(names), save=save)

    async def close(self) -> None:
        """See `Transfers.close`."""
        await self._docker.close()


# -- pulling -----------------------------------------------------------------------------------------------------------


def _pull(client: docker.APIClient, name: str, limits: PullLimits, stop: threading.Event, report: Report) -> None:
    begun = progressed = time.monotonic()
    sizes: dict[str, tuple[int, int]] = {}
    try:
        response = pull_response(client, name, limits.stall_seconds)
        with contextlib.closing(response):  # the engine gives up a pull whose connection closes
            client._raise_for_status(response)
            for line in response.iter_lines():
                if stop.is_set():
                    raise Cancelled
                message = json.loads(line) if line else {}
                if "error" in message:
                    raise engine_error(str(message["error"]))
                now = time.monotonic()
                if not str(message.get("status", "")).startswith(_NO_PROGRESS):
                    progressed = now
                if now - progressed > limits.stall_seconds or now - begun > limits.seconds:
                    raise _not_pulled(f"{name}: given up after {now - begun:.0f} seconds")
                _tell(message, sizes, report)
    except (requests.ConnectionError, requests.ReadTimeout) as error:
        if "timed out" not in str(error).lower():
            raise
        raise _not_pulled(f"{name}: nothing was heard for {limits.stall_seconds:g} seconds") from error


def _tell(message: Mapping[str, Any], sizes: dict[str, tuple[int, int]], report: Report) -> None:
    detail = message.get("progressDetail") or {}
    if message.get("status") != "Downloading" or not detail.get("total"):
        return
    sizes[str(message.get("id"))] = int(detail.get("current") or 0), int(detail["total"])
    done, total = (sum(values) for values in zip(*sizes.values(), strict=True))
    text = "Fetching the environment from the registry"
    report(BuildEvent(phase=Phase.DOWNLOADING, message=text, done=done, total=total))


def _forget(client: docker.APIClient, name: str) -> None:
    """Remove what was pulled, unless it was tagged meanwhile: the containerd store (26.1) would take the tag with it,
    and both stores take this name away with the last tag."""
    with contextlib.suppress(NotFound):
        if not client.inspect_image(name).get("RepoTags"):
            client.remove_image(name, noprune=True)


def _not_pulled(detail: str) -> EngineFailure:
    return EngineFailure("An image cannot be pulled from the registry. Tell your administrator.", detail=detail)


# -- the layers of bases -----------------------------------------------------------------------------------------------


def _save(client: docker.APIClient, base: BaseImage, take: LayerTaker, stop: threading.Event) -> None:
    with translated():
        response = client._get(client._url("/images/{0}/get", base.image_id), stream=True)
    with contextlib.closing(response):
        with translated():
            client._raise_for_status(response)
        chunks = _translated_chunks(response)
        try:
            with tarfile.open(fileobj=chunks_file(chunks), mode="r|") as archive:
                for member in archive:
                    if stop.is_set():
                        raise Cancelled
                    file = archive.extractfile(member) if member.isreg() else None
                    if file is not None:
                        _give(member.name.removeprefix("./"), file, take)
        except tarfile.TarError as error:
            raise engine_error(f"what was saved of {base.reference} breaks off: {error}") from error
        finally:
            # To the end: the engine (26.1) keeps for ever from being removed what it was not let finish.
            for _ in chunks:
                pass


def _translated_chunks(response: requests.Response) -> Iterator[bytes]:
    # Whoever reads this talks to a registry, whose errors are others.
    with translated():
        yield from response.iter_content(_CHUNK_BYTES)


def _give(name: str, file: IO[bytes], take: LayerTaker) -> None:
    """A file of what was saved, where it is a layer: there are documents beside them, and older engines name layers by
    other digests than their own."""
    head = file.read(_BLOCK_BYTES)
    digest = name.removeprefix("blobs/sha256/")
    if head.startswith(_GZIP):
        take("", _unzipped(head, file))
    elif len(head) == _BLOCK_BYTES and (head[257:262] == b"ustar" or not any(head)):
        take(f"sha256:{digest}" if digest != name else "", _read(head, file))


def _read(head: bytes, file: IO[bytes]) -> Iterator[bytes]:
    yield head
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _unzipped(head: bytes, file: IO[bytes]) -> Iterator[bytes]:
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for chunk in _read(head, file):
            while chunk:
                if unpacking.eof:  # a further member
                    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
                yield unpacking.decompress(chunk, _CHUNK_BYTES)
                chunk = unpacking.unconsumed_tail or unpacking.unused_data
    except zlib.error as error:
        raise engine_error(f"a layer cannot be unpacked: {error}") from error
