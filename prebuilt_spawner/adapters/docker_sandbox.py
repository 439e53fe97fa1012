"""Builds from source, in containers of the base that have nothing but what is handed in.

Each job has a container of its own: without a network, as an ordinary user without capabilities, on a read-only root
with one folder in memory, within limits. The job goes in as a tar archive on its input, and what it made comes out of
its output; there are no mounts. Nothing that comes out is believed.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import docker
from docker.errors import APIError, NotFound
from docker.types import Ulimit

from ..build.events import BuildEvent, Phase, Report
from ..build.failure import disk_failure
from ..build.sources import Flaw, SandboxAnswer, SandboxJob, SourceBuildLimits
from ..environment.base import BaseImage, BaseProbe
from ..errors import LayersGone
from ..image.names import SANDBOX_LABEL
from .attached import STDERR, Attached, Ended
from .docker_client import Cancelled, DockerClient
from .sandbox_input import script, send_job

_NOBODY = "65534:65534"
_PLACE = "/tmp"  # noqa: S108 - in the container, in memory
_FILES_PER_MIB = 256
"""How many files the scratch space may have for each MiB of it; sources have about 100."""
_OPEN_FILES = 4096
_LINE_BYTES = 256 * 1024
_LOG_BYTES = 256 * 1024
_REPORT_SECONDS = 0.3
_SILENCE_SECONDS = 20
"""After so long without a word a build is said to go on."""
_END_SECONDS = 10
_LIMITS = SourceBuildLimits()


class DockerSandbox:
    """Implements `prebuilt_spawner.build.sources.Sandbox`.

    Args:
        client_kwargs: For `docker.APIClient`, before what the environment says.
        labels: Put on every container that this makes, besides our own.
        limits: What a build may take.
    """

    def __init__(
        self,
        *,
        client_kwargs: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        limits: SourceBuildLimits = _LIMITS,
    ) -> None:
        self._docker = DockerClient(client_kwargs or {}, threads=1)
        self._labels = dict(labels or {})
        self._limits = limits

    async def run(
        self, job: SandboxJob, base: BaseImage, probe: BaseProbe, *, folder: Path, report: Report
    ) -> SandboxAnswer:
        """See `prebuilt_spawner.build.sources.Sandbox`."""
        return await self._docker.run_slow(partial(self._run, job, base, probe, folder, report))

    async def close(self) -> None:
        """See `prebuilt_spawner.build.sources.Sandbox`."""
        await self._docker.close()

    def _run(
        self,
        job: SandboxJob,
        base: BaseImage,
        probe: BaseProbe,
        folder: Path,
        report: Report,
        client: docker.APIClient,
        stop: threading.Event,
    ) -> SandboxAnswer:
        try:
            container = _create(client, base, probe, self._labels, self._limits)
        except NotFound as error:
            raise LayersGone("The base image has gone. Start again.", detail=str(error)) from error
        try:
            reading = _Reading(folder, self._limits, report, stop, job.seconds)
            with contextlib.closing(Attached(self._docker.open_client(), container)) as attached:
                client.start(container)
                reading.converse(attached, job)
            return reading.answer(killed_for_memory=_killed_for_memory(client, container))
        finally:
            # Also where it is in the middle of something: all its processes end with it.
            with contextlib.suppress(APIError):
                client.remove_container(container, force=True, v=True)


class _TooMuch(Exception):
    """The build went over a limit that is looked after here."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.value)
        self.flaw = flaw


