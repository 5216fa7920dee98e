"""Who last used and revealed a credential, read off the log, on every database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, select, update

from tests.contract.test_ledger import database, url
from tests.support.postgres import owner_url
from vault.clock import SystemClock
from vault.core.activity import PLACE, ActivityWatch
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.errors import VaultError
from vault.model import AuditDraft, Origin, Outcome
from vault.store import activity, sinks
from vault.store.engine import connect
from vault.store.ledger import read_head
from vault.store.tables import audit_sinks, credential_activity

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.engine import Database
    from vault.store.ledger import Head

__all__ = ["database", "url"]

A, B = "acme/activity/a", "acme/activity/b"
Told = dict[str, tuple[str, str]]


class Vault:
    """A log, and those who watch what is used."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.log = AuditLog(database, SystemClock(), Load(), wait_seconds=30)
        self.watch = ActivityWatch(database)

    async def record(self, identity: str, action: str, name: str, *, refused: bool = False) -> None:
        draft = AuditDraft("acme", identity, action, name, Outcome.GRANTED, Origin())
        await self.log.record(draft._replace(outcome=Outcome.REFUSED) if refused else draft)

    async def told(self) -> Told:
        """By name: who last used it, and who it was last revealed to."""
        async with self.database.read() as connection:
            rows = (await connection.execute(select(credential_activity))).all()
        for row in rows:
            assert (row.last_used_time is None) == (row.last_used_by is None)
            assert row.tenant == "acme"
        return {row.name: (row.last_used_by or "", row.last_revealed_by or "") for row in rows}


@pytest.fixture
async def vault(database: Database) -> Vault:
    await sinks.enrol(database, PLACE, begin=0)
    return Vault(database)


async def test_the_newest_of_each_kind_stands_and_nothing_else_counts(vault: Vault) -> None:
    for identity, action, name in (
        ("one", "session.reveal", A),
        ("two", "session.use.hmac", A),
        ("three", "session.use.sign_jws", A),
        ("four", "session.break_glass", A),
        ("five", "session.open", A),
        ("six", "credential.get", A),
        ("seven", "session.close", B),
    ):
        await vault.record(identity, action, name)
    await vault.record("eight", "session.reveal", A, refused=True)
    await vault.record("nine", "session.use.hmac", B, refused=True)
    await vault.watch.look()
    assert await vault.told() == {A: ("three", "four")}
    await vault.record("ten", "session.use.totp", B)
    await vault.watch.look()
    assert await vault.told() == {A: ("three", "four"), B: ("ten", "")}


async def test_what_was_taken_in_before_or_comes_late_changes_nothing(vault: Vault) -> None:
    await vault.record("one", "session.reveal", A)
    async with vault.database.read() as connection:
        first = (await read_head(connection)).size
    await vault.record("two", "session.reveal", A)
    for begin, end in ((0, first + 1), (0, first), (0, first + 1), (first, first + 1)):
        async with vault.database.write() as connection:
            await activity.absorb(connection, begin, end)
        assert await vault.told() == {A: ("", "two")}


async def test_whichever_worker_looks_goes_on_where_the_last_one_was(vault: Vault) -> None:
    other = ActivityWatch(vault.database)
    for number, watch in enumerate((vault.watch, other, vault.watch, vault.watch, other)):
        await vault.record(f"user-{number}", "session.reveal", A)
        await watch.look()
        assert await vault.told() == {A: ("", f"user-{number}")}


async def test_of_workers_that_look_at_once_each_record_is_taken_in_by_one(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, int]] = []
    absorb = activity.absorb

    async def noted(connection: AsyncConnection, first: int, end: int) -> None:
        taken.append((first, end))
        await absorb(connection, first, end)

    monkeypatch.setattr("vault.store.activity.absorb", noted)
    workers = [ActivityWatch(vault.database) for _ in range(4)]
    for number in range(10):
        await vault.record(f"user-{number}", "session.use.hmac", A)
        await asyncio.gather(*(worker.look() for worker in workers))
    async with vault.database.read() as connection:
        size = (await read_head(connection)).size
    assert [first for first, _ in taken] == [0, *(end for _, end in taken[:-1])]
    assert taken[-1][1] == size
    assert await vault.told() == {A: ("user-9", "")}


async def test_a_look_ends_where_the_log_ended_when_it_began(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    await vault.record("one", "session.use.hmac", A)

    async def busy(connection: AsyncConnection) -> Head:
        head = await read_head(connection)
        await vault.record("two", "session.use.hmac", A)
        return head

    monkeypatch.setattr("vault.core.activity.read_head", busy)
    async with asyncio.timeout(20):
        await vault.watch.look()
    assert await vault.told() == {A: ("one", "")}


async def test_what_fails_half_way_is_taken_in_by_the_next_look(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    await vault.record("one", "session.reveal", A)

    async def broken(*_: object) -> None:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr("vault.store.activity.absorb", broken)
        with pytest.raises(VaultError):
            await vault.watch.look()
    await vault.watch.look()
    assert await vault.told() == {A: ("", "one")}


async def test_it_is_made_again_from_the_log_if_it_is_lost(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr("vault.core.activity._STEP", 3)
    for number in range(10):
        await vault.record(f"user-{number}", "session.use.hmac", A if number % 2 else B)
    await vault.watch.look()
    before = await vault.told()
    assert before == {A: ("user-9", ""), B: ("user-8", "")}
    owner = connect(owner_url(url))
    async with owner.write() as connection:
        await connection.execute(delete(credential_activity))
        await connection.execute(
            update(audit_sinks).where(audit_sinks.c.name == PLACE).values(next_sequence=0)
        )
    await owner.close()
    await ActivityWatch(vault.database).look()
    assert await vault.told() == before
