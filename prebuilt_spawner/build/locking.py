"""Which lock answers a request: whose it is, when an old one is used, and when a new one is made.

A plain profile's lock is everybody's: its scope and its owner are `profile:<slug>`. Each user (`user:<name>`) keeps the
lock that they got for a list until they refresh. A free list's lock is found by what was asked (scope ""); that of a
profile and more (scope `extras:<slug>`) by what was asked and the profile's lock, so that it follows the profile's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TypeAlias

from packaging.version import InvalidVersion, Version

from ..environment.base import BaseImage, BaseProbe
from ..environment.digest import lineage_digest, lock_digest, request_digest
from ..environment.lock import Lock, LockedFile, LockedWheel
from ..environment.policy import check_lock
from ..environment.requirements import merge_requirements
from ..environment.root import refuse_root
from ..environment.spec import EnvironmentSpec
from ..errors import PolicyRefusal
from .events import Report
from .interface import Ledger, Resolver, StoredLock
from .lock_files import LockFiles
from .lookups import LockReads
from .provider import EnvironmentRequest, ProfileRequest
from .queue import WaitingRoom
from .rate import Charge, free
from .remembered import RememberedFailures
from .resolving import Question, Resolving
from .source_builds import SourceBuilds

_Answer: TypeAlias = Callable[[Question, bool], Awaitable[StoredLock]]
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
        sources: Builds what has no wheel; None builds nothing.
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
        sources: SourceBuilds | None = None,
        max_concurrent_resolves: int = 4,
        failures: RememberedFailures | None = None,
        room: WaitingRoom | None = None,
    ) -> None:
        self._ledger = ledger
        self._index_url = index_url
        self._extra_index_urls = tuple(extra_index_urls)
        self._resolving = Resolving(
            ledger,
            resolver,
            sources=sources,
            max_concurrent=max_concurrent_resolves,
            failures=failures or RememberedFailures(0),
            room=room or WaitingRoom(),
        )
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
            UnbuildableEnvironment, EngineUnavailable, EngineFailure: See `SourceBuilds.next_wheel`.
            StorageFailure: The ledger cannot be used.
        """

        async def answer(question: Question, refresh: bool) -> StoredLock:
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

        async def answer(question: Question, refresh: bool) -> StoredLock:
            if refresh:
                raise _NotKnown
            stored, ancestor = await self._found(reads or self._ledger, question)
            if stored is None:
                self._resolving.check(question, ancestor)
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
        question = replace(question, permit=partial(_permit, request, exempt))
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
    ) -> Question:
        spec = EnvironmentSpec(requirements=requirements)
        return Question(
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
            base=base,
        )

    async def _answer(self, question: Question, *, refresh: bool, report: Report, charge: Charge) -> StoredLock:
        if refresh:
            stored = await self._resolving.anew(question, report=report, charge=charge)
        else:
            found, ancestor = await self._found(self._ledger, question)
            stored = found or await self._resolving.once(question, ancestor, report=report, charge=charge)
        await self._ledger.hold(owner=question.owner, lock=stored)
        return stored

    async def _found(self, reads: LockReads, question: Question) -> tuple[StoredLock | None, StoredLock | None]:
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
        self, reads: LockReads, question: Question, previous: StoredLock
    ) -> tuple[StoredLock | None, StoredLock | None]:
        """The lock of the previous base, or on the profile's previous lock, here, as `_found` returns it."""
        if previous.request_digest == question.request_digest:
            return previous, None  # stored since we asked for it by its own name
        known = await reads.descendant(ancestor_id=previous.id, request_digest=question.request_digest)
        return known, None if known else previous


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


def _permit(request: EnvironmentRequest, exempt: Lock, file: LockedFile) -> None:
    """Refuse to build what the policy would refuse to install."""
    if request.policy is not None:
        wheel = LockedWheel(**{one.name: getattr(file, one.name) for one in fields(LockedFile)})
        # What it has as a wheel is not known yet.
        check_lock(
            request.policy,
            Lock(wheels=(replace(wheel, size_bytes=None),)),
            requirements=request.own_requirements,
            exempt=exempt,
            user_name=request.user,
        )
