"""Look-ups of what the HSMs were recorded to be. Writes go through `ledger.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from vault.store.tables import hsm_capabilities

if TYPE_CHECKING:
    from vault.store.engine import Database


async def get(database: Database, place: str) -> str | None:
    """The record of the HSM in a place, as JSON; None if there is none."""
    statement = select(hsm_capabilities.c.capabilities).where(hsm_capabilities.c.place == place)
    async with database.read() as connection:
        found: str | None = (await connection.execute(statement)).scalar_one_or_none()
    return found
