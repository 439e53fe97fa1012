"""The Docker Engine, on its graphdriver store and on the containerd image store.

Nothing is built: layers are handed over with `POST /images/load`, without those that the engine has. The engine looks a
layer up by its chain before it reads it (moby `image/tarexport/load.go`); containerd's import skips blobs that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound

from ..build.events import BuildEvent, Phase, Report
from ..build.interface import DerivedImage
from ..environment.base import BaseImage, BaseProbe
from ..environment.digest import base_digest, runtime_config
from ..environment.reference import parse_reference
from ..errors import BaseImageUnavailable, EngineFailure, MalformedRequest
from ..image.archive import docker_archive, layer_digest, oci_archive
from ..image.config import derived_config
from ..image.layer import ImagePlan
from ..image.names import BASE_DIGEST_LABEL, DIGEST_LABEL, PROBE_LABEL
from .base_probe import ProbeShelf, probe_script, read_probe
from .docker_client import Cancelled, DockerClient, engine_error
from .docker_layers import saved_layers

_log = logging.getLogger(__name__)

_PROBE_TIMEOUT_SECONDS = 120
_PROBE_MEMORY_BYTES = 1 << 30


class DockerEngine:
    """Implements `prebuilt_spawner.build.interface.Engine` over Docker's API.

    Args:
        repository: Where derived images are named; the names that hold bases for a while are made there too.
        cache_dir: Folder for what was learnt about bases; made when needed.
        client_kwargs: For `docker.APIClient`, before what the environment says.
        labels: Put on every container that this makes, besides our own.
    """

    def __init__(
        self,
        *,
        repository: str,
        cache_dir: Path,
        client_kwargs: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._repository = repository
        self._docker = DockerClient(client_kwargs or {})
        self._labels = dict(labels or {})
        self._shelf = ProbeShelf(cache_dir / "probes")
        self._probes: dict[str, BaseProbe] = {}
        self._probing: dict[str, asyncio.Lock] = {}
        self._naming = asyncio.Lock()
        self._saved_layers: dict[str, tuple[dict[str, Any], ...]] = {}

    # -- bases -------------------------------------------------------------------------------------------------------

    async def resolve_base(self, reference: str) -> BaseImage:
        return await self._docker.run(lambda client, stop: _resolve_base(client, reference))

    async def probe(self, base: BaseImage) -> BaseProbe:
        # One container for each base, however many ask.
        async with self._probing.setdefault(base.digest, asyncio.Lock()):
            if base.digest not in self._probes:
                probe = await asyncio.to_thread(self._shelf.get, base.digest)
                if probe is None:
                    text = await self._docker.run(lambda client, stop: _run_probe(client, base, self._labels, stop))
                    probe = _checked_probe(text, base)
                    await asyncio.to_thread(self._shelf.put, base.digest, text)
                self._probes[base.digest] = probe
        return self._probes[base.digest]

    @asynccontextmanager
    async def hold(self, base: BaseImage) -> AsyncIterator[None]:
        tag = f"hold-{base.digest[:16]}-{secrets.token_hex(4)}"
        name = f"{self._repository}:{tag}"

        def release(client: docker.APIClient, stop: threading.Event) -> None:
            with contextlib.suppress(NotFound):
                client.remove_image(name, noprune=True)

        def take(client: docker.APIClient, stop: threading.Event) -> None:
            client.tag(base.image_id, self._repository, tag)
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
        return await self._docker.run(lambda client, stop: self._assemble(client, stop, plan, report))

    async def tag(self, image: DerivedImage, reference: str) -> DerivedImage:
        def work(client: docker.APIClient, stop: threading.Event) -> DerivedImage:
            present = _find(client, reference)
            if present is not None:
                return present
            name = parse_reference(reference)
            client.tag(image.image_id, _repository_of(reference), name.tag)
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
            layers = self._base_layers(client, plan.base)
            image_id, archive = oci_archive(plan, config, diff_ids, layers)
        else:
            image_id, archive = docker_archive(plan, config, diff_ids)
        try:
            _load(client, _reported(archive, stop, total_bytes, report))
            report(BuildEvent(phase=Phase.CHECKING, message="Checking the image"))
            image = _checked(client, image_id, layers=[*plan.base.diff_ids, *diff_ids])
            if stop.is_set():
                raise Cancelled
        except BaseException:
            # Also after a failed load: the containerd store keeps a record that inspects fine and cannot be started.
            with contextlib.suppress(Exception):
                _discard(client, image_id)
            raise
        return image

    def _base_layers(self, client: docker.APIClient, base: BaseImage) -> tuple[dict[str, Any], ...]:
        """The base's own layer descriptors, which only its manifest has; once for each manifest."""
        if base.image_id not in self._saved_layers:
            # Not docker-py's `get_image`, which keeps its connection open where it is not read to the end.
            response = client._get(client._url("/images/{0}/get", base.image_id), stream=True)
            with contextlib.closing(response):
                client._raise_for_status(response)
                self._saved_layers[base.image_id] = saved_layers(response.iter_content(1 << 20), base)
        return self._saved_layers[base.image_id]


