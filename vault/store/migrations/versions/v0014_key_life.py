"""The ends of keys, their schedules, and how often they were used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_UNFINISHED = sa.text("state IN ('running', 'paused') AND urgent = 0")


def upgrade() -> None:
    """Make the tables; let a quarantine have a job of its own beside others."""
    op.create_table(
        "key_destructions",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("destroy_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ordered_by", sa.String(length=512), nullable=False),
        sa.Column("approval_id", sa.String(length=22), nullable=False),
        sa.Column("order_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "purpose", "version"),
    )
    op.create_table(
        "key_schedules",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("every_seconds", sa.BigInteger(), nullable=False),
        sa.Column("max_wraps", sa.BigInteger(), nullable=False),
        sa.Column("rewrap", sa.Integer(), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=512), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "purpose"),
    )
    op.create_table(
        "key_usage",
        sa.Column("object_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("wraps", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("object_id"),
    )
    op.drop_index("one_unfinished_job", "jobs")
    op.create_index(
        "one_unfinished_job",
        "jobs",
        ["tenant", "kind", "urgent"],
        unique=True,
        postgresql_where=_UNFINISHED,
        sqlite_where=_UNFINISHED,
    )
