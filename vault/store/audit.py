"""Reading the log: pages of records, what happened since, and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from vault.model import AuditRecord, Checkpoint, Outcome
from vault.store import tree
from vault.store.engine import driver_of
from vault.store.tables import audit_records, checkpoints

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.crypto.merkle import Node
    from vault.store.engine import Database
    from vault.store.rows import Row


def record_from(row: Row) -> AuditRecord:
    """A record from its row."""
    return AuditRecord(
        sequence=row["sequence"],
        record_id=row["id"],
        created_at=row["created_at"],
        tenant=row["tenant"],
        identity=row["user_id"],
        action=row["action_type"],
        resource=row["resource"],
        outcome=Outcome(row["outcome"]),
        reason=row["reason"],
        ip_address=row["ip_address"],
        device_id=row["device_id"],
        request_id=row["request_id"],
        token_id=row["token_id"],
        session_id=row["session_id"],
        before_state=row["before_state"],
        after_state=row["after_state"],
        rows_written=row["rows_written"],
        leaf_hash=row["leaf_hash"],
    )


async def list_records(
    connection: AsyncConnection,
    *,
    first: int,
    limit: int,
    tenant: str = "",
    action: str = "",
    resource: str = "",
    identity: str = "",
) -> list[AuditRecord]:
    """Records from sequence `first` on; an empty filter is no filter."""
    table = audit_records
    statement = select(table).where(table.c.sequence >= first)
    for column, value in (
        (table.c.tenant, tenant),
        (table.c.action_type, action),
        (table.c.resource, resource),
        (table.c.user_id, identity),
    ):
        if value:
            statement = statement.where(column == value)
    result = await connection.execute(statement.order_by(table.c.sequence).limit(limit))
    return [record_from(dict(row)) for row in result.mappings()]


async def granted_between(
    connection: AsyncConnection, first: int, end: int, actions: Sequence[str]
) -> list[AuditRecord]:
    """What was granted from sequence `first` to before `end`, among these actions."""
    table = audit_records
    statement = (
        select(table)
        .where(
            table.c.sequence >= first,
            table.c.sequence < end,
            table.c.action_type.in_(actions),
            table.c.outcome == Outcome.GRANTED.value,
        )
        .order_by(table.c.sequence)
    )
    return [record_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def granted_of_tenant(
    connection: AsyncConnection, tenant: str, first: int, end: int, actions: Sequence[str], *, limit: int
) -> list[AuditRecord]:
    """What a tenant was granted from sequence `first` to before `end`, among these actions; at most `limit`."""
    table = audit_records
    statement = (
        select(table)
        .where(
            table.c.tenant == tenant,
            table.c.sequence >= first,
            table.c.sequence < end,
            table.c.action_type.in_(actions),
            table.c.outcome == Outcome.GRANTED.value,
        )
        .order_by(table.c.sequence)
        .limit(limit)
    )
    return [record_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def stream_rows(
    database: Database, first: int, end: int, *, page: int = 2000
) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    """The rows of the log from `first` to before `end`, in pages, so that memory stays flat."""
    while first < end:
        async with database.read() as connection:
            if database.is_postgresql:
                rows = await (await driver_of(connection)).fetch(_STREAM, first, end, page)
            else:
                statement = (
                    select(audit_records)
                    .where(audit_records.c.sequence >= first, audit_records.c.sequence < end)
                    .order_by(audit_records.c.sequence)
                    .limit(page)
                )
                rows = (await connection.execute(statement)).mappings().all()
        if not rows:
            return
        yield rows
        first = rows[-1]["sequence"] + 1


_STREAM = (
    f"SELECT {', '.join(column.name for column in audit_records.columns)} FROM audit_records "  # noqa: S608 - our names
    "WHERE sequence >= $1 AND sequence < $2 ORDER BY sequence LIMIT $3"
)


async def stream_checkpoints(database: Database, size: int, *, page: int = 500) -> AsyncIterator[Checkpoint]:
    """The checkpoints up to a size, in the order of their sizes."""
    after = 0
    while True:
        async with database.read() as connection:
            found = await list_checkpoints(connection, after, page)
        for checkpoint in found:
            if checkpoint.size > size:
                return
            yield checkpoint
        if not found:
            return
        after = found[-1].size


async def get_row(connection: AsyncConnection, sequence: int) -> Row | None:
    """One record's row."""
    statement = select(audit_records).where(audit_records.c.sequence == sequence)
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else dict(row)


async def get_checkpoint(connection: AsyncConnection, size: int) -> Checkpoint | None:
    """The checkpoint of exactly this size."""
    row = (await connection.execute(select(checkpoints).where(checkpoints.c.size == size))).mappings().first()
    return None if row is None else Checkpoint(**row)


async def latest_checkpoint(connection: AsyncConnection) -> Checkpoint | None:
    """The checkpoint of the greatest size."""
    statement = select(checkpoints).order_by(checkpoints.c.size.desc()).limit(1)
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else Checkpoint(**row)


async def list_checkpoints(connection: AsyncConnection, after: int, limit: int) -> list[Checkpoint]:
    """Checkpoints by size, beginning above the size `after`."""
    statement = (
        select(checkpoints).where(checkpoints.c.size > after).order_by(checkpoints.c.size).limit(limit)
    )
    return [Checkpoint(**row) for row in (await connection.execute(statement)).mappings()]


async def insert_checkpoint(database: Database, checkpoint: Checkpoint, nodes: Sequence[Node]) -> None:
    """Store a checkpoint, unless one of this size is there already, and the nodes of the tree that it covers."""
    async with database.write() as connection:
        exists = select(checkpoints.c.size).where(checkpoints.c.size == checkpoint.size)
        if (await connection.execute(exists)).first() is None:
            row = {
                name: getattr(checkpoint, name)
                for name in ("size", "root", "frontier", "note", "create_time")
            }
            await connection.execute(insert(checkpoints).values(row))
        await tree.keep(connection, database, nodes)
