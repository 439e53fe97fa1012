"""Each question and each change as one function over a connection that is in a transaction."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from ..build.interface import StoredLock
from ..environment.digest import lock_digest
from ..environment.lock import Lock
from ..image.stacking import Stack
from . import rows
from .schema import environment_wheels, environments, holdings, locks

lock_columns = (
    locks.c.id,
    locks.c.request_digest,
    locks.c.lineage,
    locks.c.wheels,
    locks.c.generation,
    locks.c.profile_lock_id,
)
newest_first = (locks.c.generation.desc(), locks.c.id.desc())


def stored(connection: Connection, lock_id: int) -> StoredLock | None:
    """See `Ledger.stored`."""
    return _first(connection, select(*lock_columns).where(locks.c.id == lock_id))


def held(connection: Connection, owner: str, request_digest: str) -> StoredLock | None:
    """See `Ledger.held`."""
    query = (
        select(*lock_columns)
        .join(holdings, holdings.c.lock_id == locks.c.id)
        .where(holdings.c.owner == owner, holdings.c.request_digest == request_digest)
    )
    return _first(connection, query)


def held_in_lineage(connection: Connection, owner: str, lineage: str) -> StoredLock | None:
    """See `Ledger.held_in_lineage`."""
    query = (
        select(*lock_columns)
        .join(holdings, holdings.c.lock_id == locks.c.id)
        .where(holdings.c.owner == owner, holdings.c.lineage == lineage)
        .order_by(holdings.c.since.desc(), locks.c.id.desc())
    )
    return _first(connection, query)


def newest(connection: Connection, scope: str, request_digest: str) -> StoredLock | None:
    """See `Ledger.newest`."""
    query = (
        select(*lock_columns)
        .where(locks.c.scope == scope, locks.c.request_digest == request_digest)
        .order_by(*newest_first)
    )
    return _first(connection, query)


def newest_in_lineage(connection: Connection, scope: str, lineage: str) -> StoredLock | None:
    """See `Ledger.newest_in_lineage`."""
    query = select(*lock_columns).where(locks.c.scope == scope, locks.c.lineage == lineage).order_by(*newest_first)
    return _first(connection, query)


def descendant(connection: Connection, ancestor_id: int, request_digest: str) -> StoredLock | None:
    """See `Ledger.descendant`."""
    query = (
        select(*lock_columns)
        .where(locks.c.ancestor_id == ancestor_id, locks.c.request_digest == request_digest)
        .order_by(locks.c.id.desc())
    )
    return _first(connection, query)


def remember(
    connection: Connection,
    *,
    scope: str,
    request_digest: str,
    lineage: str,
    lock: Lock,
    ancestor_id: int | None,
    profile_lock_id: int | None,
    now: datetime,
) -> StoredLock:
    """See `Ledger.remember`.

    Raises:
        IntegrityError: Another process stored a lock for this request meanwhile: ask again in a new transaction. Or
            the ancestor or the profile's lock is not of this database.
    """
    content = lock_digest(lock)
    if ancestor_id is None:
        known = _equal_newest(connection, scope, request_digest, lineage, content)
    else:
        known = _equal_descendant(connection, scope, request_digest, ancestor_id, content)
    if known is not None:
        return known
    ancestor = None if ancestor_id is None else stored(connection, ancestor_id)
    revision = connection.execute(
        select(func.max(locks.c.revision)).where(locks.c.scope == scope, locks.c.request_digest == request_digest)
    ).scalar()
    result = connection.execute(
        insert(locks).values(
            scope=scope,
            request_digest=request_digest,
            lineage=lineage,
            revision=(revision or 0) + 1,
            ancestor_id=ancestor_id,
            generation=0 if ancestor is None else ancestor.generation,
            profile_lock_id=profile_lock_id,
            content_digest=content,
            wheels=rows.wheels_to_json(lock),
            created_at=now,
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101  # one row was inserted
    if ancestor is None:
        connection.execute(update(locks).where(locks.c.id == key[0]).values(generation=key[0]))
    made = stored(connection, key[0])
    assert made is not None  # noqa: S101  # in this transaction
    return made


def _equal_newest(
    connection: Connection, scope: str, request_digest: str, lineage: str, content: str
) -> StoredLock | None:
    """The newest lock for this request, if it has this content and no other base content has a newer generation.

    Where one has, what was resolved anew must become a generation of its own: people who come first get it.
    """
    found = newest(connection, scope, request_digest)
    if found is None or lock_digest(found.lock) != content:
        return None
    newest_of_all = newest_in_lineage(connection, scope, lineage)
    return None if newest_of_all is not None and newest_of_all.generation > found.generation else found


def _equal_descendant(
    connection: Connection, scope: str, request_digest: str, ancestor_id: int, content: str
) -> StoredLock | None:
    """The lock with this content that another process just made of the same ancestor; or the ancestor itself, which
    must not become its own."""
    query = (
        select(*lock_columns)
        .where(
            locks.c.scope == scope,
            locks.c.request_digest == request_digest,
            locks.c.content_digest == content,
            or_(locks.c.ancestor_id == ancestor_id, locks.c.id == ancestor_id),
        )
        .order_by(locks.c.id.desc())
    )
    return _first(connection, query)


def hold_again(connection: Connection, owner: str, lock: StoredLock, now: datetime) -> bool:
    """Note that the owner holds this lock still; False where it holds another or none."""
    changed = connection.execute(
        update(holdings)
        .where(
            holdings.c.owner == owner,
            holdings.c.request_digest == lock.request_digest,
            holdings.c.lock_id == lock.id,
            holdings.c.lineage == lock.lineage,
        )
        .values(since=now)
    )
    return changed.rowcount > 0


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
    connection: Connection, *, digest: str, base_digest: str, lock: Lock, size_bytes: int, now: datetime
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
        _insert_environment(connection, digest, base_digest, lock, uses=1, now=now, size_bytes=size_bytes)


def record_image(
    connection: Connection,
    stack: Stack,
    *,
    layout_version: int,
    base_digest: str,
    lock: Lock,
    size_bytes: int,
    now: datetime,
) -> None:
    """See `Ledger.record_image`.

    Raises:
        IntegrityError: Another process did the same meanwhile: ask again in a new transaction.
    """
    values = {"layers": rows.stack_to_json(stack), "layout_version": layout_version, "size_bytes": size_bytes}
    changed = connection.execute(update(environments).where(environments.c.digest == stack.digest).values(**values))
    if not changed.rowcount:
        _insert_environment(connection, stack.digest, base_digest, lock, uses=0, now=now, **values)
    connection.execute(delete(environment_wheels).where(environment_wheels.c.digest == stack.digest))
    wheels = [{"digest": stack.digest, "sha256": wheel} for wheel in sorted(stack.wheels)]
    if wheels:
        connection.execute(insert(environment_wheels), wheels)


def _insert_environment(
    connection: Connection, digest: str, base_digest: str, lock: Lock, *, uses: int, now: datetime, **values: Any
) -> None:
    connection.execute(
        insert(environments).values(
            digest=digest,
            base_digest=base_digest,
            packages=list(lock.packages),
            created_at=now,
            last_used_at=now,
            uses=uses,
            **values,
        )
    )


def stacks(
    connection: Connection, base_digest: str, layout_version: int, wheels: Collection[str], limit: int
) -> list[Stack]:
    """See `Ledger.stacks`."""
    shared = (
        select(environment_wheels.c.digest, func.count().label("count"))
        .where(environment_wheels.c.sha256.in_(sorted(wheels)))
        .group_by(environment_wheels.c.digest)
        .subquery()
    )
    query = (
        select(environments.c.digest, environments.c.layers)
        .join(shared, shared.c.digest == environments.c.digest)
        .where(environments.c.base_digest == base_digest, environments.c.layout_version == layout_version)
        .order_by(shared.c.count.desc(), environments.c.last_used_at.desc(), environments.c.digest)
        .limit(limit)
    )
    return [rows.stack_from_json(row.digest, row.layers) for row in connection.execute(query)]


def popularity(connection: Connection, wheels: Collection[str]) -> dict[str, int]:
    """See `Ledger.popularity`."""
    query = (
        select(environment_wheels.c.sha256, func.count().label("environments"))
        .where(environment_wheels.c.sha256.in_(sorted(wheels)))
        .group_by(environment_wheels.c.sha256)
    )
    return {row.sha256: row.environments for row in connection.execute(query)}


# Rows and selects are `Any` here: SQLAlchemy 2.0 and 2.1 count their type parameters differently.


def _first(connection: Connection, query: Any) -> StoredLock | None:
    row = connection.execute(query.limit(1)).first()
    return None if row is None else stored_of(row)


def stored_of(row: Any) -> StoredLock:
    """The lock in a row of `lock_columns`."""
    return StoredLock(
        id=row.id,
        request_digest=row.request_digest,
        lineage=row.lineage,
        lock=rows.lock_from_json(row.wheels),
        generation=row.generation,
        profile_lock_id=row.profile_lock_id,
    )


def package_names(connection: Connection, limit: int) -> set[str]:
    """See `Ledger.package_names`."""
    query = select(environments.c.packages).order_by(environments.c.last_used_at.desc()).limit(limit)
    return {package.partition("==")[0] for packages in connection.execute(query).scalars() for package in packages}
