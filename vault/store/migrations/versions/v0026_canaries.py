"""The credentials that are labelled as canaries have an index, so that the threat rules need not look through all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"

_CANARY = """labels LIKE '%"canary":"true"%'"""


def upgrade() -> None:
    """Make the index."""
    op.create_index(
        "credentials_canary",
        "credentials",
        ["name"],
        unique=False,
        postgresql_where=sa.text(_CANARY),
        sqlite_where=sa.text(_CANARY),
    )
