"""Budgets of calls, shared by every worker through one row a subject. The log does not vouch for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import case, or_
from sqlalchemy.dialects import postgresql, sqlite

from vault.store.reach import NOBODY
from vault.store.tables import rates

if TYPE_CHECKING:
    from vault.store.engine import Database


async def take(database: Database, subject: str, second: int, calls: int, limit: int) -> bool:
    """Take so many calls out of a subject's budget for a second, if they are still there.

    A worker whose clock is behind takes from the later second, so that two clocks never make two budgets.
    """
    insert = postgresql.insert if database.is_postgresql else sqlite.insert
    new = insert(rates).values(subject=subject, second=second, used=calls)
    later = rates.c.second < second
    statement = new.on_conflict_do_update(
        index_elements=[rates.c.subject],
        set_={
            "used": case((later, calls), else_=rates.c.used + calls),
            "second": case((later, second), else_=rates.c.second),
        },
        where=or_(later, rates.c.used + calls <= limit),
    ).returning(rates.c.used)
    async with database.read(NOBODY) as connection:
        return (await connection.execute(statement)).first() is not None
