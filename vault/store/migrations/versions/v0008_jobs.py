"""Jobs: long work on many rows, whose progress lives here."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_UNFINISHED = sa.text("state IN ('running', 'paused')")


def upgrade() -> None:
    """Make the tables of jobs, their ranges, and what they could not do."""
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(length=22), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("source_version", sa.Integer(), nullable=False),
        sa.Column("suite", sa.Integer(), nullable=False),
        sa.Column("urgent", sa.Integer(), nullable=False),
        sa.Column("max_per_second", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=512), nullable=False),
        sa.Column("approved_by", sa.String(length=512), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("jobs_by_tenant", "jobs", ["tenant", "create_time"], unique=False)
    op.create_index(
        "one_unfinished_job",
        "jobs",
        ["tenant", "kind", "urgent"],
        unique=True,
        postgresql_where=_UNFINISHED,
        sqlite_where=_UNFINISHED,
    )
    op.create_table(
        "job_ranges",
        sa.Column("job_id", sa.String(length=22), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("cursor_name", sa.String(length=511), nullable=False),
        sa.Column("cursor_version", sa.Integer(), nullable=False),
        sa.Column("last_name", sa.String(length=511), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("finished", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=32), nullable=False),
        sa.Column("lease_time", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "number"),
    )
    op.create_table(
        "job_failures",
        sa.Column("job_id", sa.String(length=22), nullable=False),
        sa.Column("name", sa.String(length=511), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "name", "version"),
    )
