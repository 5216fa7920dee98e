"""Reading the log: what matches now, or the next that does."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from vault.store.audit import list_records
from vault.store.ledger import read_head

if TYPE_CHECKING:
    from vault.model import AuditQuery, AuditRecord
    from vault.store.engine import Database

LIST = "audit.list"
_LOOK_SECONDS = 0.25


async def find(database: Database, query: AuditQuery, limit: int, wait_seconds: float) -> list[AuditRecord]:
    """The first records that match, at most so many; waits for one if none does.

    Reading the log is recorded in it: such records end no wait, else every reader that waits would wake itself.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    first = query.first
    while True:
        async with database.read() as connection:
            size = (await read_head(connection)).size
            found = (
                await list_records(connection, dataclasses.replace(query, first=first), limit)
                if first < size
                else []
            )
        if wait_seconds == 0:
            return found
        if any(record.action != LIST or query.action == LIST for record in found):
            break
        if loop.time() >= deadline:
            break
        first = max(first, size)
        await asyncio.sleep(_LOOK_SECONDS)
    if first == query.first:
        return found
    async with database.read() as connection:
        return await list_records(connection, query, limit)
