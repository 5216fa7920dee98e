"""What an approval is of, where its operation names only a digest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Add the column."""
    op.add_column("approvals", sa.Column("document", sa.Text(), nullable=True))
