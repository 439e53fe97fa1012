"""The Docker Engine, on its graphdriver store and on the containerd image store.

Nothing is built: layers are handed over with `POST /images/load`, without those that the engine has. The engine looks a
layer up by its chain before it reads it (moby `image/tarexport/load.go`); containerd's import skips blobs that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound

from ..build.events import BuildEvent, Phase, Report
from ..build.interface import DerivedImage
from ..environment.base import BaseImage, BaseProbe
from ..environment.reference import parse_reference
from ..errors import EngineFailure, LayersGone, PrebuiltError
from ..image.archive import docker_archive, layer_digest, oci_archive
from ..image.config import derived_config
from ..image.layer import ImagePlan, LowerLayers
from ..image.names import BASE_DIGEST_LABEL, DIGEST_LABEL
from .base_probe import ProbeShelf
from .docker_bases import BaseLimits, DockerBases, labels_of, repository_of
from .docker_client import Cancelled, DockerClient, engine_error
from .docker_layers import saved_layers

_log = logging.getLogger(__name__)

_BASE_LIMITS = BaseLimits()
_HOLD_NAME = re.compile(r"hold-[0-9a-f]{16}-([0-9a-f]{8})-[0-9a-f]{8}")
_STALE_HOLD_SECONDS = 24 * 60 * 60


class DockerEngine:
    """Implements `prebuilt_spawner.build.interface.Engine` over Docker's API.

    Args:
        repository: Where derived images are named; the names that hold bases for a while are made there too.
        cache_dir: Folder for what was learnt about bases; made when needed.
        client_kwargs: For `docker.APIClient`, before what the environment says.
        labels: Put on every container that this makes, besides our own.
        base_limits: What pulling and probing a base may cost.
    """

    def __init__(
        self,
        *,
        repository: str,
        cache_dir: Path,
        client_kwargs: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        base_limits: BaseLimits = _BASE_LIMITS,
    ) -> None:
        self._repository = repository
        self._docker = DockerClient(client_kwargs or {})
        self._bases = DockerBases(
            self._docker, ProbeShelf(cache_dir / "probes"), labels=dict(labels or {}), limits=base_limits
        )
        self._naming = asyncio.Lock()
        self._stale_holds_released = False
        self._saved_layers: dict[str, tuple[dict[str, Any], ...]] = {}

    # -- bases -------------------------------------------------------------------------------------------------------

    async def resolve_base(self, reference: str) -> BaseImage:
        return await self._bases.resolve(reference)

    async def probe(self, base: BaseImage) -> BaseProbe:
        return await self._bases.probe(base)

    @asynccontextmanager
    async def hold(self, image_id: str) -> AsyncIterator[None]:
        if not self._stale_holds_released:
            self._stale_holds_released = True
            with contextlib.suppress(PrebuiltError):
                await self._docker.run_slow(lambda client, stop: _release_stale_holds(client, self._repository))
        tag = _hold_tag(image_id)
        name = f"{self._repository}:{tag}"

        def release(client: docker.APIClient, stop: threading.Event) -> None:
            with contextlib.suppress(NotFound):
                client.remove_image(name, noprune=True)

        def take(client: docker.APIClient, stop: threading.Event) -> None:
            try:
                client.tag(image_id, self._repository, tag)
            except NotFound as error:
                raise LayersGone("An image that was needed has gone. Start again.", detail=str(error)) from error
            if stop.is_set():  # and `release` may have run already
                release(client, stop)

        try:
            await self._docker.run(take)
            yield
        finally:
            await asyncio.shield(self._docker.run(release))

    # -- derived images ----------------------------------------------------------------------------------------------

    async def find(self, reference: str) -> DerivedImage | None:
        return await self._docker.run(lambda client, stop: _find(client, reference))

    async def assemble(self, plan: ImagePlan, *, report: Report) -> DerivedImage:
        def work(client: docker.APIClient, stop: threading.Event) -> DerivedImage:
            try:
                return self._assemble(client, stop, plan, report)
            except (APIError, EngineFailure) as error:
                if _is_there(client, plan.lower):
                    raise
                raise LayersGone("An image that was needed has gone. Start again.", detail=str(error)) from error

        return await self._docker.run_slow(work)

    async def tag(self, image: DerivedImage, reference: str) -> DerivedImage:
        def work(client: docker.APIClient, stop: threading.Event) -> DerivedImage:
            present = _find(client, reference)
            if present is not None:
                return present
            name = parse_reference(reference)
            client.tag(image.image_id, repository_of(reference), name.tag)
            named = _find(client, reference)
            if named is None:
                raise EngineFailure(
                    "The image that was made has gone. Start again.", detail=f"{reference} is not there after tagging"
                )
            return named

        async with self._naming:
            return await self._docker.run(work)

    async def discard(self, image: DerivedImage) -> None:
        await self._docker.run(lambda client, stop: _discard(client, image.image_id))

    async def close(self) -> None:
        await self._bases.close()
        await self._docker.close()

    # -- handing over ------------------------------------------------------------------------------------------------

    def _assemble(
        self, client: docker.APIClient, stop: threading.Event, plan: ImagePlan, report: Report
    ) -> DerivedImage:
        total_bytes = sum(layer.size_bytes for layer in plan.layers)
        report(BuildEvent(phase=Phase.SAVING, message="Saving to the engine", done=0, total=total_bytes))
        diff_ids = tuple(layer_digest(layer) for layer in plan.layers)
        config = derived_config(plan, diff_ids)
        if _has_containerd_store(client):
            layers = self._lower_layers(client, plan)
            image_id, archive = oci_archive(plan, config, diff_ids, layers)
        else:
            image_id, archive = docker_archive(plan, config, diff_ids)
        try:
            _load(client, _reported(archive, stop, total_bytes, report))
            report(BuildEvent(phase=Phase.CHECKING, message="Checking the image"))
            image = _checked(client, image_id, layers=[*plan.lower.diff_ids, *diff_ids])
            if stop.is_set():
                raise Cancelled
        except BaseException:
            # Also after a failed load: the containerd store keeps a record that inspects fine and cannot be started.
            with contextlib.suppress(Exception):
                _discard(client, image_id)
            raise
        return image

    def _lower_layers(self, client: docker.APIClient, plan: ImagePlan) -> tuple[dict[str, Any], ...]:
        """The descriptors of the layers below, which only the manifest of an image that has them says; once for each
        manifest."""
        image_id = plan.lower.image_id
        if image_id not in self._saved_layers:
            # Not docker-py's `get_image`, which keeps its connection open where it is not read to the end.
            response = client._get(client._url("/images/{0}/get", image_id), stream=True)
            with contextlib.closing(response):
                client._raise_for_status(response)
                self._saved_layers[image_id] = saved_layers(
                    response.iter_content(1 << 20), platform=plan.base.platform, diff_ids=plan.lower.diff_ids
                )
        return self._saved_layers[image_id][: len(plan.lower.diff_ids)]


def _hold_tag(image_id: str) -> str:
    """A tag of ours alone, with the time in it: a process that is killed leaves it behind."""
    return f"hold-{image_id.rpartition(':')[2][:16]}-{int(time.time()):08x}-{secrets.token_hex(4)}"


def _release_stale_holds(client: docker.APIClient, repository: str) -> None:
    """Remove the names of holds that no process can need any more. Other processes, on other machines too, may hold
    bases in this repository, so only age tells."""
    for image in client.images(repository):
        for name in image.get("RepoTags") or ():
            made = _HOLD_NAME.fullmatch(name.removeprefix(f"{repository}:"))
            if made is not None and int(made[1], 16) < time.time() - _STALE_HOLD_SECONDS:
                _log.info("Removing %s, which a process that was killed left behind", name)
                with contextlib.suppress(APIError):
                    client.remove_image(name, noprune=True)


def _is_there(client: docker.APIClient, lower: LowerLayers) -> bool:
    """Whether the engine says that it has an image with these layers lowest."""
    try:
        found = tuple(client.inspect_image(lower.image_id)["RootFS"].get("Layers") or ())
    except NotFound:
        return False
    return found[: len(lower.diff_ids)] == lower.diff_ids


def _checked(client: docker.APIClient, image_id: str, *, layers: list[str]) -> DerivedImage:
    """The image that was loaded, if the engine has it as it was sent."""
    found = client.inspect_image(image_id)
    if found["RootFS"]["Layers"] != layers or not _is_ours(found):
        raise EngineFailure(
            "The container engine did not store the image as it was sent. Try again, or tell your administrator.",
            detail=f"layers of {image_id}: {found['RootFS']['Layers']} instead of {layers}",
        )
    return _derived(found, reference="")


def _discard(client: docker.APIClient, image_id: str) -> None:
    """Remove an image that has no name. IDs follow from content: one that has a name is somebody's."""
    with contextlib.suppress(NotFound):
        if not client.inspect_image(image_id).get("RepoTags"):
            # Refused where a container uses it, which is as it should be.
            with contextlib.suppress(APIError):
                client.remove_image(image_id)


