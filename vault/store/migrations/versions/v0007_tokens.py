"""Tokens revoked in groups, and tokens good for a number of sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "group_revocations",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("issued_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_by", sa.String(length=512), nullable=False),
        sa.Column("revoke_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("forget_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "kind", "subject"),
    )
    op.create_table(
        "token_uses",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("token_id", sa.String(length=22), nullable=False),
        sa.Column("sessions", sa.Integer(), nullable=False),
        sa.Column("forget_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "token_id"),
    )
