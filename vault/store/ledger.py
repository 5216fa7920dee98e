"""The one way to write: a batch of units, their rows and their audit records, in one transaction.

The transaction first takes the lock on the head of the log. So writers queue, on every replica: each unit
sees what all before it did, decides, and its record gets the next place in the log. That makes the log free
of gaps and forks without a sequence, makes "read, decide, write" safe without serialisable isolation, and
makes one commit carry as many units as were waiting.

Units that read and write nothing need not see what was before them, only where the log ends. Who wrote last knows that:
one statement appends their records there, and does nothing if the log ends elsewhere by now.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections import defaultdict
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Integer,
    LargeBinary,
    String,
    Text,
    bindparam,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from vault.clock import micros
from vault.crypto import merkle
from vault.crypto.encoding import append, append_texts, encode
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError
from vault.store.engine import RULES, SETTING, driver_of
from vault.store.lenient import Prepared
from vault.store.owners import tenant_of
from vault.store.reach import NOBODY, Reach, as_array, covers, union
from vault.store.rows import COLUMNS, KEY_COLUMNS, TABLES, Row, RowKey, Write, canonical_json, row_digests
from vault.store.tables import UtcDateTime, audit_head, audit_records
from vault.store.wakeups import wake

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Column
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.model import AuditDraft
    from vault.store.engine import Database


class Count(NamedTuple):
    """How many rows of a table a tenant has, but for those in the state in which a row of it is over."""

    table: str
    tenant: str
    over: str

    def holds(self, row: Row | None) -> bool:
        """Whether this row is one of them."""
        return row is not None and row["tenant"] == self.tenant and row["state"] != self.over


class Rows:
    """The rows that a batch has loaded, with the writes of the units so far laid over them.

    A batch loads for several callers, so each unit is held to its own reach here: what lies beyond it is not there.
    """

    def __init__(self, loaded: dict[RowKey, Row | None], counts: Mapping[Count, int]) -> None:
        self.reach: Reach = NOBODY
        """Of the unit whose turn it is."""
        self._counts = counts
        self._rows = loaded
        self._before = dict(loaded)
        self._new = {key for key, row in loaded.items() if row is None}
        self._dirty: dict[RowKey, Row] = {}

    def get(self, table: str, *key: str | int) -> Row | None:
        """The row, or None. It must be among those that the unit asked for, or have been written before."""
        row = self._rows[RowKey(table, key)]
        return row if row is None or self._is_within(table, row) else None

    def count(self, wanted: Count) -> int:
        """How many there are now. It must be among what the unit asked for."""
        changes = (
            wanted.holds(row) - wanted.holds(self._before.get(key))
            for key, row in self._dirty.items()
            if key.table == wanted.table
        )
        return self._counts[wanted] + sum(changes)

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
        befores = [self._before[RowKey(table, tuple([row[column] for column in keys]))] or {} for row in rows]
        return tuple(
            column
            for column in COLUMNS[table]
            if column in keys or [before.get(column) for before in befores] != [row[column] for row in rows]
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

    @property
    def changed(self) -> bool:
        """Whether there were any writes."""
        return bool(self._dirty)

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
    counts: tuple[Count, ...] = ()
    """What it must know the number of: for limits that calls at the same time, wherever, cannot exceed together."""


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


class _Decided(NamedTuple):
    """What the units of a batch decided."""

    rows: Rows
    results: list[Any]
    drafts: list[tuple[AuditDraft, str]]
    urgent: bool


class Ledger:
    """Commits batches, one at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._left: Head | None = None
        """The head as the last batch left it."""
        self._alone = False
        """Whether nobody else has moved it before that batch."""

    async def commit(self, units: Sequence[Unit], now: datetime.datetime) -> Committed:
        """Run units in order in one transaction; return each one's result, or the exception it raised.

        Returns only when everything is durable. Raises `RuleBroken` if a write broke a constraint, and
        `STORAGE_UNAVAILABLE` if the transaction failed otherwise; then nothing of it was written, unless the
        connection was lost while it committed.
        """
        try:
            return await self._commit(units, now)
        except RULES as error:
            raise RuleBroken(type(error).__name__) from None

    async def _commit(self, units: Sequence[Unit], now: datetime.datetime) -> Committed:
        reach = union(unit.reach for unit in units)
        reads = {key for unit in units for key in unit.reads}
        counts = {count for unit in units for count in unit.counts}
        decided = None if reads or counts else _decide(Rows({}, {}), units, now)
        if decided is not None and (committed := await self._record(decided, reach, now)):
            return committed
        async with self._database.write(reach) as connection:
            head = await _lock_head(connection, self._database)
            if decided is None:
                loaded = await _load(connection, self._database, reads)
                numbers = {count: await _count(connection, count) for count in counts}
                decided = _decide(Rows(loaded, numbers), units, now)
            after = head
            if decided.drafts:
                await _flush(connection, self._database, decided.rows)
                after = await _append(connection, self._database, head, decided.drafts, now, reach)
            if decided.urgent:
                await wake(connection, self._database)
        self._alone = head == self._left
        self._left = after
        return Committed(decided.results, after.size)

    async def _record(self, decided: _Decided, reach: Reach, now: datetime.datetime) -> Committed | None:
        """Append records that go with no writes, in one statement. None if it takes more, or the log ends elsewhere."""
        head = self._left
        if decided.rows.changed or decided.urgent or not decided.drafts:
            return None
        if head is None or not self._alone or not self._database.is_postgresql:
            return None
        self._alone = False
        async with self._database.single() as driver:
            sealed, after = _sealed(head, decided.drafts, now)
            if not await _append_at(driver, head, sealed, after, reach):
                return None
        self._alone, self._left = True, after
        return Committed(decided.results, after.size)