def _resolve_base(client: docker.APIClient, reference: str) -> BaseImage:
    try:
        found = client.inspect_image(reference)
    except NotFound:
        _pull(client, reference)
        found = client.inspect_image(reference)
    except APIError as error:
        if error.status_code != 400:
            raise
        raise BaseImageUnavailable(f"{reference} is not the name of an image.", detail=str(error)) from error
    if _is_ours(found):
        # Whatever name it goes by: its ID is no name in our repository.
        raise MalformedRequest(f"The image {reference} is a prepared environment, which cannot be a base image.")
    config = runtime_config(found.get("Config") or {})
    diff_ids = tuple(found["RootFS"].get("Layers") or ())
    platform = {
        "os": found.get("Os") or "linux",
        "architecture": found.get("Architecture") or "",
        "variant": found.get("Variant") or "",
    }
    return BaseImage(
        reference=reference,
        image_id=found["Id"],
        digest=base_digest(diff_ids=diff_ids, config=config, **platform),
        diff_ids=diff_ids,
        config=config,
        **platform,
    )


def _pull(client: docker.APIClient, reference: str) -> None:
    _log.info("Pulling the base image %s", reference)
    try:
        name = parse_reference(reference)
        stream = client.pull(
            _repository_of(reference), tag=name.digest or name.tag or "latest", stream=True, decode=True
        )
        for message in stream:
            if "error" in message:
                raise BaseImageUnavailable(
                    f"The base image {reference} cannot be pulled. Tell your administrator.", detail=message["error"]
                )
    except (APIError, MalformedRequest) as error:
        raise BaseImageUnavailable(
            f"The base image {reference} is not there and cannot be pulled. Tell your administrator.",
            detail=str(error),
        ) from error


def _repository_of(reference: str) -> str:
    name = parse_reference(reference)
    return f"{name.registry}/{name.repository}" if name.registry else name.repository


def _run_probe(client: docker.APIClient, base: BaseImage, labels: Mapping[str, str], stop: threading.Event) -> str:
    """What the base's interpreter prints, from a container without a network, mounts or capabilities."""
    container = client.create_container(
        base.image_id,
        entrypoint=["python3"],
        command=["-I", "-c", probe_script()],
        labels={PROBE_LABEL: base.digest, **labels},
        healthcheck={"test": ["NONE"]},
        host_config=client.create_host_config(
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=_PROBE_MEMORY_BYTES,
            pids_limit=64,
            log_config={"Type": "json-file"},
        ),
    )
    try:
        try:
            client.start(container)
        except APIError as error:
            raise BaseImageUnavailable(
                f"The base image {base.reference} does not run, or has no python3. Tell your administrator.",
                detail=str(error),
            ) from error
        status = client.wait(container, timeout=_PROBE_TIMEOUT_SECONDS)["StatusCode"]
        output = client.logs(container, stdout=True, stderr=False).decode("utf-8", "replace")
        if status != 0:
            words = client.logs(container, stdout=False, stderr=True).decode("utf-8", "replace")
            raise BaseImageUnavailable(
                f"The Python of the base image {base.reference} cannot be asked. Tell your administrator.",
                detail=f"exit status {status}: {words[-4000:]}",
            )
        return str(output)
    finally:
        client.remove_container(container, force=True, v=True)


def _checked_probe(text: str, base: BaseImage) -> BaseProbe:
    try:
        probe = read_probe(text)
    except ValueError as error:
        raise BaseImageUnavailable(
            f"The Python of the base image {base.reference} gave no usable answer. Tell your administrator.",
            detail=f"{error}: {text[:1000]}",
        ) from error
    if probe.implementation != "cpython" or probe.glibc is None:
        raise BaseImageUnavailable(
            f"The base image {base.reference} cannot be built on: it needs CPython and the GNU C library."
            " Tell your administrator.",
            detail=f"implementation {probe.implementation}, glibc {probe.glibc}",
        )
    return probe


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


def _labels_of(found: Mapping[str, Any]) -> Mapping[str, str]:
    return (found.get("Config") or {}).get("Labels") or {}


def _is_ours(found: Mapping[str, Any]) -> bool:
    return DIGEST_LABEL in _labels_of(found)


def _derived(found: Mapping[str, Any], *, reference: str) -> DerivedImage:
    labels = _labels_of(found)
    return DerivedImage(
        reference=reference,
        image_id=found["Id"],
        digest=labels[DIGEST_LABEL],
        base_digest=labels.get(BASE_DIGEST_LABEL, ""),
        size_bytes=int(found.get("Size") or 0),
    )


def _find(client: docker.APIClient, reference: str) -> DerivedImage | None:
    try:
        found = client.inspect_image(reference)
    except NotFound:
        return None
    if _labels_of(found).get(DIGEST_LABEL) != parse_reference(reference).tag:
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
