"""What each user started lately, and builds that are found by what was asked for."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

from prebuilt_spawner.ledger.schema import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the columns and the table. Builds that are there are found by their requests from now on; whether one failed
    by its request's fault is not known of them."""
    op.add_column("builds", sa.Column("request_key", sa.String(64), nullable=False, server_default=""))
    op.add_column("builds", sa.Column("request_fault", sa.Boolean, nullable=False, server_default=sa.false()))
    builds = sa.table(
        "builds",
        sa.column("id", Id),
        sa.column("base", sa.String),
        sa.column("requirements", sa.JSON),
        sa.column("request_key", sa.String),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(builds.c.id, builds.c.base, builds.c.requirements)).all():
        form = json.dumps([row.base, sorted(set(row.requirements))], separators=(",", ":"))
        key = hashlib.sha256(form.encode("ascii")).hexdigest()
        connection.execute(sa.update(builds).where(builds.c.id == row.id).values(request_key=key))
    op.create_index("ix_builds_request_key_outcome_id", "builds", ["request_key", "outcome", "id"])
    op.create_table(
        "choices",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("user", sa.String(512), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("last_used_at", UtcDateTime, nullable=False),
        sa.Column("uses", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_choices"),
        sa.UniqueConstraint("user", "digest", name="uq_choices_user_digest"),
    )
    op.create_index("ix_choices_user_last_used_at", "choices", ["user", "last_used_at"])


def downgrade() -> None:
    """Going back would throw the memory away; restore a backup instead."""
    raise NotImplementedError
