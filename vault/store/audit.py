"""Reading the log: pages of records, what happened since, and checkpoints.

Who reads what was committed, each from a place of its own, so that one which is behind holds up no other:

| who | how often | what |
|---|---|---|
| the follower, on every worker | 0.2 s, or when it is woken | the head, and those few records that are changes |
| the threat rules, on every worker | 0.5 s | of every record what the rules look at (`threats.py` beside this) |
| last uses, whichever worker is first | 1 s | nothing: the database keeps each credential's newest (`activity.py`) |
| a sink, on one worker | when there is something | whole records |
| a checkpoint, on one worker | as configured, or asked | whole records, each hashed anew before anything is signed |
| watches, outgoing webhooks | when something changed, or a second | those few records of one tenant that are changes |

None is spared reading by what its worker remembers of its own writes: what counts is what is stored. What is asked
again and again is `lenient.Prepared`, since every operation pays for these readers.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import String, Text, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from vault.errors import Reason, VaultError
from vault.model import AuditRecord, Checkpoint, Outcome
from vault.store import lenient, tree
from vault.store.lenient import Prepared, given
from vault.store.reach import ALL_TENANTS
from vault.store.tables import audit_head, audit_records, checkpoints, cosignatures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.crypto.merkle import Node
    from vault.model import AuditQuery
    from vault.store.engine import Database
    from vault.store.rows import Row


BENEATH = "/**"
"""What a resource ends in if everything beneath it is meant."""


def readable(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of a record, if its values are of their columns' kinds. Raises `STORED_DATA_DAMAGED`."""
    try:
        "".join(map(row.__getitem__, _TEXTS)).encode()
        Outcome(row["outcome"])
    except (TypeError, ValueError):
        raise _damaged(f"record {row['sequence']}") from None
    if not isinstance(row["created_at"], datetime.datetime) or not isinstance(row["leaf_hash"], bytes):
        raise _damaged(f"record {row['sequence']}")
    return row


def record_from(row: Mapping[str, Any]) -> AuditRecord:
    """A record from its row. Raises `STORED_DATA_DAMAGED`."""
    readable(row)
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


class Mark(NamedTuple):
    """A record's id and leaf hash. Both are others only where another record is."""

    record_id: str
    leaf_hash: bytes


async def list_records(
    connection: AsyncConnection,
    query: AuditQuery,
    limit: int,
) -> list[AuditRecord]:
    """The first records that the query means, at most so many, in its order."""
    table = audit_records
    statement = select(table).where(*_conditions(query))
    order = table.c.sequence.desc() if query.newest_first else table.c.sequence
    return await _records(connection, statement.order_by(order).limit(limit))


async def _records(connection: AsyncConnection, statement: Select[Any]) -> list[AuditRecord]:
    return [record_from(row) for row in await lenient.read(connection, statement)]


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
    found = await _granted(tuple(actions)).read(connection, first=first, end=end)
    return [record_from(row) for row in found]


@functools.cache
def _granted(actions: tuple[str, ...]) -> Prepared:
    table = audit_records
    return Prepared(
        select(table)
        .where(
            table.c.sequence >= given("first"),
            table.c.sequence < given("end"),
            table.c.action_type.in_(actions),
            table.c.outcome == Outcome.GRANTED.value,
        )
        .order_by(table.c.sequence)
    )


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
    return await _records(connection, statement)


async def stream_rows(
    database: Database, first: int, end: int, *, page: int = 2000
) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    """The rows of the log from `first` to before `end`, in pages, so that memory stays flat.

    What cannot be decoded is there as `lenient.Unreadable`.
    """
    while first < end:
        async with database.read(ALL_TENANTS) as connection:
            rows = await _STREAM.read(connection, first=first, end=end, most=page)
        if not rows:
            return
        last = rows[-1]["sequence"]
        if len(rows) == page and rows[0]["sequence"] < last:
            # On PostgreSQL one sequence may be there twice, and its rows on either side of a page's end.
            rows = [row for row in rows if row["sequence"] < last]
            first = last
        else:
            first = last + 1
        yield rows


_STREAM = Prepared(
    select(audit_records)
    .where(audit_records.c.sequence >= given("first"), audit_records.c.sequence < given("end"))
    .order_by(audit_records.c.sequence)
    .limit(given("most"))
)


async def last_sequence(connection: AsyncConnection) -> int:
    """The greatest sequence that is there; -1 if there is none."""
    found = (await connection.execute(select(func.max(audit_records.c.sequence)))).scalar()
    return -1 if found is None else int(found)


async def strays(connection: AsyncConnection) -> list[int]:
    """Sequences that the log does not reach: below 0, or from the head's size on. The first ten."""
    sequence = audit_records.c.sequence
    size = select(audit_head.c.size).scalar_subquery()
    statement = select(sequence).where(or_(sequence < 0, sequence >= size)).order_by(sequence).limit(10)
    return list((await connection.execute(statement)).scalars())


