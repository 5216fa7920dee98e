"""Reading the log: pages of records, what happened since, and checkpoints."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from vault.model import AuditRecord, Checkpoint, Outcome
from vault.store import tree
from vault.store.engine import driver_of
from vault.store.tables import audit_head, audit_records, checkpoints, cosignatures

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.crypto.merkle import Node
    from vault.model import AuditQuery
    from vault.store.engine import Database
    from vault.store.rows import Row


BENEATH = "/**"
"""What a resource ends in if everything beneath it is meant."""


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
    query: AuditQuery,
    limit: int,
) -> list[AuditRecord]:
    """The first records that the query means, at most so many, in its order."""
    table = audit_records
    statement = select(table).where(*_conditions(query))
    order = table.c.sequence.desc() if query.newest_first else table.c.sequence
    result = await connection.execute(statement.order_by(order).limit(limit))
    return [record_from(dict(row)) for row in result.mappings()]


def _conditions(query: AuditQuery) -> Iterator[ColumnElement[bool]]:
    table = audit_records
    yield table.c.sequence >= query.first
    if query.last is not None:
        yield table.c.sequence <= query.last
    for column, value in (
        (table.c.tenant, query.tenant),
        (table.c.action_type, query.action),
        (table.c.user_id, query.identity),
        (table.c.device_id, query.device_id),
    ):
        if value:
            yield column == value
    if query.resource.endswith(BENEATH):
        yield table.c.resource.startswith(query.resource.removesuffix("**"), autoescape=True)
    elif query.resource:
        yield table.c.resource == query.resource
    if query.outcome is not None:
        yield table.c.outcome == query.outcome.value
    if query.network:
        yield func.in_network(table.c.ip_address, query.network)
    if query.start_time is not None:
        yield table.c.created_at >= query.start_time
    if query.end_time is not None:
        yield table.c.created_at < query.end_time


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


async def strays(connection: AsyncConnection) -> list[int]:
    """Sequences that the log does not reach: below 0, or from the head's size on. The first ten."""
    sequence = audit_records.c.sequence
    size = select(audit_head.c.size).scalar_subquery()
    statement = select(sequence).where(or_(sequence < 0, sequence >= size)).order_by(sequence).limit(10)
    return list((await connection.execute(statement)).scalars())


async def stray_checkpoints(connection: AsyncConnection) -> list[int]:
    """The sizes of checkpoints that the log does not reach. The first ten."""
    size = select(audit_head.c.size).scalar_subquery()
    statement = select(checkpoints.c.size).where(checkpoints.c.size > size).order_by(checkpoints.c.size)
    return list((await connection.execute(statement.limit(10))).scalars())


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


async def with_cosignatures(connection: AsyncConnection, given: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Checkpoints whose notes carry what witnesses answered."""
    statement = (
        select(cosignatures.c.size, cosignatures.c.line)
        .where(cosignatures.c.size.in_([checkpoint.size for checkpoint in given]))
        .order_by(cosignatures.c.witness)
    )
    lines: dict[int, str] = defaultdict(str)
    for size, line in await connection.execute(statement):
        lines[size] += line
    return [
        dataclasses.replace(checkpoint, note=checkpoint.note + lines[checkpoint.size]) for checkpoint in given
    ]


async def keep_cosignature(
    database: Database, size: int, witness: str, line: str, now: datetime.datetime
) -> None:
    """Store what a witness answered, unless it is there already."""
    insert_ = postgresql.insert if database.is_postgresql else sqlite.insert
    async with database.write() as connection:
        await connection.execute(
            insert_(cosignatures)
            .values(size=size, witness=witness[:128], line=line, create_time=now)
            .on_conflict_do_nothing()
        )


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
