"""Each question and each change as one function over a connection that is in a transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from ..build.interface import StoredLock
from ..environment.lock import Lock
from . import rows
from .schema import environments, holdings, locks

_lock_columns = (locks.c.id, locks.c.request_digest, locks.c.lineage, locks.c.wheels)


def held(connection: Connection, owner: str, request_digest: str) -> StoredLock | None:
    """See `Ledger.held`."""
    query = (
        select(*_lock_columns)
        .join(holdings, holdings.c.lock_id == locks.c.id)
        .where(holdings.c.owner == owner, holdings.c.request_digest == request_digest)
    )
    return _first(connection, query)


def held_in_lineage(connection: Connection, owner: str, lineage: str) -> StoredLock | None:
    """See `Ledger.held_in_lineage`."""
    query = (
        select(*_lock_columns)
        .join(holdings, holdings.c.lock_id == locks.c.id)
        .where(holdings.c.owner == owner, holdings.c.lineage == lineage)
        .order_by(holdings.c.since.desc(), locks.c.id.desc())
    )
    return _first(connection, query)


def newest(connection: Connection, scope: str, request_digest: str) -> StoredLock | None:
    """See `Ledger.newest`."""
    query = (
        select(*_lock_columns)
        .where(locks.c.scope == scope, locks.c.request_digest == request_digest)
        .order_by(locks.c.id.desc())
    )
    return _first(connection, query)


def newest_in_lineage(connection: Connection, scope: str, lineage: str) -> StoredLock | None:
    """See `Ledger.newest_in_lineage`."""
    query = select(*_lock_columns).where(locks.c.scope == scope, locks.c.lineage == lineage).order_by(locks.c.id.desc())
    return _first(connection, query)


def descendant(connection: Connection, ancestor_id: int, request_digest: str) -> StoredLock | None:
    """See `Ledger.descendant`."""
    query = (
        select(*_lock_columns)
        .where(locks.c.ancestor_id == ancestor_id, locks.c.request_digest == request_digest)
        .order_by(locks.c.id.desc())
    )
    return _first(connection, query)


def remember(
    connection: Connection,
    scope: str,
    request_digest: str,
    lineage: str,
    lock: Lock,
    ancestor_id: int | None,
    now: datetime,
) -> StoredLock:
    """See `Ledger.remember`.

    Raises:
        IntegrityError: Another process stored a lock for this request meanwhile: ask again in a new transaction.
    """
    content = rows.content_digest(lock)
    previous = connection.execute(
        select(*_lock_columns, locks.c.content_digest, locks.c.ancestor_id, locks.c.revision)
        .where(locks.c.scope == scope, locks.c.request_digest == request_digest)
        .order_by(locks.c.id.desc())
        .limit(1)
    ).first()
    if previous is not None and previous.content_digest == content:
        if previous.ancestor_id is None and ancestor_id not in (None, previous.id):
            connection.execute(
                update(locks)
                .where(locks.c.id == previous.id, locks.c.ancestor_id.is_(None))
                .values(ancestor_id=ancestor_id)
            )
        return _stored(previous)
    wheels = rows.wheels_to_json(lock)
    result = connection.execute(
        insert(locks).values(
            scope=scope,
            request_digest=request_digest,
            lineage=lineage,
            revision=1 if previous is None else previous.revision + 1,
            ancestor_id=ancestor_id,
            content_digest=content,
            wheels=wheels,
            created_at=now,
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101  # one row was inserted
    return StoredLock(id=key[0], request_digest=request_digest, lineage=lineage, lock=rows.lock_from_json(wheels))


def hold(connection: Connection, owner: str, lock: StoredLock, now: datetime) -> None:
    """See `Ledger.hold`.

    Raises:
        IntegrityError: Another process did the same meanwhile (ask again in a new transaction), or the lock is not
            of this database.
    """
    changed = connection.execute(
        update(holdings)
        .where(holdings.c.owner == owner, holdings.c.request_digest == lock.request_digest)
        .values(lock_id=lock.id, lineage=lock.lineage, since=now)
    )
    if not changed.rowcount:
        connection.execute(
            insert(holdings).values(
                owner=owner, request_digest=lock.request_digest, lineage=lock.lineage, lock_id=lock.id, since=now
            )
        )


def record_environment(
    connection: Connection, digest: str, base_digest: str, lock: Lock, size_bytes: int, now: datetime
) -> None:
    """See `Ledger.record_environment`.

    Raises:
        IntegrityError: Another process recorded it meanwhile: ask again in a new transaction.
    """
    changed = connection.execute(
        update(environments)
        .where(environments.c.digest == digest)
        .values(last_used_at=now, size_bytes=size_bytes, uses=environments.c.uses + 1)
    )
    if not changed.rowcount:
        connection.execute(
            insert(environments).values(
                digest=digest,
                base_digest=base_digest,
                packages=list(lock.packages),
                size_bytes=size_bytes,
                created_at=now,
                last_used_at=now,
                uses=1,
            )
        )


# Rows and selects are `Any` here: SQLAlchemy 2.0 and 2.1 count their type parameters differently.


def _first(connection: Connection, query: Any) -> StoredLock | None:
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _stored(row)


def _stored(row: Any) -> StoredLock:
    return StoredLock(
        id=row.id, request_digest=row.request_digest, lineage=row.lineage, lock=rows.lock_from_json(row.wheels)
    )
