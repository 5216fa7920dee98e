"""How far each sink of the audit log has come. One worker at a time serves a sink: whoever holds its lease."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from vault.store.ledger import read_head
from vault.store.tables import audit_sinks

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.engine import Database


class SinkState(NamedTuple):
    """Where a sink is: the sequence it takes next, and what is wrong with it, if anything is."""

    name: str
    next_sequence: int
    error: str
    failing_since: datetime.datetime | None


async def enrol(database: Database, name: str, begin: int | None = None) -> None:
    """Make a sink known, if it is not. It begins with the sequence `begin`; by default with what comes from now on."""
    async with database.read() as connection:
        known = (
            await connection.execute(select(audit_sinks.c.name).where(audit_sinks.c.name == name))
        ).first()
        size = (await read_head(connection)).size
    if known is not None:
        return
    never = datetime.datetime.fromtimestamp(0, datetime.UTC)
    row = {
        "name": name,
        "next_sequence": size if begin is None else begin,
        "holder": "",
        "lease_time": never,
        "error": "",
        "failing_since": None,
    }
    try:
        async with database.write() as connection:
            await connection.execute(insert(audit_sinks).values(row))
    except IntegrityError:
        return  # another worker was first


async def claim(
    database: Database, name: str, holder: str, now: datetime.datetime, until: datetime.datetime
) -> tuple[int, bool] | None:
    """Take or keep a sink's lease: the sequence that comes next, and whether it fails; None if it is another's."""
    async with database.write() as connection:
        claimed = await connection.execute(
            update(audit_sinks)
            .where(
                audit_sinks.c.name == name,
                or_(audit_sinks.c.holder == holder, audit_sinks.c.lease_time <= now),
            )
            .values(holder=holder, lease_time=until)
            .returning(audit_sinks.c.next_sequence, audit_sinks.c.error)
        )
        row = claimed.first()
        return None if row is None else (row.next_sequence, bool(row.error))


async def advance(
    database: Database, name: str, holder: str, next_sequence: int, until: datetime.datetime
) -> bool:
    """Remember how far a sink has come, and that it works. False if the lease is somebody else's by now."""
    async with database.write() as connection:
        done = await connection.execute(
            update(audit_sinks)
            .where(audit_sinks.c.name == name, audit_sinks.c.holder == holder)
            .values(next_sequence=next_sequence, lease_time=until, error="", failing_since=None)
        )
        return bool(done.rowcount)


async def place_of(connection: AsyncConnection, name: str) -> int:
    """The sequence that a reader without a lease takes next."""
    found = await connection.execute(_PLACE, {"place": name})
    return int(found.scalar_one())


_PLACE = select(audit_sinks.c.next_sequence).where(audit_sinks.c.name == bindparam("place"))


async def move(connection: AsyncConnection, name: str, begin: int, end: int) -> bool:
    """Move on such a reader's place within a transaction that does what there is to do. False if another has done so.

    Who comes second waits for the first's transaction to end.
    """
    done = await connection.execute(_MOVE, {"place": name, "begin": begin, "end": end})
    return bool(done.rowcount)


_MOVE = (
    update(audit_sinks)
    .where(audit_sinks.c.name == bindparam("place"), audit_sinks.c.next_sequence == bindparam("begin"))
    .values(next_sequence=bindparam("end"))
)


async def fail(database: Database, name: str, holder: str, error: str, now: datetime.datetime) -> bool:
    """Remember what is wrong with a sink. Whether it is new that something is."""
    async with database.write() as connection:
        first = await connection.execute(
            update(audit_sinks)
            .where(audit_sinks.c.name == name, audit_sinks.c.holder == holder, audit_sinks.c.error == "")
            .values(error=error, failing_since=now)
        )
        if not first.rowcount:
            await connection.execute(
                update(audit_sinks)
                .where(audit_sinks.c.name == name, audit_sinks.c.holder == holder)
                .values(error=error)
            )
        return bool(first.rowcount)


async def release(database: Database, name: str, holder: str, now: datetime.datetime) -> None:
    """Let another worker serve the sink at once."""
    async with database.write() as connection:
        await connection.execute(
            update(audit_sinks)
            .where(audit_sinks.c.name == name, audit_sinks.c.holder == holder)
            .values(holder="", lease_time=now)
        )


async def states(connection: AsyncConnection) -> list[SinkState]:
    """Every sink that was ever known, by name."""
    statement = select(
        audit_sinks.c.name, audit_sinks.c.next_sequence, audit_sinks.c.error, audit_sinks.c.failing_since
    ).order_by(audit_sinks.c.name)
    return [SinkState(*row) for row in await connection.execute(statement)]
