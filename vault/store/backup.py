"""The whole database as a stream of rows, of one moment; and such a stream put into an empty database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import delete, exists, func, insert, inspect, select

from vault.errors import StartError
from vault.model import VersionState
from vault.store import schema
from vault.store.engine import driver_of
from vault.store.rows import TABLES
from vault.store.tables import audit_head, credential_versions, metadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.engine import Database

_PAGE = 500


class TableRows(NamedTuple):
    """A table: its name, its columns, and its rows in pages."""

    name: str
    columns: list[str]
    pages: AsyncIterator[Sequence[tuple[Any, ...]]]


async def tables(connection: AsyncConnection) -> AsyncIterator[TableRows]:
    """Every table with its columns and its rows in pages, by primary key. Nothing else may use the connection."""
    for table in metadata.sorted_tables:
        statement = select(table).order_by(*table.primary_key.columns)
        yield TableRows(table.name, [column.name for column in table.columns], _pages(connection, statement))


async def _pages(connection: AsyncConnection, statement: Any) -> AsyncIterator[Sequence[tuple[Any, ...]]]:
    async with connection.stream(statement) as result:
        async for page in result.partitions(_PAGE):
            yield [tuple(row) for row in page]


async def make_tables(connection: AsyncConnection, revision: str) -> None:
    """Make the empty tables of a schema's revision, within the caller's transaction.

    Raises `StartError` if this version does not know the revision, or there are tables of another one or with rows.
    """
    if not schema.knows(revision):
        raise StartError("restore: the backup is of a newer version than this one")
    if await schema.revision_of(connection) not in (None, revision):
        raise StartError(
            "restore: the database has tables, of another version than the backup; take one without any"
        )
    await schema.upgrade(connection, revision)
    there = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    # Every log has a head.
    for name in sorted((set(there) & set(TABLES)) - {audit_head.name}):
        if (await connection.execute(select(exists().select_from(TABLES[name])))).scalar_one():
            raise StartError("restore: the database is not empty; only an empty one is restored into")


async def insert_rows(
    connection: AsyncConnection, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Put rows into a table, within the caller's transaction. The head takes the place of the empty one.

    Raises `KeyError` for a table or column that this version does not know.
    """
    table = TABLES[name]
    unknown = set(columns) - {column.name for column in table.columns}
    if unknown:
        raise KeyError(name)
    if name == audit_head.name:
        await connection.execute(delete(table))
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        driver = driver_of(connection)
        await driver.copy_records_to_table(name, records=rows, columns=list(columns))
    else:
        await connection.execute(insert(table), [dict(zip(columns, row, strict=True)) for row in rows])


async def sample_versions(
    database: Database, most: int | None, *, page: int = 64
) -> AsyncIterator[list[tuple[str, int]]]:
    """Versions that hold a secret, by name and number: so many at random, or all of them, in pages."""
    table = credential_versions
    statement = select(table.c.name, table.c.version).where(table.c.state == VersionState.ENABLED.value)
    if most is not None:
        async with database.read() as connection:
            found = (await connection.execute(statement.order_by(func.random()).limit(most))).all()
        for start in range(0, len(found), page):
            yield [(row.name, row.version) for row in found[start : start + page]]
        return
    last: tuple[str, int] = ("", 0)
    while True:
        after = (table.c.name > last[0]) | ((table.c.name == last[0]) & (table.c.version > last[1]))
        ordered = statement.where(after).order_by(table.c.name, table.c.version).limit(page)
        async with database.read() as connection:
            rows = (await connection.execute(ordered)).all()
        if not rows:
            return
        yield [(row.name, row.version) for row in rows]
        last = (rows[-1].name, rows[-1].version)
