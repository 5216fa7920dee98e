"""The log by month, on PostgreSQL: every record finds a place; the vault's role can make months and nothing else."""

from __future__ import annotations

import datetime
import secrets
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from tests.support.databases import migrated
from tests.support.postgres import owner_url
from vault.clock import SystemClock
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.model import AuditDraft, AuditQuery, Origin, Outcome
from vault.store.audit import list_records
from vault.store.engine import Database, connect
from vault.store.schema import migrate
from vault.store.upkeep import make_months

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.postgres import Postgres

DRAFT = AuditDraft("acme", "me", "test", "", Outcome.GRANTED, Origin())


class SetClock(SystemClock):
    """A clock that can be set."""

    def __init__(self) -> None:
        self.time = datetime.datetime.now(datetime.UTC)

    def now(self) -> datetime.datetime:
        return self.time


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    database = await migrated(postgres.create_database(f"months_{secrets.token_hex(6)}"))
    yield database
    await database.close()


async def places(database: Database) -> dict[int, str]:
    """In which partition each record lies, by sequence."""
    async with database.read() as connection:
        found = await connection.execute(text("SELECT sequence, tableoid::regclass::text FROM audit_records"))
        return {row[0]: row[1] for row in found}


async def test_a_record_lies_in_its_month_and_one_of_no_month_in_the_default(database: Database) -> None:
    clock = SetClock()
    log = AuditLog(database, clock, Load(), wait_seconds=30)
    now = clock.time
    await log.record(DRAFT)
    clock.time = now + datetime.timedelta(days=365)
    await log.record(DRAFT)
    assert await places(database) == {0: f"audit_records_{now:%Y_%m}", 1: "audit_records_default"}
    async with database.read() as connection:
        found = await list_records(connection, AuditQuery(), 10)
    assert [record.sequence for record in found] == [0, 1]


async def test_upkeep_makes_the_months_that_come_and_does_nothing_the_second_time(database: Database) -> None:
    clock = SetClock()
    later = clock.time + datetime.timedelta(days=400)
    await make_months(database, until=later)
    await make_months(database, until=later)
    clock.time = later
    await AuditLog(database, clock, Load(), wait_seconds=30).record(DRAFT)
    assert await places(database) == {0: f"audit_records_{later:%Y_%m}"}


async def test_the_servers_role_can_make_months_and_cannot_touch_a_record(database: Database) -> None:
    month = f"audit_records_{datetime.datetime.now(datetime.UTC):%Y_%m}"
    await make_months(database, until=datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=200))
    await AuditLog(database, SystemClock(), Load(), wait_seconds=30).record(DRAFT)
    for statement in (
        "DELETE FROM audit_records",
        "TRUNCATE audit_records",
        "UPDATE audit_records SET outcome = 'granted'",
        f"SELECT * FROM {month}",
        f"DROP TABLE {month}",
        "ALTER TABLE audit_records DETACH PARTITION audit_records_default",
        "CREATE TABLE own PARTITION OF audit_records FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
    ):
        async with database.write() as connection:
            with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
                await connection.execute(text(statement))


async def test_records_of_before_the_partitions_are_all_there_afterwards(postgres: Postgres) -> None:
    from alembic import command

    from vault.store import schema

    database = connect(owner_url(postgres.create_database(f"months_{secrets.token_hex(6)}")))

    def upgrade(connection: object, revision: str) -> None:
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    try:
        async with database.write() as connection:
            await connection.run_sync(upgrade, "0005")
        clock = SetClock()
        now = clock.time
        log = AuditLog(database, clock, Load(), wait_seconds=30)
        for days in (70, 35, 0):
            clock.time = now - datetime.timedelta(days=days)
            await log.record(DRAFT)
        async with database.read() as connection:
            before = await list_records(connection, AuditQuery(), 10)
        await migrate(database)
        async with database.read() as connection:
            assert await list_records(connection, AuditQuery(), 10) == before
        assert len(set((await places(database)).values())) == 3
    finally:
        await database.close()
