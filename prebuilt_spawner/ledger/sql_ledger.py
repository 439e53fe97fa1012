"""The ledger over an SQL database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Connection

from ..build.history import BuildRecord, Outcome
from ..build.interface import StoredLock
from ..build.lookups import LastBuild, Lookup
from ..build.pushes import OwedPush
from ..build.usual import UsualTimes
from ..environment.lock import Lock
from ..image.stacking import Stack
from . import build_queries, choice_queries, lookup_queries, push_queries, queries, use_queries
from .database import Database

_REMOVAL_LOOK_SECONDS = 0.05


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class SqlLedger:
    """Implements `Ledger` and `BuildHistory` of `prebuilt_spawner.build.interface`, `EnvironmentUse` of
    `prebuilt_spawner.build.inventory`, and `PushMemory` of `prebuilt_spawner.build.pushes`; several processes may use
    one database.

    Every method may raise `StorageFailure`. A call that is cancelled may still take effect.

    Args:
        db_url: An SQLAlchemy URL: `sqlite:///file`, `sqlite://` (in memory, for tests), `postgresql://…`.
        now: The clock: returns aware times.

    Raises:
        StorageFailure: The URL is malformed, or the driver that it needs is not installed.
    """

    def __init__(self, db_url: str, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._database = Database(db_url)
        self._shelf = lookup_queries.LockShelf()
        self._now = now

    async def open(self) -> None:
        """Bring the schema up to date now rather than at the first call, so that a hub fails as it starts."""
        await self._database.open()

    async def stored(self, lock_id: int) -> StoredLock | None:
        """The lock of this number."""
        return await self._database.read(lambda connection: queries.stored(connection, lock_id))

    async def held(self, *, owner: str, request_digest: str) -> StoredLock | None:
        """The lock that this owner holds for this very request."""
        return await self._database.read(lambda connection: queries.held(connection, owner, request_digest))

    async def held_in_lineage(self, *, owner: str, lineage: str) -> StoredLock | None:
        """The lock that this owner held last for this request on whatever content of the base."""
        return await self._database.read(lambda connection: queries.held_in_lineage(connection, owner, lineage))

    async def newest(self, *, scope: str, request_digest: str) -> StoredLock | None:
        """The newest lock of this scope for this very request."""
        return await self._database.read(lambda connection: queries.newest(connection, scope, request_digest))

    async def newest_in_lineage(self, *, scope: str, lineage: str) -> StoredLock | None:
        """The newest lock of this scope for this request on whatever content of the base."""
        return await self._database.read(lambda connection: queries.newest_in_lineage(connection, scope, lineage))

    async def descendant(self, *, ancestor_id: int, request_digest: str) -> StoredLock | None:
        """The lock that was resolved from the ancestor's pins for this request."""
        return await self._database.read(lambda connection: queries.descendant(connection, ancestor_id, request_digest))

    async def look_up(self, lookups: Sequence[Lookup]) -> Sequence[StoredLock | None]:
        """The answers of the five methods above to many questions, in their order."""
        return await self._database.read(lambda connection: lookup_queries.look_up(connection, lookups, self._shelf))

    async def remember(
        self,
        *,
        scope: str,
        request_digest: str,
        lineage: str,
        lock: Lock,
        ancestor_id: int | None,
        profile_lock_id: int | None = None,
    ) -> StoredLock:
        """Store a lock, unless one with the same wheels is there for this request: of the same ancestor, or,
        without an ancestor, the newest of the scope, if it is of the newest generation of the lineage. Then that
        one is returned. Credentials in URLs are left out."""
        now = self._now()
        return await self._database.write(
            lambda connection: queries.remember(
                connection,
                scope=scope,
                request_digest=request_digest,
                lineage=lineage,
                lock=lock,
                ancestor_id=ancestor_id,
                profile_lock_id=profile_lock_id,
                now=now,
            )
        )

    async def hold(self, *, owner: str, lock: StoredLock) -> None:
        """From now on the owner holds this lock for its request."""
        now = self._now()
        if not await self._database.note(lambda connection: queries.hold_again(connection, owner, lock, now)):
            await self._database.write(lambda connection: queries.hold(connection, owner, lock, now))

    async def use_environment(self, digest: str) -> None:
        """The image of this environment is about to be looked for and used, so from now on nobody removes it. Where
        somebody just does, this waits for the end of that, or until that must have been killed."""
        while not await self._database.note(lambda connection: use_queries.use(connection, digest, self._now())):  # noqa: ASYNC110
            await asyncio.sleep(_REMOVAL_LOOK_SECONDS)

    async def record_environment(
        self,
        *,
        digest: str,
        base_digest: str,
        lock: Lock,
        size_bytes: int,
        user: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """An environment was made or used now, by a user who chose these options. What cannot be kept of the choice is
        left out without an error."""
        choice = await asyncio.to_thread(choice_queries.choice_of, options) if options else None
        now = self._now()

        def change(connection: Connection) -> None:
            queries.record_environment(
                connection, digest=digest, base_digest=base_digest, lock=lock, size_bytes=size_bytes, now=now
            )
            if choice is not None:
                choice_queries.record(connection, user, choice, now)

        await self._database.note(change)

    async def recent(self, *, user: str, since: datetime | None = None, limit: int = 5) -> Sequence[Mapping[str, Any]]:
        """The options that this user chose last and not before `since`, newest first, those that mean the same once."""
        return await self._database.read(lambda connection: choice_queries.recent(connection, user, since, limit))

    async def record_image(
        self, stack: Stack, *, layout_version: int, base_digest: str, lock: Lock, size_bytes: int
    ) -> None:
        """The image of an environment was made, with these layers on its base."""
        now = self._now()
        await self._database.note(
            lambda connection: queries.record_image(
                connection,
                stack,
                layout_version=layout_version,
                base_digest=base_digest,
                lock=lock,
                size_bytes=size_bytes,
                now=now,
            )
        )

    async def stacks(
        self, *, base_digest: str, layout_version: int, wheels: Collection[str], limit: int = 20
    ) -> Sequence[Stack]:
        """The stacks on this base that have most of these wheels, of this layout version."""
        return await self._database.read(
            lambda connection: queries.stacks(connection, base_digest, layout_version, wheels, limit)
        )

    async def popularity(self, wheels: Collection[str]) -> Mapping[str, int]:
        """How many recorded stacks have a wheel, by its SHA-256; those that none has may be left out."""
        return await self._database.read(lambda connection: queries.popularity(connection, wheels))

    async def package_names(self, *, limit: int = 1000) -> Collection[str]:
        """Normalised names of the packages in the environments that were used last, so many of these at most."""
        return await self._database.read(lambda connection: queries.package_names(connection, limit))

    # -- builds ------------------------------------------------------------------------------------------------------

    async def begin_build(self, *, hub: str, digest: str, base: str, requirements: Sequence[str], user: str) -> int:
        """A build begins; returns its id. Forgets builds that are too old or too many, see `build_queries`."""
        now = self._now()
        return await self._database.write(
            lambda connection: build_queries.begin(
                connection, hub=hub, digest=digest, base=base, requirements=requirements, user=user, now=now
            )
        )

    async def join_build(self, build_id: int, *, user: str) -> None:
        """Somebody else waits for it too; also where word of that comes after its end. Of a build that is not known,
        nothing is kept."""
        await self._database.note(lambda connection: build_queries.join(connection, build_id, user))

    async def end_build(
        self,
        build_id: int,
        *,
        outcome: Outcome,
        phase_seconds: Mapping[str, float],
        error: str = "",
        log: str = "",
        size_bytes: int = 0,
        request_fault: bool = False,
    ) -> None:
        """A build has ended. One that has ended before stays as it was, and one that is not known stays so."""
        now = self._now()
        await self._database.note(
            lambda connection: build_queries.end(
                connection,
                build_id,
                outcome=outcome,
                phase_seconds=phase_seconds,
                error=error,
                log=log,
                size_bytes=size_bytes,
                request_fault=request_fault,
                now=now,
            )
        )

    async def interrupt_builds(self, *, hub: str) -> Sequence[BuildRecord]:
        """Mark the builds that this hub left running before it started as interrupted, and return them."""
        now = self._now()
        return await self._database.write(lambda connection: build_queries.interrupt(connection, hub, now))

    async def build(self, build_id: int) -> BuildRecord | None:
        """The build of this number."""
        return await self._database.read(lambda connection: build_queries.build(connection, build_id))

    async def last_builds(self, *, digest: str, limit: int = 1) -> Sequence[BuildRecord]:
        """The last builds of an environment, newest first."""
        return await self._database.read(lambda connection: build_queries.last(connection, digest, limit))

    async def last_of_requests(self, requests: Sequence[tuple[str, Sequence[str]]]) -> Sequence[LastBuild | None]:
        """The last build of each request (base image, requirements) that was done or failed; None where there was
        none."""
        return await self._database.read(lambda connection: build_queries.last_of_requests(connection, requests))

    async def usual_times(self, *, base: str) -> UsualTimes:
        """`usual_seconds` for any number of packages, as far as the last builds on the base say it."""
        return await self._database.read(lambda connection: build_queries.usual_times(connection, base))

    async def usual_seconds(self, *, base: str, packages: int) -> float | None:
        """How long builds of about so many packages took lately on a base, without the wait for their turn: the
        median of those that were done; None where there were none. Packages are counted as requirements."""
        return await self._database.read(lambda connection: build_queries.usual_seconds(connection, base, packages))

    # -- what is still wanted ----------------------------------------------------------------------------------------

    async def last_uses(self, digests: Collection[str]) -> Mapping[str, datetime]:
        """When each of these environments was made or used last, by digest; those that are not known are left out."""
        return await self._database.read(lambda connection: use_queries.last_uses(connection, digests))

    async def profile_locks(self) -> Mapping[str, Sequence[Lock]]:
        """The locks that each profile holds, by its slug: the last one for each request."""
        return await self._database.read(use_queries.profile_locks)

    async def digests_being_built(self) -> Collection[str]:
        """The environments that some hub builds now, or built when it was killed and was not started since."""
        return await self._database.read(use_queries.digests_being_built)

    async def begin_removal(self, digest: str, *, unused_since: datetime) -> bool:
        """The image of this environment is about to be removed; False where it was used after that time, is being
        built, or somebody else removes it. Until the removal ends, `use_environment` waits."""
        now = self._now()
        return await self._database.write(
            lambda connection: use_queries.begin_removal(connection, digest, unused_since, now)
        )

    async def end_removal(self, digest: str, *, removed: bool) -> None:
        """A removal has ended. Where it `removed` the image, nothing can be stacked on it any more."""
        await self._database.write(lambda connection: use_queries.end_removal(connection, digest, removed=removed))

    # -- what registries do not have yet -----------------------------------------------------------------------------

    async def owe_push(self, *, hub: str, place: str, digest: str, base: str, base_digest: str, lock: Lock) -> None:
        """From now on this hub owes this push, if it did not before. Credentials in URLs are left out."""
        now = self._now()
        await self._database.write(
            lambda connection: push_queries.owe(
                connection,
                hub=hub,
                place=place,
                digest=digest,
                base=base,
                base_digest=base_digest,
                lock=lock,
                now=now,
            )
        )

    async def owed_pushes(self, *, hub: str, place: str, limit: int = 1) -> Sequence[OwedPush]:
        """What this hub owes to this place: those first that were tried least, then the oldest."""
        return await self._database.read(lambda connection: push_queries.owed(connection, hub, place, limit))

    async def count_push_attempt(self, *, hub: str, place: str, digest: str) -> None:
        """It was tried in vain."""
        await self._database.write(lambda connection: push_queries.count_attempt(connection, hub, place, digest))

    async def settle_push(self, *, hub: str, place: str, digest: str) -> None:
        """It is not owed any more."""
        await self._database.write(lambda connection: push_queries.settle(connection, hub, place, digest))

    async def close(self) -> None:
        """Finish what runs and release connections."""
        await self._database.close()
