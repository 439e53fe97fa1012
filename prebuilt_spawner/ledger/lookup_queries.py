"""Many questions for locks in few queries, as functions over a connection that is in a transaction."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from ..build.interface import StoredLock
from ..build.lookups import Lookup, Sought
from .queries import lock_columns, newest_first, stored_of
from .schema import holdings, locks

_SIZES = (1, 8, 50)
"""How many pairs one query asks for. No others, so that SQLAlchemy compiles few of them."""

SHELF_LOCKS = 512
"""How many locks are kept in memory: a form asks for those of all profiles. One of 50 wheels takes 40 KB."""

# For each question: the columns of `whose` and `what`, that of the lock's id, and which one is meant, first to last.
_QUESTIONS: dict[Sought, tuple[Any, Any, Any, tuple[Any, ...]]] = {
    Sought.HELD: (holdings.c.owner, holdings.c.request_digest, holdings.c.lock_id, (holdings.c.id,)),
    Sought.HELD_IN_LINEAGE: (
        holdings.c.owner,
        holdings.c.lineage,
        holdings.c.lock_id,
        (holdings.c.since.desc(), holdings.c.lock_id.desc()),
    ),
    Sought.NEWEST: (locks.c.scope, locks.c.request_digest, locks.c.id, newest_first),
    Sought.NEWEST_IN_LINEAGE: (locks.c.scope, locks.c.lineage, locks.c.id, newest_first),
    Sought.DESCENDANT: (locks.c.ancestor_id, locks.c.request_digest, locks.c.id, (locks.c.id.desc(),)),
}


class LockShelf:
    """The locks that were looked up last, from any thread. Locks are never changed, and no number is given twice."""

    def __init__(self) -> None:
        self._locks: OrderedDict[int, StoredLock] = OrderedDict()
        self._access = threading.Lock()

    def get(self, ids: Collection[int]) -> dict[int, StoredLock]:
        """Those of these numbers that are here."""
        with self._access:
            found = {lock_id: self._locks[lock_id] for lock_id in ids if lock_id in self._locks}
            for lock_id in found:
                self._locks.move_to_end(lock_id)
            return found

    def put(self, found: Mapping[int, StoredLock]) -> None:
        """Keep these; those that were looked up longest ago go."""
        with self._access:
            self._locks.update(found)
            while len(self._locks) > SHELF_LOCKS:
                self._locks.popitem(last=False)


def look_up(connection: Connection, lookups: Sequence[Lookup], shelf: LockShelf) -> list[StoredLock | None]:
    """See `Ledger.look_up`. The wheels are read of those locks alone that are answers."""
    by_kind: dict[Sought, set[tuple[str | int, str]]] = defaultdict(set)
    for lookup in lookups:
        by_kind[lookup.sought].add((lookup.whose, lookup.what))
    ids = {
        (sought, *pair): lock_id
        for sought, pairs in by_kind.items()
        for pair, lock_id in _ids(connection, sought, sorted(pairs)).items()
    }
    wanted = set(ids.values())
    found = shelf.get(wanted)
    read = _locks(connection, sorted(wanted - found.keys()))
    shelf.put(read)
    found.update(read)
    return [found.get(ids.get((lookup.sought, lookup.whose, lookup.what), 0)) for lookup in lookups]


def _ids(connection: Connection, sought: Sought, pairs: Sequence[tuple[Any, Any]]) -> dict[tuple[Any, Any], int]:
    whose, what, lock_id, order = _QUESTIONS[sought]
    found: dict[tuple[Any, Any], int] = {}
    for part in _parts(pairs):
        # Not a tuple's IN, for which SQLite reads the whole table.
        asked = or_(*(and_(whose == value, what == other) for value, other in part))
        query = select(whose.label("whose"), what.label("what"), lock_id.label("lock_id")).where(asked)
        for row in connection.execute(query.order_by(*order)):
            found.setdefault((row.whose, row.what), row.lock_id)
    return found


def _locks(connection: Connection, ids: Sequence[int]) -> dict[int, StoredLock]:
    found = {}
    for part in _parts(ids):
        rows = connection.execute(select(*lock_columns).where(locks.c.id.in_(part)))
        found.update({row.id: stored_of(row) for row in rows})
    return found


def _parts(values: Sequence[Any]) -> list[list[Any]]:
    """The values in lists of the sizes that there are, the last one filled up with its last value."""
    parts = [list(values[start : start + _SIZES[-1]]) for start in range(0, len(values), _SIZES[-1])]
    return [part + [part[-1]] * (_size(len(part)) - len(part)) for part in parts]


def _size(length: int) -> int:
    return next(size for size in _SIZES if size >= length)
