"""Removing rows that are out of date. They hold no state that the log vouches for beyond that time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select

from vault.store.tables import group_revocations, token_uses
from vault.store.tables import requests as requests_table
from vault.store.tables import revocations as revocations_table

if TYPE_CHECKING:
    import datetime

    from vault.store.engine import Database


async def make_months(database: Database, *, until: datetime.datetime) -> None:
    """Make the partitions of the audit log that are missing, from now to this moment. Only PostgreSQL has them."""
    if database.is_postgresql:
        async with database.write() as connection:
            await connection.execute(select(func.make_audit_months(func.now(), until)))


async def forget_before(
    database: Database, *, requests: datetime.datetime, tokens: datetime.datetime
) -> None:
    """Remove requests older than the one moment, and what concerns only tokens that were over at the other."""
    async with database.write() as connection:
        await connection.execute(delete(requests_table).where(requests_table.c.create_time < requests))
        for table in (revocations_table, group_revocations, token_uses):
            await connection.execute(delete(table).where(table.c.forget_time < tokens))
