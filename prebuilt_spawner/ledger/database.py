"""The database behind the ledger: connections, transactions, threads and errors; it knows no table."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from ..errors import StorageFailure
from . import migrations

T = TypeVar("T")

BUSY_TIMEOUT_SECONDS = 30
"""How long a SQLite connection waits for another one's transaction. Ours take milliseconds; disks have bad moments."""

THREADS = 4
ATTEMPTS = 10
"""How often a transaction that collided is tried: each time one of the others got through."""

_WRITES = "prebuilt_spawner_writes"
_SYNCED = "prebuilt_spawner_synced"
_UNUSABLE = "The hub's memory of environments cannot be used at the moment. Please tell the administrator."
_TOO_NEW = (
    "The hub's memory of environments was written by a newer version of prebuilt-spawner than the one that runs. "
    "Please tell the administrator."
)


class Database:
    """Runs functions over a connection, each in a transaction on a thread of this object's own.

    The schema is brought up to date before the first one.

    Args:
        url: An SQLAlchemy URL. `sqlite://` is a database in memory, gone after `close`.

    Raises:
        StorageFailure: The URL is malformed, or the driver that it needs is not installed.
    """

    def __init__(self, url: str) -> None:
        self._secrets = _secrets(url)
        try:
            parsed = make_url(url)
            in_memory = parsed.get_backend_name() == "sqlite" and _is_in_memory(parsed)
            self._engine = _engine(parsed, in_memory=in_memory)
        except (SQLAlchemyError, ImportError, ValueError, TypeError) as error:
            raise self._failure(error) from None
        self._file = parsed.get_backend_name() == "sqlite" and not in_memory
        # A database in memory is one connection, which one thread at a time may use.
        self._threads = ThreadPoolExecutor(1 if in_memory else THREADS, thread_name_prefix="prebuilt-ledger")
        self._opening = threading.Lock()
        self._open = False

    async def open(self) -> None:
        """Bring the schema up to date; other calls do so by themselves where it was not done."""
        await self._run(self._ready)

    async def read(self, question: Callable[[Connection], T]) -> T:
        """The answer of `question`.

        Raises:
            StorageFailure: The database cannot be reached or read.
        """
        return await self._run(lambda: self._transaction(question, writes=False))

    async def write(self, change: Callable[[Connection], T]) -> T:
        """What `change` returns, after it was committed. It is called again where it raises `IntegrityError`.

        Raises:
            StorageFailure: The database cannot be reached or written; nothing was changed.
        """
        return await self._run(lambda: self._transaction(change, writes=True))

    async def note(self, change: Callable[[Connection], T]) -> T:
        """As `write`, for what nobody misses: where the machine's power fails, SQLite may not have it afterwards.

        It does not wait for the disk. While an engine unpacks an image on the same one, that takes seconds.

        Raises:
            StorageFailure: The database cannot be reached or written; nothing was changed.
        """
        return await self._run(lambda: self._transaction(change, writes=True, synced=False))

    async def close(self) -> None:
        """Finish what runs and close the connections."""
        await asyncio.get_running_loop().run_in_executor(None, self._shut_down)

    def _shut_down(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._translated, function)

    def _translated(self, function: Callable[[], T]) -> T:
        try:
            return function()
        except migrations.UnknownSchema as error:
            raise StorageFailure(
                _TOO_NEW,
                detail=f"the database is at schema revision {error}, which this version does not know: "
                "upgrade prebuilt-spawner, or let db_url name another database",
            ) from None
        except (SQLAlchemyError, sqlite3.Error, ValueError) as error:
            # Not chained: a driver's message may hold the URL with its password, and logs print the chain.
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> StorageFailure:
        detail = f"{type(error).__name__}: {error}"
        for secret in self._secrets:
            detail = detail.replace(secret, "***")
        return StorageFailure(_UNUSABLE, detail=detail)

    def _transaction(self, function: Callable[[Connection], T], *, writes: bool, synced: bool = True) -> T:
        self._ready()
        for attempt in range(ATTEMPTS):
            try:
                return self._once(function, writes=writes, synced=synced)
            except IntegrityError:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _once(self, function: Callable[[Connection], T], *, writes: bool, synced: bool = True) -> T:
        options = {_WRITES: writes, _SYNCED: synced}
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            return function(connection)

    def _ready(self) -> None:
        with self._opening:
            if self._open:
                return
            if self._file:
                _make_private(self._engine.url)
                _switch_to_wal(self._engine)
            self._once(migrations.upgrade, writes=True)
            self._open = True


def _engine(url: URL, *, in_memory: bool) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, hide_parameters=True, pool_pre_ping=True)
    arguments: dict[str, Any] = {"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
    if in_memory:
        engine = create_engine(url, hide_parameters=True, poolclass=StaticPool, connect_args=arguments)
    else:
        engine = create_engine(url, hide_parameters=True, connect_args=arguments)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Python's driver would begin transactions by itself, late and only before changes; `_begin_sqlite` does it instead.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that begins by reading and then writes fails at once if another one wrote in between, whatever the
    # timeout; one that says so at the start waits for its turn.
    options = connection.get_execution_options()
    writes = options.get(_WRITES, False)
    if writes:
        # In WAL mode a commit is whole or not there, either way (https://www.sqlite.org/pragma.html#pragma_synchronous).
        connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if options.get(_SYNCED, True) else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _switch_to_wal(engine: Engine) -> None:
    """Let readers and a writer work side by side. It is kept in the file, so it happens once in its life."""
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.close()
    finally:
        connection.close()


def _make_private(url: URL) -> None:
    """Make the file, where there is none, for the hub's user alone: who asked for what stands in it, and what builds
    said. SQLite gives the files beside it the same mode. One that is there keeps what the administrator gave it."""
    if url.query.get("uri") is None:  # else it is a name that only SQLite reads
        with suppress(OSError):  # SQLite says what is wrong
            os.close(os.open(str(url.database), os.O_CREAT | os.O_RDWR, 0o600))


def _is_in_memory(url: URL) -> bool:
    return url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"


def _secrets(url: str) -> tuple[str, ...]:
    """What must not be logged: the password in each way that it can be written, longest first."""
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        return (url,)
    password = str(parsed.password or "")
    found = {url, password, quote(password, safe=""), quote_plus(password)} if password else set()
    for key, value in parsed.query.items():
        if "pass" in key.lower():
            found |= {value} if isinstance(value, str) else set(value)
    found.discard("")
    return tuple(sorted(found, key=len, reverse=True))
