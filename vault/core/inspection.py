"""The log verified where it lies: every record, checkpoint and anchor, and every row of the state against it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from vault.core.archives import replay as replay_archive
from vault.core.archives import verify as verify_archive
from vault.core.state import judge, read_rows, written
from vault.core.verification import Report, Verification
from vault.crypto import merkle
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError
from vault.store import archives, audit, tree
from vault.store.ledger import read_head
from vault.store.state import Comparison

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from vault.core.archives import Archive
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
    folder: Path | None = None,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> Report:
    """Verify the whole log by its checkpoints' public keys and anchored notes, given as (name, note).

    If its beginning is archived, from where the newest archive's signed statement says that it goes on; with the
    `folder` of the archives, from record 0. With `state`, every row is then held against the log. `watch` is told how
    many records of how many were read. Raises `STORAGE_UNAVAILABLE`.
    """
    with Comparison() as comparison:
        return await inspect_into(
            comparison, database, origin, keys, now, anchors=anchors, state=state, folder=folder, watch=watch
        )


async def inspect_into(
    comparison: Comparison,
    database: Database,
    origin: str,
    keys: Iterable[str],
    now: datetime.datetime,
    *,
    anchors: Iterable[tuple[str, str]] = (),
    state: bool = True,
    folder: Path | None = None,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> Report:
    """The same, and leaves what it read of rows and log in a comparison, for who has more to ask."""
    report = Report()
    keys = tuple(keys)
    size, frontier = await _head(database, report)
    archived = await _archived(database, origin, keys, report)
    cut = archived[-1] if archived and folder is None else None
    verification = Verification(
        origin, keys, report, start=cut.frontier if cut else merkle.EMPTY, learned=cut.keys if cut else ()
    )
    for name, note in anchors:
        verification.anchor(name, note)

    def take(rows: Sequence[Mapping[str, Any]]) -> list[Node]:
        if state:
            comparison.write(written(rows))
        watch(report.records, size)
        return verification.take(rows)

    if folder is not None:
        for archive in archived:
            await asyncio.to_thread(replay_archive, folder, archive, verification, take)
    await _read_log(database, verification, size, take)
    verification.finish(size, frontier)
    await _find_strays(database, report)
    if state:
        await read_rows(database, comparison)
        async for rows in audit.stream_rows(database, size, await _size(database)):
            comparison.write(written(rows))
        await judge(database, comparison, size, now, report.find)
    return report


async def _read_log(
    database: Database,
    verification: Verification,
    size: int,
    take: Callable[[Sequence[Mapping[str, Any]]], list[Node]],
) -> None:
    """Have the records and checkpoints of the database judged, up to this size, and the stored nodes of their tree."""
    report = verification.report
    async with database.read() as connection:
        kept = await tree.stored_until(connection)

    async def read_until(end: int) -> None:
        async for rows in audit.stream_rows(database, verification.next, end):
            await _check_nodes(database, await asyncio.to_thread(take, rows), kept, report)
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


async def _archived(database: Database, origin: str, keys: tuple[str, ...], report: Report) -> list[Archive]:
    """The archives of what is not in the database any more, as their signed statements say, oldest first."""
    async with database.read() as connection:
        first = await archives.first_sequence(connection)
        rows = await archives.rows(connection)
    found: list[Archive] = []
    for row in rows:
        end, note = row["end_sequence"], row["note"]
        if end > first:
            break  # sealed, and not removed yet
        try:
            archive = verify_archive(str(note), (*keys, *(found[-1].keys if found else ())))
        except CryptoError:
            report.find(f"archive {end}: its statement does not verify")
            continue
        before = found[-1].end if found else 0
        if (archive.origin, archive.first, archive.end) != (origin, before, end):
            report.find(
                f"archive {end}: its statement is of {archive.first} to {archive.end}, not from {before}"
            )
        found.append(archive)
    if found:
        await _check_leaves(database, found[-1].frontier, report)
    return found


async def _check_leaves(database: Database, frontier: merkle.Frontier, report: Report) -> None:
    """Hold the leaves that stayed of what is archived against its tree: proofs of what follows are made with them."""
    end = frontier.size
    first = end >> merkle.LEVEL_BITS << merkle.LEVEL_BITS
    async with database.read() as connection:
        found = await tree.look_up(connection, [(0, position) for position in range(first, end)])
    leaves = [found.get((0, position), b"") for position in range(first, end)]
    parts = merkle.EMPTY.append_many(leaves).hashes
    if parts != frontier.hashes[len(frontier.hashes) - len(parts) :]:
        report.find(f"tree node 0/{first}: the leaves from here to {end} are not those that were archived")


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
