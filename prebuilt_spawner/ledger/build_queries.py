"""Each question about builds and each change to them as one function over a connection that is in a transaction."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from ..build.events import Phase
from ..build.history import BuildRecord, Outcome
from ..build.lookups import LastBuild
from ..build.usual import USUAL_BUILDS, UsualTimes
from .schema import NAME_CHARACTERS, build_users, builds

KEPT_BUILDS = 10_000
KEPT_DAYS = 365
"""How many builds are remembered, and how long: what is beyond either is forgotten when the next one begins."""


LOOKED_AT_BUILDS = 2_000
"""Among how many of a base's last builds those of like size are looked for, where it is asked for many sizes."""

_KEYS_AT_ONCE = 500
_last_columns = (
    builds.c.request_key,
    builds.c.digest,
    builds.c.outcome,
    builds.c.request_fault,
    builds.c.error,
    builds.c.work_seconds,
)

_NO_WORK = (Phase.WAITING.value, Phase.RESOLVING.value, Phase.BUILDING.value)


def begin(
    connection: Connection,
    *,
    hub: str,
    digest: str,
    base: str,
    requirements: Sequence[str],
    user: str,
    now: datetime,
) -> int:
    """See `BuildHistory.begin_build`."""
    kept = [_text(requirement) for requirement in requirements]
    result = connection.execute(
        insert(builds).values(
            hub=as_name(hub),
            digest=digest,
            base=as_name(base),
            requirements=kept,
            request_key=_request_key(as_name(base), kept),
            packages=len(requirements),
            begun_at=now,
            ended_at=None,
            outcome=Outcome.RUNNING.value,
            phase_seconds=[],
            work_seconds=0.0,
            size_bytes=0,
            error="",
            log="",
            request_fault=False,
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101  # one row was inserted
    connection.execute(insert(build_users).values(build_id=key[0], user=as_name(user)))
    _forget_old(connection, builds.c.id <= key[0] - KEPT_BUILDS)
    _forget_old(connection, builds.c.begun_at < now - timedelta(days=KEPT_DAYS))
    return int(key[0])


def _forget_old(connection: Connection, old: Any) -> None:
    connection.execute(delete(build_users).where(build_users.c.build_id.in_(select(builds.c.id).where(old))))
    connection.execute(delete(builds).where(old))


def join(connection: Connection, build_id: int, user: str) -> None:
    """See `BuildHistory.join_build`.

    Raises:
        IntegrityError: Another process did the same meanwhile: ask again in a new transaction.
    """
    name = as_name(user)
    known = select(build_users.c.id).where(build_users.c.build_id == build_id, build_users.c.user == name)
    there = select(builds.c.id).where(builds.c.id == build_id)
    if connection.execute(there).first() is not None and connection.execute(known).first() is None:
        connection.execute(insert(build_users).values(build_id=build_id, user=name))


def end(
    connection: Connection,
    build_id: int,
    *,
    outcome: Outcome,
    phase_seconds: Mapping[str, float],
    error: str,
    log: str,
    size_bytes: int,
    request_fault: bool,
    now: datetime,
) -> None:
    """See `BuildHistory.end_build`."""
    running = (builds.c.id == build_id, builds.c.outcome == Outcome.RUNNING.value)
    begun_at = connection.execute(select(builds.c.begun_at).where(*running)).scalar()
    if begun_at is None:
        return
    worked = [seconds for phase, seconds in phase_seconds.items() if phase not in _NO_WORK]
    connection.execute(
        update(builds)
        .where(*running)
        .values(
            outcome=outcome.value,
            ended_at=now,
            phase_seconds=[[_text(phase), float(seconds)] for phase, seconds in phase_seconds.items()],
            work_seconds=sum(worked) if phase_seconds else max((now - begun_at).total_seconds(), 0.0),
            error=_text(error),
            log=_text(log),
            size_bytes=size_bytes,
            request_fault=request_fault,
        )
    )


def interrupt(connection: Connection, hub: str, now: datetime) -> list[BuildRecord]:
    """See `BuildHistory.interrupt_builds`."""
    running = (builds.c.hub == as_name(hub), builds.c.outcome == Outcome.RUNNING.value)
    found = [row.id for row in connection.execute(select(builds.c.id).where(*running).order_by(builds.c.id))]
    connection.execute(update(builds).where(*running).values(outcome=Outcome.INTERRUPTED.value, ended_at=now))
    return [record for build_id in found if (record := build(connection, build_id)) is not None]


def build(connection: Connection, build_id: int) -> BuildRecord | None:
    """See `BuildHistory.build`."""
    row = connection.execute(select(builds).where(builds.c.id == build_id)).first()
    return None if row is None else _record(connection, row)


def last(connection: Connection, digest: str, limit: int) -> list[BuildRecord]:
    """See `BuildHistory.last_builds`."""
    query = select(builds).where(builds.c.digest == digest).order_by(builds.c.id.desc()).limit(limit)
    return [_record(connection, row) for row in connection.execute(query).all()]


def usual_seconds(connection: Connection, base: str, packages: int) -> float | None:
    """See `BuildHistory.usual_seconds`: of the last builds with a number of packages within a factor of two."""
    query = (
        select(builds.c.work_seconds)
        .where(
            builds.c.base == as_name(base),
            builds.c.outcome == Outcome.DONE.value,
            builds.c.packages.between((packages + 1) // 2, packages * 2),
        )
        .order_by(builds.c.id.desc())
        .limit(USUAL_BUILDS)
    )
    found = [row.work_seconds for row in connection.execute(query)]
    return statistics.median(found) if found else None


def usual_times(connection: Connection, base: str) -> UsualTimes:
    """See `BuildHistory.usual_times`."""
    query = (
        select(builds.c.packages, builds.c.work_seconds)
        .where(builds.c.base == as_name(base), builds.c.outcome == Outcome.DONE.value)
        .order_by(builds.c.id.desc())
        .limit(LOOKED_AT_BUILDS)
    )
    return UsualTimes([(row.packages, row.work_seconds) for row in connection.execute(query)])


def last_of_requests(connection: Connection, requests: Sequence[tuple[str, Sequence[str]]]) -> list[LastBuild | None]:
    """See `BuildHistory.last_of_requests`."""
    keys = [_request_key(as_name(base), [_text(one) for one in requirements]) for base, requirements in requests]
    wanted, found = sorted(set(keys)), {}
    for start in range(0, len(wanted), _KEYS_AT_ONCE):
        last_ids = (
            select(func.max(builds.c.id))
            .where(
                builds.c.request_key.in_(wanted[start : start + _KEYS_AT_ONCE]),
                builds.c.outcome.in_([Outcome.DONE.value, Outcome.FAILED.value]),
            )
            .group_by(builds.c.request_key)
        )
        for row in connection.execute(select(*_last_columns).where(builds.c.id.in_(last_ids))):
            found[row.request_key] = LastBuild(
                digest=row.digest,
                outcome=Outcome(row.outcome),
                request_fault=row.request_fault,
                error=row.error,
                seconds=row.work_seconds,
            )
    return [found.get(key) for key in keys]


def _request_key(base: str, requirements: Sequence[str]) -> str:
    """What builds of one request have in common; 0004 made it for older ones."""
    form = json.dumps([base, sorted(set(requirements))], separators=(",", ":"))
    return hashlib.sha256(form.encode("ascii")).hexdigest()


# Rows are `Any` here: SQLAlchemy 2.0 and 2.1 count their type parameters differently.


def _record(connection: Connection, row: Any) -> BuildRecord:
    users = select(build_users.c.user).where(build_users.c.build_id == row.id).order_by(build_users.c.id)
    return BuildRecord(
        id=row.id,
        digest=row.digest,
        base=row.base,
        requirements=tuple(row.requirements),
        users=tuple(found.user for found in connection.execute(users)),
        begun_at=row.begun_at,
        ended_at=row.ended_at,
        outcome=Outcome(row.outcome),
        phase_seconds=dict(row.phase_seconds),
        error=row.error,
        log=row.log,
        size_bytes=row.size_bytes,
    )


def _text(text: str) -> str:
    """As every database can keep it: without NUL, and with no half of a surrogate pair."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_name(text: str) -> str:
    """A name as every database can keep it."""
    return _text(text)[:NAME_CHARACTERS]
