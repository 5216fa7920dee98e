"""Reading a log that is too long for one look: page by page, each record that matches once, on every database."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import migrated
from vault.clock import SystemClock
from vault.core import reading
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.model import AuditDraft, AuditQuery, Origin, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from vault.store.engine import Database

RECORDS = 50


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A log in which every tenth record is by `rare`."""
    url = f"sqlite:///{tmp_path}/log.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create_database(f"reading_{secrets.token_hex(6)}")
    made = await migrated(url)
    log = AuditLog(made, SystemClock(), Load(), wait_seconds=30)
    for number in range(RECORDS):
        by = "rare" if number % 10 == 3 else "frequent"
        await log.record(AuditDraft("acme", by, "test", "", Outcome.GRANTED, Origin()))
    yield made
    await made.close()


async def read(database: Database, query: AuditQuery, size: int, step: int) -> tuple[list[int], int]:
    """The sequences of all pages, as the service makes them, and how many pages there were."""
    found: list[int] = []
    pages = 0
    while True:
        looked = await reading.find(database, query, size + 1, 0, step=step)
        pages += 1
        found += [record.sequence for record in looked.records[:size]]
        beyond = looked.records[size:]
        rest = beyond[0].sequence if beyond else looked.rest
        if rest is None:
            return found, pages
        query = dataclasses.replace(query, **{"last" if query.newest_first else "first": rest})


@pytest.mark.parametrize("newest_first", [False, True])
async def test_every_match_is_read_once_in_order_however_short_a_look_is(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, newest_first: bool
) -> None:
    rare = list(range(3, RECORDS, 10))
    for patience, step, size in itertools.product((0.0, 60.0), (1, 7, 1000), (1, 2, 100)):
        monkeypatch.setattr(reading, "_LONGEST_SECONDS", patience)
        for query, wanted in (
            (AuditQuery(identity="rare"), rare),
            (AuditQuery(identity="rare", first=4, last=33), rare[1:4]),
            (AuditQuery(identity="nobody"), []),
            (AuditQuery(first=45), list(range(45, RECORDS))),
            (AuditQuery(first=RECORDS), []),
        ):
            asked = dataclasses.replace(query, newest_first=newest_first)
            found, pages = await read(database, asked, size, step)
            assert found == (wanted[::-1] if newest_first else wanted)
            if patience and size > len(wanted):
                assert pages == 1, "a page ends early only when it has taken long"
            if not patience and step == 1 and not query.first:
                assert pages >= RECORDS


async def test_who_waits_is_told_at_once_that_the_log_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_LONGEST_SECONDS", 0.0)
    looked = await reading.find(database, AuditQuery(identity="nobody"), 10, 30.0, step=20)
    assert (looked.records, looked.rest, looked.size) == ([], 20, RECORDS)