def _is_ours(found: Mapping[str, Any]) -> bool:
    return DIGEST_LABEL in labels_of(found)


def _derived(found: Mapping[str, Any], *, reference: str) -> DerivedImage:
    labels = labels_of(found)
    return DerivedImage(
        reference=reference,
        image_id=found["Id"],
        digest=labels[DIGEST_LABEL],
        base_digest=labels.get(BASE_DIGEST_LABEL, ""),
        size_bytes=int(found.get("Size") or 0),
        diff_ids=tuple(found["RootFS"]["Layers"]),
    )


def _find(client: docker.APIClient, reference: str) -> DerivedImage | None:
    try:
        found = client.inspect_image(reference)
    except NotFound:
        return None
    if labels_of(found).get(DIGEST_LABEL) != parse_reference(reference).tag:
        _log.error("The image %s was not made by this spawner: it is left alone and not used", reference)
        return None
    return _derived(found, reference=reference)


def _has_containerd_store(client: docker.APIClient) -> bool:
    status = client.info().get("DriverStatus") or []
    return ["driver-type", "io.containerd.snapshotter.v1"] in [list(pair) for pair in status]


def _reported(archive: Iterator[bytes], stop: threading.Event, total_bytes: int, report: Report) -> Iterator[bytes]:
    """The archive's chunks, with word of how far it is, until the waiter leaves."""
    sent_bytes = told_bytes = 0
    step_bytes = max(total_bytes // 20, 16 << 20)
    for chunk in archive:
        if stop.is_set():
            raise Cancelled
        yield chunk
        sent_bytes += len(chunk)
        if sent_bytes - told_bytes >= step_bytes:
            told_bytes = sent_bytes
            done = min(sent_bytes, total_bytes)
            report(BuildEvent(phase=Phase.SAVING, message="Saving to the engine", done=done, total=total_bytes))


def _load(client: docker.APIClient, chunks: Iterator[bytes]) -> None:
    """Send an archive. The engine reports failures in its answer's stream, under HTTP 200."""
    response = client._post(client._url("/images/load"), data=chunks, stream=True, timeout=None)
    with contextlib.closing(response):
        client._raise_for_status(response)
        for line in response.iter_lines():
            message = json.loads(line) if line else {}
            if "error" in message:
                raise engine_error(str(message["error"]))