async def stray_checkpoints(connection: AsyncConnection) -> list[int]:
    """The sizes of checkpoints that no log has or that this one does not reach. The first ten."""
    size = select(audit_head.c.size).scalar_subquery()
    found = checkpoints.c.size
    statement = select(found).where(or_(found <= 0, found > size)).order_by(found)
    return list((await connection.execute(statement.limit(10))).scalars())


async def stream_checkpoint_rows(
    database: Database, size: int, *, after: int = 0, page: int = 500
) -> AsyncIterator[Row]:
    """The rows of the checkpoints up to a size, in the order of their sizes; `lenient.Unreadable` is in them."""
    while True:
        async with database.read() as connection:
            found = await lenient.read(connection, _checkpoints_after(after).limit(page))
        for row in found:
            if row["size"] > size:
                return
            yield row
        if not found:
            return
        after = found[-1]["size"]


async def stream_checkpoints(database: Database, size: int, *, after: int = 0) -> AsyncIterator[Checkpoint]:
    """The checkpoints beyond one size up to another, in the order of sizes. Raises `STORED_DATA_DAMAGED`."""
    async for row in stream_checkpoint_rows(database, size, after=after):
        yield _checkpoint_from(row)


async def get_row(connection: AsyncConnection, sequence: int) -> Row | None:
    """One record's row; `lenient.Unreadable` may be in it."""
    statement = select(audit_records).where(audit_records.c.sequence == sequence).limit(1)
    rows = await lenient.read(connection, statement)
    return rows[0] if rows else None


async def marks(connection: AsyncConnection, one: int, other: int) -> dict[int, Mark]:
    """Of these two records, if they are there, what tells each from any other that could stand in its place."""
    found = await _MARKS.read(connection, one=one, other=other)
    return {row["sequence"]: Mark(row["id"], row["leaf_hash"]) for row in found}


_MARKS = Prepared(
    select(audit_records.c.sequence, audit_records.c.id, audit_records.c.leaf_hash).where(
        or_(audit_records.c.sequence == given("one"), audit_records.c.sequence == given("other"))
    )
)


async def get_checkpoint(connection: AsyncConnection, size: int) -> Checkpoint | None:
    """The checkpoint of exactly this size. Raises `STORED_DATA_DAMAGED`."""
    rows = await lenient.read(connection, select(checkpoints).where(checkpoints.c.size == size))
    return _checkpoint_from(rows[0]) if rows else None


async def latest_checkpoint(connection: AsyncConnection) -> Checkpoint | None:
    """The checkpoint of the greatest size. Raises `STORED_DATA_DAMAGED`."""
    statement = select(checkpoints).order_by(checkpoints.c.size.desc()).limit(1)
    rows = await lenient.read(connection, statement)
    return _checkpoint_from(rows[0]) if rows else None


async def list_checkpoints(connection: AsyncConnection, after: int, limit: int) -> list[Checkpoint]:
    """Checkpoints by size, beginning above the size `after`. Raises `STORED_DATA_DAMAGED`."""
    found = await lenient.read(connection, _checkpoints_after(after).limit(limit))
    return [_checkpoint_from(row) for row in found]


def _checkpoints_after(size: int) -> Select[Any]:
    return select(checkpoints).where(checkpoints.c.size > size).order_by(checkpoints.c.size)


def _checkpoint_from(row: Row) -> Checkpoint:
    if unreadable_columns(row):
        raise _damaged(f"checkpoint {row['size']}")
    return Checkpoint(**row)


def unreadable_columns(row: Row) -> list[str]:
    """The columns of a checkpoint's row whose values are not of their kind."""
    return [name for name, kind in _CHECKPOINT_KINDS.items() if not isinstance(row[name], kind)]


_CHECKPOINT_KINDS = {"root": bytes, "frontier": bytes, "note": str, "create_time": datetime.datetime}


def _damaged(what: str) -> VaultError:
    text = f"{what} cannot be read; `strongroom audit verify` finds what is wrong with the log"
    return VaultError(Reason.STORED_DATA_DAMAGED, text)


_TEXTS = tuple(column.name for column in audit_records.columns if isinstance(column.type, String | Text))


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
    """Store a checkpoint, unless another worker was first with this size, and the nodes of the tree that it covers."""
    insert_ = postgresql.insert if database.is_postgresql else sqlite.insert
    row = {name: getattr(checkpoint, name) for name in ("size", "root", "frontier", "note", "create_time")}
    async with database.write() as connection:
        await connection.execute(insert_(checkpoints).values(row).on_conflict_do_nothing())
        await tree.keep(connection, database, nodes)
