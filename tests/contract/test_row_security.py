"""PostgreSQL's row-level security, as the server's role meets it with SQL by hand: the second wall between tenants."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import secrets
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import Integer, LargeBinary, String, Text, text

from tests.support.databases import migrated
from tests.support.postgres import OWNER, SERVER, SUPERUSER, owner_url
from vault.clock import SystemClock
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.errors import StartError
from vault.model import AuditDraft, Origin, Outcome
from vault.store import reach
from vault.store.engine import Database, connect
from vault.store.grants import APPEND_ONLY
from vault.store.ledger import Commit, Rows, Unit
from vault.store.owners import COLUMNS, SHARED
from vault.store.row_security import why_unsafe
from vault.store.rows import RowKey, Write
from vault.store.schema import migrate
from vault.store.tables import UtcDateTime, metadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Column, Table

    from tests.support.postgres import Postgres

NOW = datetime.datetime.now(datetime.UTC)
TENANTS = ("acme", "globex")
DRAFT = AuditDraft("acme", "me", "test", "", Outcome.GRANTED, Origin())


@pytest.fixture(scope="module")
def name(postgres: Postgres) -> str:
    """A migrated database with a row of each tenant in every table that has an owner."""
    name = f"walls_{secrets.token_hex(6)}"
    url = postgres.create_database(name)

    async def fill() -> None:
        await (await migrated(url)).close()
        owner = connect(owner_url(url))
        async with owner.write() as connection:
            for table in metadata.sorted_tables:
                if table.name in COLUMNS:
                    for number, tenant in enumerate(TENANTS):
                        await connection.execute(table.insert(), row(table, tenant, number))
        await owner.close()

    asyncio.run(fill())
    return name


@pytest.fixture
async def server(postgres: Postgres, name: str) -> AsyncIterator[asyncpg.Connection]:
    """The server's role, with a connection that nothing was declared on."""
    connection = await asyncpg.connect(postgres.url(name))
    yield connection
    await connection.close()


def row(table: Table, tenant: str, number: int) -> dict[str, Any]:
    return {column.name: value(table, column, tenant, number) for column in table.columns}


def value(table: Table, column: Column[Any], tenant: str, number: int) -> Any:
    if column.name == COLUMNS[table.name]:
        return tenant if column.name == "tenant" else f"{tenant}/a/b"
    match column.type:
        case UtcDateTime():
            return NOW
        case Integer():
            return number
        case LargeBinary():
            return b"x"
        case String() | Text():
            return str(number)
    raise AssertionError(column)


@contextlib.asynccontextmanager
async def declaring(connection: asyncpg.Connection, *tenants: str) -> AsyncIterator[None]:
    """A transaction that declares, and is undone."""
    await connection.execute(f"BEGIN; SET LOCAL strongroom.tenants = '{reach.as_array(reach.of(*tenants))}'")
    try:
        yield
    finally:
        await connection.execute("ROLLBACK")


async def seen(connection: asyncpg.Connection, table: str) -> set[str]:
    column = COLUMNS[table]
    return {found[0].partition("/")[0] for found in await connection.fetch(f'SELECT "{column}" FROM {table}')}


async def allowed(connection: asyncpg.Connection, statement: str) -> bool:
    """Whether a statement goes through; it is undone either way."""
    await connection.execute("SAVEPOINT before")
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    finally:
        await connection.execute("ROLLBACK TO before")
    return True


def test_every_table_says_whose_its_rows_are() -> None:
    """A new table without a column `tenant` is either in `owners.BY_NAME` or, with its reason, in `owners.SHARED`."""
    for table in metadata.sorted_tables:
        if table.name in SHARED:
            assert "tenant" not in table.columns
        else:
            assert COLUMNS[table.name] in table.columns, table.name
    assert set(SHARED) <= set(metadata.tables)


async def test_who_declares_nothing_sees_nothing_in_any_table(server: asyncpg.Connection) -> None:
    for table in COLUMNS:
        assert await seen(server, table) == set(), table


async def test_a_declared_tenant_sees_its_own_rows_and_all_see_all(server: asyncpg.Connection) -> None:
    for table in COLUMNS:
        async with declaring(server, "globex"):
            assert await seen(server, table) == {"globex"}, table
        async with declaring(server, "acme", "globex"):
            assert await seen(server, table) == {"acme", "globex"}, table
        async with declaring(server, "*"):
            assert await seen(server, table) == {"acme", "globex"}, table
        async with declaring(server, "acm", "acme,globex", 'x","globex', "%", ""):
            assert await seen(server, table) == set(), table


