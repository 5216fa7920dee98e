"""A worker follows the log of all; on every database. A log that is not the one it followed is found at once."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import asyncpg
import pytest
from sqlalchemy import delete, update

from tests.support.databases import migrated
from tests.support.postgres import owner_url
from vault.clock import SystemClock
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.core.follower import Follower
from vault.crypto import merkle
from vault.errors import Reason, VaultError
from vault.model import AuditDraft, Origin, Outcome
from vault.store.engine import Database, connect
from vault.store.ledger import Head, read_head
from vault.store.tables import audit_head, audit_records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """As whoever owns the tables: nobody else could set them back."""
    url = f"sqlite:///{tmp_path}/log.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create_database(f"follower_{secrets.token_hex(6)}")
    await (await migrated(url)).close()
    made = connect(owner_url(url))
    yield made
    await made.close()


async def grow(database: Database, count: int = 3) -> Head:
    log = AuditLog(database, SystemClock(), Load(), wait_seconds=30)
    await log.record(*[AuditDraft("acme", "me", "test", "", Outcome.GRANTED, Origin())] * count)
    async with database.read() as connection:
        return await read_head(connection)


async def set_back(database: Database, head: Head) -> None:
    async with database.write() as connection:
        await connection.execute(delete(audit_records).where(audit_records.c.sequence >= head.size))
        frontier = merkle.encode_frontier(head.frontier)
        await connection.execute(update(audit_head).values(size=head.size, frontier=frontier))


@pytest.fixture
async def follower(database: Database) -> Follower:
    made = Follower(database, SystemClock())
    await made.start()
    return made


async def test_a_log_that_only_grows_is_trusted(database: Database, follower: Follower) -> None:
    for _ in range(3):
        await grow(database)
        for _ in range(2):
            await follower.look()
            assert follower.fresh


@pytest.mark.parametrize("grown", [0, 1, 5, 6, 7, 300], ids=lambda count: f"and grew by {count}")
async def test_a_log_that_was_set_back_is_not_trusted_any_more(
    database: Database, follower: Follower, grown: int
) -> None:
    older = await grow(database)
    await grow(database, 6)
    await follower.look()
    await set_back(database, older)
    if grown:
        await grow(database, grown)
    await follower.look()
    assert not follower.fresh
    assert follower.trouble == "the database was set back while this worker ran"
    # Not by growing either: what it did not see in between stays unseen.
    await grow(database, 10)
    await follower.look()
    assert not follower.fresh


async def test_a_record_that_was_edited_is_for_verification_to_find(
    database: Database, follower: Follower
) -> None:
    head = await grow(database)
    await follower.look()
    last = audit_records.c.sequence == head.size - 1
    async with database.write() as connection:
        await connection.execute(update(audit_records).where(last).values(leaf_hash=bytes(32)))
    await grow(database)
    await follower.look()
    assert follower.fresh


@pytest.mark.parametrize(
    "error", [OSError("gone"), asyncpg.InterfaceError("closed"), asyncpg.InternalClientError("unknown state")]
)
async def test_whatever_the_driver_says_of_a_lost_connection_it_is_storage_that_does_not_answer(
    database: Database, error: Exception
) -> None:
    with pytest.raises(VaultError) as caught:
        async with database.read():
            raise error
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
