"""What building wheels from source needs of the world, and the values that cross the border. See `interface`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from ..environment.base import BaseImage, BaseProbe
from ..environment.lock import LockedFile, LockedWheel
from .events import Report


@dataclass(frozen=True, kw_only=True)
class SourceBuildLimits:
    """What one build from source may take.

    Attributes:
        memory_bytes: Of its processes and its scratch space together.
        disk_bytes: Of its scratch space, and of any file in it.
        processes: Processes and threads at once.
        cpus: Processors' worth of time.
        seconds: From its beginning to its end, whatever else goes on.
        output_bytes: What it may print.
    """

    memory_bytes: int = 2 << 30
    disk_bytes: int = 1 << 30
    processes: int = 256
    cpus: float = 1
    seconds: float = 600
    output_bytes: int = 64 << 20


def read_limits(settings: Mapping[str, Any]) -> SourceBuildLimits:
    """The limits that a dict of some of their names sets; the others keep their defaults.

    Raises:
        ValueError: It does not; says why.
    """
    defaults = asdict(SourceBuildLimits())
    for name, value in settings.items():
        if name not in defaults:
            raise ValueError(f"{name!r} is none of {', '.join(defaults)}")
        fractions = name in ("cpus", "seconds")
        if isinstance(value, bool) or not isinstance(value, int | float if fractions else int) or value <= 0:
            raise ValueError(f"{name} must be a {'number' if fractions else 'whole number'} above 0, not {value!r}")
    return SourceBuildLimits(**{**defaults, **settings})


@dataclass(frozen=True, kw_only=True)
class MadeWheel:
    """A wheel that was built from source.

    Attributes:
        wheel: As a lock has it.
        path: On the hub's disk, under its file name.
    """

    wheel: LockedWheel
    path: Path


@dataclass(frozen=True, kw_only=True)
class ListedSource:
    """A source distribution on an index.

    Attributes:
        file: Its hash is there.
        requires_python: As the index says it; "" for any.
        yanked: Whether its authors have withdrawn it.
    """

    file: LockedFile
    requires_python: str = ""
    yanked: bool = False


class SourceIndex(Protocol):
    """Says which source distributions there are, on the same indexes and in the same order as the resolver."""

    async def sources(self, name: str) -> Sequence[ListedSource]:
        """Those of a package that have a SHA-256; none where no index has it.

        Args:
            name: Normalised.

        Raises:
            IndexUnavailable: The index did not answer, or answered nonsense.
        """

    async def close(self) -> None:
        """Release connections and threads."""


@dataclass(frozen=True, kw_only=True)
class SandboxJob:
    """What is built.

    Attributes:
        source: The source distribution, under its own file name.
        wheels: What is installed for the build, under their own file names.
        asked: The requirements that these wheels satisfy, as the sandbox named them: whatever else it finds that the
            build needs, it answers with that. None builds without asking.
        seconds: How long it may take.
    """

    source: Path
    wheels: tuple[Path, ...] = ()
    asked: tuple[str, ...] | None = ()
    seconds: float


class Flaw(str, Enum):
    """Why a build did not come to its end, as far as one sees from outside."""

    FAILED = "failed"
    UNREADABLE = "unreadable"
    NO_WHEEL = "no-wheel"
    MEMORY = "memory"
    DISK = "disk"
    TIME = "time"
    OUTPUT = "output"
    NONSENSE = "nonsense"


@dataclass(frozen=True, kw_only=True)
class SandboxAnswer:
    """How a job ended: with one of the first three. All of it was said by strangers.

    Attributes:
        wheel: What was made, in the folder that the caller named.
        size_bytes: Of the wheel.
        requirements: All that the build needs to be installed, in the source's own words.
        flaw: What went wrong.
        log: The end of what was printed.
    """

    wheel: Path | None = None
    size_bytes: int = 0
    requirements: tuple[str, ...] = ()
    flaw: Flaw | None = None
    log: str = ""


class Sandbox(Protocol):
    """Runs builds where they reach nothing: containers of the base without a network, for one job each."""

    async def run(
        self, job: SandboxJob, base: BaseImage, probe: BaseProbe, *, folder: Path, report: Report
    ) -> SandboxAnswer:
        """Do the job; what is printed is reported. When this returns or raises, nothing of it runs any more; where it
        is cancelled, soon after.

        Args:
            folder: Where the wheel goes. It is the caller's alone.

        Raises:
            LayersGone: The base is not there any more.
            EngineUnavailable, EngineFailure: The engine cannot be reached, or broke off.
            StorageFailure: A file cannot be read or written.
        """

    async def close(self) -> None:
        """Stop what runs, and leave no container behind."""


class MadeWheels(Protocol):
    """The wheels that were built, kept on the hub's disk by what made them (`LockedWheel.sha256` of such a wheel).

    Everything may raise `StorageFailure`.
    """

    async def find(self, wheel: LockedWheel) -> MadeWheel | None:
        """The wheel, where it is here and whole."""

    async def known(self, source: LockedFile, base: BaseImage, probe: BaseProbe) -> MadeWheel | None:
        """What was made of this source in this base last."""

    def workplace(self) -> AbstractAsyncContextManager[Path]:
        """A folder for one build, gone afterwards."""

    async def keep(self, wheel: LockedWheel, made: Path, log: str) -> MadeWheel:
        """Keep what was made in a workplace. Where somebody else was faster, theirs is kept, and returned."""

    async def note(self, wheel: LockedWheel) -> None:
        """From now on `known` knows it."""

    async def drop(self, wheel: LockedWheel) -> None:
        """It turned out to be of no use."""
