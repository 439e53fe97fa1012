"""Which lock answers a request: whose it is, when an old one is used, and when a new one is made.

A plain profile's lock is everybody's: its scope and its owner are `profile:<slug>`. A free list's lock is found by what
was asked (scope ""), and each user (`user:<name>`) keeps the one that they got until they refresh.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from ..environment.base import BaseImage, BaseProbe
from ..environment.digest import lineage_digest, request_digest
from ..environment.lock import Lock, parse_pylock
from ..environment.requirements import merge_requirements
from ..environment.spec import EnvironmentSpec
from ..errors import PolicyRefusal
from .events import BuildEvent, Phase, Report
from .interface import Ledger, Resolver, ResolveRequest, StoredLock
from .provider import EnvironmentRequest, ProfileRequest
from .sharing import SharedTasks

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Question:
    """A request as the ledger and the resolver see it.

    Attributes:
        preferences: The pins that stay before the question's own history counts: those of the profile that a free
            list stands on.
    """

    owner: str
    scope: str
    request_digest: str
    lineage: str
    requirements: tuple[str, ...]
    probe: BaseProbe
    preferences: Mapping[str, str]


class Locksmith:
    """Finds the lock of a request in the ledger, or has it made.

    Args:
        ledger: Remembers locks and who holds them.
        resolver: Makes new ones.
        index_url: The index that the resolver asks, None for its default. It is part of what was asked.
        extra_index_urls: Indexes that it asks besides, in order.
    """

    def __init__(
        self,
        ledger: Ledger,
        resolver: Resolver,
        *,
        index_url: str | None = None,
        extra_index_urls: Sequence[str] = (),
    ) -> None:
        self._ledger = ledger
        self._resolver = resolver
        self._index_url = index_url
        self._extra_index_urls = tuple(extra_index_urls)
        self._resolving: SharedTasks[StoredLock] = SharedTasks()

    async def lock_for(self, request: EnvironmentRequest, base: BaseImage, probe: BaseProbe, *, report: Report) -> Lock:
        """The lock that this request gets on this base. `report` hears of it only where something is resolved.

        Raises:
            PolicyRefusal: The request would renew a profile's lock, which is everybody's.
            UnresolvableRequest, IndexUnavailable: See `Resolver`.
            StorageFailure: The ledger cannot be used.
        """
        profile = request.profile
        if profile is not None and set(request.requirements) == set(profile.requirements):
            if request.refresh and (profile.requirements or profile.pylock):
                _require_renewable(profile, allowed=request.may_refresh_profile)
            return await self._profile_lock(profile, base, probe, refresh=request.refresh, report=report)
        if not request.requirements:
            return Lock()
        requirements = request.requirements
        pins: Mapping[str, str] = {}
        if profile is not None and profile.pylock:
            # What the administrator's file pins stays, to the version, and is part of what was asked.
            kept = _read_pylock(profile, probe)
            requirements = merge_requirements(requirements, kept.packages)
        elif profile is not None:
            # Adding a package must not move the profile's own.
            pins = (await self._profile_lock(profile, base, probe, refresh=False, report=report)).pins
        question = self._question(f"user:{request.user}", "", requirements, base, probe, pins)
        return await self._answer(question, refresh=request.refresh, report=report)

    async def close(self) -> None:
        """Cancel what is being resolved."""
        await self._resolving.close()

    async def _profile_lock(
        self, profile: ProfileRequest, base: BaseImage, probe: BaseProbe, *, refresh: bool, report: Report
    ) -> Lock:
        if profile.pylock:
            return _without_present(_read_pylock(profile, probe), probe)
        if not profile.requirements:
            return Lock()
        name = f"profile:{profile.slug}"
        question = self._question(name, name, profile.requirements, base, probe, {})
        return await self._answer(question, refresh=refresh, report=report)

    def _question(
        self,
        owner: str,
        scope: str,
        requirements: tuple[str, ...],
        base: BaseImage,
        probe: BaseProbe,
        preferences: Mapping[str, str],
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
            preferences=preferences,
        )

    async def _answer(self, question: _Question, *, refresh: bool, report: Report) -> Lock:
        if refresh:
            stored = await self._resolve(question, ancestor=None, report=report)
        else:
            stored = await self._known(question, report) or await self._shared_resolve(question, None, report)
        await self._ledger.hold(owner=question.owner, lock=stored)
        return stored.lock

    async def _known(self, question: _Question, report: Report) -> StoredLock | None:
        """What the ledger has for the question, or what follows from it on this base; the owner's own goes first."""
        ledger, owner, scope = self._ledger, question.owner, question.scope
        held = await ledger.held(owner=owner, request_digest=question.request_digest)
        if held is not None:
            return held
        previous = await ledger.held_in_lineage(owner=owner, lineage=question.lineage)
        if previous is not None:
            return await self._carried_over(question, previous, report)
        newest = await ledger.newest(scope=scope, request_digest=question.request_digest)
        if newest is not None:
            return newest
        previous = await ledger.newest_in_lineage(scope=scope, lineage=question.lineage)
        if previous is not None:
            return await self._carried_over(question, previous, report)
        return None

    async def _carried_over(self, question: _Question, previous: StoredLock, report: Report) -> StoredLock:
        """The previous base's lock on this base: the same versions wherever the base permits."""
        if previous.request_digest == question.request_digest:
            return previous  # stored since we asked for it by its own name
        known = await self._ledger.descendant(ancestor_id=previous.id, request_digest=question.request_digest)
        return known or await self._shared_resolve(question, previous, report)

    async def _shared_resolve(self, question: _Question, ancestor: StoredLock | None, report: Report) -> StoredLock:
        """Resolve once for all who ask the same at the same time; the owner is not part of it."""
        key = (
            question.scope,
            question.request_digest,
            question.lineage,
            None if ancestor is None else ancestor.id,
            frozenset(question.preferences.items()),
        )
        return await self._resolving.run(
            key, lambda tell: self._resolve(question, ancestor=ancestor, report=tell), report=report
        )

    async def _resolve(self, question: _Question, *, ancestor: StoredLock | None, report: Report) -> StoredLock:
        report(BuildEvent(phase=Phase.RESOLVING, message="Choosing package versions"))
        _log.info("Resolving %s (request %s)", ", ".join(question.requirements), question.request_digest[:12])
        # What the owner's own lock says goes before the profile's: it was in use with the previous base.
        pins = {} if ancestor is None else ancestor.lock.pins
        lock = await self._resolver.resolve(
            ResolveRequest(
                requirements=question.requirements,
                probe=question.probe,
                preferences={**question.preferences, **pins},
            )
        )
        return await self._ledger.remember(
            scope=question.scope,
            request_digest=question.request_digest,
            lineage=question.lineage,
            lock=lock,
            ancestor_id=None if ancestor is None else ancestor.id,
        )


def _require_renewable(profile: ProfileRequest, *, allowed: bool) -> None:
    if not allowed:
        raise PolicyRefusal(
            f"The packages of the profile {profile.slug} are everybody's, and the administrator renews them. "
            "Start it without asking for newer versions."
        )
    if profile.pylock:
        raise PolicyRefusal(
            f"The profile {profile.slug} has a lock file, which is renewed by replacing the file. "
            "Start it without asking for newer versions."
        )


def _read_pylock(profile: ProfileRequest, probe: BaseProbe) -> Lock:
    return parse_pylock(profile.pylock, probe, source=f"the lock file of the profile {profile.slug}")


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
