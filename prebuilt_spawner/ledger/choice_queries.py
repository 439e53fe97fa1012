"""What users chose lately, each question and each change as one function over a connection in a transaction."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from ..environment.options import choice_digest, without_refresh
from .build_queries import as_name
from .schema import choices

KEPT_CHOICES = 20
"""How many are kept for each user."""

MAX_OPTIONS_CHARACTERS = 100_000
"""Of options that are longer as JSON, nothing is kept."""

_log = logging.getLogger(__name__)
_newest_first = (choices.c.last_used_at.desc(), choices.c.id.desc())


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Options as they are kept, and what finds them again."""

    digest: str
    options: Mapping[str, Any]


def choice_of(options: Mapping[str, Any]) -> Choice | None:
    """What is kept of options; None where nothing is. Long lists take a while to read, so it is for before the
    transaction, on a thread."""
    chosen = without_refresh(options)
    try:
        text = json.dumps(chosen, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    digest = choice_digest(chosen) if len(text) <= MAX_OPTIONS_CHARACTERS else ""
    return Choice(digest=digest, options=chosen) if digest else None


def record(connection: Connection, user: str, choice: Choice, now: datetime) -> None:
    """A user started this now; see `Ledger.record_environment`. A failure does not harm the transaction."""
    try:
        with connection.begin_nested():
            _record(connection, as_name(user), choice, now)
    except SQLAlchemyError as error:
        # Not its text, which may show what is in the row.
        _log.warning("What a user chose was not kept: %s", type(error).__name__)


def recent(connection: Connection, user: str, since: datetime | None, limit: int) -> list[dict[str, Any]]:
    """See `Ledger.recent`."""
    query = select(choices.c.options).where(choices.c.user == as_name(user))
    if since is not None:
        query = query.where(choices.c.last_used_at >= (since if since.tzinfo else since.replace(tzinfo=timezone.utc)))
    return [dict(row.options) for row in connection.execute(query.order_by(*_newest_first).limit(max(limit, 0)))]


def _record(connection: Connection, user: str, choice: Choice, now: datetime) -> None:
    values = {"options": choice.options, "last_used_at": now}
    same = (choices.c.user == user, choices.c.digest == choice.digest)
    if connection.execute(update(choices).where(*same).values(**values, uses=choices.c.uses + 1)).rowcount:
        return
    connection.execute(insert(choices).values(user=user, digest=choice.digest, uses=1, **values))
    ids = select(choices.c.id).where(choices.c.user == user).order_by(*_newest_first)
    old = list(connection.execute(ids.offset(KEPT_CHOICES).limit(10 * KEPT_CHOICES)).scalars())
    if old:
        connection.execute(delete(choices).where(choices.c.id.in_(old)))
