"""The state held against the log: every row must be the one that the log last says was written.

So a row that was edited, deleted, inserted, set back to what it was, or swapped with another shows, by name. Memory
does not grow, neither with the log nor with the rows (`store/state.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from vault.clock import micros
from vault.core.revocations import MAX_TOKEN_LIFE
from vault.store import state as store
from vault.store.rows import KEY_COLUMNS, TABLES

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from vault.store.engine import Database
    from vault.store.rows import Row

UNVOUCHED = frozenset(
    {
        "audit_records",
        "audit_sinks",
        "audit_head",
        "checkpoints",
        "tree_nodes",
        "cosignatures",
        "requests",
        "key_usage",
        "credential_activity",
        "rates",
    }
)
"""The tables that are not held against the log: the log itself, what follows from it, how far its
sinks have come, and the answers of repeated
requests, which are forgotten after a day."""

VOUCHED = tuple(name for name in TABLES if name not in UNVOUCHED)

_FORGOTTEN = ("revocations:", "group_revocations:", "token_uses:")
"""Rows that upkeep removes when no token can be alive that they concern."""

_MOST_SWAPPED = 50


def written(records: Iterable[Mapping[str, Any]]) -> Iterator[store.Written]:
    """What records say was written, of the tables that they vouch for."""
    for record in records:
        if record["rows_written"]:
            for key, digest in _digests(record["rows_written"]):
                if key.partition(":")[0] not in UNVOUCHED:
                    yield store.Written(key, record["sequence"], digest, _seconds(record["created_at"]))


def _digests(text: str) -> list[tuple[str, bytes]]:
    """The rows that a record names. What cannot be read was altered, which its leaf hash says already."""
    try:
        found = [(key, bytes.fromhex(digest)) for key, digest in json.loads(text).items()]
        "".join(key for key, _ in found).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []
    return found


def _seconds(moment: Any) -> float:
    """Since 1970; 0 for what is no moment, which the leaf hash says too."""
    try:
        return micros(moment) / 1e6
    except TypeError:
        return 0.0


async def read_rows(database: Database, comparison: store.Comparison) -> None:
    """Take in every row of every table that the log vouches for."""
    for table in VOUCHED:
        async for page in store.digests(database, table):
            await asyncio.to_thread(comparison.find, page)


async def judge(
    database: Database,
    comparison: store.Comparison,
    since: int,
    now: datetime.datetime,
    find: Callable[[str], None],
) -> None:
    """Report every difference, by the row's name. `since`: the size of the log before the rows were read."""
    await asyncio.to_thread(comparison.merge, since)
    odd = comparison.odd()
    suspects: dict[str, list[store.Odd]] = defaultdict(list)
    for row in odd:
        table = row.key.partition(":")[0]
        if row.last_sequence is None or row.same_as is not None or len(suspects[table]) >= _MOST_SWAPPED:
            find(_text(row))
        else:
            suspects[table].append(row)
    for table, rows in suspects.items():
        holders = await _swapped(database, comparison, table, [row.key for row in rows])
        for row in rows:
            holder = holders.get(row.key)
            find(
                f"row {row.key}: it was swapped, it holds what belongs to {holder}" if holder else _text(row)
            )
    for gone in comparison.gone():
        forgotten = gone.key.startswith(_FORGOTTEN)
        if not (forgotten and now.timestamp() - gone.written_at >= MAX_TOKEN_LIFE.total_seconds()):
            find(f"row {gone.key}: it was deleted; record {gone.last_sequence} wrote it last")


def _text(row: store.Odd) -> str:
    if row.last_sequence is None:
        return f"row {row.key}: it was inserted, no record says that it was written"
    if row.same_as is not None:
        return (
            f"row {row.key}: it was rolled back to what record {row.same_as} wrote; "
            f"record {row.last_sequence} wrote it last"
        )
    return f"row {row.key}: it was edited, it is not what record {row.last_sequence} wrote"


async def _swapped(
    database: Database, comparison: store.Comparison, table: str, odd: list[str]
) -> dict[str, str]:
    """Which of these rows hold, but for their keys, what another of them should hold."""
    rows = await store.get_rows(database, table, odd)
    digests = {key: comparison.last_digest(key) for key in odd}
    found: dict[str, str] = {}
    for key, row in rows.items():
        for other, owner in rows.items():
            if other != key and store.digest(table, _under_key_of(table, row, owner)) == digests[other]:
                found[key] = other
    return found


def _under_key_of(table: str, row: Row, other: Row) -> Row:
    return {**row, **{column: other[column] for column in KEY_COLUMNS[table]}}
