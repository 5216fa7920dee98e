"""Data subjects, and whose data a credential is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table, and the column that was not there before."""
    op.create_table(
        "subjects",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("subject_id", sa.String(length=22), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("erase_time", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "subject_id"),
    )
    op.create_index("subjects_by_key", "subjects", ["tenant", "key_version"], unique=False)
    op.add_column("credentials", sa.Column("subject_id", sa.String(length=22), nullable=True))
    op.create_index("credentials_by_subject", "credentials", ["tenant", "subject_id"], unique=False)
