"""Finds out what starts would do, many at a time and cheaply: nothing is resolved, fetched, built, pulled or probed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..environment.base import BaseImage, BaseProbe
from ..environment.lock import Lock
from ..errors import PrebuiltError, RequestError
from .history import BuildHistory, Outcome
from .interface import Engine, Ledger
from .lately import Lately
from .locking import Locksmith
from .lookups import GatheredReads, LastBuild, LockReads
from .preview import Preview, Readiness
from .provider import Environment, EnvironmentRequest, Provider
from .remembered import RememberedFailures
from .usual import UsualTimes

SHARED_SECONDS = 2.0
"""How long an answer is given again: what others than this hub change shows after that time."""

PATIENCE_SECONDS = 2.0
"""How long a form waits for an engine, a database or a lock file that takes its time."""

_AT_ONCE = 50
"""How many requests are looked up before others get a turn of the event loop."""

_UNKNOWN = Preview(readiness=Readiness.UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What there is of a request's environment, whoever waits for it.

    Attributes:
        digest, image: The environment digest and the image's name; "" while the lock is not known.
        unresolved: Whether a start would have to resolve it.
        unknown: Whether an engine or a database could not be asked.
        error: What a start would fail with, or failed with last by the request's fault.
    """

    digest: str = ""
    image: str = ""
    unresolved: bool = False
    unknown: bool = False
    present: bool = False
    packages: tuple[str, ...] | None = None
    from_source: tuple[str, ...] = ()
    size_bytes: int | None = None
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class _Locked:
    """A request's lock, where it is known, and what it is for; or what a start would fail with at once."""

    base: BaseImage | None = None
    probe: BaseProbe | None = None
    lock: Lock | None = None
    unresolved: bool = False
    unknown: bool = False
    error: str = ""


@dataclass
class _Entry:
    """An answer that is given again until that time; None while it is being found."""

    task: asyncio.Task[list[_Facts]]
    index: int
    until: float | None = None


