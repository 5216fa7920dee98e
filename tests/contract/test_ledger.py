"""The ledger, on every database: one writer at a time, all or nothing, and a log without gaps."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.databases import migrated
from vault.clock import SystemClock, micros
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.core.inspection import inspect
from vault.crypto.encoding import encode
from vault.errors import Reason, VaultError
from vault.model import AuditDraft, AuditQuery, Checkpoint, Origin, Outcome
from vault.store.audit import insert_checkpoint, latest_checkpoint, list_records, stream_rows
from vault.store.engine import SETTING, Database, connect, driver_of
from vault.store.ledger import Commit, Count, Rows, Unit, leaf_hash, read_head
from vault.store.reach import declare, declared, of
from vault.store.rows import COLUMNS, RowKey, Write, row_digest, row_digests
from vault.store.schema import current_revision, wanted_revision

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    made: str = request.getfixturevalue("postgres").create_database(f"ledger_{secrets.token_hex(6)}")
    return made


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = await migrated(url)
    yield database
    await database.close()


def draft(action: str = "test", resource: str = "") -> AuditDraft:
    return AuditDraft("acme", "me", action, resource, Outcome.GRANTED, Origin())


def row(tenant: str, kek_version: int) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "kek_version": kek_version,
        "create_time": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        "created_by": "me",
    }


def increment(tenant: str) -> Unit:
    def decide(rows: Rows, _now: datetime.datetime) -> Commit:
        found = rows.get("tenants", tenant)
        new = row(tenant, (found["kek_version"] if found else 0) + 1)
        return Commit((draft(resource=tenant),), (Write("tenants", new),), new["kek_version"])

    return Unit((RowKey("tenants", (tenant,)),), decide)


async def test_migrating_twice_is_migrating_once(database: Database, url: str) -> None:
    await (await migrated(url)).close()
    assert await current_revision(database) == wanted_revision()


async def test_a_thousand_read_modify_writes_from_two_logs_lose_none_and_leave_no_gap(
    database: Database,
) -> None:
    logs = [AuditLog(database, SystemClock(), Load(), wait_seconds=30) for _ in range(2)]
    units = [increment("acme") for _ in range(500)]
    results = await asyncio.gather(*(log.commit(unit) for log in logs for unit in units))
    assert sorted(results) == list(range(1, 1001))
    async with database.read() as connection:
        head = await read_head(connection)
        records = await list_records(connection, AuditQuery(), 2000)
    assert [record.sequence for record in records] == list(range(1000))
    assert head.size == 1000
    frontier = type(head.frontier)(0, ())
    async for rows in stream_rows(database, 0, head.size):
        assert all(leaf_hash(stored) == stored["leaf_hash"] for stored in rows)
        frontier = frontier.append_many([stored["leaf_hash"] for stored in rows])
    assert frontier == head.frontier


def endpoint(number: int, state: str, most: int) -> Unit:
    """An endpoint of acme's in a state, unless there are as many already."""
    key = RowKey("webhook_endpoints", ("acme", f"endpoint-{number}"))
    alive = Count("webhook_endpoints", "acme", "deleted")

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        if rows.count(alive) >= most:
            raise VaultError(Reason.LIMIT_REACHED, "enough")
        values = {"tenant": "acme", "endpoint_id": key.key[1], "state": state, "create_time": now}
        write = Write(key.table, {**dict.fromkeys(COLUMNS[key.table], ""), **values})
        return Commit((draft(),), (write,), rows.count(alive))

    return Unit((key,), decide, counts=(alive,))


