"""The one way to write: a batch of units, their rows and their audit records, in one transaction.

The transaction first takes the lock on the head of the log. So writers queue, on every replica: each unit
sees what all before it did, decides, and its record gets the next place in the log. That makes the log free
of gaps and forks without a sequence, makes "read, decide, write" safe without serialisable isolation, and
makes one commit carry as many units as were waiting.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
from sqlalchemy import (
    BigInteger,
    Integer,
    LargeBinary,
    String,
    Text,
    bindparam,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import DataError, IntegrityError

from vault.clock import micros
from vault.crypto import merkle
from vault.crypto.encoding import encode
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError
from vault.store import lenient
from vault.store.engine import driver_of
from vault.store.owners import tenant_of
from vault.store.reach import NOBODY, Reach, covers, union
from vault.store.rows import COLUMNS, KEY_COLUMNS, TABLES, Row, RowKey, Write, canonical_json, row_digest
from vault.store.tables import UtcDateTime, audit_head, audit_records
from vault.store.wakeups import wake

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Column
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.model import AuditDraft
    from vault.store.engine import Database


class Rows:
    """The rows that a batch has loaded, with the writes of the units so far laid over them.

    A batch loads for several callers, so each unit is held to its own reach here: what lies beyond it is not there.
    """

    def __init__(self, loaded: dict[RowKey, Row | None]) -> None:
        self.reach: Reach = NOBODY
        """Of the unit whose turn it is."""
        self._rows = loaded
        self._before = dict(loaded)
        self._new = {key for key, row in loaded.items() if row is None}
        self._dirty: dict[RowKey, Row] = {}

    def get(self, table: str, *key: str | int) -> Row | None:
        """The row, or None. It must be among those that the unit asked for, or have been written before."""
        row = self._rows[RowKey(table, key)]
        return row if row is None or self._is_within(table, row) else None

    def apply(self, writes: Iterable[Write]) -> None:
        """Lay writes over what was loaded. A row that was never loaded must be new."""
        for write in writes:
            key = write.row_key
            if key not in self._rows:
                self._new.add(key)
            self._rows[key] = write.row
            self._dirty[key] = write.row

    def changed_columns(self, table: str, rows: Sequence[Row]) -> tuple[str, ...]:
        """The key of a table, and those columns in which any of these rows differs from what was loaded."""
        keys = KEY_COLUMNS[table]
        befores = [self._before[RowKey(table, tuple(row[column] for column in keys))] or {} for row in rows]
        return tuple(
            column
            for column in COLUMNS[table]
            if column in keys
            or any(before.get(column) != row[column] for before, row in zip(befores, rows, strict=True))
        )

    def check(self, commit: Commit) -> None:
        """Raise `RuntimeError` if a unit would write what lies beyond its reach."""
        for write in commit.writes:
            if not self._is_within(write.table, write.row):
                raise RuntimeError(f"a write of {write.table} for a tenant that was not declared")
        for draft in commit.records:
            if draft.tenant and not covers(self.reach, draft.tenant):
                raise RuntimeError(f"a record of {draft.action} for a tenant that was not declared")

    def _is_within(self, table: str, row: Row) -> bool:
        tenant = tenant_of(table, row)
        return tenant is None or covers(self.reach, tenant)

    def changes(self) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
        """What to insert and what to update, by table."""
        inserts: dict[str, list[Row]] = defaultdict(list)
        updates: dict[str, list[Row]] = defaultdict(list)
        for key, row in self._dirty.items():
            (inserts if key in self._new else updates)[key.table].append(row)
        return inserts, updates


class Commit(NamedTuple):
    """What a unit decided: its records (none only if it writes nothing), its writes, and what to answer."""

    records: tuple[AuditDraft, ...]
    writes: tuple[Write, ...] = ()
    result: Any = None
    urgent: bool = False
    """Whether every other worker is woken to hear of it at once."""
    vouched: tuple[Write, ...] = ()
    """Rows that the records vouch for as they are, without a write: they must be among what was read."""


class Unit(NamedTuple):
    """A request's effect: the rows it must see, and the decision, which does no IO.

    `decide` may raise a `VaultError`: then the unit writes nothing and its caller gets the error.
    """

    reads: tuple[RowKey, ...]
    decide: Callable[[Rows, datetime.datetime], Commit]
    reach: Reach = NOBODY
    """Whose rows it may see and write; the log fills in what its caller's task has declared."""


