"""The rows of the tables and what the log says was written, side by side in a temporary file.

The file is a private SQLite database that its process alone can open and that is gone when it is closed. Both sides are
appended as they come, then sorted and merged, so memory stays the same however many rows there are.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, NamedTuple, Self

from sqlalchemy import Integer, literal_column, select, tuple_

from vault.store import lenient
from vault.store.reach import ALL_TENANTS
from vault.store.rows import KEY_COLUMNS, TABLES, RowKey, row_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from types import TracebackType

    from vault.store.engine import Database
    from vault.store.rows import Row

_CACHE_KIB = 16 * 1024


class Written(NamedTuple):
    """A row as a record says that it was written: its key as in the log, and its digest."""

    key: str
    sequence: int
    digest: bytes
    written_at: float
    """When, in seconds since 1970."""


class Odd(NamedTuple):
    """A row that is not the one that was last written under its key. No sequence: none was ever written."""

    key: str
    last_sequence: int | None
    same_as: int | None
    """The record before the last that wrote exactly this row, if there is one."""


class Gone(NamedTuple):
    """A key that the log knows and no row has."""

    key: str
    last_sequence: int
    written_at: float
    """When, in seconds since 1970."""


class Comparison:
    """Takes in both sides, then tells where they differ."""

    def __init__(self) -> None:
        # An empty name is a temporary database on disk, deleted when it is closed.
        self._file = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        for statement in (
            f"PRAGMA cache_size = -{_CACHE_KIB}",
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE written (key TEXT, sequence INTEGER, digest BLOB, created_at REAL)",
            "CREATE TABLE found (key TEXT, digest BLOB)",
        ):
            self._file.execute(statement)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, written: Iterable[Written]) -> None:
        """Take in what records say was written, in the order of the log."""
        self._append("INSERT INTO written VALUES (?, ?, ?, ?)", list(written))

    def find(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Take in rows that were found: key as in the log, and digest."""
        self._append("INSERT INTO found VALUES (?, ?)", list(rows))

    def merge(self, since: int) -> None:
        """Hold both sides against each other.

        What records from the sequence `since` on wrote may or may not have been there when the rows were read.
        """
        self._file.execute("CREATE INDEX written_by_key ON written (key, sequence, digest, created_at)")
        self._file.execute("CREATE INDEX found_by_key ON found (key, digest)")
        self._file.execute(
            "CREATE TABLE last AS SELECT key, max(sequence) AS sequence, digest, created_at "
            "FROM written GROUP BY key ORDER BY key"
        )
        self._file.execute("CREATE INDEX last_by_key ON last (key)")
        self._since = since

    def odd(self) -> Iterator[Odd]:
        """The rows that are not as they were last written."""
        yield from map(
            Odd._make,
            self._file.execute(
                "SELECT f.key, l.sequence, (SELECT max(sequence) FROM written w WHERE w.key = f.key AND "
                "w.digest = f.digest) FROM found f LEFT JOIN last l ON l.key = f.key "
                "WHERE f.digest IS NOT l.digest AND NOT EXISTS (SELECT 1 FROM written w WHERE w.key = f.key AND "
                "w.digest = f.digest AND w.sequence >= "
                # A row that was read before what overwrote it is no fault.
                "coalesce((SELECT max(sequence) FROM written b WHERE b.key = f.key AND b.sequence < :since), :since)) "
                "ORDER BY f.key",
                {"since": self._since},
            ),
        )

    def gone(self) -> Iterator[Gone]:
        """The keys whose rows are not there, but for those that were written too late to be seen."""
        yield from map(
            Gone._make,
            self._file.execute(
                "SELECT l.key, l.sequence, l.created_at FROM last l WHERE NOT EXISTS "
                "(SELECT 1 FROM found f WHERE f.key = l.key) AND EXISTS (SELECT 1 FROM written w "
                "WHERE w.key = l.key AND w.sequence < ?) ORDER BY l.key",
                (self._since,),
            ),
        )

    def last_write(self, key: str) -> tuple[int, bytes] | None:
        """By which record a row was last written, and its digest then."""
        found: tuple[int, bytes] | None
        found = self._file.execute("SELECT sequence, digest FROM last WHERE key = ?", (key,)).fetchone()
        return found

    def not_since(self, end: int) -> list[str]:
        """Keys of rows that are there and of which no record from `end` on tells. The first ten."""
        found = self._file.execute(
            "SELECT key FROM written w GROUP BY key HAVING max(sequence) < ? AND EXISTS "
            "(SELECT 1 FROM found f WHERE f.key = w.key) LIMIT 10",
            (end,),
        )
        return [row[0] for row in found]

    def last_digest(self, key: str) -> bytes | None:
        """The digest of the row that was last written under a key."""
        found = self._file.execute("SELECT digest FROM last WHERE key = ?", (key,)).fetchone()
        return None if found is None else found[0]

    def _append(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._file.execute("BEGIN")
        with contextlib.closing(self._file.cursor()) as cursor:
            cursor.executemany(statement, rows)
        self._file.execute("COMMIT")


async def digests(
    database: Database, name: str, *, page: int = 2000
) -> AsyncIterator[list[tuple[str, bytes]]]:
    """The rows of a table, in pages: key as it stands in the log, and digest."""
    keys = KEY_COLUMNS[name]
    async for rows in _pages(database, name, page):
        yield [(str(RowKey(name, tuple(row[column] for column in keys))), digest(name, row)) for row in rows]


def digest(name: str, row: Row) -> bytes:
    """A row's digest; empty, which is nobody's, if the row holds what the vault cannot have written."""
    try:
        return row_digest(name, row)
    except TypeError:
        return b""


async def row_keys(database: Database, name: str) -> AsyncIterator[list[RowKey]]:
    """Which rows a table has, in pages."""
    async for rows in _pages(database, name, 2000):
        yield [RowKey(name, tuple(row[column] for column in KEY_COLUMNS[name])) for row in rows]


async def get_rows(database: Database, name: str, wanted: Sequence[str]) -> dict[str, Row]:
    """Some rows of a table, by their keys as they stand in the log."""
    found: dict[str, Row] = {}
    missing = set(wanted)
    async for rows in _pages(database, name, 2000):
        for row in rows:
            key = str(RowKey(name, tuple(row[column] for column in KEY_COLUMNS[name])))
            if key in missing:
                found[key] = row
                missing.discard(key)
        if not missing:
            break
    return found


async def _pages(database: Database, name: str, page: int) -> AsyncIterator[list[Row]]:
    table = TABLES[name]
    # SQLite's own number of a row: a key there may hold anything, and compare with nothing.
    place = [literal_column("rowid", Integer).label("rowid")]
    keys = [table.c[column] for column in KEY_COLUMNS[name]] if database.is_postgresql else place
    last: tuple[str | int, ...] | None = None
    while True:
        statement = select(table, *(() if database.is_postgresql else place)).order_by(*keys).limit(page)
        if last is not None:
            statement = statement.where(tuple_(*keys) > tuple_(*last))
        async with database.read(ALL_TENANTS) as connection:
            rows = await lenient.read(connection, statement)
        if rows:
            last = tuple(rows[-1][column.name] for column in keys)
            yield rows
        if len(rows) < page:
            return
