"""The state held against the log: every row that is not as it was written is named, by what was done to it."""

from __future__ import annotations

import datetime
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from tests.support.databases import migrated
from tests.support.postgres import owner_url
from vault.clock import SystemClock
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.core.inspection import inspect
from vault.core.state import UNVOUCHED, VOUCHED
from vault.model import AuditDraft, Origin, Outcome
from vault.store.engine import Database, connect
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write
from vault.store.tables import metadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def test_every_table_is_vouched_for_or_is_listed_as_one_that_is_not() -> None:
    assert set(VOUCHED) | UNVOUCHED == set(metadata.tables)
    assert "credentials" in VOUCHED
    assert "approvals" in VOUCHED


class Vault:
    """A database with a few rows, each written through the ledger."""

    def __init__(self, database: Database, owner: Database) -> None:
        self.database = database
        self._owner = owner
        self.log = AuditLog(database, SystemClock(), Load(), wait_seconds=30)

    async def write(self, table: str, row: dict[str, Any], *key: Any) -> None:
        draft = AuditDraft("acme", "me", "test", "", Outcome.GRANTED, Origin())
        commit = Commit((draft,), (Write(table, row),))
        await self.log.commit(Unit((RowKey(table, key),), lambda _rows, _now: commit))

    async def tenant(self, name: str, version: int) -> None:
        row = {"tenant": name, "kek_version": version, "create_time": NOW, "created_by": "me"}
        await self.write("tenants", row, name)

    async def sql(self, statement: str) -> None:
        """As whoever owns the tables may."""
        async with self._owner.write() as connection:
            await connection.execute(text(statement))

    async def findings(self, now: datetime.datetime | None = None) -> list[str]:
        report = await inspect(self.database, "strongroom/audit", [], now or SystemClock().now())
        return report.findings


@pytest.fixture(params=["sqlite", "postgresql"])
async def vault(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Vault]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/state.db"
    else:
        url = request.getfixturevalue("postgres").create_database(f"state_{secrets.token_hex(6)}")
    database, owner = await migrated(url), connect(owner_url(url))
    made = Vault(database, owner)
    for version in (1, 2, 3):
        for name in ("a", "b", "c"):
            await made.tenant(name, version * 10 + ord(name))
    yield made
    await owner.close()
    await database.close()


async def test_rows_as_they_were_written_are_no_findings(vault: Vault) -> None:
    assert await vault.findings() == []


CASES = [
    ("UPDATE tenants SET created_by = 'you' WHERE tenant = 'b'",
     ["row tenants:b: it was edited, it is not what record 7 wrote"]),
    ("DELETE FROM tenants WHERE tenant = 'b'",
     ["row tenants:b: it was deleted; record 7 wrote it last"]),
    ("INSERT INTO tenants SELECT 'd', kek_version, create_time, created_by FROM tenants WHERE tenant = 'a'",
     ["row tenants:d: it was inserted, no record says that it was written"]),
    ("UPDATE tenants SET kek_version = 20 + 98 WHERE tenant = 'b'",
     ["row tenants:b: it was rolled back to what record 4 wrote; record 7 wrote it last"]),
    (("UPDATE tenants SET tenant = CASE tenant WHEN 'a' THEN 'x' ELSE 'y' END WHERE tenant IN ('a', 'b');"
      "UPDATE tenants SET tenant = CASE tenant WHEN 'x' THEN 'b' ELSE 'a' END WHERE tenant IN ('x', 'y')"),
     ["row tenants:a: it was swapped, it holds what belongs to tenants:b",
      "row tenants:b: it was swapped, it holds what belongs to tenants:a"]),
    ("UPDATE tenants SET tenant = 'z' WHERE tenant = 'c'",
     ["row tenants:z: it was inserted, no record says that it was written",
      "row tenants:c: it was deleted; record 8 wrote it last"]),
]  # fmt: skip


async def test_what_was_done_to_a_row_is_named(vault: Vault) -> None:
    """Edited, deleted, inserted, rolled back, swapped, renamed."""
    await vault.sql("CREATE TABLE kept AS SELECT * FROM tenants")
    for statements, said in CASES:
        for statement in statements.split(";"):
            await vault.sql(statement)
        assert await vault.findings() == said
        await vault.sql("DELETE FROM tenants")
        await vault.sql("INSERT INTO tenants SELECT * FROM kept")
        assert await vault.findings() == []


async def test_a_revocation_may_go_when_no_token_can_be_alive_and_not_before(vault: Vault) -> None:
    end = SystemClock().now()
    row = {
        "tenant": "a", "token_id": "A" * 22, "revoked_by": "me", "revoke_time": end, "forget_time": end,
    }  # fmt: skip
    await vault.write("revocations", row, "a", "A" * 22)
    assert await vault.findings() == []
    await vault.sql("DELETE FROM revocations")
    assert await vault.findings() == [f"row revocations:a/{'A' * 22}: it was deleted; record 9 wrote it last"]
    assert await vault.findings(end + datetime.timedelta(hours=25)) == []


async def test_what_is_written_while_the_rows_are_read_is_no_finding(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vault.core import inspection

    read = inspection.read_rows

    async def meanwhile(*arguments: Any) -> None:
        await vault.tenant("a", 77)
        await read(*arguments)
        await vault.tenant("b", 78)
        await vault.tenant("new", 1)

    monkeypatch.setattr(inspection, "read_rows", meanwhile)
    assert await vault.findings() == []