class RuleBroken(Exception):  # noqa: N818 - it is the database's rule, not ours
    """A write of the batch broke a constraint, and nothing was written. `rule` names the error's kind."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class Head(NamedTuple):
    """The head of the log."""

    size: int
    frontier: merkle.Frontier


class Committed(NamedTuple):
    """What a batch came to: each unit's result, or the exception it raised; and how long the log is with it."""

    results: list[Any]
    size: int


async def commit_batch(database: Database, units: Sequence[Unit], now: datetime.datetime) -> Committed:
    """Run units in order in one transaction; return each one's result, or the exception it raised.

    Returns only when everything is durable. Raises `RuleBroken` if a write broke a constraint, and the
    driver's error if the transaction failed otherwise; then nothing of it was written, unless the connection
    was lost while it committed.
    """
    try:
        return await _commit(database, units, now)
    except (IntegrityError, DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        raise RuleBroken(type(error).__name__) from None


async def _commit(database: Database, units: Sequence[Unit], now: datetime.datetime) -> Committed:
    async with database.write(union(unit.reach for unit in units)) as connection:
        head = await _lock_head(connection, database)
        rows = Rows(await _load(connection, database, {key for unit in units for key in unit.reads}))
        results: list[Any] = []
        drafts: list[tuple[AuditDraft, str]] = []
        urgent = False
        for unit in units:
            rows.reach = unit.reach
            try:
                commit = unit.decide(rows, now)
                rows.check(commit)
            except Exception as error:  # noqa: BLE001 - it is handed to the caller that it belongs to
                results.append(error)
                continue
            rows.apply(commit.writes)
            digests = _row_digests((*commit.writes, *commit.vouched))
            drafts.extend((draft, digests) for draft in commit.records)
            results.append(commit.result)
            urgent |= commit.urgent
        if drafts:
            await _flush(connection, database, rows)
            await _append(connection, database, head, _seal(drafts, head.size, now))
        if urgent:
            await wake(connection, database)
    return Committed(results, head.size + len(drafts))


def leaf_hash(row: Mapping[str, Any]) -> bytes:
    """The RFC 9162 leaf hash of a record's canonical encoding (`docs/formats.md`, "Audit record")."""
    return merkle.leaf_hash(
        encode(
            "strongroom/audit-record/v1",
            row["sequence"],
            row["id"],
            micros(row["created_at"]),
            row["tenant"],
            row["user_id"],
            row["action_type"],
            row["resource"],
            row["outcome"],
            row["reason"],
            row["ip_address"],
            row["device_id"],
            row["request_id"],
            row["token_id"],
            row["session_id"],
            row["before_state"],
            row["after_state"],
            row["rows_written"],
        )
    )


async def read_head(connection: AsyncConnection) -> Head:
    """The head of the log as last committed. Raises `STORED_DATA_DAMAGED`."""
    rows = await lenient.read(connection, _HEAD)
    match rows:
        case [{"size": int(size), "frontier": bytes(frontier)}]:
            with contextlib.suppress(CryptoError):
                return Head(size, merkle.decode_frontier(frontier))
    raise VaultError(Reason.STORED_DATA_DAMAGED, "the head of the log cannot be read")


def _row_digests(writes: Sequence[Write]) -> str:
    if not writes:
        return ""
    return canonical_json({str(write.row_key): row_digest(write.table, write.row).hex() for write in writes})


def _seal(drafts: Sequence[tuple[AuditDraft, str]], first: int, now: datetime.datetime) -> list[Row]:
    """The rows of records, each with the digests of the rows written with it, from this place in the log on."""
    rows: list[Row] = []
    for sequence, ((draft, digests), record_id) in enumerate(
        zip(drafts, _new_ids(len(drafts)), strict=True), first
    ):
        origin = draft.origin
        row: Row = {
            "sequence": sequence,
            "id": record_id,
            "created_at": now,
            "tenant": draft.tenant,
            "user_id": draft.identity,
            "action_type": draft.action,
            "resource": draft.resource,
            "outcome": draft.outcome.value,
            "reason": draft.reason,
            "ip_address": origin.ip_address,
            "device_id": origin.device_id,
            "request_id": origin.request_id,
            "token_id": draft.token_id,
            "session_id": draft.session_id,
            "before_state": draft.before_state,
            "after_state": draft.after_state,
            "rows_written": digests,
        }
        row["leaf_hash"] = leaf_hash(row)
        rows.append(row)
    return rows


def _new_ids(count: int) -> list[str]:
    """Random UUIDs (RFC 9562, version 4), from one call to the kernel."""
    digits = os.urandom(16 * count).hex()
    return [
        f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-4{digits[at + 13 : at + 16]}"
        f"-{_VARIANT[digits[at + 16]]}{digits[at + 17 : at + 20]}-{digits[at + 20 : at + 32]}"
        for at in range(0, 32 * count, 32)
    ]


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


async def _lock_head(connection: AsyncConnection, database: Database) -> Head:
    if database.is_postgresql:
        row = await driver_of(connection).fetchrow(_LOCK_HEAD)
        return Head(row["size"], merkle.decode_frontier(row["frontier"]))
    found = (await connection.execute(_HEAD)).one()
    return Head(found.size, merkle.decode_frontier(found.frontier))


async def _load(
    connection: AsyncConnection, database: Database, wanted: set[RowKey]
) -> dict[RowKey, Row | None]:
    loaded: dict[RowKey, Row | None] = dict.fromkeys(wanted)
    by_table: dict[str, list[tuple[str | int, ...]]] = defaultdict(list)
    for key in wanted:
        by_table[key.table].append(key.key)
    for name, keys in by_table.items():
        for found in await _fetch(connection, database, name, keys):
            row = dict(found)
            loaded[RowKey(name, tuple(row[column] for column in KEY_COLUMNS[name]))] = row
    return loaded


async def _fetch(
    connection: AsyncConnection, database: Database, name: str, keys: list[tuple[str | int, ...]]
) -> Sequence[Mapping[str, Any]]:
    if database.is_postgresql:
        columns = [list(column) for column in zip(*keys, strict=True)]
        found: Sequence[Mapping[str, Any]] = await driver_of(connection).fetch(_FETCHES[name], *columns)
        return found
    table = TABLES[name]
    wanted = tuple_(*(table.c[column] for column in KEY_COLUMNS[name])).in_(keys)
    return [dict(row) for row in (await connection.execute(select(table).where(wanted))).mappings()]


async def _flush(connection: AsyncConnection, database: Database, rows: Rows) -> None:
    inserts, updates = rows.changes()
    for name, changed in updates.items():
        if database.is_postgresql and name in _UNORDERED:
            columns = rows.changed_columns(name, changed)
            arrays = [[row[column] for row in changed] for column in columns]
            await driver_of(connection).execute(_bulk_update_statement(name, columns), *arrays)
            continue
        # In order: a rule such as "one active version" must hold after each.
        await connection.execute(
            _UPDATES[name], [{f"new_{key}": value for key, value in row.items()} for row in changed]
        )
    for name, added in inserts.items():
        if database.is_postgresql:
            arrays = [[row[column] for row in added] for column in COLUMNS[name]]
            await driver_of(connection).execute(_INSERTS[name], *arrays)
        else:
            await connection.execute(insert(TABLES[name]), added)


async def _append(connection: AsyncConnection, database: Database, head: Head, audit_rows: list[Row]) -> None:
    frontier = head.frontier.append_many([row["leaf_hash"] for row in audit_rows])
    encoded = merkle.encode_frontier(frontier)
    if database.is_postgresql:
        # Arrays cost a fraction of rows, and this is the statement that every answer waits for. Not COPY, which
        # knows no row-level security.
        arrays = [_alike([row[column] for row in audit_rows]) for column in COLUMNS[audit_records.name]]
        await driver_of(connection).execute(_APPEND, *arrays, frontier.size, encoded)
        return
    await connection.execute(insert(audit_records), audit_rows)
    await connection.execute(update(audit_head).values(size=frontier.size, frontier=encoded))


def _alike(values: list[Any]) -> list[Any]:
    """The values, or one of them if they are all the same, as many columns of a batch are: half of what it costs."""
    return values[:1] if values.count(values[0]) == len(values) else values


# Built once, as it is asked many times a second: to build a statement takes longer than to run it.
_HEAD = select(audit_head.c.size, audit_head.c.frontier)
_LOCK_HEAD = "SELECT size, frontier FROM audit_head WHERE id = 1 FOR UPDATE"


def _update_statement(name: str) -> Any:
    table = TABLES[name]
    keys = KEY_COLUMNS[name]
    statement = update(table)
    for key in keys:
        statement = statement.where(table.c[key] == bindparam(f"new_{key}"))
    return statement.values({c.name: bindparam(f"new_{c.name}") for c in table.columns if c.name not in keys})


def _fetch_statement(name: str) -> str:
    """PostgreSQL's look-up of many rows by their keys, given as one array a column."""
    table = TABLES[name]
    keys = KEY_COLUMNS[name]
    kinds = ["int" if isinstance(table.c[key].type, Integer) else "text" for key in keys]
    arrays = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(kinds, 1))
    return f"SELECT * FROM {name} WHERE ({', '.join(keys)}) IN (SELECT * FROM unnest({arrays}))"  # noqa: S608 - our names


