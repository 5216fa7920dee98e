"""The log verified where it lies: every record, checkpoint and anchor, and every row of the state against it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from vault.core.state import judge, read_rows, written
from vault.core.verification import Report, Verification
from vault.store import audit
from vault.store.ledger import read_head
from vault.store.state import Comparison

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Mapping, Sequence

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
    async with database.read() as connection:
        head = await read_head(connection)
    verification = Verification(origin, keys, report)
    for name, note in anchors:
        verification.anchor(name, note)
    with Comparison() as comparison:

        def take(rows: Sequence[Mapping[str, Any]]) -> None:
            verification.take(rows)
            if state:
                comparison.write(written(rows))

        async def read_until(end: int) -> None:
            async for rows in audit.stream_rows(database, verification.next, end):
                await asyncio.to_thread(take, rows)
                watch(report.records, head.size)
            verification.missing(end)

        async for checkpoint in audit.stream_checkpoints(database, head.size):
            await read_until(checkpoint.size)
            verification.checkpoint(checkpoint.size, checkpoint.note, checkpoint.frontier, checkpoint.root)
        await read_until(head.size)
        verification.finish(head.size, head.frontier)
        await _find_strays(database, report)
        if state:
            await read_rows(database, comparison)
            async with database.read() as connection:
                later = await read_head(connection)
            async for rows in audit.stream_rows(database, head.size, later.size):
                comparison.write(written(rows))
            await judge(database, comparison, head.size, now, report.find)
    return report


async def _find_strays(database: Database, report: Report) -> None:
    async with database.read() as connection:
        for sequence in await audit.strays(connection):
            report.find(f"sequence {sequence}: the log does not reach it")
        for size in await audit.stray_checkpoints(connection):
            report.find(f"checkpoint {size}: the log does not reach it")


async def replay(database: Database, verification: Verification, end: int) -> list[Node]:
    """Have the records up to `end` judged; gives the nodes of the tree that they complete."""
    nodes: list[Node] = []
    async for rows in audit.stream_rows(database, verification.next, end):
        nodes += await asyncio.to_thread(verification.take, rows)
    verification.missing(end)
    return nodes
