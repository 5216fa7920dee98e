"""The threat rules over a real log, on every database: nothing that they find is lost, whatever fails meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import event, insert, text

from tests.contract.test_follower import database
from vault.clock import SystemClock
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.core.suspicions import Thresholds
from vault.core.threats import Threats, ThreatSettings
from vault.errors import Reason, VaultError
from vault.model import AuditDraft, Origin, Outcome
from vault.store import threats as store
from vault.store.reach import ALL_TENANTS, declared
from vault.store.rows import COLUMNS, canonical_json
from vault.store.tables import credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vault.store.engine import Database

__all__ = ["database"]

HOME, AWAY = "192.0.2.1", "198.51.100.1"
NEVER = "CAST(x'ff' AS TEXT)", "'0044-03-15 BC'"
"""A moment that no datetime can be, in SQLite and in PostgreSQL."""


class Vault:
    """A log, and who watches it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.log = AuditLog(database, SystemClock(), Load(), wait_seconds=30)
        self.told: list[str] = []
        nobody = cast("Any", None)  # nothing is frozen here, and no caller asks
        settings = ThreatSettings(Thresholds(denied_per_minute=5, reveals_per_minute=10, reveal_factor=3), {})
        self.threats = Threats(settings, database, self.log, nobody, nobody, SystemClock(), self.told.append)

    async def record(self, count: int = 1, *, address: str = HOME, reason: str = "") -> None:
        outcome = Outcome.REFUSED if reason else Outcome.GRANTED
        draft = AuditDraft("acme", "me", "session.use.hmac", "acme/a", outcome, Origin(address), reason)
        await self.log.record(*[draft] * count)

    async def found(self) -> list[str]:
        async with self.database.read() as connection:
            listed = await store.list_threats(connection, "", only_open=False, before=1 << 40, limit=100)
        return sorted(one.rule for one in listed)


@pytest.fixture
async def vault(database: Database) -> AsyncIterator[Vault]:
    with declared(ALL_TENANTS):
        made = Vault(database)
        await made.threats.start()
        yield made


async def test_each_record_is_judged_once_in_however_many_looks(vault: Vault) -> None:
    await vault.record(10)
    await vault.threats.look()
    await vault.record(10)
    await vault.threats.look()
    await vault.threats.look()
    await vault.record(address=AWAY)
    await vault.record(4, reason="SCOPE_DENIED")
    await vault.threats.look()
    assert await vault.found() == vault.told == ["new-network"]
    await vault.record(1, reason="SCOPE_DENIED")
    await vault.threats.look()
    await vault.threats.look()
    assert await vault.found() == sorted(vault.told) == ["denied-burst", "new-network"]


@pytest.mark.parametrize("times", [1, 3])
async def test_what_could_not_be_recorded_is_recorded_as_soon_as_it_can_be(
    vault: Vault, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await vault.record(20)
    await vault.record(address=AWAY)
    await vault.record(5, reason="SCOPE_DENIED")

    async def fail(_unit: object) -> None:
        raise VaultError(Reason.AUDIT_UNAVAILABLE, "not now")

    with monkeypatch.context() as patched:
        patched.setattr(vault.log, "commit", fail)
        for _ in range(times):
            with pytest.raises(VaultError, match="not now"):
                await vault.threats.look()
    assert await vault.found() == []
    await vault.threats.look()
    assert await vault.found() == sorted(vault.told) == ["denied-burst", "new-network"]


async def test_a_record_that_nobody_can_read_does_not_end_the_watch(vault: Vault) -> None:
    await vault.record(30)
    moment = NEVER[vault.database.is_postgresql]
    columns = ("created_at",) if vault.database.is_postgresql else ("created_at", "user_id", "device_id")
    async with vault.database.write() as connection:
        for sequence, column in enumerate(columns):
            statement = f"UPDATE audit_records SET {column} = {moment} WHERE sequence = {sequence}"
            await connection.execute(text(statement))
    await vault.record(address=AWAY)
    await vault.threats.look()
    assert await vault.found() == vault.told == ["new-network"]


async def test_canaries_are_found_without_a_look_at_the_credentials_that_are_none(vault: Vault) -> None:
    moment = SystemClock().now()
    labels = [{"canary": "true", "team": "x"}, {"canary": "false"}, {"team": "canary"}, {"my-canary": "true"}]
    rows = [
        {
            **dict.fromkeys(COLUMNS["credentials"]),
            **dict.fromkeys(("kind", "etag", "created_by", "updated_by"), "x"),
            "name": f"acme/{number}",
            "tenant": "acme",
            "labels": canonical_json(labels[number] if number < len(labels) else {}),
            "state": "active",
            "latest_version": 1,
            "field_names": "[]",
            "create_time": moment,
            "update_time": moment,
        }
        for number in range(2000)
    ]
    asked = ""

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        nonlocal asked
        assert not parameters, "a database plans for parameters that it does not know"
        asked = statement

    async with vault.database.write() as connection:
        await connection.execute(insert(credentials), rows)
        event.listen(connection.sync_connection, "before_cursor_execute", note)
        assert await store.canaries(connection) == {"acme/0"}
        event.remove(connection.sync_connection, "before_cursor_execute", note)
        explain = "EXPLAIN" if vault.database.is_postgresql else "EXPLAIN QUERY PLAN"
        plan = (await connection.exec_driver_sql(f"{explain} {asked}")).all()
    assert "credentials_canary" in str(plan), plan