async def test_nobody_writes_for_a_tenant_that_was_not_declared(server: asyncpg.Connection) -> None:
    for table in COLUMNS:
        columns = [f'"{column.name}"' for column in metadata.tables[table].columns]
        owner = COLUMNS[table]
        moved = [
            f"replace({column}, 'acme', 'globex')"
            if column == f'"{owner}"'
            else ("7" if isinstance(metadata.tables[table].c[column.strip('"')].type, Integer) else column)
            for column in columns
        ]
        async with declaring(server, "acme"):
            insert = f"INSERT INTO {table} SELECT {', '.join(moved)} FROM {table}"
            assert not await allowed(server, insert), table
            if table not in APPEND_ONLY:
                assert not await allowed(server, f"UPDATE {table} SET {owner} = 'globex/a/b'"), table
                changed = await server.execute(
                    f"UPDATE {table} SET {owner} = {owner} WHERE {owner} LIKE 'globex%'"
                )
                assert changed == "UPDATE 0", table


async def test_what_was_declared_ends_with_the_transaction(postgres: Postgres, name: str) -> None:
    database = connect(postgres.url(name), pool_size=1)
    statement = text("SELECT tenant FROM credentials")
    try:
        for _ in range(2):
            async with database.read(reach.of("acme")) as connection:
                assert list((await connection.execute(statement)).scalars()) == ["acme"]
            async with database.read(reach.NOBODY) as connection:
                assert list((await connection.execute(statement)).scalars()) == []
        with pytest.raises(ZeroDivisionError):
            async with database.write(reach.of("acme")) as connection:
                assert list((await connection.execute(statement)).scalars()) == ["acme"]
                raise ZeroDivisionError
        async with database.write(reach.NOBODY) as connection:
            assert list((await connection.execute(statement)).scalars()) == []
        async with database.snapshot(reach.of("globex")) as connection:
            assert list((await connection.execute(statement)).scalars()) == ["globex"]
    finally:
        await database.close()


async def test_the_servers_role_can_neither_leave_nor_lower_the_wall(server: asyncpg.Connection) -> None:
    month = f"audit_records_{NOW:%Y_%m}"
    await server.execute("SET row_security = off")
    # Off means: fail where a policy would have hidden something.
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server.fetch("SELECT * FROM credentials")
    await server.execute("RESET row_security")
    async with declaring(server, "*"):
        for statement in (
            f"SET ROLE {OWNER}",
            f"SET SESSION AUTHORIZATION {SUPERUSER}",
            "ALTER TABLE credentials DISABLE ROW LEVEL SECURITY",
            "DROP POLICY tenants_declared ON credentials",
            "CREATE POLICY open ON credentials USING (true)",
            f"GRANT {OWNER} TO {SERVER}",
            "CREATE TABLE mine (id int)",
            "CREATE VIEW mine AS SELECT * FROM credentials",
            # Past the policies of the table that they belong to, and of the view's owner.
            f"SELECT * FROM {month}",
            "SELECT * FROM audit_records_default",
            "SELECT * FROM payment_audits",
        ):
            assert not await allowed(server, statement), statement


async def test_the_log_is_append_only_for_the_servers_role(server: asyncpg.Connection) -> None:
    async with declaring(server, "*"):
        for table in sorted(APPEND_ONLY):
            for statement in (
                f"UPDATE {table} SET {next(iter(metadata.tables[table].columns)).name} = NULL",
                f"DELETE FROM {table}",
                f"TRUNCATE {table}",
            ):
                assert not await allowed(server, statement), statement
        for statement in (
            "DELETE FROM audit_head",
            "TRUNCATE audit_head",
            "INSERT INTO audit_head VALUES (2, 0, '')",
        ):
            assert not await allowed(server, statement), statement


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    database = await migrated(postgres.create_database(f"walls_{secrets.token_hex(6)}"))
    yield database
    await database.close()


def tenant_row(tenant: str, version: int) -> dict[str, Any]:
    return {"tenant": tenant, "kek_version": version, "create_time": NOW, "created_by": "me"}