def _decide(rows: Rows, units: Sequence[Unit], now: datetime.datetime) -> _Decided:
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
    return _Decided(rows, results, drafts, urgent)


def leaf_hash(row: Mapping[str, Any]) -> bytes:
    """The RFC 9162 leaf hash of a record's canonical encoding (`docs/formats.md`, "Audit record")."""
    head = append(_RECORD, row["sequence"], row["id"], micros(row["created_at"]))
    return merkle.leaf_hash(append_texts(head, _HASHED_TEXTS(row)))


_RECORD = encode("strongroom/audit-record/v1")
_HASHED_TEXTS = itemgetter(
    "tenant", "user_id", "action_type", "resource", "outcome", "reason", "ip_address", "device_id", "request_id",
    "token_id", "session_id", "before_state", "after_state", "rows_written",
)  # fmt: skip


async def read_head(connection: AsyncConnection) -> Head:
    """The head of the log as last committed. Raises `STORED_DATA_DAMAGED`."""
    match [tuple(row.values()) for row in await _READ_HEAD.read(connection)]:
        case [(int(size), bytes(frontier))]:
            with contextlib.suppress(CryptoError):
                return Head(size, merkle.decode_frontier(frontier))
    raise VaultError(Reason.STORED_DATA_DAMAGED, "the head of the log cannot be read")


def _row_digests(writes: Sequence[Write]) -> str:
    if not writes:
        return ""
    tables: dict[str, list[Write]] = defaultdict(list)
    for write in writes:
        tables[write.table].append(write)
    digests: dict[str, str] = {}
    for name, written in tables.items():
        for write, digest in zip(written, row_digests(name, [write.row for write in written]), strict=True):
            digests[str(write.row_key)] = digest.hex()
    return canonical_json(digests)


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


async def _count(connection: AsyncConnection, count: Count) -> int:
    statement, parameters = _count_statement(count.table, count.over), {"tenant": count.tenant}
    return int((await connection.execute(statement, parameters)).scalar_one())


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


async def _append(
    connection: AsyncConnection,
    database: Database,
    head: Head,
    drafts: Sequence[tuple[AuditDraft, str]],
    now: datetime.datetime,
    reach: Reach,
) -> Head:
    """Append records at the head, whose lock is held; return the head after them."""
    sealed, after = _sealed(head, drafts, now)
    if database.is_postgresql:
        if not await _append_at(driver_of(connection), head, sealed, after, reach):
            raise VaultError(Reason.STORED_DATA_DAMAGED, "the head of the log moved under its lock")
        return after
    await connection.execute(insert(audit_records), sealed)
    await connection.execute(
        update(audit_head).values(size=after.size, frontier=merkle.encode_frontier(after.frontier))
    )
    return after


def _sealed(
    head: Head, drafts: Sequence[tuple[AuditDraft, str]], now: datetime.datetime
) -> tuple[list[Row], Head]:
    """The rows of records that come next in the log, and its head after them."""
    rows = _seal(drafts, head.size, now)
    frontier = head.frontier.append_many([row["leaf_hash"] for row in rows])
    return rows, Head(frontier.size, frontier)


async def _append_at(driver: Any, head: Head, audit_rows: list[Row], after: Head, reach: Reach) -> bool:
    """Append records on PostgreSQL if this is the head of the log. Returns whether it was."""
    # Arrays cost a fraction of rows, and this is the statement that every answer waits for. Not COPY, which
    # knows no row-level security.
    arrays = [_alike([row[column] for row in audit_rows]) for column in COLUMNS[audit_records.name]]
    done = await driver.execute(
        _APPEND,
        *arrays,
        after.size,
        merkle.encode_frontier(after.frontier),
        head.size,
        merkle.encode_frontier(head.frontier),
        as_array(reach),
    )
    return bool(done != "INSERT 0 0")


def _alike(values: list[Any]) -> list[Any]:
    """The values, or one of them if they are all the same, as many columns of a batch are: half of what it costs."""
    return values[:1] if values.count(values[0]) == len(values) else values


# Built once, as it is asked many times a second: to build a statement takes longer than to run it.
_HEAD = select(audit_head.c.size, audit_head.c.frontier)
_READ_HEAD = Prepared(_HEAD)
_LOCK_HEAD = "SELECT size, frontier FROM audit_head WHERE id = 1 FOR UPDATE"


@functools.cache
def _count_statement(name: str, over: str) -> Any:
    """The state stands in the text: PostgreSQL uses an index of the others only if it sees which."""
    table = TABLES[name]
    others = table.c.state != literal(over, literal_execute=True)
    return select(func.count()).select_from(table).where(table.c.tenant == bindparam("tenant"), others)


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

    It also declares whose they are and moves the head of the log, if it is where it is said to be: if not, nothing is
    inserted. `unnest` makes the shorter arrays longer with NULL, which no column of a record may be.
    """
    columns = list(audit_records.columns)
    assert not any(column.nullable for column in columns)
    given = _arrays(columns)
    names = ", ".join(f'"{c.name}"' for c in columns)
    values = ", ".join(
        f'COALESCE(new."{c.name}", ({array})[1])' for c, array in zip(columns, given, strict=True)
    )
    size, frontier, old_size, old_frontier, reach = (f"${len(columns) + place}" for place in range(1, 6))
    return (
        f"WITH declared AS (SELECT set_config('{SETTING}', {reach}, true)), "  # noqa: S608 - our names
        f"moved AS (UPDATE audit_head SET size = {size}, frontier = {frontier}"
        f" WHERE id = 1 AND size = {old_size} AND frontier = {old_frontier} RETURNING 1) "
        f"INSERT INTO audit_records ({names}) SELECT {values}"
        f" FROM declared, moved, unnest({', '.join(given)}) AS new({names})"
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
