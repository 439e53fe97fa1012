"""What the images of environments are made of, to stack others on them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table. Of images that exist nothing is known."""
    op.add_column("environments", sa.Column("layout_version", sa.Integer, nullable=True))
    op.add_column("environments", sa.Column("layers", sa.JSON, nullable=True))
    op.create_table(
        "environment_wheels",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("digest", "sha256", name="pk_environment_wheels"),
        sa.ForeignKeyConstraint(["digest"], ["environments.digest"], name="fk_environment_wheels_digest_environments"),
    )
    op.create_index("ix_environment_wheels_sha256", "environment_wheels", ["sha256"])


def downgrade() -> None:
    """Going back would throw the memory away; restore a backup instead."""
    raise NotImplementedError
