"""Builds: who asked for what, when, and how it ended; and which images are being removed."""

import sqlalchemy as sa
from alembic import op

from prebuilt_spawner.ledger.schema import LongText, UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "removals",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("since", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_removals"),
    )
    op.create_table(
        "builds",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("hub", sa.String(512), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("base", sa.String(512), nullable=False),
        sa.Column("requirements", sa.JSON, nullable=False),
        sa.Column("packages", sa.Integer, nullable=False),
        sa.Column("begun_at", UtcDateTime, nullable=False),
        sa.Column("ended_at", UtcDateTime, nullable=True),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("phase_seconds", sa.JSON, nullable=False),
        sa.Column("work_seconds", sa.Float, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("error", LongText, nullable=False),
        sa.Column("log", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_builds"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_builds_digest_id", "builds", ["digest", "id"])
    op.create_index("ix_builds_outcome_hub", "builds", ["outcome", "hub"])
    op.create_index("ix_builds_base_outcome_id", "builds", ["base", "outcome", "id"])
    op.create_index("ix_builds_begun_at", "builds", ["begun_at"])
    op.create_table(
        "build_users",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("build_id", Id, nullable=False),
        sa.Column("user", sa.String(512), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_build_users"),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name="fk_build_users_build_id_builds"),
        sa.UniqueConstraint("build_id", "user", name="uq_build_users_build_id_user"),
    )


def downgrade() -> None:
    """Going back would throw the memory away; restore a backup instead."""
    raise NotImplementedError
