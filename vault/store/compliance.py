"""Counts and lists for the evidence of a compliance report. Reads only; names no credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from vault.model import ThreatState
from vault.store import lenient
from vault.store.approvals import approval_from
from vault.store.audit import record_from
from vault.store.keys import key_from
from vault.store.tables import (
    approvals,
    audit_records,
    credential_versions,
    credentials,
    keys,
    metadata,
    subjects,
    threats,
)

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.model import Approval, AuditRecord, Key

MOST = 500
"""How many rows of one kind a report lists."""


async def all_keys(connection: AsyncConnection) -> list[Key]:
    """Every key of every tenant, the newest version first."""
    statement = select(keys).order_by(keys.c.tenant, keys.c.purpose, keys.c.version.desc())
    return [key_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def tally(
    connection: AsyncConnection,
    since: datetime.datetime,
    until: datetime.datetime,
    columns: Sequence[str],
    *,
    outcome: str = "",
) -> list[tuple[str | int, ...]]:
    """How many records there are of each combination of these columns, most first, with their number last."""
    table = audit_records
    chosen = [table.c[name] for name in columns]
    statement = select(*chosen, func.count()).where(table.c.created_at >= since, table.c.created_at < until)
    if outcome:
        statement = statement.where(table.c.outcome == outcome)
    statement = statement.group_by(*chosen).order_by(func.count().desc(), *chosen).limit(MOST)
    return [tuple(row) for row in await connection.execute(statement)]


async def records_of(
    connection: AsyncConnection,
    since: datetime.datetime,
    until: datetime.datetime,
    *,
    actions: Sequence[str] = (),
    prefix: str = "",
    reasons: Sequence[str] = (),
) -> list[AuditRecord]:
    """The newest records of these actions, of actions that begin so, or with these reasons."""
    table = audit_records
    statement = select(table).where(table.c.created_at >= since, table.c.created_at < until)
    if actions:
        statement = statement.where(table.c.action_type.in_(actions))
    if prefix:
        statement = statement.where(table.c.action_type.startswith(prefix, autoescape=True))
    if reasons:
        statement = statement.where(table.c.reason.in_(reasons))
    ordered = statement.order_by(table.c.sequence.desc()).limit(MOST)
    return [record_from(row) for row in await lenient.read(connection, ordered)]


async def approvals_since(connection: AsyncConnection, since: datetime.datetime) -> list[Approval]:
    """Approvals asked for since then, newest first."""
    statement = select(approvals).where(approvals.c.create_time >= since)
    ordered = statement.order_by(approvals.c.create_time.desc()).limit(MOST)
    return [approval_from(dict(row)) for row in (await connection.execute(ordered)).mappings()]


async def unreleased_threats(connection: AsyncConnection) -> int:
    """How many findings of the threat rules nobody has released."""
    statement = select(func.count()).where(threats.c.state != ThreatState.RELEASED.value)
    return int((await connection.execute(statement)).scalar_one())


async def count(
    connection: AsyncConnection, table: str, columns: Sequence[str]
) -> list[tuple[str | int, ...]]:
    """How many rows of a table there are of each combination of these columns, with their number last."""
    assert table in (credentials.name, credential_versions.name, subjects.name)
    chosen = [metadata.tables[table].c[name] for name in columns]
    statement = select(*chosen, func.count()).group_by(*chosen).order_by(*chosen).limit(MOST)
    return [tuple(row) for row in await connection.execute(statement)]


async def span(connection: AsyncConnection) -> tuple[datetime.datetime, datetime.datetime] | None:
    """When the oldest and the newest record at hand were made."""
    table = audit_records
    ends = [
        (await connection.execute(select(table.c.created_at).order_by(order).limit(1))).scalar()
        for order in (table.c.sequence, table.c.sequence.desc())
    ]
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])
