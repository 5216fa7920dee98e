"""What the HSMs were recorded to be."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Make the table. The next start records each HSM as it is."""
    op.create_table(
        "hsm_capabilities",
        sa.Column("place", sa.String(length=16), nullable=False),
        sa.Column("capabilities", sa.Text(), nullable=False),
        sa.Column("update_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by", sa.String(length=512), nullable=False),
        sa.PrimaryKeyConstraint("place"),
    )
