"""Reading rows whatever is in them: a value that the vault cannot have written is handed on as such.

SQLite keeps any bytes in any column, and PostgreSQL moments that no calendar of ours has. What judges rows must name
such a row, and not stumble over it.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import LargeBinary, Text, bindparam, cast, extract, func
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.exc import OperationalError

from vault.store.engine import driver_of
from vault.store.tables import UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import BindParameter, ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value that is none of its column's. It has no encoding, so no digest and no leaf hash is made of it."""

    stored: bytes

    def __str__(self) -> str:
        """For a finding: that it cannot be read."""
        return "(unreadable)"


NOT_DECODED = (ValueError, OverflowError, TypeError, MemoryError, OperationalError)
"""What the drivers raise for values that they cannot make."""


async def read(
    connection: AsyncConnection, statement: Select[Any], given: Mapping[str, Any] | None = None
) -> list[Row]:
    """The rows of a selection of columns; in the place of a value that cannot be decoded stands an `Unreadable`."""
    try:
        result = await connection.execute(statement, given)
        names = tuple(result.keys())
        # Not by `mappings`, which costs as much again: a log is read by the million.
        return [dict(zip(names, row, strict=True)) for row in result.all()]
    except NOT_DECODED:
        return await _read_raw(connection, statement, given)


def given(name: str) -> BindParameter[Any]:
    """A value that a prepared selection is given each time."""
    return bindparam(name, required=False)


class Prepared:
    """A selection that is read again and again.

    PostgreSQL is asked past SQLAlchemy, which would cost several times what the rows do.
    """

    def __init__(self, statement: Select[Any]) -> None:
        """`statement` may have values that are `given`."""
        self._statement = statement
        dialect = asyncpg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
        compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        self._text = str(compiled)
        self._order: Sequence[str] = compiled.positiontup or ()
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}

    async def read(self, connection: AsyncConnection, **given: int) -> Sequence[Mapping[str, Any]]:
        """The rows for these values; what cannot be decoded is there as `Unreadable`."""
        if connection.dialect.name == "postgresql":
            values = {**self._fixed, **given}
            try:
                found: Sequence[Mapping[str, Any]]
                found = await driver_of(connection).fetch(self._text, *[values[name] for name in self._order])
            except NOT_DECODED:
                pass
            else:
                return found
        return await read(connection, self._statement, given)


async def _read_raw(
    connection: AsyncConnection, statement: Select[Any], given: Mapping[str, Any] | None
) -> list[Row]:
    """The same, at a higher price: every value is fetched in a form that always decodes."""
    columns = list(statement.selected_columns)
    is_postgresql = connection.dialect.name == "postgresql"
    decode = _of_postgresql if is_postgresql else _of_sqlite
    raw = [part for column in columns for part in _parts(column, is_postgresql=is_postgresql)]
    plain = [part.label(f"part_{number}") for number, part in enumerate(raw)]
    raw_statement = statement.with_only_columns(*plain, maintain_column_froms=True)
    found = (await connection.execute(raw_statement, given)).all()
    return [
        {
            column.name: decode(column, first, second)
            for column, first, second in zip(columns, row[::2], row[1::2], strict=True)
        }
        for row in found
    ]


def _parts(
    column: ColumnElement[Any], *, is_postgresql: bool
) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Two expressions that say what is in a column: on SQLite kind and bytes, on PostgreSQL value and moment."""
    if not is_postgresql:
        return func.typeof(column), cast(column, LargeBinary)
    if isinstance(column.type, UtcDateTime):
        return cast(None, Text), cast(extract("epoch", column) * 1_000_000, Text)
    return column, cast(None, Text)


def _of_postgresql(column: ColumnElement[Any], value: Any, micros: str | None) -> Any:
    if not isinstance(column.type, UtcDateTime) or micros is None:
        return value
    try:
        return _EPOCH + datetime.timedelta(microseconds=int(micros.partition(".")[0]))
    except (ValueError, OverflowError):
        return Unreadable(micros.encode())


def _of_sqlite(column: ColumnElement[Any], kind: str, stored: bytes | None) -> Any:
    if stored is None or kind == "null":
        return None
    try:
        if kind == "text":
            text = stored.decode()
            return _moment(text) if isinstance(column.type, UtcDateTime) else text
        if kind == "integer" and not isinstance(column.type, UtcDateTime):
            return int(stored)
        if kind == "blob" and isinstance(column.type, LargeBinary):
            return stored
    except (ValueError, OverflowError):
        pass
    return Unreadable(stored)


def _moment(text: str) -> datetime.datetime:
    """A moment as SQLAlchemy reads it. Raises `ValueError`, `OverflowError`."""
    moment = datetime.datetime.fromisoformat(text)
    return moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
