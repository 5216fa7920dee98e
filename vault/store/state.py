"""Reading whole tables, to hold their rows against the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, tuple_

from vault.store.rows import KEY_COLUMNS, TABLES, RowKey, row_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vault.store.engine import Database


async def digests(database: Database, name: str, *, page: int = 1000) -> AsyncIterator[tuple[str, str]]:
    """Each row of a table: its key as it stands in the log, and its digest in hex. In pages, by key."""
    table = TABLES[name]
    keys = [table.c[column] for column in KEY_COLUMNS[name]]
    last: tuple[str | int, ...] | None = None
    while True:
        statement = select(table).order_by(*keys).limit(page)
        if last is not None:
            statement = statement.where(tuple_(*keys) > tuple_(*last))
        async with database.read() as connection:
            rows = [dict(row) for row in (await connection.execute(statement)).mappings()]
        for row in rows:
            last = tuple(row[column] for column in KEY_COLUMNS[name])
            yield str(RowKey(name, last)), row_digest(name, row).hex()
        if len(rows) < page:
            return
