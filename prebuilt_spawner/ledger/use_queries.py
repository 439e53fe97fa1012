"""What decides which images are still wanted, each question as one function over a connection in a transaction."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from ..build.history import Outcome
from ..environment.lock import Lock
from . import rows
from .schema import builds, environment_wheels, environments, holdings, locks, removals

LONGEST_REMOVAL = timedelta(minutes=5)
"""What began longer ago was killed before its end: an engine's answer to one removal is waited for a minute."""

_PROFILE = "profile:"
_DIGESTS_AT_ONCE = 500


def last_uses(connection: Connection, digests: Collection[str]) -> dict[str, datetime]:
    """See `EnvironmentUse.last_uses`."""
    wanted, found = sorted(set(digests)), {}
    for start in range(0, len(wanted), _DIGESTS_AT_ONCE):
        part = wanted[start : start + _DIGESTS_AT_ONCE]
        query = select(environments.c.digest, environments.c.last_used_at).where(environments.c.digest.in_(part))
        found.update({row.digest: row.last_used_at for row in connection.execute(query)})
    return found


def profile_locks(connection: Connection) -> dict[str, list[Lock]]:
    """See `EnvironmentUse.profile_locks`. Reads all holdings, which is for clean-ups only."""
    query = (
        select(holdings.c.owner, holdings.c.lineage, locks.c.wheels)
        .join(locks, locks.c.id == holdings.c.lock_id)
        .where(holdings.c.owner.startswith(_PROFILE, autoescape=True))
        .order_by(holdings.c.since, locks.c.id)
    )
    # The last one for each request: on a patched base the same request is held anew.
    last = {(row.owner, row.lineage): row.wheels for row in connection.execute(query)}
    found: dict[str, list[Lock]] = {}
    for (owner, _), wheels in last.items():
        found.setdefault(owner.removeprefix(_PROFILE), []).append(rows.lock_from_json(wheels))
    return found


def digests_being_built(connection: Connection) -> set[str]:
    """See `EnvironmentUse.digests_being_built`."""
    query = select(builds.c.digest).where(builds.c.outcome == Outcome.RUNNING.value)
    return {row.digest for row in connection.execute(query) if row.digest}


def use(connection: Connection, digest: str, now: datetime) -> bool:
    """Note a use, and whether nobody removes the image just now."""
    connection.execute(update(environments).where(environments.c.digest == digest).values(last_used_at=now))
    return not _is_being_removed(connection, digest, now)


def begin_removal(connection: Connection, digest: str, unused_since: datetime, now: datetime) -> bool:
    """See `EnvironmentUse.begin_removal`.

    Raises:
        IntegrityError: Another process did the same meanwhile: ask again in a new transaction.
    """
    last_use = last_uses(connection, [digest]).get(digest)
    if last_use is not None and last_use > unused_since:
        return False
    if digest in digests_being_built(connection) or _is_being_removed(connection, digest, now):
        return False
    connection.execute(delete(removals).where(removals.c.digest == digest))
    connection.execute(insert(removals).values(digest=digest, since=now))
    return True


def _is_being_removed(connection: Connection, digest: str, now: datetime) -> bool:
    query = select(removals.c.since).where(removals.c.digest == digest, removals.c.since > now - LONGEST_REMOVAL)
    return connection.execute(query).first() is not None


def end_removal(connection: Connection, digest: str, *, removed: bool) -> None:
    """See `EnvironmentUse.end_removal`."""
    connection.execute(delete(removals).where(removals.c.digest == digest))
    if removed:
        connection.execute(delete(environment_wheels).where(environment_wheels.c.digest == digest))
        connection.execute(delete(environments).where(environments.c.digest == digest))