async def test_callers_that_share_a_transaction_do_not_share_their_rows(database: Database) -> None:
    log = AuditLog(database, SystemClock(), Load(), wait_seconds=60)
    key = RowKey("tenants", ("globex",))

    async def commit(whose: reach.Reach, unit: Unit) -> Any:
        with reach.declared(whose):
            return await log.commit(unit)

    await commit(
        reach.ALL_TENANTS,
        Unit((), lambda _r, _n: Commit((DRAFT,), (Write("tenants", tenant_row("globex", 1)),))),
    )

    def look(rows: Rows, _now: datetime.datetime) -> Commit:
        return Commit((), (), rows.get("tenants", "globex"))

    def write(_rows: Rows, _now: datetime.datetime) -> Commit:
        return Commit((), (Write("tenants", tenant_row("globex", 9)),))

    def tell(_rows: Rows, _now: datetime.datetime) -> Commit:
        return Commit((AuditDraft("globex", "me", "test", "", Outcome.GRANTED, Origin()),))

    theirs, own, written, told = await asyncio.gather(
        commit(reach.of("acme"), Unit((key,), look)),
        commit(reach.of("globex"), Unit((key,), look)),
        commit(reach.of("acme"), Unit((key,), write)),
        commit(reach.of("acme"), Unit((), tell)),
        return_exceptions=True,
    )
    assert theirs is None
    assert own["kek_version"] == 1
    assert isinstance(written, RuntimeError)
    assert isinstance(told, RuntimeError)
    assert (await commit(reach.of("globex"), Unit((key,), look)))["kek_version"] == 1


ROLES = [
    ("CREATE ROLE {} LOGIN SUPERUSER", "is a superuser"),
    ("CREATE ROLE {} LOGIN BYPASSRLS", "has BYPASSRLS"),
    (f"CREATE ROLE {{}} LOGIN IN ROLE {OWNER}", "owns the tables"),
    ("CREATE ROLE {} LOGIN CREATEROLE", "may make roles"),
    ("CREATE ROLE {} LOGIN; GRANT CREATE ON SCHEMA public TO {}", "may make tables"),
    ("CREATE ROLE {} LOGIN; GRANT SELECT ON payment_audits TO {}", "may read payment_audits"),
    ("CREATE ROLE {} LOGIN; GRANT DELETE ON audit_records TO {}", "may change audit_records"),
    ("CREATE ROLE {} LOGIN; GRANT UPDATE (outcome) ON audit_records TO {}", "may change audit_records"),
]


async def test_a_role_that_is_not_behind_the_wall_is_told_from_one_that_is(
    postgres: Postgres, database: Database
) -> None:
    name = await database_name(database)
    assert await why_unsafe(database) is None
    for statement, why in ROLES:
        role = f"role_{secrets.token_hex(6)}"
        postgres.sql(name, statement.replace("{}", role))
        other = connect(postgres.url(name, role))
        try:
            unsafe = await why_unsafe(other)
            assert unsafe is not None
            assert why in unsafe.why
        finally:
            await other.close()
    for statement, undo, why, mend in (
        (
            "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE jobs ENABLE ROW LEVEL SECURITY",
            "does not hold for jobs",
            "strongroom migrate",
        ),
        ("CREATE POLICY open ON keys USING (true)", "DROP POLICY open ON keys", "keys has other policies",
         'DROP POLICY "open" ON keys'),
    ):  # fmt: skip
        postgres.sql(name, statement)
        unsafe = await why_unsafe(database)
        assert unsafe is not None
        assert (why in unsafe.why, mend in unsafe.mend) == (True, True), unsafe
        postgres.sql(name, undo)
    assert await why_unsafe(database) is None


async def test_migrating_again_mends_policies_and_grants_and_else_touches_nothing(
    postgres: Postgres, database: Database
) -> None:
    name = await database_name(database)
    policies = "SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_policy"
    before = postgres.sql(name, policies)
    await (await migrated(postgres.url(name))).close()
    assert postgres.sql(name, policies) == before
    postgres.sql(name, "DROP POLICY tenants_declared ON keys; ALTER TABLE jobs DISABLE ROW LEVEL SECURITY")
    postgres.sql(name, f"GRANT UPDATE, DELETE ON audit_records TO {SERVER}")
    assert await why_unsafe(database) is not None
    await (await migrated(postgres.url(name))).close()
    assert await why_unsafe(database) is None


async def test_a_role_that_is_not_there_stops_the_migration(postgres: Postgres) -> None:
    owner = connect(owner_url(postgres.create_database(f"walls_{secrets.token_hex(6)}")))
    try:
        with pytest.raises(StartError, match="there is no role nobody_at_all"):
            await migrate(owner, server_role="nobody_at_all")
    finally:
        await owner.close()


async def database_name(database: Database) -> str:
    async with database.read() as connection:
        found: str = (await connection.execute(text("SELECT current_database()"))).scalar_one()
    return found
