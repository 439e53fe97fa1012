"""The tables as the newest migration leaves them. A change here needs a migration in `alembic/versions`.

`created_at` and the like are aware UTC times. Names are at most 512 characters: a JupyterHub user name has 255.
"""

from __future__ import annotations

from datetime import datetime, timezone

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC times, also on databases that keep no zone (SQLite, MySQL)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: nobody could say later which zone they were in."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Put the zone back where the database dropped it."""
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value.astimezone(timezone.utc)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

NAME_CHARACTERS = 512

LongText = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")
"""MySQL's TEXT ends at 64 KiB."""

# SQLite numbers rows by itself only where the type is exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

locks = Table(
    "locks",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("scope", String(512), nullable=False),
    Column("request_digest", String(64), nullable=False),
    Column("lineage", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("ancestor_id", _Id, ForeignKey("locks.id"), nullable=True),
    Column("generation", _Id, nullable=False),
    Column("profile_lock_id", _Id, ForeignKey("locks.id"), nullable=True),
    Column("content_digest", String(64), nullable=False),
    Column("wheels", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    # Two processes that store a lock for one request at once both try the same next revision: one of them fails
    # and looks again, so that equal locks are stored once.
    UniqueConstraint("scope", "request_digest", "revision"),
    Index(None, "scope", "lineage", "generation"),
    Index(None, "ancestor_id", "request_digest"),
    sqlite_autoincrement=True,
)
"""Locks are never changed. The newest is the one of the highest generation, then of the highest id; `generation` is the
id of the lock without ancestor that it goes back to."""

holdings = Table(
    "holdings",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("owner", String(512), nullable=False),
    Column("request_digest", String(64), nullable=False),
    Column("lineage", String(64), nullable=False),
    Column("lock_id", _Id, ForeignKey("locks.id"), nullable=False),
    Column("since", UtcDateTime, nullable=False),
    UniqueConstraint("owner", "request_digest"),
    Index(None, "owner", "lineage"),
)
"""Who holds which lock. `since` is when the owner last asked to hold it."""

environments = Table(
    "environments",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("base_digest", String(64), nullable=False),
    Column("packages", JSON, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("layout_version", Integer, nullable=True),
    Column("layers", JSON, nullable=True),
)
"""Environments that were made. `packages` is a JSON list of `name==version`; `layers` is what the image has on top of
its base (see `rows`), null where it is not known."""

environment_wheels = Table(
    "environment_wheels",
    metadata,
    Column("digest", String(64), ForeignKey("environments.digest"), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Index(None, "sha256"),
)
"""Which wheels the environments have whose layers are known."""

removals = Table(
    "removals",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("since", UtcDateTime, nullable=False),
)
"""Environments whose images are being removed now."""

builds = Table(
    "builds",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("hub", String(NAME_CHARACTERS), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("base", String(NAME_CHARACTERS), nullable=False),
    Column("requirements", JSON, nullable=False),
    Column("packages", Integer, nullable=False),
    Column("begun_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=True),
    Column("outcome", String(16), nullable=False),
    Column("phase_seconds", JSON, nullable=False),
    Column("work_seconds", Float, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("error", LongText, nullable=False),
    Column("log", LongText, nullable=False),
    Column("request_key", String(64), nullable=False, server_default=""),
    Column("request_fault", Boolean, nullable=False, server_default=false()),
    Index(None, "digest", "id"),
    Index(None, "request_key", "outcome", "id"),
    Index(None, "outcome", "hub"),
    Index(None, "base", "outcome", "id"),
    Index(None, "begun_at"),
    # Numbers of builds that were forgotten are not given again: people find them in logs.
    sqlite_autoincrement=True,
)
"""Builds, running and ended. `packages` is the number of requirements; `phase_seconds` is a JSON list of pairs, since
some databases sort the keys of objects; `work_seconds` is how long it took without choosing versions and without
waiting for its turn; `request_key` is what the base's name and the requirements are found by, `request_fault` whether
one that failed would fail again."""

build_users = Table(
    "build_users",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("build_id", _Id, ForeignKey("builds.id"), nullable=False),
    Column("user", String(NAME_CHARACTERS), nullable=False),
    UniqueConstraint("build_id", "user"),
)
"""Who asked for a build, in the order of `id`."""

choices = Table(
    "choices",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("user", String(NAME_CHARACTERS), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("options", JSON, nullable=False),
    Column("last_used_at", UtcDateTime, nullable=False),
    Column("uses", Integer, nullable=False),
    UniqueConstraint("user", "digest"),
    Index(None, "user", "last_used_at"),
)
"""What each user started lately. `digest` is the same for options that mean the same, `options` is as they were given
last."""

pushes = Table(
    "pushes",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("hub", String(64), nullable=False),
    Column("place", String(512), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("base", String(512), nullable=False),
    Column("base_digest", String(64), nullable=False),
    Column("wheels", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    UniqueConstraint("hub", "place", "digest"),
)
"""Environments that a hub has made and the registry of this place (`<registry>/<repository>`) does not have yet."""
