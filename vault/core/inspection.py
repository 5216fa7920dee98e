"""The log verified where it lies: every record, checkpoint and anchor, and every row of the state against it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from vault.core.state import judge, read_rows, written
from vault.core.verification import Report, Verification
from vault.crypto import merkle
from vault.errors import Reason, VaultError
from vault.store import audit, tree
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
    size, frontier = await _head(database, report)
    async with database.read() as connection:
        kept = await tree.stored_until(connection)
    verification = Verification(origin, keys, report)
    for name, note in anchors:
        verification.anchor(name, note)
    with Comparison() as comparison:

        def take(rows: Sequence[Mapping[str, Any]]) -> list[Node]:
            if state:
                comparison.write(written(rows))
            return verification.take(rows)

        async def read_until(end: int) -> None:
            async for rows in audit.stream_rows(database, verification.next, end):
                await _check_nodes(database, await asyncio.to_thread(take, rows), kept, report)
                watch(report.records, size)
            verification.missing(end)

        async for checkpoint in audit.stream_checkpoint_rows(database, size):
            await read_until(checkpoint["size"])
            unreadable = audit.unreadable_columns(checkpoint)
            if unreadable:
                report.find(f"checkpoint {checkpoint['size']}: {', '.join(unreadable)} cannot be read")
            else:
                verification.checkpoint(
                    checkpoint["size"], checkpoint["note"], checkpoint["frontier"], checkpoint["root"]
                )
        await read_until(size)
        verification.finish(size, frontier)
        await _find_strays(database, report)
        if state:
            await read_rows(database, comparison)
            async for rows in audit.stream_rows(database, size, await _size(database)):
                comparison.write(written(rows))
            await judge(database, comparison, size, now, report.find)
    return report


async def _head(database: Database, report: Report) -> tuple[int, merkle.Frontier | None]:
    """The size of the log and, if the head can be read, its frontier."""
    try:
        async with database.read() as connection:
            return await read_head(connection)
    except VaultError as error:
        if error.reason is not Reason.STORED_DATA_DAMAGED:
            raise
        report.find("head: it cannot be read")
    return await _size(database), None


async def _size(database: Database) -> int:
    """How many records there are by now, as far as their numbers tell."""
    async with database.read() as connection:
        return await audit.last_sequence(connection) + 1


async def _check_nodes(database: Database, nodes: Sequence[Node], kept: int, report: Report) -> None:
    """Hold the stored nodes against those that the records make. `kept`: how many of level 1 are stored."""
    if not nodes:
        return
    async with database.read() as connection:
        stored = await tree.look_up(connection, {(node.level, node.position) for node in nodes})
    for level, position, made in nodes:
        due = (position + 1) << merkle.LEVEL_BITS * (level - 1) <= kept
        if stored.get((level, position), None if due else made) != made:
            report.find(f"tree node {level}/{position}: it is not the one that the records make")


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
