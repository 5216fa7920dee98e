"""How a credential stands with its provider, and when it expires."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the columns, and the index that finds what expires."""
    for column in (
        sa.Column("standing", sa.String(length=16), nullable=True),
        sa.Column("standing_note", sa.String(length=128), nullable=True),
        sa.Column("standing_by", sa.String(length=512), nullable=True),
        sa.Column("standing_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("credentials", column)
    op.create_index("credentials_by_expiry", "credentials", ["expire_time"], unique=False)
