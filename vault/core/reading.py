"""Reading the log: what matches now, or the next that does."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from vault.store.audit import list_records
from vault.store.ledger import read_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.model import AuditQuery, AuditRecord
    from vault.store.engine import Database

LIST = "audit.list"
STEP = 1_000_000
"""How many records are looked through at a time, a second's work at most."""
_LOOK_SECONDS = 0.25
_LONGEST_SECONDS = 2.0


class Looked(NamedTuple):
    """What a look through the log found."""

    records: list[AuditRecord]
    rest: int | None
    """The sequence to go on from, if it ended before the end of the log."""
    size: int
    """How long the log was."""


async def find(
    database: Database, query: AuditQuery, limit: int, wait_seconds: float, *, step: int = STEP
) -> Looked:
    """The first records that match, at most so many; waits for one if none does.

    A log may be long, and what is sought rare: after some seconds the look ends where it is. Reading the log is
    recorded in it: such records end no wait, else every reader that waits would wake itself.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    looked = await _look(database, query, limit, step)
    if wait_seconds == 0 or looked.rest is not None or _ends_the_wait(looked.records, query):
        return looked
    first = looked.size
    while loop.time() < deadline:
        await asyncio.sleep(_LOOK_SECONDS)
        later = await _look(database, dataclasses.replace(query, first=max(query.first, first)), limit, step)
        if _ends_the_wait(later.records, query):
            break
        first = later.size
    return looked if first == looked.size else await _look(database, query, limit, step)


def _ends_the_wait(found: Sequence[AuditRecord], query: AuditQuery) -> bool:
    return any(record.action != LIST or query.action == LIST for record in found)


async def _look(database: Database, query: AuditQuery, limit: int, step: int) -> Looked:
    """Look through the log step by step, in the order of the query, for a while."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _LONGEST_SECONDS
    found: list[AuditRecord] = []
    async with database.read() as connection:
        size = (await read_head(connection)).size
        low, high = query.first, size - 1 if query.last is None else min(query.last, size - 1)
        while low <= high and len(found) < limit:
            part = (
                (max(low, high - step + 1), high) if query.newest_first else (low, min(high, low + step - 1))
            )
            within = dataclasses.replace(query, first=part[0], last=part[1])
            found += await list_records(connection, within, limit - len(found))
            low, high = (low, part[0] - 1) if query.newest_first else (part[1] + 1, high)
            if low <= high and len(found) < limit and loop.time() >= until:
                return Looked(found, high if query.newest_first else low, size)
    return Looked(found, None, size)
