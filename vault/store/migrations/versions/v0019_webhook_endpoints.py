"""Endpoints that are told what happens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "webhook_endpoints",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("endpoint_id", sa.String(length=22), nullable=False),
        sa.Column("url", sa.String(length=512), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("credential", sa.String(length=511), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=512), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "endpoint_id"),
    )
