"""What hubs have made and registries do not have yet."""

import sqlalchemy as sa
from alembic import op

from prebuilt_spawner.ledger.schema import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "pushes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("hub", sa.String(64), nullable=False),
        sa.Column("place", sa.String(512), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("base", sa.String(512), nullable=False),
        sa.Column("base_digest", sa.String(64), nullable=False),
        sa.Column("wheels", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("since", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pushes"),
        sa.UniqueConstraint("hub", "place", "digest", name="uq_pushes_hub_place_digest"),
    )


def downgrade() -> None:
    """Going back would throw the memory away; restore a backup instead."""
    raise NotImplementedError
