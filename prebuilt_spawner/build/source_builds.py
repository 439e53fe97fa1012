"""Wheels made of source distributions: which source, what its build needs, one build for all who wait, and what comes
of it kept and used by everybody.

A build runs its author's code. It gets a place where that reaches nothing (`sources.Sandbox`), and everything that it
needs from us: wheels only, resolved and fetched on the hub. What it needs it says in the sandbox, because only there
its files are read; so a new source takes two or three rounds. Everything that it says is a stranger's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from ..environment.base import BaseImage, BaseProbe
from ..environment.lock import WHEEL_FILENAME, Lock, LockedFile, LockedSource, LockedWheel, built_wheel, supported_tags
from ..environment.requirements import parse_requirements
from ..errors import PolicyRefusal, PrebuiltError, RequestError, UnbuildableEnvironment, UnresolvableRequest
from .events import BuildEvent, Phase, Report, ignore
from .failure import SOURCE_ADVICE, Failure, Kind
from .guard import Guard, NoGuard
from .interface import Resolver, ResolveRequest, WheelStore
from .queue import Queue
from .remembered import RememberedFailures
from .sharing import SharedTasks
from .source_choice import choose_source
from .source_failure import source_failure
from .sources import (
    MadeWheel,
    MadeWheels,
    Sandbox,
    SandboxAnswer,
    SandboxJob,
    SourceBuildLimits,
    SourceIndex,
)

_log = logging.getLogger(__name__)

MOST_SOURCES = 20
"""How many packages of one request are built at most."""
_MOST_ROUNDS = 4
"""How often a build may say that it needs something else: first its file says it, then its backend."""
_DETAIL_CHARACTERS = 4000
"""How much of what a build printed goes into the hub's log. The build's own log has more of it."""
_HEARD_SECONDS = 60
"""How often a wait is heard of: a build that says nothing for long is given up."""
_LIMITS = SourceBuildLimits()

Permit = Callable[[LockedFile], None]
"""Raises PolicyRefusal where the package may not come into the environment."""


def permit_all(file: LockedFile) -> None:
    """A `Permit` for what is everybody's."""


