"""Look-ups of what is revoked, and of how often tokens were used. Writes go through `ledger.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, tuple_

from vault.store.tables import group_revocations, revocations, token_uses

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


async def revoked_ids(
    connection: AsyncConnection, now: datetime.datetime, *, page: int = 10_000
) -> AsyncIterator[Row]:
    """The row of every revoked token that could still be alive. Read in pages, so that memory stays flat."""
    key = tuple_(revocations.c.tenant, revocations.c.token_id)
    statement = select(revocations).where(revocations.c.forget_time > now).order_by(*key).limit(page)
    rows = (await connection.execute(statement)).mappings().all()
    while rows:
        for row in rows:
            yield dict(row)
        after = statement.where(key > tuple_(rows[-1]["tenant"], rows[-1]["token_id"]))
        rows = (await connection.execute(after)).mappings().all()


async def revoked_groups(connection: AsyncConnection, now: datetime.datetime) -> list[Row]:
    """The row of every group of tokens that was revoked and of which one could still be alive."""
    statement = select(group_revocations).where(group_revocations.c.forget_time > now)
    return [dict(row) for row in (await connection.execute(statement)).mappings()]


async def sessions_opened(connection: AsyncConnection, tenant: str, ids: Sequence[str]) -> dict[str, int]:
    """How many sessions these tokens have opened, by id; those that opened none are left out."""
    statement = select(token_uses.c.token_id, token_uses.c.sessions).where(
        token_uses.c.tenant == tenant, token_uses.c.token_id.in_(ids)
    )
    return {row.token_id: row.sessions for row in await connection.execute(statement)}