class Previews:
    """Previews of requests.

    Args:
        waiting: The users who wait for builds on this hub, by environment digest, as it is at each moment.
        failures: Environments that could not be built lately.
        now: A clock in seconds that never goes back.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        ledger: Ledger,
        history: BuildHistory,
        locksmith: Locksmith,
        provider: Provider,
        waiting: Mapping[str, Sequence[str]],
        failures: RememberedFailures,
        now: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._history = history
        self._locksmith = locksmith
        self._provider = provider
        self._waiting = waiting
        self._failures = failures
        self._now = now
        self._bases: Lately[tuple[BaseImage, BaseProbe] | None] = Lately(SHARED_SECONDS, now=now)
        self._usual: Lately[UsualTimes] = Lately(SHARED_SECONDS, now=now)
        self._entries: dict[Hashable, _Entry] = {}
        self._tasks: set[asyncio.Task[list[_Facts]]] = set()

    async def of(self, requests: Sequence[EnvironmentRequest]) -> list[Preview]:
        """See `BuildManager.preview`."""
        entries = self._entries_of(requests)
        unfinished = {entry.task for entry in entries if not entry.task.done()}
        if unfinished:
            await asyncio.wait(unfinished, timeout=PATIENCE_SECONDS)
        return [self._shown(entry.task.result()[entry.index]) if _is_found(entry) else _UNKNOWN for entry in entries]

    async def of_start(self, request: EnvironmentRequest, environment: Environment) -> Preview:
        """The preview of a start that has just found that its image is not there."""
        (facts,) = await self._with_history([request], [_of_environment(environment)])
        return self._shown(facts)

    def forget(self) -> None:
        """This hub has changed something: answer anew, and not with what is just being found."""
        self._entries.clear()
        self._bases.forget()
        self._usual.forget()

    async def close(self) -> None:
        """Stop what is being found."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._bases.close()
        await self._usual.close()

    def _shown(self, facts: _Facts) -> Preview:
        preview = Preview(
            readiness=Readiness.UNKNOWN if facts.unknown else Readiness.UNBUILT,
            packages=facts.packages,
            from_source=facts.from_source,
            size_bytes=facts.size_bytes,
            seconds=facts.seconds,
        )
        if facts.present:
            return replace(preview, readiness=Readiness.READY, seconds=None)
        waiting = len(set(self._waiting.get(facts.digest, ()))) if facts.digest else 0
        if waiting:
            return replace(preview, readiness=Readiness.BUILDING, waiting=waiting)
        error = self._remembered(facts.digest) or facts.error
        return replace(preview, readiness=Readiness.FAILED, error=error) if error else preview

    def _remembered(self, digest: str) -> str:
        try:
            self._failures.check(digest)
        except RequestError as error:
            return error.message
        return ""

    # -- sharing -----------------------------------------------------------------------------------------------------

    def _entries_of(self, requests: Sequence[EnvironmentRequest]) -> list[_Entry]:
        now = self._now()
        self._entries = {key: entry for key, entry in self._entries.items() if _is_fresh(entry, now)}
        keys = [_key(request) for request in requests]
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._entries}
        # A long lock file takes half a second to read: nobody else's answer waits for that.
        slow = {key: request for key, request in missing.items() if request.profile and request.profile.pylock}
        self._start({key: request for key, request in missing.items() if key not in slow})
        self._start(slow)
        return [self._entries[key] for key in keys]

    def _start(self, missing: Mapping[Hashable, EnvironmentRequest]) -> None:
        if not missing:
            return
        task = asyncio.get_running_loop().create_task(self._found(list(missing.values())))
        entries = {key: _Entry(task=task, index=index) for index, key in enumerate(missing)}
        self._entries.update(entries)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, entries.values()))

    def _ended(self, task: asyncio.Task[list[_Facts]], entries: Iterable[_Entry]) -> None:
        self._tasks.discard(task)
        until = self._now() + SHARED_SECONDS
        for entry in entries:
            entry.until = until

    # -- finding out -------------------------------------------------------------------------------------------------

    async def _found(self, requests: Sequence[EnvironmentRequest]) -> list[_Facts]:
        facts = await self._named(requests)
        try:
            present = await self._present({one.image for one in facts if one.image})
        except PrebuiltError:
            return [replace(one, unknown=True) for one in facts]
        absent = [number for number, one in enumerate(facts) if one.image not in present]
        looked_up = await self._with_history(
            [requests[number] for number in absent], [facts[number] for number in absent]
        )
        found = dict(zip(absent, looked_up, strict=True))
        return [found.get(number) or replace(one, present=True) for number, one in enumerate(facts)]

    async def _named(self, requests: Sequence[EnvironmentRequest]) -> list[_Facts]:
        """Which environments the requests stand for, as far as their locks are known."""
        references = sorted({request.base for request in requests})
        bases = dict(zip(references, await asyncio.gather(*map(self._known_base, references)), strict=True))
        facts: list[_Facts] = []
        for start in range(0, len(requests), _AT_ONCE):
            part = requests[start : start + _AT_ONCE]
            reads = GatheredReads(self._ledger)
            locks = await asyncio.gather(*(self._lock(request, bases[request.base], reads) for request in part))
            facts += await asyncio.to_thread(self._of_locks, locks)
        return facts

    async def _known_base(self, reference: str) -> tuple[BaseImage, BaseProbe] | PrebuiltError | None:
        try:
            return await self._bases.get(reference, lambda: self._engine.known_base(reference))
        except PrebuiltError as error:
            return error

    async def _lock(
        self,
        request: EnvironmentRequest,
        known_base: tuple[BaseImage, BaseProbe] | PrebuiltError | None,
        reads: LockReads,
    ) -> _Locked:
        if known_base is None:
            return _Locked()
        if isinstance(known_base, PrebuiltError):
            return _Locked(unknown=True)
        base, probe = known_base
        try:
            lock = await self._locksmith.known_lock(request, base, probe, reads=reads)
        except RequestError as error:
            return _Locked(error=error.message)
        except PrebuiltError:
            return _Locked(unknown=True)
        return _Locked(base=base, probe=probe, lock=lock, unresolved=lock is None and not request.refresh)

    def _of_locks(self, locks: Sequence[_Locked]) -> list[_Facts]:
        return [
            _Facts(error=locked.error, unresolved=locked.unresolved, unknown=locked.unknown)
            if locked.lock is None or locked.base is None or locked.probe is None
            else _of_environment(self._provider.name(base=locked.base, probe=locked.probe, lock=locked.lock))
            for locked in locks
        ]

    async def _present(self, images: Collection[str]) -> Collection[str]:
        return await self._engine.present(images) if images else ()

    async def _with_history(self, requests: Sequence[EnvironmentRequest], facts: Sequence[_Facts]) -> list[_Facts]:
        """The facts, and how long it takes and what it failed with last."""
        if not requests:
            return []
        try:
            last = await self._history.last_of_requests([(request.base, request.requirements) for request in requests])
            usual = {base: await self._usual_times(base) for base in {request.base for request in requests}}
        except PrebuiltError:
            return list(facts)
        return [
            _with_last(one, build, usual[request.base].seconds(len(request.requirements)))
            for request, one, build in zip(requests, facts, last, strict=True)
        ]

    async def _usual_times(self, base: str) -> UsualTimes:
        return await self._usual.get(base, lambda: self._history.usual_times(base=base))


def _of_environment(environment: Environment) -> _Facts:
    lock = environment.lock
    sizes = [wheel.size_bytes for wheel in lock.wheels]
    return _Facts(
        digest=environment.digest,
        image=environment.image,
        packages=lock.packages,
        from_source=lock.from_source,
        size_bytes=None if None in sizes else sum(size or 0 for size in sizes),
    )


def _with_last(facts: _Facts, last: LastBuild | None, usual_seconds: float | None) -> _Facts:
    # A build of another environment is from before a refresh or a patch of the base, and says nothing of this one.
    if last is None or last.digest != facts.digest:
        return replace(facts, seconds=usual_seconds)
    if last.outcome is Outcome.DONE:
        return replace(facts, seconds=last.seconds)
    counts = last.request_fault and bool(facts.digest or facts.unresolved)
    return replace(facts, seconds=usual_seconds, error=facts.error or (last.error if counts else ""))


def _key(request: EnvironmentRequest) -> Hashable:
    """What requests have in common that have one answer: of what is everybody's, the user is no part."""
    users = (request.user, request.policy) if request.own_requirements else None
    return users, request.base, request.requirements, request.profile, request.refresh, request.may_refresh_profile


def _is_fresh(entry: _Entry, now: float) -> bool:
    return entry.until is None or now < entry.until


def _is_found(entry: _Entry) -> bool:
    return entry.task.done() and not entry.task.cancelled()
