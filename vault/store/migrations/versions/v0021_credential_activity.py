"""Who last used and last revealed each credential."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Make the table. The server fills it from the log, from its beginning."""
    op.create_table(
        "credential_activity",
        sa.Column("name", sa.String(length=511), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("last_used_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_by", sa.String(length=512), nullable=True),
        sa.Column("last_revealed_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_revealed_by", sa.String(length=512), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
