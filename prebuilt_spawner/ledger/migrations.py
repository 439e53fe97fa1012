"""Bringing a database to the newest schema, once, however many hubs start at the same time."""

from __future__ import annotations

import threading

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

# Not alembic's default: JupyterHub uses that, and may live in the same database.
VERSION_TABLE = "prebuilt_spawner_alembic_version"

# Any number will do that other users of the same server do not take; this one is "prebuilt" in ASCII.
_POSTGRESQL_LOCK = 0x7072656275696C74

# Alembic keeps the running migration in a variable of its module.
_one_at_a_time = threading.Lock()


class UnknownSchema(Exception):
    """The database is at a revision that this version does not have: a newer one wrote it."""


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations that are missing, in the transaction that the connection is in; it must be a writing one.

    SQLite: `BEGIN IMMEDIATE` keeps a second process waiting. PostgreSQL: an advisory lock does, until the
    transaction ends. Both undo a half-done migration when the process dies. Other servers have no such guard: start
    one hub first there after an upgrade.

    Args:
        connection: To the database.
        revision: How far; an older one is for tests of migrations.

    Raises:
        UnknownSchema: A newer version of this package wrote the database.
    """
    config = _config()
    known = ScriptDirectory.from_config(config)
    with _one_at_a_time:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRESQL_LOCK})
        current = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_heads()
        revisions = {script.revision for script in known.walk_revisions()}
        unknown = sorted(set(current) - revisions)
        if unknown:
            raise UnknownSchema(unknown[0])
        if set(current) == set(known.get_heads()):
            return
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _config() -> Config:
    config = Config()
    # "package:folder" is looked up through the import system, so an installed wheel needs no ini file.
    config.set_main_option("script_location", "prebuilt_spawner.ledger:alembic")
    config.set_main_option("path_separator", "os")
    return config
