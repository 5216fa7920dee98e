"""Archives of the log: which part of it lies elsewhere, where the rest begins, and the removal of what was archived."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, func, insert, literal, select

from vault.crypto import merkle
from vault.errors import Reason, VaultError
from vault.store import lenient
from vault.store.tables import (
    audit_archives,
    audit_head,
    audit_records,
    audit_sinks,
    checkpoints,
    cosignatures,
    tree_nodes,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.engine import Database
    from vault.store.rows import Row

FLOOR_MONTHS = 12
"""So many whole months before the current one are never removed (PCI DSS 10.5.1), whatever the configuration says."""


LEASE = "(archive)"
"""The name under which the one worker that archives holds its lease, among those of sinks."""


class Due(NamedTuple):
    """Records that are old enough to be archived: from `first` to before `end`, where a checkpoint stands."""

    first: int
    end: int


def months_before(now: datetime.datetime, months: int) -> datetime.datetime:
    """The beginning of the month that was so many before the one of `now`, in UTC."""
    count = now.year * 12 + now.month - 1 - months
    return datetime.datetime(count // 12, count % 12 + 1, 1, tzinfo=datetime.UTC)


async def first_sequence(connection: AsyncConnection) -> int:
    """The sequence of the oldest record that is there; the log's size if there is none."""
    found = (await connection.execute(select(func.min(audit_records.c.sequence)))).scalar()
    if found is None:
        found = (await connection.execute(select(func.max(audit_head.c.size)))).scalar()
    return found if isinstance(found, int) else 0


async def rows(connection: AsyncConnection) -> list[Row]:
    """Every archive that the database knows of, oldest first; `lenient.Unreadable` may be in them."""
    return await lenient.read(connection, select(audit_archives).order_by(audit_archives.c.end_sequence))


async def due(
    connection: AsyncConnection, before: datetime.datetime, served_since: datetime.datetime
) -> Due | None:
    """What was recorded before that moment, up to the last checkpoint that covers nothing younger.

    Nor anything that a reader of the log (a sink, a webhook's endpoint) has still to get, unless nobody has served that
    reader since a moment.
    """
    first = await first_sequence(connection)
    sequence, size = audit_records.c.sequence, checkpoints.c.size
    younger = select(sequence).where(audit_records.c.created_at >= before).order_by(sequence).limit(1)
    end = (await connection.execute(younger)).scalar()
    covered = select(func.max(size)).where(size > first)
    if end is not None:
        covered = covered.where(size <= end)
    readers = select(func.min(audit_sinks.c.next_sequence)).where(
        audit_sinks.c.lease_time >= served_since, audit_sinks.c.name != LEASE
    )
    slowest = (await connection.execute(readers)).scalar()
    if slowest is not None:
        covered = covered.where(size <= slowest)
    cut = (await connection.execute(covered)).scalar()
    return None if cut is None else Due(first, cut)


async def remove(database: Database, end: int, now: datetime.datetime) -> None:
    """Remove the records before `end`, and the checkpoints that cover only them. All of it or nothing.

    The leaves of the tree's last incomplete node stay, for proofs of what comes after. On PostgreSQL a function of the
    owner's does it, which takes nothing but the newest archive's word for where to stop, and keeps to the floor.
    Raises `STORED_DATA_DAMAGED` if there is no such archive or a record is too young.
    """
    async with database.write() as connection:
        if database.is_postgresql:
            removed = (await connection.execute(select(func.remove_archived_records(end)))).scalar()
        else:
            removed = await _remove(connection, end, months_before(now, FLOOR_MONTHS))
    if not removed:
        raise VaultError(Reason.STORED_DATA_DAMAGED, "this is not archived, or too young to be removed")


async def _remove(connection: AsyncConnection, end: int, floor: datetime.datetime) -> bool:
    sequence = audit_records.c.sequence
    archived = select(audit_archives.c.end_sequence).where(audit_archives.c.end_sequence == end)
    signed = select(checkpoints.c.size).where(checkpoints.c.size == end)
    young = select(sequence).where(sequence < end, audit_records.c.created_at >= floor).limit(1)
    if not all([(await connection.execute(statement)).first() for statement in (archived, signed)]):
        return False
    if (await connection.execute(young)).first() is not None:
        return False
    whole = end >> merkle.LEVEL_BITS << merkle.LEVEL_BITS
    leaves = select(literal(0), sequence, audit_records.c.leaf_hash).where(sequence >= whole, sequence < end)
    # Those from there on that an earlier archive left stay: their records are gone.
    await connection.execute(delete(tree_nodes).where(tree_nodes.c.level == 0, tree_nodes.c.position < whole))
    await connection.execute(insert(tree_nodes).from_select(["level", "position", "hash"], leaves))
    await connection.execute(delete(audit_records).where(sequence < end))
    for table in (checkpoints, cosignatures):
        await connection.execute(delete(table).where(table.c.size < end))
    return True
