"""What hubs owe to registries, each question and each change as one function over a connection in a transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from ..build.pushes import OwedPush
from ..environment.lock import Lock
from . import rows
from .schema import pushes


def owe(
    connection: Connection,
    *,
    hub: str,
    place: str,
    digest: str,
    base: str,
    base_digest: str,
    lock: Lock,
    now: datetime,
) -> None:
    """See `PushMemory.owe_push`.

    Raises:
        IntegrityError: Another process did the same meanwhile: ask again in a new transaction.
    """
    if connection.execute(select(pushes.c.id).where(*_one(hub, place, digest))).first() is not None:
        return
    connection.execute(
        insert(pushes).values(
            hub=hub,
            place=place,
            digest=digest,
            base=base,
            base_digest=base_digest,
            wheels=rows.wheels_to_json(lock),
            attempts=0,
            since=now,
        )
    )


def owed(connection: Connection, hub: str, place: str, limit: int) -> list[OwedPush]:
    """See `PushMemory.owed_pushes`."""
    query = (
        select(pushes)
        .where(pushes.c.hub == hub, pushes.c.place == place)
        .order_by(pushes.c.attempts, pushes.c.id)
        .limit(limit)
    )
    return [_owed(row) for row in connection.execute(query)]


def count_attempt(connection: Connection, hub: str, place: str, digest: str) -> None:
    """See `PushMemory.count_push_attempt`."""
    connection.execute(update(pushes).where(*_one(hub, place, digest)).values(attempts=pushes.c.attempts + 1))


def settle(connection: Connection, hub: str, place: str, digest: str) -> None:
    """See `PushMemory.settle_push`."""
    connection.execute(delete(pushes).where(*_one(hub, place, digest)))


def _one(hub: str, place: str, digest: str) -> tuple[ColumnElement[bool], ...]:
    return pushes.c.hub == hub, pushes.c.place == place, pushes.c.digest == digest


def _owed(row: Any) -> OwedPush:
    return OwedPush(
        digest=row.digest,
        base=row.base,
        base_digest=row.base_digest,
        lock=rows.lock_from_json(row.wheels),
        attempts=row.attempts,
        since=row.since,
    )