async def test_a_limit_holds_for_units_of_one_batch_and_of_two_logs_and_what_is_over_does_not_count(
    database: Database,
) -> None:
    logs = [AuditLog(database, SystemClock(), Load(), wait_seconds=30) for _ in range(2)]
    units = [endpoint(number, "active", most=7) for number in range(20)]
    results = await asyncio.gather(
        *(logs[n % 2].commit(unit) for n, unit in enumerate(units)), return_exceptions=True
    )
    counted = [result for result in results if isinstance(result, int)]
    assert sorted(counted) == list(range(7))
    assert all(
        isinstance(result, VaultError) and result.reason is Reason.LIMIT_REACHED
        for result in results
        if not isinstance(result, int)
    )
    # Two go and one comes back, in one batch with who asks for the room that it leaves.
    there = [number for number, result in enumerate(results) if isinstance(result, int)]
    changes = [(there[0], "deleted", 9), (there[1], "deleted", 9), (there[0], "active", 9), (90, "active", 7)]
    later = await asyncio.gather(
        *(logs[0].commit(endpoint(number, state, most)) for number, state, most in changes),
        logs[0].commit(endpoint(91, "active", 7)),
        return_exceptions=True,
    )
    assert later[:4] == [7, 6, 5, 6]
    assert isinstance(later[4], VaultError)


async def test_records_alone_from_two_logs_whose_turns_come_in_any_order_leave_neither_gap_nor_fork(
    database: Database,
) -> None:
    logs = [AuditLog(database, SystemClock(), Load(), wait_seconds=30) for _ in range(2)]
    turns = [0, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0]
    for turn in turns:
        await logs[turn].record(draft())
    await asyncio.gather(*(log.record(draft()) for log in logs for _ in range(50)))
    report = await inspect(database, "strongroom/audit", [], SystemClock().now())
    assert (report.findings, report.records) == ([], len(turns) + 100)


async def test_a_record_alone_takes_one_statement_as_long_as_nobody_else_writes(postgres: Postgres) -> None:
    url = postgres.create_database(f"ledger_{secrets.token_hex(6)}")
    await (await migrated(url)).close()
    declare(of("acme"))
    database = connect(url, pool_size=1)
    ours, other = (AuditLog(database, SystemClock(), Load(), wait_seconds=30) for _ in range(2))
    statements: list[str] = []
    async with database.single() as driver:
        driver.add_query_logger(lambda query: statements.append(query.query.split()[0]))

    async def taken(log: AuditLog) -> list[str]:
        statements.clear()
        await log.record(draft())
        await asyncio.sleep(0.01)
        return statements.copy()

    whole = ["BEGIN", "SELECT", "WITH", "COMMIT"]
    await taken(ours)
    assert [await taken(ours) for _ in range(2)] == [whole, ["WITH"]]
    assert await taken(other) == whole
    # The log ends elsewhere by now: a try in vain.
    assert await taken(ours) == ["WITH", *whole]
    assert [await taken(ours) for _ in range(2)] == [whole, ["WITH"]]
    async with database.single() as driver:
        assert not await driver.fetchval(f"SELECT current_setting('{SETTING}', true)")
    await database.close()


@pytest.mark.parametrize("way", ["write", "single"])
async def test_a_write_whose_connection_is_lost_says_that_the_database_does_not_answer(
    postgres: Postgres, way: str
) -> None:
    database = await migrated(postgres.create_database(f"ledger_{secrets.token_hex(6)}"))
    with pytest.raises(VaultError) as caught:
        async with getattr(database, way)() as connection:
            driver = driver_of(connection) if way == "write" else connection
            await driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    await database.close()


async def test_a_record_alone_of_a_tenant_that_was_not_declared_is_refused(database: Database) -> None:
    log = AuditLog(database, SystemClock(), Load(), wait_seconds=30)
    for _ in range(3):
        await log.record(draft())
    with declared(of("acme")), pytest.raises(RuntimeError):
        await log.record(draft()._replace(tenant="globex"))
    async with database.read() as connection:
        assert (await read_head(connection)).size == 3


async def test_a_unit_that_refuses_writes_nothing_and_harms_no_other(database: Database) -> None:
    log = AuditLog(database, SystemClock(), Load(), wait_seconds=30)

    def refuse(_rows: Rows, _now: datetime.datetime) -> Commit:
        raise VaultError(Reason.ETAG_MISMATCH, "no")

    results = await asyncio.gather(
        log.commit(increment("a")),
        log.commit(Unit((), refuse)),
        log.commit(increment("b")),
        return_exceptions=True,
    )
    assert (results[0], results[2]) == (1, 1)
    assert isinstance(results[1], VaultError)
    async with database.read() as connection:
        assert (await read_head(connection)).size == 2


