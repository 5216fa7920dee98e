"""The log verified where it lies: every record, checkpoint and anchor, and every row of the state against it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from vault.core.state import State, explained, odd_rows
from vault.core.verification import Report, Verification
from vault.store import audit
from vault.store.ledger import read_head

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable

    from vault.crypto.merkle import Node
    from vault.store.engine import Database


async def inspect(
    database: Database,
    origin: str,
    keys: Iterable[str],
    now: datetime.datetime,
    *,
    anchors: Iterable[tuple[str, str]] = (),
    state: bool = True,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> Report:
    """Verify the whole log by its checkpoints' public keys and anchored notes, given as (name, note).

    With `state`, every row is then held against the log. `watch` is told how many records of how many were read.
    Raises `STORAGE_UNAVAILABLE`.
    """
    report = Report()
    seen = State()
    async with database.read() as connection:
        head = await read_head(connection)
    verification = Verification(origin, keys, report)
    for name, note in anchors:
        verification.anchor(name, note)

    async def read_until(end: int) -> None:
        async for rows in audit.stream_rows(database, verification.next, end):
            await asyncio.to_thread(verification.take, rows)
            if state:
                seen.take(rows)
            watch(report.records, head.size)
        verification.missing(end)

    async for checkpoint in audit.stream_checkpoints(database, head.size):
        await read_until(checkpoint.size)
        verification.checkpoint(checkpoint.size, checkpoint.note, checkpoint.frontier, checkpoint.root)
    await read_until(head.size)
    verification.finish(head.size, head.frontier)
    if state:
        await _check_rows(database, head.size, seen, report, now)
    return report


async def replay(database: Database, verification: Verification, end: int) -> list[Node]:
    """Have the records up to `end` judged; gives the nodes of the tree that they complete."""
    nodes: list[Node] = []
    async for rows in audit.stream_rows(database, verification.next, end):
        nodes += await asyncio.to_thread(verification.take, rows)
    verification.missing(end)
    return nodes


async def _check_rows(
    database: Database, size: int, state: State, report: Report, now: datetime.datetime
) -> None:
    """Hold every row against the log, of which `state` knows the first `size` records."""
    seen: set[str] = set()
    odd = await odd_rows(database, state, seen)
    for key in state.missing(seen, now):
        report.find(f"row {key}: it is gone")
    async with database.read() as connection:
        later = (await read_head(connection)).size
    rows = [row async for page in audit.stream_rows(database, size, later) for row in page]
    explained(odd, rows, report.find)
