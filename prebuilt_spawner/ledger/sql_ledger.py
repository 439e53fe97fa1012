"""The ledger over an SQL database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timezone

from ..build.interface import StoredLock
from ..environment.lock import Lock
from ..image.stacking import Stack
from . import queries
from .database import Database


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class SqlLedger:
    """Implements `prebuilt_spawner.build.interface.Ledger`; several processes may use one database.

    Every method may raise `StorageFailure`. A call that is cancelled may still take effect.

    Args:
        db_url: An SQLAlchemy URL: `sqlite:///file`, `sqlite://` (in memory, for tests), `postgresql://…`.
        now: The clock: returns aware times.

    Raises:
        StorageFailure: The URL is malformed, or the driver that it needs is not installed.
    """

    def __init__(self, db_url: str, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._database = Database(db_url)
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
        await self._database.write(lambda connection: queries.hold(connection, owner, lock, now))

    async def record_environment(self, *, digest: str, base_digest: str, lock: Lock, size_bytes: int) -> None:
        """An environment was made or used now."""
        now = self._now()
        await self._database.write(
            lambda connection: queries.record_environment(connection, digest, base_digest, lock, size_bytes, now)
        )

    async def record_image(
        self, stack: Stack, *, layout_version: int, base_digest: str, lock: Lock, size_bytes: int
    ) -> None:
        """The image of an environment was made, with these layers on its base."""
        now = self._now()
        await self._database.write(
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

    async def close(self) -> None:
        """Finish what runs and release connections."""
        await self._database.close()
