"""Look-ups of stored policies. Writes go through `ledger.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from vault.model import StoredPolicy
from vault.store.tables import audit_records, policies

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


def policy_from(row: Row) -> StoredPolicy:
    """A policy from its row."""
    return StoredPolicy(**row)


def policy_row(policy: StoredPolicy) -> Row:
    """A policy's row."""
    return {column.name: getattr(policy, column.name) for column in policies.columns}


async def get_policy(connection: AsyncConnection, version: int) -> StoredPolicy | None:
    """One version."""
    row = (await connection.execute(select(policies).where(policies.c.version == version))).mappings().first()
    return None if row is None else policy_from(dict(row))


async def list_policies(connection: AsyncConnection, *, before: int, limit: int) -> list[StoredPolicy]:
    """Versions, newest first, beginning below the version `before`."""
    statement = (
        select(policies).where(policies.c.version < before).order_by(policies.c.version.desc()).limit(limit)
    )
    return [policy_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def recent_identities(
    connection: AsyncConnection, tenant: str, action: str, first: int, limit: int
) -> list[str]:
    """Who did this in a tenant since this place in the log, at most so many."""
    table = audit_records
    statement = (
        select(table.c.user_id)
        .distinct()
        .where(table.c.tenant == tenant, table.c.sequence >= first, table.c.action_type == action)
        .limit(limit)
    )
    return [row.user_id for row in await connection.execute(statement)]