class _Reading:
    """What comes out of one container."""

    def __init__(
        self, folder: Path, limits: SourceBuildLimits, report: Report, stop: threading.Event, seconds: float
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._report = report
        self._stop = stop
        self._deadline = time.monotonic() + seconds
        self._line = bytearray()
        self._head: dict[str, Any] | None = None
        self._wheel: Path | None = None
        self._stream: BinaryIO | None = None
        self._wheel_bytes = self._missing_bytes = 0
        self._flaw: Flaw | None = None
        self._log = bytearray()
        self._unsaid = bytearray()
        self._printed_bytes = 0
        self._said_at = time.monotonic()

    def converse(self, attached: Attached, job: SandboxJob) -> None:
        """Hand the job in and take what comes, to its end or to that of what it may take."""
        try:
            send_job(job, lambda content: attached.send(content, self._check))
            with contextlib.ExitStack() as files:
                while True:
                    for stream, payload in attached.receive(self._check):
                        if stream == STDERR:
                            self._print(payload)
                        else:
                            self._take(payload, files)
                    self._say()
        except (Ended, BrokenPipeError, ConnectionResetError):
            pass
        except _TooMuch as error:
            self._flaw = error.flaw
        self._say(at_last=True)

    def answer(self, *, killed_for_memory: bool) -> SandboxAnswer:
        """What all that means."""
        log = self._log.decode("utf-8", "replace")
        if self._flaw is None and self._wheel is not None and not self._missing_bytes:
            return SandboxAnswer(wheel=self._wheel, size_bytes=self._wheel_bytes, log=log)
        head = self._head or {}
        if self._flaw is None and "requires" in head:
            return SandboxAnswer(requirements=head["requires"], log=log)
        flaw = self._flaw or (Flaw.MEMORY if killed_for_memory else head.get("flaw", Flaw.NONSENSE))
        return SandboxAnswer(flaw=flaw, log=log)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Cancelled
        if time.monotonic() > self._deadline:
            raise _TooMuch(Flaw.TIME)

    def _print(self, payload: bytes) -> None:
        self._printed_bytes += len(payload)
        if self._printed_bytes > self._limits.output_bytes:
            raise _TooMuch(Flaw.OUTPUT)
        self._log = (self._log + payload)[-_LOG_BYTES:]
        self._unsaid = (self._unsaid + payload)[-_LOG_BYTES:]

    def _say(self, *, at_last: bool = False) -> None:
        silent_seconds = time.monotonic() - self._said_at
        if (self._unsaid and (at_last or silent_seconds > _REPORT_SECONDS)) or silent_seconds > _SILENCE_SECONDS:
            output, self._unsaid = self._unsaid.decode("utf-8", "replace"), bytearray()
            self._report(BuildEvent(phase=Phase.BUILDING, output=output))
            self._said_at = time.monotonic()

    def _take(self, payload: bytes, files: contextlib.ExitStack) -> None:
        """More of the answer: its line, and then the wheel."""
        if self._head is None:
            self._line += payload
            line, newline, payload = bytes(self._line).partition(b"\n")
            if len(line) > _LINE_BYTES:
                raise _TooMuch(Flaw.NONSENSE)
            if not newline:
                return
            self._read_head(line, files)
        if len(payload) > self._missing_bytes:
            raise _TooMuch(Flaw.NONSENSE)
        if payload and self._stream is not None:
            try:
                self._stream.write(payload)
            except OSError as error:
                raise disk_failure(error).error(detail=str(error)) from error
            self._missing_bytes -= len(payload)

    def _read_head(self, line: bytes, files: contextlib.ExitStack) -> None:
        try:
            head = json.loads(line)
            if "wheel" in head:
                name, size = str(head["wheel"]), int(head["size"])
                if Path(name).name != name or not name.endswith(".whl") or not 0 < size <= self._limits.disk_bytes:
                    raise ValueError("no wheel's name and size")
                self._wheel, self._wheel_bytes, self._missing_bytes = self._folder / name, size, size
            elif "requires" in head:
                self._head = {"requires": tuple(map(str, head["requires"]))}
            else:
                self._head = {"flaw": Flaw(head["flaw"])}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _TooMuch(Flaw.NONSENSE) from error
        if self._wheel is not None:
            self._head = {}
            try:
                self._stream = files.enter_context(self._wheel.open("xb"))
            except OSError as error:
                raise disk_failure(error).error(detail=str(error)) from error


def _create(
    client: docker.APIClient, base: BaseImage, probe: BaseProbe, labels: Mapping[str, str], limits: SourceBuildLimits
) -> str:
    """A container that cannot reach or keep anything, and ends with its input. What it prints is not logged."""
    files = max(limits.disk_bytes >> 20, 1) * _FILES_PER_MIB
    config = client.create_container_config(
        base.image_id,
        entrypoint=[probe.interpreter, "-I", "-S", "-c"],
        command=[script()],
        user=_NOBODY,
        working_dir=_PLACE,
        labels={SANDBOX_LABEL: base.digest, **labels},
        healthcheck={"test": ["NONE"]},
        stdin_open=True,
        host_config=client.create_host_config(
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={
                # The base's own volumes would be folders on the engine's disk.
                **dict.fromkeys(_volumes(base, probe), "ro,size=4k"),
                _PLACE: f"exec,nosuid,nodev,mode=1777,size={limits.disk_bytes},nr_inodes={files}",
            },
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            pids_limit=limits.processes,
            cpu_period=100_000,
            cpu_quota=int(limits.cpus * 100_000),
            # Behind the servers that people use.
            cpu_shares=256,
            ulimits=[
                Ulimit(name="nofile", soft=_OPEN_FILES, hard=_OPEN_FILES),
                Ulimit(name="fsize", soft=limits.disk_bytes, hard=limits.disk_bytes),
                Ulimit(name="core", soft=0, hard=0),
            ],
            log_config={"Type": "none", "Config": {}},
        ),
    )
    # The container's input ends when we leave, also when we are killed. docker-py cannot say so.
    config["StdinOnce"] = True
    config["AttachStdin"] = True
    return str(client.create_container_from_config(config)["Id"])


def _volumes(base: BaseImage, probe: BaseProbe) -> list[str]:
    """The folders that the base declares as volumes, but for one that has the interpreter in it."""
    declared = (str(folder).rstrip("/") for folder in base.config.get("Volumes") or {})
    needed = (probe.interpreter, probe.stdlib)
    return [folder for folder in declared if not any(path.startswith(f"{folder}/") for path in needed)]


def _killed_for_memory(client: docker.APIClient, container: str) -> bool:
    """Whether a process of it was. It has ended, or is about to; else nothing is known."""
    with contextlib.suppress(APIError, OSError):
        deadline = time.monotonic() + _END_SECONDS
        while time.monotonic() < deadline:
            state = client.inspect_container(container)["State"]
            if state["OOMKilled"] or not state["Running"]:
                return bool(state["OOMKilled"])
            time.sleep(0.05)
    return False
