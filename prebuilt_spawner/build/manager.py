"""One manager per hub: it owns the builds, whoever waits for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..environment.base import BaseImage, BaseProbe
from ..environment.lock import Lock
from ..errors import BuildTimeout, PolicyRefusal, PrebuiltError, RequestError, StorageFailure
from .chronicle import Chronicle
from .events import BuildEvent, Phase, Report, ignore
from .guard import Guard, NoGuard
from .history import BuildHistory, Outcome
from .interface import DerivedImage, Engine, Ledger, WheelStore
from .locking import Locksmith
from .preview import Preview, Readiness, as_summary
from .previews import Previews
from .provider import Environment, EnvironmentRequest, Provider
from .queue import Queue, WaitingRoom
from .rate import BuildRates, Charge, free
from .remembered import RememberedFailures
from .sharing import SharedTasks
from .source_builds import SourceBuilds

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuildLimits:
    """What builds may take.

    Attributes:
        max_concurrent_builds: How many images are made at once; further ones wait in the order of their arrival.
        max_queued_builds: How many wait at most.
        silence_seconds: A build that says nothing for so long is given up.
    """

    max_concurrent_builds: int = 2
    max_queued_builds: int = 50
    silence_seconds: float = 300


_LIMITS = BuildLimits()


class BuildManager:
    """Runs each build once, for all who wait for it.

    Args:
        history: Remembers the builds.
        hub: This hub's name in the history.
        failures: Environments that could not be built lately.
        room: Bounds how many users wait; the locksmith's too.
        guard: Looks after the disks.
        sources: What builds from source, closed with the manager.
        now: A clock in seconds that never goes back.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        wheel_store: WheelStore,
        ledger: Ledger,
        history: BuildHistory,
        locksmith: Locksmith,
        provider: Provider,
        hub: str = "",
        failures: RememberedFailures | None = None,
        room: WaitingRoom | None = None,
        guard: Guard | None = None,
        sources: SourceBuilds | None = None,
        limits: BuildLimits = _LIMITS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._wheel_store = wheel_store
        self._ledger = ledger
        self._history = history
        self._locksmith = locksmith
        self._provider = provider
        self._hub = hub
        self._failures = failures or RememberedFailures(0)
        self._room = room or WaitingRoom()
        self._guard = guard or NoGuard()
        self._sources = sources
        self._rates = BuildRates(now=now)
        self._limits = limits
        self._now = now
        self._queue = Queue(limits.max_concurrent_builds, most_waiting=limits.max_queued_builds)
        self._builds: SharedTasks[DerivedImage] = SharedTasks(now=now)
        self._recording: SharedTasks[None] = SharedTasks()
        """What puts down what could not be resolved, by the identity of the failure."""
        self._waiting: dict[str, list[str]] = {}
        """The users who wait for a build, by environment digest."""
        self._recorded_as: dict[str, int] = {}
        """The history's ids of the builds that go on, by environment digest."""
        self._previews = Previews(
            engine=engine,
            ledger=ledger,
            history=history,
            locksmith=locksmith,
            provider=provider,
            waiting=self._waiting,
            failures=self._failures,
            now=now,
        )

    async def ensure(self, request: EnvironmentRequest, *, report: Report) -> Environment:
        """The environment that the request stands for, built if no image of it exists.

        Raises:
            PrebuiltError: See `prebuilt_spawner.errors`; its `message` is for the user.
        """
        base = await self._engine.resolve_base(request.base)
        probe = await self._engine.probe(base)
        chronicle = Chronicle(self._now)
        charge = self._charge(request)
        lock = await self._locked(request, base, probe, chronicle, report, charge)
        environment = self._provider.name(base=base, probe=probe, lock=lock)
        await self._ledger.use_environment(environment.digest)
        image = await self._provider.present(environment)
        if image is None:
            report(
                BuildEvent(phase=Phase.WAITING, summary=as_summary(await self._previews.of_start(request, environment)))
            )
            image = await self._built(request, environment, chronicle, report, charge)
        else:
            report(BuildEvent(phase=Phase.READY, summary=as_summary(Preview(readiness=Readiness.READY))))
        await self._ledger.record_environment(
            digest=environment.digest,
            base_digest=base.digest,
            lock=lock,
            size_bytes=image.size_bytes,
            user=request.user,
            options=request.options,
        )
        return environment

    async def preview(self, requests: Sequence[EnvironmentRequest]) -> Sequence[Preview]:
        """What a start of each request would do now. Nothing is resolved, fetched, built, pulled or probed for it, and
        nothing is raised: what cannot be known is left out."""
        return await self._previews.of(requests)

    async def recent(self, *, user: str, since: datetime | None = None, limit: int = 5) -> Sequence[Mapping[str, Any]]:
        """See `Ledger.recent`; nothing where the ledger cannot be used."""
        with suppress(StorageFailure):
            return await self._ledger.recent(user=user, since=since, limit=limit)
        return ()

    async def close(self) -> None:
        """Stop every build and release what they hold."""
        await self._previews.close()
        await self._locksmith.close()
        await self._builds.close()
        await self._provider.close()
        if self._sources is not None:
            await self._sources.close()
        await self._wheel_store.close()
        await self._engine.close()
        await self._guard.close()
        await self._ledger.close()

    def _charge(self, request: EnvironmentRequest) -> Charge:
        """What the start is charged with where it causes work."""
        if request.policy is None or not request.own_requirements:
            return free
        return self._rates.for_start(request.user, request.policy.max_builds_per_hour)

    async def _locked(
        self,
        request: EnvironmentRequest,
        base: BaseImage,
        probe: BaseProbe,
        chronicle: Chronicle,
        report: Report,
        charge: Charge,
    ) -> Lock:
        """The request's lock. What could not be resolved is remembered as a build that failed."""

        def tell(event: BuildEvent) -> None:
            chronicle.add(event)
            report(event)

        try:
            return await self._locksmith.lock_for(request, base, probe, report=tell, charge=charge)
        except PrebuiltError as failure:
            # Without a phase, it was answered from memory.
            if chronicle.phase_seconds():
                with suppress(StorageFailure):
                    await self._record_unresolved(request, failure, chronicle)
            raise
        finally:
            if chronicle.phase_seconds():
                self._previews.forget()

    async def _record_unresolved(
        self, request: EnvironmentRequest, failure: PrebuiltError, chronicle: Chronicle
    ) -> None:
        """All who waited get the same failure: the first of them has it recorded, and the others are named too."""

        async def record(_: Report) -> None:
            failure.build_id = await self._history.begin_build(
                hub=self._hub, digest="", base=request.base, requirements=request.requirements, user=request.user
            )
            await self._history.end_build(
                failure.build_id,
                outcome=Outcome.FAILED,
                phase_seconds=chronicle.phase_seconds(),
                error=failure.message,
                log=chronicle.log(failure.detail),
                request_fault=_is_everybodys(failure),
            )
            _log.info("Build %d was not resolved: %s %s", failure.build_id, failure.message, failure.detail)

        if not failure.build_id:
            await self._recording.run(id(failure), record, report=ignore)
        await self._join(failure.build_id, request.user)

    async def _built(
        self,
        request: EnvironmentRequest,
        environment: Environment,
        chronicle: Chronicle,
        report: Report,
        charge: Charge,
    ) -> DerivedImage:
        digest = environment.digest
        if request.refresh:
            self._failures.forget(digest)
        self._failures.check(digest)
        waiting = self._waiting.setdefault(digest, [])
        waiting.append(request.user)
        try:
            with self._room.seat():
                # Who may have more than others waits for a build that may have as much.
                key = digest, _max_unsized_bytes(request, environment)
                if key not in self._builds:
                    charge()
                if digest in self._recorded_as:
                    await self._join(self._recorded_as[digest], request.user)
                return await self._builds.run(
                    key, lambda tell: self._build(request, environment, chronicle, tell), report=report
                )
        except asyncio.CancelledError:
            # By its build's number a wait that took too long is found beside what it waited for.
            build = f"build {self._recorded_as[digest]}" if digest in self._recorded_as else "the build"
            _log.info("%s does not wait for %s of %s any more", request.user, build, environment.image)
            raise
        finally:
            waiting.remove(request.user)
            if not waiting:
                self._waiting.pop(digest, None)
            self._previews.forget()

    async def _join(self, build_id: int, user: str) -> None:
        with suppress(StorageFailure):
            await self._history.join_build(build_id, user=user)

    async def _build(
        self, request: EnvironmentRequest, environment: Environment, chronicle: Chronicle, report: Report
    ) -> DerivedImage:
        """One build in its turn, for whoever waits. Its story begins with how the first of them got its lock."""

        def tell(event: BuildEvent) -> None:
            chronicle.add(event)
            report(event)

        def moved(place: int) -> None:
            message = "Waiting for another build to end" if place == 1 else f"Waiting for others: place {place} in line"
            tell(BuildEvent(phase=Phase.WAITING, message=message))

        async with self._queue.slot(moved):
            # Whoever asked just before another build of the same ended has not seen its image.
            present = await self._provider.present(environment)
            if present is not None:
                return present
            await self._guard.check()
            image = await self._recorded(request, environment, chronicle, tell)
        self._guard.tidy()
        return image

    async def _recorded(
        self,
        request: EnvironmentRequest,
        environment: Environment,
        chronicle: Chronicle,
        report: Report,
    ) -> DerivedImage:
        """The build itself; the history knows of it from its first moment to its last."""
        digest = environment.digest
        self._recorded_as[digest] = build_id = await self._begun(request, digest)
        outcome, error, detail, size_bytes, fault = Outcome.FAILED, "", "", 0, False
        try:
            for user in tuple(self._waiting.get(digest, ())):  # who came before this began
                await self._join(build_id, user)
            await self._tell_estimate(request, report)
            limit_bytes = _max_unsized_bytes(request, environment)
            making = self._provider.make(environment, report=report, max_unsized_bytes=limit_bytes)
            image = await self._heard(making, chronicle)
            outcome, size_bytes = Outcome.DONE, image.size_bytes
            return image
        except asyncio.CancelledError:
            outcome = Outcome.CANCELLED
            raise
        except PrebuiltError as failure:
            error, detail, fault = failure.message, failure.detail, _is_everybodys(failure)
            failure.build_id = build_id
            self._failures.remember(digest, failure)
            _log.info("Build %d of %s failed: %s %s", build_id, environment.image, error, failure.detail)
            raise
        finally:
            if self._recorded_as.get(digest) == build_id:  # else somebody came while this was being stopped
                del self._recorded_as[digest]
            # Shielded, so that a build that is stopped is remembered as that. What fails here changes no outcome.
            with suppress(StorageFailure):
                await asyncio.shield(
                    self._history.end_build(
                        build_id,
                        outcome=outcome,
                        phase_seconds=chronicle.phase_seconds(),
                        error=error,
                        log=chronicle.log(detail),
                        size_bytes=size_bytes,
                        request_fault=fault,
                    )
                )

    async def _begun(self, request: EnvironmentRequest, digest: str) -> int:
        """The history's id of a build that begins now. It is ended again where the caller is cancelled meanwhile."""
        beginning = asyncio.ensure_future(
            self._history.begin_build(
                hub=self._hub,
                digest=digest,
                base=request.base,
                requirements=request.requirements,
                user=request.user,
            )
        )
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            with suppress(StorageFailure):
                await self._history.end_build(await beginning, outcome=Outcome.CANCELLED, phase_seconds={})
            raise

    async def _tell_estimate(self, request: EnvironmentRequest, report: Report) -> None:
        with suppress(StorageFailure):
            seconds = await self._history.usual_seconds(base=request.base, packages=len(request.requirements))
            if seconds is not None:
                message = f"Like environments took about {max(1, round(seconds))} s"
                report(BuildEvent(phase=Phase.WAITING, message=message, estimate_seconds=seconds))

    async def _heard(self, work: Awaitable[DerivedImage], chronicle: Chronicle) -> DerivedImage:
        """The result of work that goes on being heard of."""
        task = asyncio.ensure_future(work)
        begun = self._now()
        try:
            while not task.done():
                # Its wait for its turn may have been silent for long.
                silent_seconds = min(chronicle.silent_seconds, self._now() - begun)
                left_seconds = self._limits.silence_seconds - silent_seconds
                if left_seconds <= 0:
                    raise BuildTimeout(
                        "Preparing the environment has stopped for an unknown reason. Try again, and tell your "
                        "administrator if it happens again.",
                        detail=f"nothing was heard of it for {self._limits.silence_seconds:g} seconds",
                    )
                await asyncio.wait({task}, timeout=left_seconds)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def _max_unsized_bytes(request: EnvironmentRequest, environment: Environment) -> int | None:
    """How much may be downloaded without a known size; None is no limit, as where every size is known."""
    if request.policy is None or not request.own_requirements:
        return None
    known = all(wheel.size_bytes is not None for wheel in environment.lock.wheels)
    return None if known else request.policy.max_environment_bytes or None


def _is_everybodys(failure: PrebuiltError) -> bool:
    """Whether whoever asks the same fails with it: a policy is one user's."""
    return isinstance(failure, RequestError) and not isinstance(failure, PolicyRefusal)
