"""Base images in a Docker Engine: found or pulled, and asked about themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from urllib3.exceptions import ReadTimeoutError

from ..build.events import ignore
from ..build.failure import TELL
from ..build.sharing import SharedTasks
from ..environment.base import BaseImage, BaseProbe
from ..environment.digest import base_digest, runtime_config
from ..environment.reference import parse_reference
from ..errors import BaseImageUnavailable, MalformedRequest
from ..image.names import OURS, PROBE_LABEL
from .base_probe import ProbeShelf, probe_script, read_probe
from .docker_client import Cancelled, DockerClient

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 60
_LOOK_SECONDS = 0.1
_WORDS_CHARACTERS = 4000


@dataclass(frozen=True, kw_only=True)
class BaseLimits:
    """What a base may cost.

    Attributes:
        pull_silence_seconds: How long a pull may say nothing. The engine tells of progress several times a second,
            but is silent while a registry does not answer, and while it finishes a large layer.
        probe_seconds: How long a base's interpreter may take to answer.
        probe_memory_bytes: What it may use of the engine's memory.
        probe_output_bytes: How much it may print.
    """

    pull_silence_seconds: float = 300
    probe_seconds: float = 120
    probe_memory_bytes: int = 1 << 30
    probe_output_bytes: int = 64 << 20


class DockerBases:
    """Finds, pulls and probes bases; each absent one is pulled once and each new one probed once, however many ask.

    Args:
        shelf: Keeps what bases said, between runs of the hub.
        labels: Put on every container that this makes, besides our own.
    """

    def __init__(
        self, client: DockerClient, shelf: ProbeShelf, *, labels: Mapping[str, str], limits: BaseLimits
    ) -> None:
        self._docker = client
        self._shelf = shelf
        self._labels = labels
        self._limits = limits
        self._pulls: SharedTasks[None] = SharedTasks()
        self._probing: SharedTasks[BaseProbe] = SharedTasks()
        self._probes: dict[str, BaseProbe] = {}

    async def resolve(self, reference: str) -> BaseImage:
        """See `prebuilt_spawner.build.interface.Engine.resolve_base`."""
        found = await self._docker.run(lambda client, stop: _found(client, reference))
        if found is None:
            await self._pulls.run(reference, lambda report: self._pull(reference), report=ignore)
            found = await self._docker.run(lambda client, stop: _found(client, reference))
        if found is None:
            raise BaseImageUnavailable(f"The base image {reference} was removed just now. Start again.")
        return found

    async def probe(self, base: BaseImage) -> BaseProbe:
        """See `prebuilt_spawner.build.interface.Engine.probe`."""
        if base.digest not in self._probes:
            probe = await self._probing.run(base.digest, lambda report: self._new_probe(base), report=ignore)
            self._probes[base.digest] = probe
        return self._probes[base.digest]

    async def known(self, reference: str) -> tuple[BaseImage, BaseProbe] | None:
        """See `prebuilt_spawner.build.interface.Engine.known_base`."""
        try:
            base = await self._docker.run(lambda client, stop: _found(client, reference))
        except (MalformedRequest, BaseImageUnavailable):
            return None
        if base is None:
            return None
        probe = self._probes.get(base.digest)
        if probe is None:
            probe = await asyncio.to_thread(self._shelf.get, base.digest)
            if probe is None:
                return None
            self._probes[base.digest] = probe
        return base, probe

    async def close(self) -> None:
        """Leave the pulls and probes that go on. Their threads end soon after; the client waits for them."""
        await self._pulls.close()
        await self._probing.close()

    async def _pull(self, reference: str) -> None:
        silence_seconds = self._limits.pull_silence_seconds
        await self._docker.run_slow(lambda client, stop: _pull(client, reference, silence_seconds, stop))

    async def _new_probe(self, base: BaseImage) -> BaseProbe:
        kept = await asyncio.to_thread(self._shelf.get, base.digest)
        if kept is not None:
            return kept

        def work(client: docker.APIClient, stop: threading.Event) -> tuple[str, BaseProbe]:
            text = _run_probe(client, base, self._labels, self._limits, stop)
            return text, _read(text, base)

        text, probe = await self._docker.run_slow(work)
        await asyncio.to_thread(self._shelf.put, base.digest, text)
        return probe


# -- finding and pulling -----------------------------------------------------------------------------------------------


def _found(client: docker.APIClient, reference: str) -> BaseImage | None:
    try:
        found = client.inspect_image(reference)
    except NotFound:
        return None
    except APIError as error:
        if error.status_code != 400:
            raise
        raise BaseImageUnavailable(f"{reference} is not the name of an image. {TELL}", detail=str(error)) from error
    ours = sorted(OURS & labels_of(found).keys())
    if ours:
        # Whatever name it goes by: its ID is no name in our repository. And whoever forged it: an image on it, or a
        # container of that, would have these labels too.
        raise MalformedRequest(
            f"The image {reference} is a prepared environment, which cannot be a base image. Choose another image.",
            about="image",
            detail=f"it has the labels {', '.join(ours)}",
        )
    return base_of(found, reference)


def labels_of(found: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels of an image as `inspect_image` shows it."""
    return (found.get("Config") or {}).get("Labels") or {}


def base_of(found: Mapping[str, Any], reference: str) -> BaseImage:
    """The base that `inspect_image` shows."""
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


