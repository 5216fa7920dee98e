"""How often a credential is to be rotated, and when next."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Add the columns, and the index that finds what is due."""
    op.add_column("credentials", sa.Column("rotation_days", sa.Integer(), nullable=True))
    op.add_column("credentials", sa.Column("rotation_due_time", sa.DateTime(timezone=True), nullable=True))
    op.create_index("credentials_by_rotation", "credentials", ["rotation_due_time"], unique=False)
