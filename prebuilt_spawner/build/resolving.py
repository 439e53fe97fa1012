"""Making a lock: each question resolved once for all who ask it at the same time, with what has to be built for it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass, field, replace

from ..environment.base import BaseImage, BaseProbe
from ..errors import RequestError, UnresolvableRequest
from .events import BuildEvent, Phase, Report
from .interface import Ledger, Resolver, ResolveRequest, StoredLock
from .queue import Queue, WaitingRoom
from .rate import Charge
from .remembered import RememberedFailures
from .sharing import SharedTasks
from .source_builds import Permit, SourceBuilds, permit_all

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request as the ledger and the resolver see it.

    Attributes:
        profile_lock: The profile's lock that the packages are added to.
        permit: What may be built from source for whoever asks.
    """

    owner: str
    scope: str
    request_digest: str
    lineage: str
    requirements: tuple[str, ...]
    probe: BaseProbe
    profile_lock: StoredLock | None
    base: BaseImage
    permit: Permit = field(default=permit_all, compare=False)


class Resolving:
    """Makes locks and stores them.

    Args:
        ledger: Remembers them.
        resolver: Makes them.
        sources: Builds what has no wheel; None builds nothing.
        max_concurrent: How many requests are resolved at once; the others wait in order of arrival.
        failures: Requests that could not be resolved lately.
        room: Bounds how many users wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        resolver: Resolver,
        *,
        sources: SourceBuilds | None,
        max_concurrent: int,
        failures: RememberedFailures,
        room: WaitingRoom,
    ) -> None:
        self._ledger = ledger
        self._resolver = resolver
        self._sources = sources
        self._queue = Queue(max_concurrent)
        self._failures = failures
        self._room = room
        self._running: SharedTasks[StoredLock] = SharedTasks()

    def check(self, question: Question, ancestor: StoredLock | None) -> None:
        """Raise what this failed with, where that was a while ago at most."""
        self._failures.check(_key(question, ancestor))

    async def anew(self, question: Question, *, report: Report, charge: Charge) -> StoredLock:
        """A newer lock, for one user alone. See `once`."""
        self._failures.forget(_key(question, None))
        request = await self._request(question, None)
        with self._room.seat():
            charge()
            return await self._with_sources(
                question,
                None,
                request,
                lambda asked: self._resolve(question, None, asked, report),
                report,
                refresh=True,
            )

    async def once(
        self, question: Question, ancestor: StoredLock | None, *, report: Report, charge: Charge
    ) -> StoredLock:
        """Resolve once for all who ask the same at the same time; the owner is not part of it."""
        key = _key(question, ancestor)
        self.check(question, ancestor)
        request = await self._request(question, ancestor)
        with self._room.seat():
            if key not in self._running:
                charge()

            async def shared(asked: ResolveRequest) -> StoredLock:
                built = tuple(made.wheel.sha256 for made in asked.made)
                return await self._running.run(
                    (key, built) if built else key,
                    lambda tell: self._resolve(question, ancestor, asked, tell),
                    report=report,
                )

            return await self._with_sources(question, ancestor, request, shared, report)

    async def close(self) -> None:
        """Cancel what is being resolved."""
        await self._running.close()

    async def _with_sources(
        self,
        question: Question,
        ancestor: StoredLock | None,
        request: ResolveRequest,
        resolve: Callable[[ResolveRequest], Awaitable[StoredLock]],
        report: Report,
        *,
        refresh: bool = False,
    ) -> StoredLock:
        """Resolve, and once more with each wheel that has to be built from source for it.

        Each user who waits asks for the next wheel with a policy of their own; resolving and building are shared.
        """
        try:
            while True:
                try:
                    return await resolve(request)
                except UnresolvableRequest as error:
                    if self._sources is None:
                        raise
                    made = await self._sources.next_wheel(
                        error, request, question.base, permit=question.permit, refresh=refresh, report=report
                    )
                    request = replace(request, made=(*request.made, made))
        except RequestError as error:
            self._failures.remember(_key(question, ancestor), error)
            raise

    async def _resolve(
        self, question: Question, ancestor: StoredLock | None, request: ResolveRequest, report: Report
    ) -> StoredLock:
        def moved(place: int) -> None:
            report(BuildEvent(phase=Phase.WAITING, message=f"Waiting for other requests: place {place} in line"))

        async with self._queue.slot(moved):
            report(BuildEvent(phase=Phase.RESOLVING, message="Choosing package versions"))
            _log.info("Resolving %s (request %s)", ", ".join(question.requirements), question.request_digest[:12])
            lock = await self._resolver.resolve(request)
        return await self._ledger.remember(
            scope=question.scope,
            request_digest=question.request_digest,
            lineage=question.lineage,
            lock=lock,
            ancestor_id=None if ancestor is None else ancestor.id,
            profile_lock_id=None if question.profile_lock is None else question.profile_lock.id,
        )

    async def _request(self, question: Question, ancestor: StoredLock | None) -> ResolveRequest:
        return ResolveRequest(
            requirements=question.requirements,
            probe=question.probe,
            preferences=await self._preferences(question, ancestor),
        )

    async def _preferences(self, question: Question, ancestor: StoredLock | None) -> Mapping[str, str]:
        profile_pins = {} if question.profile_lock is None else question.profile_lock.lock.pins
        if ancestor is None:
            return profile_pins
        before = None
        if ancestor.profile_lock_id is not None:
            before = await self._ledger.stored(ancestor.profile_lock_id)
        return _merged_pins(
            ancestor.lock.pins,
            profile_before={} if before is None else before.lock.pins,
            profile_now=profile_pins,
            present=question.probe.distributions,
        )


def _key(question: Question, ancestor: StoredLock | None) -> tuple[str, str, str, int | None]:
    """What a resolve is shared and remembered by; who asks is not part of it."""
    ancestor_id = None if ancestor is None else ancestor.id
    return question.scope, question.request_digest, question.lineage, ancestor_id


def _merged_pins(
    own: Mapping[str, str],
    *,
    profile_before: Mapping[str, str],
    profile_now: Mapping[str, str],
    present: Container[str],
) -> dict[str, str]:
    """Which versions to keep: the own ones, but for packages that the profile has moved meanwhile.

    Args:
        own: Pins of the lock to follow, by package as all of these.
        profile_before: Those of the profile's lock that it stood on.
        profile_now: Those of the profile's lock now.
        present: The base's packages: where the profile went back to one of them, so does the lock.
    """
    moved = {name: version for name, version in profile_now.items() if profile_before.get(name) != version}
    left = {name for name in profile_before if name not in profile_now and name in present}
    kept = {name: version for name, version in own.items() if name not in left}
    return {**profile_now, **kept, **moved}