_ARRAYS = {
    Integer: "int",
    BigInteger: "bigint",
    LargeBinary: "bytea",
    UtcDateTime: "timestamptz",
    String: "text",
    Text: "text",
}


def _arrays(columns: Iterable[Column[Any]]) -> list[str]:
    """The parameters of a statement that is given one array a column."""
    return [f"${place}::{_ARRAYS[type(column.type)]}[]" for place, column in enumerate(columns, 1)]


@functools.cache
def _bulk_update_statement(name: str, columns: tuple[str, ...]) -> str:
    """PostgreSQL's update of some columns of many rows at once, given as one array a column. In no order."""
    table = TABLES[name]
    keys = KEY_COLUMNS[name]
    arrays = ", ".join(_arrays(table.c[c] for c in columns))
    changes = ", ".join(f'"{c}" = new."{c}"' for c in columns if c not in keys)
    same = " AND ".join(f'old."{c}" = new."{c}"' for c in keys)
    names = ", ".join(f'"{c}"' for c in columns)
    return f"UPDATE {name} AS old SET {changes} FROM unnest({arrays}) AS new({names}) WHERE {same}"  # noqa: S608 - our names


def _insert_statement(name: str) -> str:
    """PostgreSQL's insert of many rows at once, given as one array a column."""
    columns = [TABLES[name].c[column] for column in COLUMNS[name]]
    arrays = ", ".join(_arrays(columns))
    names = ", ".join(f'"{c.name}"' for c in columns)
    return f"INSERT INTO {name} ({names}) SELECT * FROM unnest({arrays})"  # noqa: S608 - our names


