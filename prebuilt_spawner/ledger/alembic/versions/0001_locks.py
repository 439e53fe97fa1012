"""Locks, who holds them, and the environments that were made.

A migration is a record of its time: it names its columns itself and imports no table of the present schema.
"""

import sqlalchemy as sa
from alembic import op

from prebuilt_spawner.ledger.schema import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "locks",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("scope", sa.String(512), nullable=False),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("lineage", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("ancestor_id", Id, nullable=True),
        sa.Column("generation", Id, nullable=False),
        sa.Column("profile_lock_id", Id, nullable=True),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("wheels", sa.JSON, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_locks"),
        sa.ForeignKeyConstraint(["ancestor_id"], ["locks.id"], name="fk_locks_ancestor_id_locks"),
        sa.ForeignKeyConstraint(["profile_lock_id"], ["locks.id"], name="fk_locks_profile_lock_id_locks"),
        sa.UniqueConstraint("scope", "request_digest", "revision", name="uq_locks_scope_request_digest_revision"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_locks_scope_lineage_generation", "locks", ["scope", "lineage", "generation"])
    op.create_index("ix_locks_ancestor_id_request_digest", "locks", ["ancestor_id", "request_digest"])
    op.create_table(
        "holdings",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("owner", sa.String(512), nullable=False),
        sa.Column("request_digest", sa.String(64), nullable=False),
        sa.Column("lineage", sa.String(64), nullable=False),
        sa.Column("lock_id", Id, nullable=False),
        sa.Column("since", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_holdings"),
        sa.ForeignKeyConstraint(["lock_id"], ["locks.id"], name="fk_holdings_lock_id_locks"),
        sa.UniqueConstraint("owner", "request_digest", name="uq_holdings_owner_request_digest"),
    )
    op.create_index("ix_holdings_owner_lineage", "holdings", ["owner", "lineage"])
    op.create_table(
        "environments",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("base_digest", sa.String(64), nullable=False),
        sa.Column("packages", sa.JSON, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("last_used_at", UtcDateTime, nullable=False),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_environments"),
    )


def downgrade() -> None:
    """Going back would throw the memory away; restore a backup instead."""
    raise NotImplementedError