def _pull(client: docker.APIClient, reference: str, silence_seconds: float, stop: threading.Event) -> None:
    _log.info("Pulling the base image %s", reference)
    try:
        response = pull_response(client, reference, silence_seconds)
        with contextlib.closing(response):  # the engine gives up a pull whose connection closes
            client._raise_for_status(response)
            for line in response.iter_lines():
                if stop.is_set():
                    raise Cancelled
                message = json.loads(line) if line else {}
                if "error" in message:
                    raise BaseImageUnavailable(
                        f"The base image {reference} cannot be pulled. Tell your administrator.",
                        detail=str(message["error"]),
                    )
    except (DockerException, MalformedRequest) as error:
        raise BaseImageUnavailable(
            f"The base image {reference} is not there and cannot be pulled. Tell your administrator.",
            detail=str(error),
        ) from error
    except (requests.ConnectionError, requests.ReadTimeout) as error:
        if not _is_silence(error):
            raise
        raise BaseImageUnavailable(
            f"The base image {reference} cannot be pulled: its registry does not answer. Tell your administrator.",
            detail=f"the engine said nothing for {silence_seconds:g} seconds",
        ) from error


def pull_response(client: docker.APIClient, reference: str, silence_seconds: float) -> requests.Response:
    """The engine's answer to a pull, with the credentials that docker has for the registry; to be closed."""
    # Not docker-py's `pull`, which waits for ever and keeps its connection open where it is not read to the end.
    name = parse_reference(reference)
    repository = repository_of(reference)
    registry, _ = docker.auth.resolve_repository_name(repository)
    credentials = docker.auth.get_config_header(client, registry)
    response: requests.Response = client._post(
        client._url("/images/create"),
        params={"fromImage": repository, "tag": name.digest or name.tag or "latest"},
        headers={"X-Registry-Auth": credentials} if credentials else {},
        stream=True,
        timeout=(_CONNECT_SECONDS, silence_seconds),
    )
    return response


def _is_silence(error: requests.RequestException) -> bool:
    """Whether the engine was there and said nothing. Requests has another error for that once an answer has begun."""
    return isinstance(error, requests.ReadTimeout) or any(isinstance(cause, ReadTimeoutError) for cause in error.args)


def repository_of(reference: str) -> str:
    """The reference without its tag and digest, as the engine's API takes it."""
    name = parse_reference(reference)
    return f"{name.registry}/{name.repository}" if name.registry else name.repository


# -- probing -----------------------------------------------------------------------------------------------------------


def _run_probe(
    client: docker.APIClient, base: BaseImage, labels: Mapping[str, str], limits: BaseLimits, stop: threading.Event
) -> str:
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
            mem_limit=limits.probe_memory_bytes,
            pids_limit=64,
            log_config=_log_config(limits),
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
        status = _exit_status(client, container, base, limits, stop)
        if status != 0:
            # Twenty lines are few bytes: the engine's log has lines of 16 KiB at most.
            words = client.logs(container, stdout=False, stderr=True, tail=20).decode("utf-8", "replace")
            raise BaseImageUnavailable(
                f"The Python of the base image {base.reference} cannot be asked. Tell your administrator.",
                detail=f"exit status {status}: {words[-_WORDS_CHARACTERS:]}",
            )
        return _output(client, container, base, limits, stop)
    finally:
        try:
            client.remove_container(container, force=True, v=True)
        except APIError as error:
            _log.warning("The container %s of a probe cannot be removed: %s", container["Id"], error)


def _log_config(limits: BaseLimits) -> dict[str, Any]:
    """A log that cannot fill the engine's disk. It keeps what came last, which is then no whole answer."""
    # Twice the limit: the log is JSON itself, and writes every quotation mark as two characters.
    config = {"max-size": f"{2 * limits.probe_output_bytes}b", "max-file": "1", "compress": "false"}
    return {"Type": "json-file", "Config": config}


def _exit_status(
    client: docker.APIClient, container: Mapping[str, Any], base: BaseImage, limits: BaseLimits, stop: threading.Event
) -> int:
    # Not the API's wait, which cannot be left before it answers.
    end = time.monotonic() + limits.probe_seconds
    while (state := client.inspect_container(container)["State"])["Running"]:
        if time.monotonic() > end:
            raise BaseImageUnavailable(
                f"The Python of the base image {base.reference} does not answer. Tell your administrator.",
                detail=f"still running after {limits.probe_seconds:g} seconds",
            )
        if stop.wait(_LOOK_SECONDS):
            raise Cancelled
    return int(state["ExitCode"])


def _output(
    client: docker.APIClient, container: Mapping[str, Any], base: BaseImage, limits: BaseLimits, stop: threading.Event
) -> str:
    """What the container printed, read up to the limit. Not docker-py's `logs`, which reads it whole or keeps its
    connection open."""
    output = bytearray()
    response = client._get(
        client._url("/containers/{0}/logs", container["Id"]), params={"stdout": 1, "follow": 0}, stream=True
    )
    with contextlib.closing(response):
        client._raise_for_status(response)
        for part in client._multiplexed_response_stream_helper(response):
            if stop.is_set():
                raise Cancelled
            output += part
            if len(output) > limits.probe_output_bytes:
                raise _unusable(base, detail=f"more than {limits.probe_output_bytes} bytes")
    return output.decode("utf-8", "replace")


def _read(text: str, base: BaseImage) -> BaseProbe:
    try:
        probe = read_probe(text)
    except (ValueError, AttributeError, RecursionError) as error:
        raise _unusable(base, detail=f"{error}: {text[:_WORDS_CHARACTERS]}") from error
    if probe.implementation != "cpython" or probe.glibc is None:
        raise BaseImageUnavailable(
            f"The base image {base.reference} cannot be built on: it needs CPython and the GNU C library."
            " Tell your administrator.",
            detail=f"implementation {probe.implementation}, glibc {probe.glibc}",
        )
    return probe


def _unusable(base: BaseImage, *, detail: str) -> BaseImageUnavailable:
    return BaseImageUnavailable(
        f"The Python of the base image {base.reference} gave no usable answer. Tell your administrator.",
        detail=detail,
    )