def _append_statement() -> str:
    """PostgreSQL's insert of records, given as one array a column, of all values or of the one that all have.

    It also moves the head of the log. `unnest` makes the shorter arrays longer with NULL, which no column of a record
    may be.
    """
    columns = list(audit_records.columns)
    assert not any(column.nullable for column in columns)
    given = _arrays(columns)
    names = ", ".join(f'"{c.name}"' for c in columns)
    values = ", ".join(
        f'COALESCE(new."{c.name}", ({array})[1])' for c, array in zip(columns, given, strict=True)
    )
    size, frontier = len(columns) + 1, len(columns) + 2
    return (
        f"WITH moved AS (UPDATE audit_head SET size = ${size}, frontier = ${frontier} WHERE id = 1) "  # noqa: S608 - our names
        f"INSERT INTO audit_records ({names}) SELECT {values} FROM unnest({', '.join(given)}) AS new({names})"
    )


_UNORDERED = frozenset(
    name
    for name, table in TABLES.items()
    # Where no rule such as "one active version" cares in which order rows change.
    if not any(index.unique for index in table.indexes)
    and all(type(c.type) in _ARRAYS for c in table.columns)
)
_FETCHES = {name: _fetch_statement(name) for name in TABLES}
_INSERTS = {name: _insert_statement(name) for name in TABLES}
_UPDATES = {name: _update_statement(name) for name in TABLES}
_APPEND = _append_statement()


def request_digest(*parts: bytes | str | int | None) -> bytes:
    """SHA-256 of a request's arguments, to tell a repeated request from a request_id used twice."""
    return hashlib.sha256(encode("strongroom/request/v1", *parts)).digest()
