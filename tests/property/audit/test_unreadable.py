"""Whatever bytes lie in whatever column, the verifier names the record, the checkpoint or the row, and goes on."""

from __future__ import annotations

import asyncio
import datetime
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from tests.support.audit_log import ORIGIN, Copy
from vault.core import export
from vault.core.inspection import inspect
from vault.crypto.errors import FormatError
from vault.errors import Reason, VaultError
from vault.model import AuditQuery
from vault.store import audit as store
from vault.store.tables import audit_head, audit_records, checkpoints, tenants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.postgres import Postgres

# As SQL, since no parameter can be text that is not UTF-8.
VALUES = {
    "text that is not UTF-8": "CAST(x'ff22fe' AS TEXT)",
    "bytes": "x'00ff'",
    "text": "'\U0001f9e8'",
    "a number": "1.5",
    "a great number": "9223372036854775807",
    "a moment that is none": "'2026-01-01 00:00:61.000000'",
    "a moment beyond the calendar": "'9999-12-31 23:59:59.999999-01:00'",
    "JSON without end": "'" + "[" * 100_000 + "'",
    "half a character": """'{"\\ud800":"00"}'""",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    async def make() -> Copy:
        made = Copy(tmp_path_factory.mktemp("unreadable") / "log.db")
        await made.make()
        await made.database.close()
        return made

    return asyncio.run(make())


@pytest.fixture
async def copy(made: Copy) -> AsyncIterator[Copy]:
    await made.reopen()
    yield made
    await made.database.close()


async def found_after(copy: Copy, statement: str, *, state: bool = False) -> list[str]:
    db = copy.open()
    try:
        assert db.execute(statement).rowcount == 1
        return await copy.findings(copy.anchors, state=state)
    finally:
        copy.restore(db)
        db.close()


def columns_of(table: Any) -> list[str]:
    """All but SQLite's own numbers of rows, which hold nothing but numbers."""
    return [column.name for column in table.columns if column.name not in ("sequence", "size", "id")]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_a_record_is_named_whichever_column_cannot_be_read(copy: Copy, value: str) -> None:
    for column in ["id", *columns_of(audit_records)]:
        statement = f"UPDATE audit_records SET {column} = {value} WHERE sequence = 5"
        assert "sequence 5: the record was altered" in await found_after(copy, statement), column


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_a_checkpoint_is_named_whichever_column_cannot_be_read(copy: Copy, value: str) -> None:
    for column in columns_of(checkpoints):
        if (column, value) == ("create_time", VALUES["a moment beyond the calendar"]):
            continue  # the moment is not what is signed, and on SQLite no zone is read
        statement = f"UPDATE checkpoints SET {column} = {value} WHERE size = 10"
        found = await found_after(copy, statement)
        assert any(line.startswith("checkpoint 10:") for line in found), column


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_a_head_that_cannot_be_read_is_named(copy: Copy, value: str) -> None:
    for column in ["size", *columns_of(audit_head)]:
        found = await found_after(copy, f"UPDATE audit_head SET {column} = {value}")
        assert found, column
        assert any(line.startswith(("head", "sequence 22")) for line in found), (column, found)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_a_row_is_named_whichever_column_cannot_be_read(copy: Copy, value: str) -> None:
    for column in columns_of(tenants):
        found = await found_after(
            copy, f"UPDATE tenants SET {column} = {value} WHERE tenant = 't3'", state=True
        )
        assert any("row tenants:t3:" in line for line in found), (column, found)


async def test_a_node_of_the_tree_is_named_if_it_is_another_or_cannot_be_read(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "log.db")
    await copy.make(260)
    try:
        for value in (*VALUES.values(), "zeroblob(32)"):
            found = await found_after(copy, f"UPDATE tree_nodes SET hash = {value} WHERE level = 1")
            assert found == ["tree node 1/0: it is not the one that the records make"], value
    finally:
        await copy.database.close()


async def test_a_head_that_is_gone_or_there_twice_is_named(copy: Copy) -> None:
    for statement in (
        "DELETE FROM audit_head",
        "INSERT INTO audit_head SELECT 2, size, frontier FROM audit_head",
    ):
        assert "head: it cannot be read" in await found_after(copy, statement)


async def test_who_reads_a_record_that_cannot_be_read_is_told_which(copy: Copy) -> None:
    db = copy.open()
    try:
        db.execute("UPDATE audit_records SET created_at = 'never' WHERE sequence = 5")
        async with copy.database.read() as connection:
            with pytest.raises(VaultError, match="record 5 cannot be read") as refused:
                await store.list_records(connection, AuditQuery(), 10)
            assert refused.value.reason is Reason.STORED_DATA_DAMAGED
            assert len(await store.list_records(connection, AuditQuery(first=6), 10)) == 10
        source = await export.of_database(copy.database, ORIGIN, [copy.verifier])
        with pytest.raises(VaultError, match="record 5 cannot be read"):
            [text async for _, text in export.pages(source)]
        db.execute("UPDATE audit_records SET ip_address = 'nowhere' WHERE sequence = 6")
        async with copy.database.read() as connection:
            query = AuditQuery(first=6, network="192.0.2.0/24")
            assert (await store.list_records(connection, query, 1))[0].sequence == 7
    finally:
        copy.restore(db)
        db.close()


async def test_who_reads_a_checkpoint_that_cannot_be_read_is_told_which(copy: Copy) -> None:
    db = copy.open()
    try:
        db.execute("UPDATE checkpoints SET create_time = 'never' WHERE size = 20")
        async with copy.database.read() as connection:
            with pytest.raises(VaultError, match="checkpoint 20 cannot be read") as refused:
                await store.latest_checkpoint(connection)
        assert refused.value.reason is Reason.STORED_DATA_DAMAGED
    finally:
        copy.restore(db)
        db.close()


def test_an_export_that_nests_without_end_is_refused() -> None:
    header = export.header_line(export.Header(ORIGIN, ("k",), export.merkle.EMPTY))
    with pytest.raises(FormatError, match="line 2: nested too deep"):
        list(export.read([header, "[" * 100_000]))


@pytest.mark.parametrize("where", ["record", "checkpoint", "header"])
def test_an_export_that_two_readers_could_read_differently_is_refused(where: str) -> None:
    """Of a member that is there twice one takes the first, another the last."""
    row = dict.fromkeys(export.COLUMNS, "x") | {
        "sequence": 0, "created_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "leaf_hash": bytes(32),
    }  # fmt: skip
    lines = {
        "header": export.header_line(export.Header(ORIGIN, ("k",), export.merkle.EMPTY)),
        "record": export.record_line(row),
        "checkpoint": export.checkpoint_line(1, "note", bytes(8)),
    }
    assert len(list(export.read(lines.values()))) == 3
    twice = {"record": '"user_id":"x",', "checkpoint": '"size":1,', "header": f'"origin":"{ORIGIN}",'}[where]
    assert lines[where].count(twice) == 1
    lines[where] = lines[where].replace(twice, twice * 2)
    with pytest.raises(FormatError, match="a member is there twice"):
        list(export.read(lines.values()))


async def test_a_moment_that_only_postgresql_knows_is_named(postgres: Postgres, tmp_path: Path) -> None:
    made = Copy(tmp_path, postgres.create_database(f"unreadable_{secrets.token_hex(6)}"))
    now = datetime.datetime.now(datetime.UTC)
    try:
        await made.make(12)
        for moment in ("infinity", "-infinity", "4713-01-01 BC", "20000-01-01"):
            for statement, named in (
                ("UPDATE audit_records SET created_at = '{}' WHERE sequence = 5", "sequence 5: the record was altered"),
                ("UPDATE tenants SET create_time = '{}' WHERE tenant = 't3'", "row tenants:t3: it was edited"),
            ):  # fmt: skip
                async with made.database.write() as connection:
                    await connection.execute(text("CREATE TABLE kept_records AS SELECT * FROM audit_records"))
                    await connection.execute(text("CREATE TABLE kept_tenants AS SELECT * FROM tenants"))
                    await connection.execute(text(statement.format(moment)))
                report = await inspect(made.database, ORIGIN, [made.verifier], now)
                assert any(line.startswith(named) for line in report.findings), (moment, report.findings)
                async with made.database.write() as connection:
                    for table in ("audit_records", "tenants"):
                        kept = f"kept_{table.rpartition('_')[2]}"
                        await connection.execute(text(f"DELETE FROM {table}"))
                        await connection.execute(text(f"INSERT INTO {table} SELECT * FROM {kept}"))
                        await connection.execute(text(f"DROP TABLE {kept}"))
        assert (await inspect(made.database, ORIGIN, [made.verifier], now)).findings == []
    finally:
        await made.database.close()


async def test_a_record_that_is_there_twice_is_found_also_where_a_page_ends(
    postgres: Postgres, tmp_path: Path
) -> None:
    made = Copy(tmp_path, postgres.create_database(f"twice_{secrets.token_hex(6)}"))
    database = made.database
    try:
        await made.make(12)
        async with database.write() as connection:
            await connection.execute(
                text(
                    "INSERT INTO audit_records SELECT sequence, id, created_at + interval '1 second', tenant, user_id, "
                    "action_type, resource, outcome, reason, ip_address, device_id, request_id, token_id, session_id, "
                    "before_state, after_state, rows_written, leaf_hash FROM audit_records WHERE sequence = 4"
                )
            )
        rows = [row async for page in store.stream_rows(database, 0, 12, page=5) for row in page]
        assert [row["sequence"] for row in rows] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11]
    finally:
        await database.close()
