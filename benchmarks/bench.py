"""What every row of the measurements needs: the engine, the index, locks, and turns that are taken."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import requests

from prebuilt_spawner.adapters.docker_engine import DockerEngine
from prebuilt_spawner.adapters.network import NetworkSettings
from prebuilt_spawner.adapters.uv_resolver import PROTECTED, UvResolver
from prebuilt_spawner.build.interface import ResolveRequest
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.environment.requirements import parse_requirements
from prebuilt_spawner.errors import PrebuiltError, UnresolvableRequest

from .checks import flaw_of_downloads, flaw_of_image
from .contestants import BuildFailed, make_base_with_uv
from .engine import BenchEngine
from .mirror import Mirror
from .ours import Built
from .results import Row, Sample, Target
from .threads import in_thread
from .workloads import CANNOT_BE_RESOLVED

_REFERENCE = "reference"
_CHUNK_BYTES = 1024 * 1024

Contestant = Callable[[int], Awaitable[Sample]]
"""Measures once; the argument counts the repetitions from 0."""


@dataclass(kw_only=True)
class Bench:
    """One engine under measurement.

    Attributes:
        repetitions: How often each contestant is measured.
        folder: For caches; on a disk, not in memory.
        tell: Takes a line for the person at the terminal.
    """

    engine: BenchEngine
    mirror: Mirror
    folder: Path
    repetitions: int
    tell: Callable[[str], None]
    _locks: dict[tuple[str, ...], Lock] = field(default_factory=dict)
    _base_with_uv: str = ""

    def row(self, key: str, title: str, state: str, *, targets: tuple[Target, ...] = (), unit: str = "s") -> Row:
        """A row of this engine."""
        name = f"{self.engine.version} {self.engine.store}"
        return Row(key=key, title=title, state=state, engine=name, store=self.engine.store, targets=targets, unit=unit)

    def word(self, what: str) -> str:
        """A word that was never used: for an index, a cache or an image of a contestant's own."""
        return f"{what}-{self.engine.run}-{secrets.token_hex(4)}"

    def base_with_uv(self) -> str:
        """See `make_base_with_uv`; made once."""
        if not self._base_with_uv:
            self._base_with_uv = make_base_with_uv(self.engine)
        return self._base_with_uv

    def lock(self, packages: Sequence[str]) -> Lock:
        """What a list stands for; `prepare` has seen it."""
        return self._locks[tuple(packages)]

    async def prepare(self, lists: Sequence[Sequence[str]]) -> None:
        """Have the index get everything that these lists need, once; and know their locks."""
        async with self._resolver() as resolve:
            for packages in dict.fromkeys(map(tuple, lists)):
                if packages not in self._locks:
                    try:
                        self._locks[packages] = lock = await resolve(packages)
                    except UnresolvableRequest:
                        if packages != CANNOT_BE_RESOLVED:
                            raise
                    else:
                        await in_thread(_drain, [wheel.url for wheel in lock.wheels])

    @asynccontextmanager
    async def _resolver(self) -> AsyncIterator[Callable[[Sequence[str]], Awaitable[Lock]]]:
        folder = self.folder / _REFERENCE
        folder.mkdir(parents=True, exist_ok=True)
        network = NetworkSettings.from_environment(os.environ, index_url=self.mirror.index_url(_REFERENCE))
        resolver = UvResolver(network, folder, protected=PROTECTED)
        engine = DockerEngine(
            repository=f"{self.engine.repository}-reference", cache_dir=folder, client_kwargs=self.engine.client_kwargs
        )
        try:
            probe = await engine.probe(await engine.resolve_base(self.engine.base))

            async def resolve(packages: Sequence[str]) -> Lock:
                return await resolver.resolve(
                    ResolveRequest(requirements=parse_requirements(list(packages)), probe=probe)
                )

            yield resolve
        finally:
            await engine.close()

    async def measure(self, row: Row, contestants: Mapping[str, Contestant], *, repetitions: int = 0) -> Row:
        """Each contestant so often, in turns. One that fails has an invalid measurement, and its turn no more."""
        for repetition in range(repetitions or self.repetitions):
            for name, contestant in contestants.items():
                if row.flaws(name):
                    continue
                try:
                    sample = await contestant(repetition)
                except (BuildFailed, PrebuiltError) as error:
                    detail = error.detail if isinstance(error, PrebuiltError) else ""
                    sample = Sample(value=0, flaw=f"{error} {detail}".strip()[-600:])
                sample = replace(sample, load=os.getloadavg()[0])
                row.add(name, sample)
                steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in sample.steps.items())
                self.tell(f"{row.key} {name}: {sample.flaw or f'{sample.value:.3f} {row.unit}'} {steps}")
        return row

    async def checked(
        self,
        image: str,
        lock: Lock,
        *,
        seconds: float,
        index_word: str,
        bytecode: bool = True,
        warm: Collection[str] = (),
        steps: Mapping[str, float] | None = None,
    ) -> Sample:
        """A measurement of a contestant whose image has been looked into; the image goes.

        Args:
            index_word: The contestant's index.
            warm: SHA-256 of the wheels that were there before.
        """

        def work() -> Sample:
            served = self.mirror.served(index_word)
            flaw = flaw_of_image(self.engine, image, lock, bytecode=bytecode)
            flaw = flaw or flaw_of_downloads(served, lock, warm=warm)
            disk_bytes = self.engine.disk_bytes([image])
            self.engine.remove(image)
            return Sample(value=seconds, flaw=flaw, disk_bytes=disk_bytes, steps=dict(steps or {}))

        return await in_thread(work)

    async def checked_ours(
        self, built: Built, lock: Lock, *, index_word: str, bytecode: bool = True, warm: Collection[str] = ()
    ) -> Sample:
        """The same of ours, which resolved by itself."""
        sample = await self.checked(
            built.environment.image,
            lock,
            seconds=built.seconds,
            steps=built.steps,
            index_word=index_word,
            bytecode=bytecode,
            warm=warm,
        )
        if hashes(built.environment.lock) != hashes(lock):
            return replace(sample, flaw="its lock is another one than the others'")
        return sample


def hashes(lock: Lock) -> frozenset[str]:
    """SHA-256 of a lock's wheels."""
    return frozenset(wheel.sha256 for wheel in lock.wheels)


def _drain(urls: Sequence[str]) -> None:
    with requests.Session() as session:
        for url in urls:
            with session.get(url, stream=True, timeout=600) as answer:
                answer.raise_for_status()
                for _ in answer.iter_content(_CHUNK_BYTES):
                    pass
