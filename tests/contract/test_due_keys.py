"""Which keys are due: found by the database itself, on both kinds, however many keys there are that are not."""

from __future__ import annotations

import datetime
import secrets
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert

from hsm import KeyRef
from hsm.usage import UsageCounter
from tests.support.databases import migrated
from vault.core.schedules import Schedules
from vault.model import Key, KeyPurpose, KeySchedule, KeyState
from vault.store import keys
from vault.store.engine import Database
from vault.store.tables import key_schedules, key_usage
from vault.store.tables import keys as key_table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)
DAY = 86_400


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/keys.db"
    else:
        url = request.getfixturevalue("postgres").create_database(f"keys_{secrets.token_hex(6)}")
    database = await migrated(url)
    yield database
    await database.close()


async def add(
    database: Database,
    tenant: str,
    *,
    days: float = 0,
    wraps: int = 0,
    every: int = 0,
    most: int = 0,
    state: KeyState = KeyState.ACTIVE,
) -> None:
    """A key of that age and use, with a schedule if it says something."""
    key = Key(
        tenant=tenant,
        purpose=KeyPurpose.KEK,
        version=1,
        state=state,
        algorithm="AES-256",
        backend="pkcs11:1",
        label=tenant,
        object_id=secrets.token_bytes(16),
        create_time=NOW - datetime.timedelta(days=days),
        created_by="test",
    )
    async with database.write() as connection:
        await connection.execute(insert(key_table).values(keys.key_row(key)))
        if wraps:
            await connection.execute(insert(key_usage).values(object_id=key.object_id, wraps=wraps))
        if every or most:
            schedule = KeySchedule(tenant, KeyPurpose.KEK, every, most, False, NOW, "test")
            await connection.execute(insert(key_schedules).values(keys.schedule_row(schedule)))


async def test_a_key_is_due_by_age_by_number_and_when_it_is_worn_out_and_else_not(database: Database) -> None:
    await add(database, "old", days=2, every=DAY)
    await add(database, "young", days=0.5, every=DAY)
    await add(database, "patient", days=2, every=30 * DAY)
    await add(database, "busy", wraps=10, most=10)
    await add(database, "calm", wraps=9, most=10)
    await add(database, "worn-out", wraps=1000)
    await add(database, "unscheduled", days=900, wraps=999)
    await add(database, "unused", most=10)
    await add(database, "replaced", days=2, wraps=1000, every=DAY, most=1, state=KeyState.DECRYPT_ONLY)
    async with database.read() as connection:
        due = await keys.due_keys(connection, NOW, worn_out=1000)
    assert {key.tenant: by_wraps for key, by_wraps in due} == {
        "old": False,
        "busy": True,
        "worn-out": True,
    }


async def test_of_many_keys_the_use_of_those_that_are_asked_for_is_told(database: Database) -> None:
    ids = [secrets.token_bytes(16) for _ in range(2500)]
    await keys.add_usage(database, dict.fromkeys(ids[:3], 1))
    await keys.add_usage(database, {ids[1]: 4, ids[2400]: 2})
    async with database.read() as connection:
        assert await keys.usage(connection, ids[1:]) == {ids[1]: 5, ids[2]: 1, ids[2400]: 2}
        assert await keys.usage(connection, []) == {}


class Counting:
    """Of a backend, what counts."""

    def __init__(self) -> None:
        self.counter = UsageCounter()
        self.usage, self.note_usage = self.counter.snapshot, self.counter.note
        self.settle_usage = self.counter.settle


def process(database: Database, *backends: Counting) -> Schedules:
    nothing: Any = None
    hsm: Any = SimpleNamespace(backends=dict(enumerate(backends)))
    return Schedules(database, hsm, nothing, nothing, nothing, nothing, nothing)


async def test_wraps_add_up_over_processes_and_none_keeps_more_than_the_worn_keys(database: Database) -> None:
    key = KeyRef("t/kek/v1", secrets.token_bytes(16))
    first, mirror, other = Counting(), Counting(), Counting()
    processes = process(database, first, mirror), process(database, other)

    async def total() -> int:
        for one in processes:
            await one.count()
        async with database.read() as connection:
            return (await keys.usage(connection, [key.object_id]))[key.object_id]

    for backend in (first, first, mirror, mirror, other):
        backend.counter.spend(key)
    assert await total() == 3
    assert [backend.usage() for backend in (first, mirror, other)] == [{}, {}, {}]
    first.counter.spend(key)
    assert await total() == 4

    await keys.add_usage(database, {key.object_id: 2**28})
    first.counter.spend(key)
    assert await total() == 2**28 + 5
    assert first.usage() == {key: 2**28 + 5}, "near its limit a key is refused by the process itself"
    first.counter.spend(key)
    assert await total() == 2**28 + 6
