"""Hand-overs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "handovers",
        sa.Column("name", sa.String(length=511), nullable=False),
        sa.Column("handover_id", sa.String(length=22), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("sender", sa.String(length=512), nullable=False),
        sa.Column("recipient", sa.String(length=512), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("suite", sa.Integer(), nullable=False),
        sa.Column("kek_version", sa.Integer(), nullable=False),
        sa.Column("field_names", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", "handover_id"),
    )
    op.create_index("handovers_by_state", "handovers", ["state", "expire_time"], unique=False)
