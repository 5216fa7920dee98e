"""Rates: one budget a second for each subject, however many workers spend it, on every database."""

from __future__ import annotations

import asyncio
import datetime
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import migrated
from vault.core.rates import Rates
from vault.errors import Reason, VaultError
from vault.store.engine import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LIMIT = 40
SECOND = datetime.timedelta(seconds=1)


class StoppedClock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    def now(self) -> datetime.datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/rates.db"
    else:
        url = request.getfixturevalue("postgres").create_database(f"rates_{secrets.token_hex(6)}")
    database = await migrated(url)
    yield database
    await database.close()


async def spent(workers: list[Rates], kind: str, name: str, calls: int) -> int:
    """How many of so many calls, spread over the workers and made at once, are let pass."""

    async def call(worker: Rates) -> bool:
        try:
            await worker.spend(kind, name)
        except VaultError as error:
            assert (error.reason, error.metadata) == (Reason.LIMIT_REACHED, {"limit": f"{kind}_rate"})
            return False
        return True

    return sum(await asyncio.gather(*(call(workers[turn % len(workers)]) for turn in range(calls))))


async def test_an_identity_and_a_tenant_have_a_budget_each_that_all_workers_share(database: Database) -> None:
    clock = StoppedClock()
    workers = [Rates(database, clock, per_identity=LIMIT, per_tenant=LIMIT // 2) for _ in range(3)]
    assert await spent(workers, "identity", "spiffe://bank.example/a", 3 * LIMIT) == LIMIT
    assert await spent(workers, "identity", "spiffe://bank.example/b", 3 * LIMIT) == LIMIT
    assert await spent(workers, "tenant", "acme", 3 * LIMIT) == LIMIT // 2
    assert await spent(workers, "identity", "spiffe://bank.example/a", LIMIT) == 0
    clock.moment += SECOND
    assert await spent(workers, "identity", "spiffe://bank.example/a", 3 * LIMIT) == LIMIT


async def test_a_worker_whose_clock_is_behind_has_no_budget_of_its_own(database: Database) -> None:
    ahead, behind = StoppedClock(), StoppedClock()
    ahead.moment += SECOND
    workers = [Rates(database, clock, per_identity=LIMIT, per_tenant=0) for clock in (ahead, behind)]
    assert await spent(workers[:1], "identity", "me", 2 * LIMIT) == LIMIT
    assert await spent(workers[1:], "identity", "me", 2 * LIMIT) == 0


async def test_without_a_limit_nothing_is_counted(database: Database) -> None:
    workers = [Rates(database, StoppedClock(), per_identity=0, per_tenant=0)]
    assert await spent(workers, "identity", "me", 1000) == 1000
