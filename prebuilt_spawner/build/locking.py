"""Which lock answers a request: whose it is, when an old one is used, and when a new one is made.

A plain profile's lock is everybody's: its scope and its owner are `profile:<slug>`. Each user (`user:<name>`) keeps the
lock that they got for a list until they refresh. A free list's lock is found by what was asked (scope ""); that of a
profile and more (scope `extras:<slug>`) by what was asked and the profile's lock, so that it follows the profile's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from packaging.version import InvalidVersion, Version

from ..environment.base import BaseImage, BaseProbe
from ..environment.digest import lineage_digest, lock_digest, request_digest
from ..environment.lock import Lock
from ..environment.policy import check_lock
from ..environment.requirements import merge_requirements
from ..environment.root import refuse_root
from ..environment.spec import EnvironmentSpec
from ..errors import PolicyRefusal, RequestError
from .events import BuildEvent, Phase, Report
from .interface import Ledger, Resolver, ResolveRequest, StoredLock
from .lock_files import LockFiles
from .lookups import LockReads
from .provider import EnvironmentRequest, ProfileRequest
from .queue import Queue, WaitingRoom
from .rate import Charge, free
from .remembered import RememberedFailures
from .sharing import SharedTasks

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Question:
    """A request as the ledger and the resolver see it.

    Attributes:
        profile_lock: The profile's lock that the packages are added to.
    """

    owner: str
    scope: str
    request_digest: str
    lineage: str
    requirements: tuple[str, ...]
    probe: BaseProbe
    profile_lock: StoredLock | None


_Answer: TypeAlias = Callable[[_Question, bool], Awaitable[StoredLock]]
"""Answers a question; True asks for a newer lock."""


class _NotKnown(Exception):
    """There is no answer without resolving."""


class Locksmith:
    """Finds the lock of a request in the ledger, or has it made.

    Args:
        ledger: Remembers locks and who holds them.
        resolver: Makes new ones.
        index_url: The index that the resolver asks, None for its default. It is part of what was asked.
        extra_index_urls: Indexes that it asks besides, in order.
        max_concurrent_resolves: How many requests are resolved at once; the others wait in order of arrival.
        failures: Requests that could not be resolved lately.
        room: Bounds how many users wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        resolver: Resolver,
        *,
        index_url: str | None = None,
        extra_index_urls: Sequence[str] = (),
        max_concurrent_resolves: int = 4,
        failures: RememberedFailures | None = None,
        room: WaitingRoom | None = None,
    ) -> None:
        self._ledger = ledger
        self._resolver = resolver
        self._index_url = index_url
        self._extra_index_urls = tuple(extra_index_urls)
        self._resolving: SharedTasks[StoredLock] = SharedTasks()
        self._queue = Queue(max_concurrent_resolves)
        self._failures = failures or RememberedFailures(0)
        self._room = room or WaitingRoom()
        self._lock_files = LockFiles()

    async def lock_for(
        self,
        request: EnvironmentRequest,
        base: BaseImage,
        probe: BaseProbe,
        *,
        report: Report,
        charge: Charge = free,
    ) -> Lock:
        """The lock that this request gets on this base.

        Args:
            report: Hears of it only where something is resolved.
            charge: Called where that is done for this user alone or first, and not for a profile.

        Raises:
            BuildRateExceeded: `charge` did.
            PolicyRefusal: The request would renew a profile's lock, which is everybody's, or its policy does not allow
                what the lock installs, or its container starts as root.
            UnresolvableRequest, IndexUnavailable: See `Resolver`.
            StorageFailure: The ledger cannot be used.
        """

        async def answer(question: _Question, refresh: bool) -> StoredLock:
            costs = charge if question.owner.startswith("user:") else free
            return await self._answer(question, refresh=refresh, report=report, charge=costs)

        return await self._lock(request, base, probe, answer)

    async def known_lock(
        self, request: EnvironmentRequest, base: BaseImage, probe: BaseProbe, *, reads: LockReads | None = None
    ) -> Lock | None:
        """The lock that `lock_for` would give without resolving anything; None where it would resolve. Changes nothing.

        Args:
            reads: What to ask; None is the ledger.

        Raises:
            RequestError: What it would raise at once: the request is refused, or failed a while ago.
            StorageFailure: The ledger cannot be used.
        """

        async def answer(question: _Question, refresh: bool) -> StoredLock:
            if refresh:
                raise _NotKnown
            stored, ancestor = await self._found(reads or self._ledger, question)
            if stored is None:
                self._failures.check(_resolve_key(question, ancestor))
                raise _NotKnown
            return stored

        try:
            return await self._lock(request, base, probe, answer)
        except _NotKnown:
            return None

    async def _lock(self, request: EnvironmentRequest, base: BaseImage, probe: BaseProbe, answer: _Answer) -> Lock:
        """Which questions the request is, and what their answers make."""
        profile = request.profile
        if profile is not None and not request.own_requirements:
            if request.refresh and (profile.requirements or profile.pylock):
                _require_renewable(profile, allowed=request.may_refresh_profile)
            return await self._plain_profile(profile, base, probe, answer, refresh=request.refresh)
        if not request.requirements:
            return Lock()
        if request.policy is not None:
            refuse_root(request.policy.container_user, probe)
        scope, requirements, profile_lock, exempt = "", request.requirements, None, Lock()
        if profile is not None and profile.pylock:
            # What the administrator's file pins stays, to the version, and is part of what was asked.
            exempt = await self._lock_files.read(profile, base, probe)
            requirements = merge_requirements(requirements, exempt.packages)
        elif profile is not None and profile.requirements:
            # Not a free list: its locks must follow the profile's, and nobody else's may answer it.
            scope = f"extras:{profile.slug}"
            profile_lock = await self._profile_lock(profile, base, probe, answer, refresh=False)
            exempt = profile_lock.lock
        question = self._question(f"user:{request.user}", scope, requirements, base, probe, profile_lock)
        lock = (await answer(question, request.refresh)).lock
        if request.policy is not None:
            # Whether it was resolved just now or years ago: policies change.
            check_lock(
                request.policy,
                lock,
                requirements=request.own_requirements,
                exempt=exempt,
                user_name=request.user,
            )
        return lock

    async def close(self) -> None:
        """Cancel what is being resolved and read."""
        await self._resolving.close()
        await self._lock_files.close()

    async def _plain_profile(
        self, profile: ProfileRequest, base: BaseImage, probe: BaseProbe, answer: _Answer, *, refresh: bool
    ) -> Lock:
        if profile.pylock:
            return _without_present(await self._lock_files.read(profile, base, probe), probe)
        if not profile.requirements:
            return Lock()
        return (await self._profile_lock(profile, base, probe, answer, refresh=refresh)).lock

    async def _profile_lock(
        self, profile: ProfileRequest, base: BaseImage, probe: BaseProbe, answer: _Answer, *, refresh: bool
    ) -> StoredLock:
        name = f"profile:{profile.slug}"
        question = self._question(name, name, profile.requirements, base, probe, None)
        return await answer(question, refresh)

    def _question(
        self,
        owner: str,
        scope: str,
        requirements: tuple[str, ...],
        base: BaseImage,
        probe: BaseProbe,
        profile_lock: StoredLock | None,
    ) -> _Question:
        spec = EnvironmentSpec(requirements=requirements)
        return _Question(
            owner=owner,
            scope=scope,
            request_digest=request_digest(
                spec,
                base_digest=base.digest,
                index_url=self._index_url,
                extra_index_urls=self._extra_index_urls,
                scope=scope,
                profile_lock="" if profile_lock is None else lock_digest(profile_lock.lock),
            ),
            lineage=lineage_digest(
                spec,
                base_reference=base.reference,
                index_url=self._index_url,
                extra_index_urls=self._extra_index_urls,
                scope=scope,
            ),
            requirements=requirements,
            probe=probe,
            profile_lock=profile_lock,
        )

    async def _answer(self, question: _Question, *, refresh: bool, report: Report, charge: Charge) -> StoredLock:
        if refresh:
            self._failures.forget(_resolve_key(question, None))
            with self._room.seat():
                charge()
                stored = await self._resolve(question, ancestor=None, report=report)
        else:
            found, ancestor = await self._found(self._ledger, question)
            stored = found or await self._shared_resolve(question, ancestor, report, charge)
        await self._ledger.hold(owner=question.owner, lock=stored)
        return stored

    async def _found(self, reads: LockReads, question: _Question) -> tuple[StoredLock | None, StoredLock | None]:
        """What answers the question, the owner's own first; else None and the lock that its answer is to follow."""
        owner, scope = question.owner, question.scope
        held = await reads.held(owner=owner, request_digest=question.request_digest)
        if held is not None:
            return held, None
        previous = await reads.held_in_lineage(owner=owner, lineage=question.lineage)
        if previous is not None:
            return await self._carried_over(reads, question, previous)
        newest = await reads.newest(scope=scope, request_digest=question.request_digest)
        newest_of_all = await reads.newest_in_lineage(scope=scope, lineage=question.lineage)
        if newest_of_all is None or (newest is not None and newest.generation >= newest_of_all.generation):
            return newest, None
        # Here are only descendants of older locks yet, of people who kept theirs: not for somebody who comes first.
        return await self._carried_over(reads, question, newest_of_all)

    async def _carried_over(
        self, reads: LockReads, question: _Question, previous: StoredLock
    ) -> tuple[StoredLock | None, StoredLock | None]:
        """The lock of the previous base, or on the profile's previous lock, here, as `_found` returns it."""
        if previous.request_digest == question.request_digest:
            return previous, None  # stored since we asked for it by its own name
        known = await reads.descendant(ancestor_id=previous.id, request_digest=question.request_digest)
        return known, None if known else previous

    async def _shared_resolve(
        self, question: _Question, ancestor: StoredLock | None, report: Report, charge: Charge
    ) -> StoredLock:
        """Resolve once for all who ask the same at the same time; the owner is not part of it."""
        key = _resolve_key(question, ancestor)
        self._failures.check(key)
        with self._room.seat():
            if key not in self._resolving:
                charge()
            return await self._resolving.run(
                key, lambda tell: self._resolve(question, ancestor=ancestor, report=tell), report=report
            )

    async def _resolve(self, question: _Question, *, ancestor: StoredLock | None, report: Report) -> StoredLock:
        request = ResolveRequest(
            requirements=question.requirements,
            probe=question.probe,
            preferences=await self._preferences(question, ancestor),
        )

        def moved(place: int) -> None:
            report(BuildEvent(phase=Phase.WAITING, message=f"Waiting for other requests: place {place} in line"))

        async with self._queue.slot(moved):
            report(BuildEvent(phase=Phase.RESOLVING, message="Choosing package versions"))
            _log.info("Resolving %s (request %s)", ", ".join(question.requirements), question.request_digest[:12])
            try:
                lock = await self._resolver.resolve(request)
            except RequestError as error:
                self._failures.remember(_resolve_key(question, ancestor), error)
                raise
        return await self._ledger.remember(
            scope=question.scope,
            request_digest=question.request_digest,
            lineage=question.lineage,
            lock=lock,
            ancestor_id=None if ancestor is None else ancestor.id,
            profile_lock_id=None if question.profile_lock is None else question.profile_lock.id,
        )

    async def _preferences(self, question: _Question, ancestor: StoredLock | None) -> Mapping[str, str]:
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


def _resolve_key(question: _Question, ancestor: StoredLock | None) -> tuple[str, str, str, int | None]:
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


def _require_renewable(profile: ProfileRequest, *, allowed: bool) -> None:
    if not allowed:
        raise PolicyRefusal(
            f"The packages of the profile {profile.slug} are everybody's, and the administrator renews them. "
            "Start it without asking for newer versions.",
            about="refresh",
        )
    if profile.pylock:
        raise PolicyRefusal(
            f"The profile {profile.slug} has a lock file, which is renewed by replacing the file. "
            "Start it without asking for newer versions.",
            about="refresh",
        )


def _without_present(lock: Lock, probe: BaseProbe) -> Lock:
    """The lock without what the base has at that very version."""
    return Lock(
        wheels=tuple(
            wheel
            for wheel in lock.wheels
            if wheel.name not in probe.distributions
            or not _same_version(wheel.version, probe.distributions[wheel.name].version)
        )
    )


def _same_version(first: str, second: str) -> bool:
    try:
        return Version(first) == Version(second)
    except InvalidVersion:
        return first == second