async def test_a_unit_that_breaks_a_rule_of_the_database_harms_no_other(database: Database) -> None:
    log = AuditLog(database, SystemClock(), Load(), wait_seconds=30)

    def broken(_rows: Rows, _now: datetime.datetime) -> Commit:
        return Commit((draft(),), (Write("tenants", {**row("c", 1), "created_by": None}),))

    key = RowKey("tenants", ("c",))
    results = await asyncio.gather(
        log.commit(increment("a")), log.commit(Unit((key,), broken)), log.commit(increment("b")),
        return_exceptions=True,
    )  # fmt: skip
    assert (results[0], results[2]) == (1, 1)
    assert isinstance(results[1], RuntimeError)
    async with database.read() as connection:
        assert (await read_head(connection)).size == 2


def test_a_column_that_came_later_leaves_the_digests_of_rows_without_it_as_they_were() -> None:
    later = ("rotation_days", "rotation_due_time")
    names = COLUMNS["credentials"]
    assert names[-2:] == later
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    times = {name: moment for name in names if name.endswith("_time")}
    before = {**dict.fromkeys(names, "x"), **times, **dict.fromkeys(later)}
    values = [micros(moment) if name in times else "x" for name in names[:-2]]
    expected = hashlib.sha256(encode("strongroom/row/v1", "credentials", *values)).digest()
    assert row_digest("credentials", before) == expected
    for name, value in zip(later, (90, moment), strict=True):
        assert row_digest("credentials", {**before, name: value}) != expected


def test_rows_written_together_have_the_digests_that_each_has_alone() -> None:
    moments = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in (1, 2, 3)]
    for table, names in COLUMNS.items():
        alike = {name: moments[0] if name.endswith("_time") else "x" for name in names}
        others = [
            {**alike, names[0]: "y", names[-1]: None},
            {**alike, names[0]: 7, names[1]: b"z"},
            {name: moments[2] if name.endswith("_time") else None for name in names},
        ]
        for rows in ([alike], [alike, alike], [alike, *others], [*others, {**alike, names[0]: moments[1]}]):
            assert row_digests(table, rows) == [row_digest(table, row) for row in rows], table


async def test_the_record_of_a_write_carries_the_digest_of_the_very_row(database: Database) -> None:
    log = AuditLog(database, SystemClock(), Load(), wait_seconds=30)
    await log.commit(increment("acme"))
    async with database.read() as connection:
        (record,) = await list_records(connection, AuditQuery(), 10)
    assert record.rows_written == f'{{"tenants:acme":"{row_digest("tenants", row("acme", 1)).hex()}"}}'


async def test_a_log_that_cannot_be_written_answers_unavailable_within_its_wait(database: Database) -> None:
    log = AuditLog(database, SystemClock(), Load(), wait_seconds=2)
    await log.record(draft())
    async with database.write() as connection:
        from sqlalchemy import text

        await connection.execute(text("UPDATE audit_head SET size = size"))
        with pytest.raises(VaultError) as caught:
            await log.record(draft())
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
    await log.drain()
    await log.record(draft())


async def test_sixty_four_writers_on_four_connections_leave_neither_gap_nor_fork(database: Database) -> None:
    logs = [AuditLog(database, SystemClock(), Load(), wait_seconds=30) for _ in range(4)]

    async def writer(number: int) -> None:
        for _ in range(8):
            await logs[number % 4].commit(increment(f"tenant-{number % 16}"))

    await asyncio.gather(*(writer(number) for number in range(64)))
    report = await inspect(database, "strongroom/audit", [], SystemClock().now())
    assert (report.findings, report.records) == ([], 64 * 8)


async def test_workers_that_sign_the_same_head_at_once_store_one_checkpoint(database: Database) -> None:
    """Two replicas that start together do: none of them may fail by the other."""
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    checkpoint = Checkpoint(1, b"\0" * 32, b"\0" * 40, "note", now)
    await asyncio.gather(*(insert_checkpoint(database, checkpoint, ()) for _ in range(8)))
    async with database.read() as connection:
        assert await latest_checkpoint(connection) == checkpoint
