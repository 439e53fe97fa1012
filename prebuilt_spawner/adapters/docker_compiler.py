"""Bytecode, made by the base's own interpreter in containers that have nothing but the base.

A container compiles one batch after the other, tar in the hub's hand and bytes on the wire: there are no mounts, since
the hub may itself be a container. It is kept a while, because starting one takes longer than a small wheel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, TypeVar

import docker
from docker.errors import APIError, NotFound

from ..environment.base import BaseImage, BaseProbe
from ..errors import EngineFailure, LayersGone, PrebuiltError
from ..image.bytecode import Module, batches_of
from ..image.names import COMPILER_LABEL
from .attached import Attached
from .compiler_lane import Lane, LaneBroken
from .docker_client import Cancelled, DockerClient

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CompilerLimits:
    """What compiling may cost.

    Attributes:
        batch_seconds: How long one batch may take.
        memory_bytes: What a container may use. What needs more has no bytecode.
        idle_seconds: How long a container without work is kept.
    """

    batch_seconds: float = 120
    memory_bytes: int = 1 << 30
    idle_seconds: float = 120


_LIMITS = CompilerLimits()
_ATTEMPTS = 2
"""How many new containers a batch gets."""


class DockerCompiler:
    """Implements `prebuilt_spawner.build.interface.BytecodeCompiler` with containers of the base.

    Args:
        client_kwargs: For `docker.APIClient`, before what the environment says.
        labels: Put on every container that this makes, besides our own.
        containers: How many work at once; None for one for each processor.
        limits: What compiling may cost.
    """

    def __init__(
        self,
        *,
        client_kwargs: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        containers: int | None = None,
        limits: CompilerLimits = _LIMITS,
    ) -> None:
        self._docker = DockerClient(client_kwargs or {}, threads=1)
        self._labels = dict(labels or {})
        self._limits = limits
        self._slots = asyncio.Semaphore(containers or os.cpu_count() or 1)
        self._idle: list[Lane] = []
        self._clocks: dict[Lane, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def compile(self, base: BaseImage, probe: BaseProbe, modules: Sequence[Module]) -> dict[str, bytes]:
        """See `prebuilt_spawner.build.interface.BytecodeCompiler`."""
        found = await _all(self._compiled(base, probe, batch) for batch in batches_of(modules))
        return {target: bytecode for part in found for target, bytecode in part.items()}

    async def close(self) -> None:
        """See `prebuilt_spawner.build.interface.BytecodeCompiler`."""
        for lane in list(self._idle):
            self._retire(lane)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._docker.close()

    async def _compiled(self, base: BaseImage, probe: BaseProbe, batch: Sequence[Module]) -> dict[str, bytes]:
        answer = await self._asked(base, probe, batch)
        if answer is None:
            # The interpreter itself broke down, at one of them: that one has no bytecode.
            if len(batch) == 1:
                _log.warning("The interpreter of %s broke down at %s", base.reference, batch[0].path)
                return {}
            found = [await self._compiled(base, probe, [module]) for module in batch]
            return {target: bytecode for part in found for target, bytecode in part.items()}
        return {module.target: bytecode for module, bytecode in zip(batch, answer, strict=True) if bytecode}

    async def _asked(self, base: BaseImage, probe: BaseProbe, batch: Sequence[Module]) -> list[bytes] | None:
        """The bytecode of each module, empty where it has none; None where the interpreter broke down."""
        async with self._slots:
            attempts_left = _ATTEMPTS
            while True:
                lane, was_kept = await self._lane(base, probe)
                try:
                    answer = await self._docker.run_slow(partial(_ask, lane, batch, self._limits.batch_seconds))
                except LaneBroken as error:
                    self._end(lane)
                    # Those that were kept may all have been removed meanwhile, as by an engine that was started again.
                    attempts_left -= not was_kept
                    if attempts_left == 0:
                        raise EngineFailure(
                            "A package could not be prepared: its modules could not be compiled. Try again, and tell"
                            " the administrator if it happens again.",
                            detail=f"a compiler container of {base.reference}: {error}",
                        ) from error
                except BaseException:
                    # It is in the middle of something.
                    self._end(lane)
                    raise
                else:
                    self._keep(lane)
                    return answer

    async def _lane(self, base: BaseImage, probe: BaseProbe) -> tuple[Lane, bool]:
        """A container for this base, and whether it was kept from before."""
        for lane in self._idle:
            if lane.image_id == base.image_id:
                self._idle.remove(lane)
                self._clocks.pop(lane).cancel()
                return lane, True
        # Whoever takes it out of here has it: we, or, where we have left, the thread.
        made: list[Lane] = []

        def work(client: docker.APIClient, stop: threading.Event) -> None:
            made.append(self._started(base, probe))
            if stop.is_set():
                with contextlib.suppress(IndexError):
                    _take_away(client, made.pop())
                raise Cancelled

        try:
            await self._docker.run_slow(work)
        except BaseException:
            # It may have been made at the moment in which we left.
            with contextlib.suppress(IndexError):
                self._end(made.pop())
            raise
        return made.pop(), False

    def _started(self, base: BaseImage, probe: BaseProbe) -> Lane:
        # A client of its own, which lives as long as the connection that is made with it.
        client = self._docker.open_client()
        container = ""
        try:
            container = _create(client, base, probe, self._labels, self._limits)
            lane = Lane(Attached(client, container), container, image_id=base.image_id)
            client.start(container)
        except BaseException as error:
            _remove(client, container)
            client.close()
            if isinstance(error, NotFound):
                raise LayersGone("The base image has gone. Start again.", detail=str(error)) from error
            raise
        return lane

    def _keep(self, lane: Lane) -> None:
        self._idle.append(lane)
        self._clocks[lane] = asyncio.get_running_loop().call_later(self._limits.idle_seconds, self._retire, lane)

    def _retire(self, lane: Lane) -> None:
        self._idle.remove(lane)
        self._clocks.pop(lane).cancel()
        self._end(lane)

    def _end(self, lane: Lane) -> None:
        """Take the container away, without anybody waiting for it."""

        async def end() -> None:
            # It ends by itself too, when its input does.
            with contextlib.suppress(PrebuiltError):
                await self._docker.run_slow(lambda client, stop: _take_away(client, lane))

        task = asyncio.get_running_loop().create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _ask(
    lane: Lane, batch: Sequence[Module], limit_seconds: float, client: docker.APIClient, stop: threading.Event
) -> list[bytes] | None:
    return lane.ask(batch, limit_seconds, stop)


def _script() -> str:
    return resources.files(__package__).joinpath("compiler_script.py").read_text(encoding="utf-8")


def _create(
    client: docker.APIClient, base: BaseImage, probe: BaseProbe, labels: Mapping[str, str], limits: CompilerLimits
) -> str:
    """A container that cannot write, reach or keep anything, and ends with its input. What it prints is not logged."""
    script = _script()
    config = client.create_container_config(
        base.image_id,
        entrypoint=[probe.interpreter, "-I", "-S", "-c"],
        command=[script, script],
        labels={COMPILER_LABEL: base.digest, **labels},
        healthcheck={"test": ["NONE"]},
        stdin_open=True,
        host_config=client.create_host_config(
            network_mode="none",
            read_only=True,
            auto_remove=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            pids_limit=64,
            # Behind the servers that people use.
            cpu_shares=256,
            log_config={"Type": "none", "Config": {}},
        ),
    )
    # The container's input ends when we leave, also when we are killed. docker-py cannot say so.
    config["StdinOnce"] = True
    config["AttachStdin"] = True
    return str(client.create_container_from_config(config)["Id"])


def _remove(client: docker.APIClient, container: str) -> None:
    if container:
        # It may have gone by itself, or be about to.
        with contextlib.suppress(APIError):
            client.remove_container(container, force=True, v=True)


def _take_away(client: docker.APIClient, lane: Lane) -> None:
    _remove(client, lane.container)
    lane.close()


async def _all(work: Any) -> list[Any]:
    """The results of all; the first failure cancels the others and waits for their end."""
    tasks: list[asyncio.Task[Any]] = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