class SourceBuilds:
    """Builds wheels from source, where that is allowed.

    Args:
        allowed: Whether anything is built. What was built before is used in any case.
        limits: What one build may take.
        max_concurrent: How many builds go on at once; others wait in order of arrival.
        failures: Sources that could not be built lately.
        guard: Looks after the disks; closed by whoever else has it.
        now: A clock in seconds that never goes back.
    """

    def __init__(
        self,
        *,
        resolver: Resolver,
        index: SourceIndex,
        sandbox: Sandbox,
        made_wheels: MadeWheels,
        wheel_store: WheelStore,
        allowed: bool = True,
        limits: SourceBuildLimits = _LIMITS,
        max_concurrent: int = 2,
        failures: RememberedFailures | None = None,
        guard: Guard | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.allowed = allowed
        self._resolver = resolver
        self._index = index
        self._sandbox = sandbox
        self._made = made_wheels
        self._store = wheel_store
        self._limits = limits
        self._failures = failures or RememberedFailures(0)
        self._guard = guard or NoGuard()
        self._queue = Queue(max_concurrent)
        self._now = now
        self._building: SharedTasks[MadeWheel] = SharedTasks(now=now)

    async def next_wheel(
        self,
        failure: UnresolvableRequest,
        request: ResolveRequest,
        base: BaseImage,
        *,
        permit: Permit,
        refresh: bool = False,
        report: Report,
    ) -> MadeWheel:
        """A wheel more with which the request may be resolved.

        Args:
            failure: What resolving it failed with.
            request: The request, with the wheels that were made for it already.
            permit: Asked before anything of a source is fetched.
            refresh: Try again what failed a while ago.

        Raises:
            UnresolvableRequest: There is none: `failure` itself, or a better word for it.
            UnbuildableEnvironment: It cannot be built.
            PolicyRefusal: By `permit`.
            IndexUnavailable, StorageFailure, EngineUnavailable, EngineFailure: From where it was needed.
        """
        if not self.allowed or len(request.made) >= MOST_SOURCES:
            raise failure
        made = {(one.wheel.name, one.wheel.version) for one in request.made}
        for wish in map(Requirement, failure.sources):
            file = await self._chosen(wish, request)
            if file is None or (file.name, file.version) in made:
                continue
            permit(file)
            key = ("source", file.sha256, base.digest)
            if refresh:
                self._failures.forget(key)
            self._failures.check(key)
            return await self._building.run(key, partial(self._made_of, file, base, request.probe), report=report)
        if failure.cause == Kind.SOURCE_ONLY.value:
            what = f"{failure.package} has neither a wheel nor a source distribution that fits this image."
            refusal = Failure(kind=Kind.SOURCE_ONLY, what=what, advice=SOURCE_ADVICE, package=failure.package)
            raise refusal.error(detail=failure.detail) from failure
        raise failure

    async def have(self, lock: Lock, base: BaseImage, probe: BaseProbe, *, report: Report) -> None:
        """Have every wheel of the lock here that is built from source: built again, from exactly what the lock says,
        where it has gone or was made elsewhere.

        Raises:
            UnresolvableRequest: It would have to be built, which is not allowed.
            UnbuildableEnvironment, IndexUnavailable, StorageFailure, EngineUnavailable, EngineFailure: As `next_wheel`.
        """
        for wheel in lock.wheels:
            if wheel.source is None or await self._made.find(wheel) is not None:
                continue
            if not self.allowed:
                what = f"{wheel.name} {wheel.version} has to be built from source, which this hub does not do."
                raise Failure(kind=Kind.SOURCE_ONLY, what=what, advice=SOURCE_ADVICE, package=wheel.name).error()
            again = partial(self._made_again, wheel, wheel.source, base, probe)
            await self._building.run(("again", wheel.sha256), again, report=report)

    async def close(self) -> None:
        """Stop what is being built, and release what it holds."""
        await self._building.close()
        await self._sandbox.close()
        await self._index.close()

    async def _chosen(self, wish: Requirement, request: ResolveRequest) -> LockedFile | None:
        name = canonicalize_name(wish.name)
        chosen = choose_source(
            await self._index.sources(name),
            wish.specifier,
            python_version=request.probe.python_version,
            preferred=request.preferences.get(name, ""),
        )
        return None if chosen is None else chosen.file

    async def _made_of(self, file: LockedFile, base: BaseImage, probe: BaseProbe, report: Report) -> MadeWheel:
        """What was made of it before, else what is made now."""
        known = await self._made.known(file, base, probe)
        if known is not None:
            return known
        try:
            async with self._turn(report):
                await self._guard.check()
                return await self._first_build(file, base, probe, report)
        except RequestError as error:
            self._failures.remember(("source", file.sha256, base.digest), error)
            raise

    async def _first_build(self, file: LockedFile, base: BaseImage, probe: BaseProbe, report: Report) -> MadeWheel:
        """Ask what the build needs until it needs nothing more."""
        source = LockedSource(
            **{field.name: getattr(file, field.name) for field in fields(LockedFile)}, base_digest=base.digest
        )
        asked: tuple[str, ...] = ()
        left_seconds = self._limits.seconds
        self._begin(source, base, report)
        for _ in range(_MOST_ROUNDS):
            begun = self._now()
            async with self._made.workplace() as folder:
                answer = await self._run(source, asked, left_seconds, base, probe, folder, report)
                if answer.wheel is not None:
                    made, metadata = await self._kept(source, answer, base, probe)
                    noted = replace(made.wheel, source=replace(source, metadata_sha256=metadata))
                    await self._made.note(noted)
                    return replace(made, wheel=noted)
            left_seconds = max(left_seconds - (self._now() - begun), 1)
            asked = answer.requirements
            source = replace(source, requires=await self._requires(source, asked, probe))
            report(BuildEvent(phase=Phase.BUILDING, output=_needs(source)))
        raise _failed(source, "Building {} from source needs one thing after the other, without an end.")

    async def _made_again(
        self, wheel: LockedWheel, source: LockedSource, base: BaseImage, probe: BaseProbe, report: Report
    ) -> MadeWheel:
        async with self._turn(report), self._made.workplace() as folder:
            self._begin(source, base, report)
            report(BuildEvent(phase=Phase.BUILDING, output=_needs(source)))
            answer = await self._run(source, None, self._limits.seconds, base, probe, folder, report)
            made, metadata = await self._kept(source, answer, base, probe)
        if source.metadata_sha256 and metadata and metadata != source.metadata_sha256:
            await self._made.drop(wheel)
            raise _failed(
                source,
                "{} says other things of itself, built again from its source, than when it was chosen.",
                kind=Kind.BUILD_METADATA,
                advice="Ask for newer versions, or tell the administrator of this hub.",
            )
        return made

    @asynccontextmanager
    async def _turn(self, report: Report) -> AsyncIterator[None]:
        """A place among the builds; while it waits for one, it is heard of."""
        waiting = asyncio.get_running_loop().create_task(_still_waits(report))
        try:
            async with self._queue.slot(partial(_waits, report)):
                waiting.cancel()
                yield
        finally:
            waiting.cancel()

    def _begin(self, source: LockedSource, base: BaseImage, report: Report) -> None:
        _log.info("Building %s %s from source in %s", source.name, source.version, base.reference)
        report(BuildEvent(phase=Phase.BUILDING, message=f"Building {source.name} {source.version} from source"))

    async def _run(
        self,
        source: LockedSource,
        asked: tuple[str, ...] | None,
        seconds: float,
        base: BaseImage,
        probe: BaseProbe,
        folder: Path,
        report: Report,
    ) -> SandboxAnswer:
        """One round, with everything fetched that it takes; what went wrong is raised."""
        files = (source, *source.requires)
        too_large = _failed(source, "The source of {} is too large to be built.", kind=Kind.TOO_LARGE)
        if sum(file.size_bytes or 0 for file in files) > self._limits.disk_bytes:
            raise too_large
        try:
            await self._store.fetch(files, report=partial(_goes_on, report), max_unsized_bytes=self._limits.disk_bytes)
        except PolicyRefusal as error:
            raise too_large from error
        job = SandboxJob(
            source=self._store.path(source),
            wheels=tuple(map(self._store.path, source.requires)),
            asked=asked,
            seconds=seconds,
        )
        answer = await self._sandbox.run(job, base, probe, folder=folder, report=report)
        if answer.flaw is not None:
            failure = source_failure(source.name, source.version, flaw=answer.flaw, log=answer.log, limits=self._limits)
            raise failure.error(detail=answer.log[-_DETAIL_CHARACTERS:])
        return answer

    async def _requires(self, source: LockedSource, asked: Sequence[str], probe: BaseProbe) -> tuple[LockedWheel, ...]:
        """What the build needs, pinned: wheels, beside which nothing of the base is there."""
        try:
            requirements = parse_requirements(list(asked))
            alone = replace(probe, distributions={})
            return (await self._resolver.resolve(ResolveRequest(requirements=requirements, probe=alone))).wheels
        except RequestError as error:
            what = "Building {} from source needs other packages first, which cannot be had."
            raise _failed(source, what, detail=f"{', '.join(asked)}: {error.message}\n{error.detail}") from error

    async def _kept(
        self, source: LockedSource, answer: SandboxAnswer, base: BaseImage, probe: BaseProbe
    ) -> tuple[MadeWheel, str]:
        """The wheel in its place, checked as any other, and the SHA-256 of its METADATA ("" where it is not known)."""
        if answer.wheel is None:
            raise _failed(source, "Building {} from source ended without a wheel.", kind=Kind.BUILD_NO_WHEEL)
        _check_name(answer.wheel.name, source, probe)
        wheel = built_wheel(source, filename=answer.wheel.name, size_bytes=answer.size_bytes)
        made = await self._made.keep(wheel, answer.wheel, answer.log)
        try:
            (fragment,) = await self._store.fragments([wheel], base, probe, report=ignore)
        except UnbuildableEnvironment:
            await self._made.drop(wheel)
            raise
        metadata = (file.sha256 for file in fragment.files if file.path.endswith(".dist-info/METADATA"))
        return made, next(metadata, "")


def _check_name(filename: str, source: LockedSource, probe: BaseProbe) -> None:
    """That the wheel is the one that was to be made, for this base. What is in it is checked by whoever installs it."""
    try:
        if not WHEEL_FILENAME.fullmatch(filename):
            raise InvalidWheelFilename("it has an odd character")
        name, version, _, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename as error:
        raise _failed(source, "Building {} from source made no proper wheel.", detail=str(error)) from error
    if name != source.name or version != Version(source.version):
        what = "Building {} from source made a wheel of another package or version."
        raise _failed(source, what, kind=Kind.BUILD_METADATA, detail=filename)
    if tags.isdisjoint(supported_tags(probe)):
        what = "Building {} from source made a wheel for another platform than that of the image."
        raise _failed(source, what, kind=Kind.BUILD_METADATA, detail=filename)


def _failed(
    source: LockedFile, what: str, *, kind: Kind = Kind.BUILD_FAILED, advice: str = SOURCE_ADVICE, detail: str = ""
) -> PrebuiltError:
    what = what.format(f"{source.name} {source.version}")
    return Failure(kind=kind, what=what, advice=advice, package=source.name).error(detail=detail)


def _needs(source: LockedSource) -> str:
    names = ", ".join(f"{wheel.name}=={wheel.version}" for wheel in source.requires)
    return f"For the build: {names or 'nothing'}\n"


def _goes_on(report: Report, event: BuildEvent) -> None:
    """What is fetched for a build is a part of it, and no step of its own."""
    report(BuildEvent(phase=Phase.BUILDING))


async def _still_waits(report: Report) -> None:
    while True:
        await asyncio.sleep(_HEARD_SECONDS)
        report(BuildEvent(phase=Phase.WAITING))


def _waits(report: Report, place: int) -> None:
    report(BuildEvent(phase=Phase.WAITING, message=f"Waiting for other builds from source: place {place} in line"))
