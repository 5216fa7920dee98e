"""Rows and writes, and the digest by which the log vouches for a row."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.clock import micros
from vault.crypto.encoding import append, encode
from vault.store.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Table

Row = dict[str, Any]
"""A whole row: every column of its table by name."""


class RowKey(NamedTuple):
    """Which row: its table, and the values of its primary key in the table's order."""

    table: str
    key: tuple[str | int, ...]

    def __str__(self) -> str:
        """As it stands in the log: `table:part/part`."""
        return f"{self.table}:{'/'.join(str(part) for part in self.key)}"


@dataclass(frozen=True, slots=True)
class Write:
    """A whole row to write: inserted if it is new, else put in the place of the old one."""

    table: str
    row: Row

    @property
    def row_key(self) -> RowKey:
        """Which row it is."""
        row = self.row
        return RowKey(self.table, tuple([row[name] for name in KEY_COLUMNS[self.table]]))


_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
TABLES: Mapping[str, Table] = metadata.tables
KEY_COLUMNS = {name: tuple(column.name for column in table.primary_key) for name, table in TABLES.items()}
COLUMNS = {name: tuple(column.name for column in table.columns) for name, table in TABLES.items()}
_HEADS = {name: encode("strongroom/row/v1", name) for name in TABLES}
_LATER = {
    name: frozenset(column.name for column in table.columns if column.info.get("later"))
    for name, table in TABLES.items()
}


def row_digest(table: str, row: Row) -> bytes:
    """SHA-256 over the canonical encoding of a whole row: table, then every column in the table's order.

    Columns that were added later are left out at the end of a row while they are NULL: what was written before they
    existed has the digest that it had.
    """
    names, later = COLUMNS[table], _LATER[table]
    count = len(names)
    while names[count - 1] in later and row[names[count - 1]] is None:
        count -= 1
    values = [row[name] for name in names[:count]]
    # Whatever is neither a time nor a part of an encoding is refused there.
    parts = [micros(value) if type(value) is datetime.datetime else value for value in values]
    return hashlib.sha256(append(_HEADS[table], *parts)).digest()


def row_digests(table: str, rows: Sequence[Row]) -> list[bytes]:
    """`row_digest` of each of some rows: where all have the same in a column, it is encoded once."""
    if len(rows) == 1 or COLUMNS[table][-1] in _LATER[table]:
        return [row_digest(table, row) for row in rows]
    columns = [_encoded([row[name] for row in rows]) for name in COLUMNS[table]]
    head = _HEADS[table]
    return [hashlib.sha256(b"".join((head, *parts))).digest() for parts in zip(*columns, strict=True)]


def _encoded(values: Sequence[Any]) -> list[bytes]:
    """What one column adds to the encoding of each row."""
    if values.count(values[0]) == len(values):
        return [_part(values[0])] * len(values)
    return [_part(value) for value in values]


def _part(value: Any) -> bytes:
    return append(b"", micros(value) if type(value) is datetime.datetime else value)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: one text for one value, so that it can be hashed."""
    return _JSON.encode(value)
