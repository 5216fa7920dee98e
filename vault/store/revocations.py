"""Look-ups of revoked tokens. Writes go through `ledger.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from vault.store.tables import revocations

if TYPE_CHECKING:
    import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection


async def alive(
    connection: AsyncConnection, now: datetime.datetime
) -> dict[tuple[str, str], datetime.datetime]:
    """Every revoked token that could still be alive, by tenant and id, and when it can be forgotten."""
    table = revocations
    statement = select(table.c.tenant, table.c.token_id, table.c.forget_time).where(table.c.forget_time > now)
    return {(row.tenant, row.token_id): row.forget_time for row in await connection.execute(statement)}
