"""In-memory doubles of what builds from source, for tests: nothing is downloaded, unpacked or run. See `memory`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from ..build.events import BuildEvent, Phase, Report
from ..build.sources import ListedSource, MadeWheel, SandboxAnswer, SandboxJob
from ..environment.base import BaseImage, BaseProbe
from ..environment.lock import LockedFile, LockedWheel
from .memory_switches import Switches


class MemorySourceIndex:
    """Implements `prebuilt_spawner.build.sources.SourceIndex` over what tests publish.

    Attributes:
        switches: For `sources`.
    """

    def __init__(self) -> None:
        self.switches = Switches()
        self._listed: dict[str, list[ListedSource]] = {}

    def publish(
        self,
        name: str,
        version: str,
        *,
        requires_python: str = "",
        yanked: bool = False,
        size_bytes: int | None = 1000,
        ending: str = ".tar.gz",
    ) -> LockedFile:
        """Put a source distribution on the index."""
        name = canonicalize_name(name)
        filename = f"{name.replace('-', '_')}-{version}{ending}"
        file = LockedFile(
            name=name,
            version=str(Version(version)),
            filename=filename,
            url=f"https://index.example/{filename}",
            sha256=hashlib.sha256(filename.encode()).hexdigest(),
            size_bytes=size_bytes,
        )
        one = ListedSource(file=file, requires_python=requires_python, yanked=yanked)
        self._listed.setdefault(name, []).append(one)
        return file

    async def sources(self, name: str) -> Sequence[ListedSource]:
        """See `SourceIndex.sources`."""
        await self.switches.pass_through("sources")
        return tuple(self._listed.get(name, ()))

    async def close(self) -> None:
        """See `SourceIndex.close`."""
        self.switches.calls["close"] += 1


class MemorySandbox:
    """Implements `prebuilt_spawner.build.sources.Sandbox`: a source asks for what it needs, and makes a wheel then.

    Attributes:
        switches: For `run`.
        needs: What the build of the source of this file name asks for, one round after the other.
        answers: How it ends instead of with the wheel that is expected.
        jobs: What was built, in order.
    """

    def __init__(self) -> None:
        self.switches = Switches()
        self.needs: dict[str, list[tuple[str, ...]]] = {}
        self.answers: dict[str, SandboxAnswer] = {}
        self.jobs: list[SandboxJob] = []

    async def run(
        self, job: SandboxJob, base: BaseImage, probe: BaseProbe, *, folder: Path, report: Report
    ) -> SandboxAnswer:
        """See `Sandbox.run`."""
        self.jobs.append(job)
        await self.switches.pass_through("run")
        report(BuildEvent(phase=Phase.BUILDING, output="building\n"))
        for needs in self.needs.get(job.source.name, []):
            if job.asked is not None and not set(needs) <= set(job.asked):
                return SandboxAnswer(requirements=needs)
        if job.source.name in self.answers:
            return self.answers[job.source.name]
        stem = job.source.name.removesuffix(".tar.gz").removesuffix(".zip")
        return SandboxAnswer(wheel=folder / f"{stem}-py3-none-any.whl", size_bytes=500, log="built\n")

    async def close(self) -> None:
        """See `Sandbox.close`."""
        self.switches.calls["close"] += 1


class MemoryMadeWheels:
    """Implements `prebuilt_spawner.build.sources.MadeWheels`.

    Attributes:
        kept: The wheels that are here, by `LockedWheel.sha256`.
        logs: What their builds printed.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Path] = {}
        self.logs: dict[str, str] = {}
        self._noted: dict[tuple[str, str], LockedWheel] = {}

    async def find(self, wheel: LockedWheel) -> MadeWheel | None:
        """See `MadeWheels.find`."""
        path = self.kept.get(wheel.sha256)
        return None if path is None else MadeWheel(wheel=wheel, path=path)

    async def known(self, source: LockedFile, base: BaseImage, probe: BaseProbe) -> MadeWheel | None:
        """See `MadeWheels.known`."""
        noted = self._noted.get((source.sha256, base.digest))
        return None if noted is None else await self.find(noted)

    @asynccontextmanager
    async def workplace(self) -> AsyncIterator[Path]:
        """See `MadeWheels.workplace`; there is nothing."""
        yield Path("workplace")

    async def keep(self, wheel: LockedWheel, made: Path, log: str) -> MadeWheel:
        """See `MadeWheels.keep`."""
        self.kept.setdefault(wheel.sha256, Path("built", wheel.sha256, made.name))
        self.logs.setdefault(wheel.sha256, log)
        return MadeWheel(wheel=wheel, path=self.kept[wheel.sha256])

    async def note(self, wheel: LockedWheel) -> None:
        """See `MadeWheels.note`."""
        if wheel.source is not None:
            self._noted[wheel.source.sha256, wheel.source.base_digest] = wheel

    async def drop(self, wheel: LockedWheel) -> None:
        """See `MadeWheels.drop`."""
        self.kept.pop(wheel.sha256, None)
