"""Old records go to other storage, and only then away: nothing is lost, nothing goes unvouched, everything verifies."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text

from tests.support.postgres import owner_url
from vault.clock import SystemClock
from vault.core import archives, archiving, export
from vault.core.archiving import ArchiveSettings, Archiving
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.core.follower import Follower
from vault.core.inspection import inspect
from vault.core.verification import Report, Verification
from vault.core.watches import Watches
from vault.crypto import merkle, notes
from vault.crypto.scopes import parse
from vault.errors import Reason, VaultError
from vault.model import AuditDraft, Caller, Certificate, Checkpoint, Origin, Outcome, Token
from vault.store import audit as store
from vault.store import sinks as leases
from vault.store.archives import first_sequence, months_before
from vault.store.engine import connect
from vault.store.ledger import Commit, Unit, read_head
from vault.store.reach import declare, of
from vault.store.rows import RowKey, Write
from vault.store.schema import migrate
from vault.store.upkeep import make_months

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.postgres import Postgres

ORIGIN = "strongroom/audit"
MONTH = datetime.timedelta(days=31)


class SetClock(SystemClock):
    """A clock that can be set."""

    def __init__(self) -> None:
        self.time = datetime.datetime.now(datetime.UTC)

    def now(self) -> datetime.datetime:
        return self.time


class Site:
    """A log whose records are of several months, its signer, its anchors and its archives."""

    def __init__(self, url: str, folder: Path) -> None:
        self.database = connect(url)
        self.folder = folder
        self.clock = SetClock()
        self.log = AuditLog(self.database, self.clock, Load(), wait_seconds=30)
        self.key = ed25519.Ed25519PrivateKey.generate()
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.verifier = notes.verifier_key(ORIGIN, spki)
        self.anchored: list[tuple[str, str]] = []
        self.tree = merkle.EMPTY

    # What `CheckpointKeys`, `Checkpoints` and `Anchors` are to an archiving.
    origin = ORIGIN

    @property
    def verifiers(self) -> tuple[str, ...]:
        return (self.verifier,)

    async def held(self) -> list[tuple[str, str]]:
        return self.anchored

    async def attest(self, body: str) -> str:
        return notes.sign_with(body, self.verifier, self.key.sign(body.encode()))

    async def sign(self) -> None:
        async with self.database.read() as connection:
            head = await read_head(connection)
            if await store.get_checkpoint(connection, head.size):
                return
        leaves = [
            row["leaf_hash"]
            async for rows in store.stream_rows(self.database, self.tree.size, head.size)
            for row in rows
        ]
        self.tree, nodes = self.tree.grow(leaves)
        note = await self.attest(notes.checkpoint_body(ORIGIN, head.size, head.frontier.root()))
        encoded = merkle.encode_frontier(head.frontier)
        checkpoint = Checkpoint(head.size, head.frontier.root(), encoded, note, self.clock.now())
        await store.insert_checkpoint(self.database, checkpoint, nodes)
        self.anchored.append((f"anchor {head.size}", note))

    async def write(self, first: int, count: int) -> None:
        """Records, each of which writes a row."""

        async def one(number: int) -> None:
            row = {
                "tenant": f"t{number:04}",
                "kek_version": 1,
                "create_time": self.clock.now(),
                "created_by": "me",
            }
            draft = AuditDraft("acme", "me", "test", f"acme/{number}", Outcome.GRANTED, Origin("192.0.2.1"))
            commit = Commit((draft,), (Write("tenants", row),))
            await self.log.commit(Unit((RowKey("tenants", (row["tenant"],)),), lambda _rows, _now: commit))

        await asyncio.gather(*map(one, range(first, first + count)))

    @property
    def archiving(self) -> Archiving:
        parts: Any = self
        return Archiving(
            ArchiveSettings(self.folder, 12), parts, parts, parts, self.database, self.log, self.clock
        )

    async def inspect(self, **options: Any) -> Report:
        return await inspect(
            self.database, ORIGIN, [self.verifier], self.clock.now(), anchors=self.anchored, **options
        )

    async def first(self) -> int:
        async with self.database.read() as connection:
            return await first_sequence(connection)

    async def execute(self, statement: str) -> None:
        async with self.database.write() as connection:
            await connection.execute(text(statement))


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Site]:
    async with made(f"sqlite:///{tmp_path}/log.db", tmp_path) as site:
        yield site


@pytest.fixture(params=["sqlite", "postgresql"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/log.db"
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create_database(f"archives_{secrets.token_hex(6)}")
    async with made(url, tmp_path) as site:
        yield site


@contextlib.asynccontextmanager
async def made(url: str, folder: Path) -> AsyncIterator[Site]:
    """270 records of 15 months ago, 30 of 14, 10 of today; a checkpoint within each month and at its end."""
    (folder / "archive").mkdir()
    # As the owner, who alone could alter what is archived.
    site = Site(owner_url(url), folder / "archive")
    await migrate(site.database)
    await make_old_months(site)
    now = site.clock.time
    for first, count, ago in ((0, 270, 15), (270, 30, 14), (300, 10, 0)):
        site.clock.time = months_before(now, ago) + datetime.timedelta(days=3) if ago else now
        await site.write(first, count - 5)
        await site.sign()
        await site.write(first + count - 5, 5)
        await site.sign()
    site.clock.time = now
    yield site
    await site.database.close()


async def make_old_months(site: Site) -> None:
    if site.database.is_postgresql:
        since = months_before(site.clock.time, 16).isoformat()
        await site.execute(f"SELECT make_audit_months('{since}', now())")
        await make_months(site.database, until=site.clock.time + MONTH)


async def test_old_records_are_archived_and_both_parts_verify_apart_and_together(site: Site) -> None:
    assert (await site.inspect()).findings == []
    (archive,) = await site.archiving.archive()
    assert (archive.first, archive.end) == (0, 300)
    assert await site.first() == 300
    # The rest: from the signed end of the archive, every row vouched for, every anchor that it reaches held.
    rest = await site.inspect()
    assert (rest.findings, rest.first) == ([], 300)
    assert rest.records < 30
    # Everything, from record 0.
    whole = await site.inspect(folder=site.folder)
    assert (whole.findings, whole.first, whole.records) == ([], 0, whole.size)
    # The file, with nothing but the public key.
    lines = (site.folder / archive.file).read_text().splitlines(keepends=True)
    alone = export.verify_file(lines, [site.verifier])
    assert (alone.findings, alone.records, alone.signed_size) == ([], 300, 300)
    # And the export of the rest.
    source = await export.of_database(site.database, ORIGIN, [site.verifier])
    parts = "".join([part async for _, part in export.pages(source)])
    assert export.verify_file(parts.splitlines(keepends=True), [site.verifier]).findings == []
    assert await site.archiving.archive() == [], "nothing more is due"


async def test_a_second_archive_goes_on_where_the_first_ends(site: Site) -> None:
    await site.archiving.archive()
    site.clock.time = months_before(site.clock.time, -13) + MONTH
    if site.database.is_postgresql:
        # The function keeps to the database's own clock, which is not set.
        with pytest.raises(VaultError, match="too young"):
            await site.archiving.archive()
        await site.execute(
            "UPDATE audit_records SET created_at = created_at"
        )  # nothing is broken by having tried
        assert (await site.inspect()).findings == []
        return
    await site.sign()
    (second,) = await site.archiving.archive()
    assert second.first == 300
    assert (await site.inspect()).findings == []
    whole = await site.inspect(folder=site.folder)
    assert (whole.findings, whole.records) == ([], whole.size)
    report = Report()
    verification = Verification(ORIGIN, [site.verifier], report)
    assert archives.verify_folder(site.folder, [site.verifier], verification) == 2
    assert (report.findings, report.records) == ([], second.end)


async def test_rows_that_only_old_records_wrote_are_still_vouched_for(site: Site) -> None:
    await site.archiving.archive()
    for statement, finding in (
        ("UPDATE tenants SET kek_version = 7 WHERE tenant = 't0003'", "row tenants:t0003: it was edited"),
        ("DELETE FROM tenants WHERE tenant = 't0004'", "row tenants:t0004: it was deleted"),
        ("UPDATE audit_archives SET first_sequence = 1", "row audit_archives:300: it was edited"),
    ):
        await site.execute(statement)
        assert any(line.startswith(finding) for line in (await site.inspect()).findings), statement


async def test_what_stays_of_the_tree_makes_proofs_of_all_that_follows(site: Site) -> None:
    from vault.core.proofs import Paths

    await site.archiving.archive()
    await site.sign()

    class Keys:
        def signed_head(self, checkpoint: Checkpoint) -> notes.CheckpointHead:
            return notes.verify_checkpoint(checkpoint.note, [site.verifier])

    keys: Any = Keys()
    paths = Paths(site.database, keys)
    async with site.database.read() as connection:
        newest = await store.latest_checkpoint(connection)
        assert newest is not None
        row = await store.get_row(connection, 303)
        assert row is not None
    assert await paths.inclusion(row, newest)
    assert await paths.consistency(300, newest)
    await site.execute(
        "UPDATE tree_nodes SET hash = (SELECT leaf_hash FROM audit_records LIMIT 1) WHERE level = 0"
    )
    assert any(line.startswith("tree node 0/256") for line in (await site.inspect()).findings)


async def test_a_watch_does_not_go_on_behind_a_cursor_that_was_archived(site: Site) -> None:
    follower = Follower(site.database, site.clock)
    watches = Watches(site.database, site.log, follower, site.clock)
    token = Token(
        "T" * 22, "spiffe://x/me", "acme", (parse("credential.read:acme/**"),), "t" * 43,
        site.clock.now(), site.clock.now() + MONTH,
    )  # fmt: skip
    certificate = Certificate("spiffe://x/me", "t" * 43, site.clock.now(), site.clock.now() + MONTH)
    caller = Caller(certificate, Origin(), token)

    # Each in a task of its own, as a call is: what one declares is not for the archiving.
    async def first_of(position: int) -> int:
        declare(of("acme"))
        async with contextlib.aclosing(watches.watch(caller, "", position)) as seen:
            return (await anext(seen)).position

    assert await asyncio.create_task(first_of(299)) >= 300, "before it was archived"
    await site.archiving.archive()
    with pytest.raises(VaultError) as refused:
        await asyncio.create_task(first_of(299))
    assert refused.value.reason is Reason.CURSOR_TOO_OLD
    assert await asyncio.create_task(first_of(300)) >= 300


async def test_records_that_are_gone_without_an_archive_are_missing(site: Site) -> None:
    if site.database.is_postgresql:
        month = months_before(site.clock.time, 15)
        await site.execute(f"DROP TABLE audit_records_{month:%Y_%m}")
        missing = "sequence 0: 270 records are missing before 270"
    else:
        await site.execute("DELETE FROM audit_records WHERE sequence < 270")
        missing = "sequence 0: 265 records are missing before 265"
    findings = (await site.inspect(state=False)).findings
    assert any(line.startswith("sequence 0:") and "missing" in line for line in findings), (missing, findings)


@pytest.mark.parametrize("damage", ["a byte", "a record", "cut", "gone", "another range"])
async def test_a_damaged_archive_is_found(embedded: Site, damage: str) -> None:
    (archive,) = await embedded.archiving.archive()
    path = embedded.folder / archive.file
    data = path.read_bytes()
    if damage == "a byte":
        path.write_bytes(data.replace(b'"resource":"acme/7"', b'"resource":"acme/8"', 1))
    elif damage == "a record":
        path.write_bytes(
            b"".join(line for line in data.splitlines(keepends=True) if b'"sequence":9,' not in line)
        )
    elif damage == "cut":
        path.write_bytes(data[:-200])
    elif damage == "gone":
        path.unlink()
    else:
        note = path.with_name(path.name + archives.SUFFIX)
        note.write_text(note.read_text().replace('"end":300', '"end":299'))
    report = Report()
    archives.verify_folder(
        embedded.folder, [embedded.verifier], Verification(ORIGIN, [embedded.verifier], report)
    )
    assert report.findings
    if damage != "another range":
        findings = (await embedded.inspect(folder=embedded.folder)).findings
        assert any(line.startswith(f"archive {archive.file}") for line in findings)


async def test_a_statement_that_somebody_else_made_starts_no_verification(site: Site) -> None:
    (archive,) = await site.archiving.archive()
    stranger = ed25519.Ed25519PrivateKey.generate()
    spki = stranger.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    verifier = notes.verifier_key(ORIGIN, spki)
    body = archives.text(archive)
    forged = notes.sign_with(body, verifier, stranger.sign(body.encode()))
    async with site.database.write() as connection:
        await connection.execute(text("UPDATE audit_archives SET note = :note"), {"note": forged})
    findings = (await site.inspect(state=False)).findings
    assert "archive 300: its statement does not verify" in findings
    assert any(line.startswith("sequence 0: 300 records are missing") for line in findings)


async def test_nothing_is_archived_of_a_log_or_a_row_that_does_not_verify(embedded: Site) -> None:
    await embedded.execute("UPDATE tenants SET kek_version = 7 WHERE tenant = 't0003'")
    with pytest.raises(VaultError, match="row tenants:t0003: it was edited") as refused:
        await embedded.archiving.archive()
    assert refused.value.reason is Reason.STORED_DATA_DAMAGED
    assert (await embedded.first(), list(embedded.folder.iterdir())) == (0, [])


async def test_a_file_that_the_storage_damaged_keeps_the_records_in_the_database(embedded: Site) -> None:
    broken = embedded.archiving
    real = broken._read_back

    def damaged(archive: archives.Archive, before: Any) -> archives.Archive:
        path = embedded.folder / archive.file
        path.write_bytes(path.read_bytes().replace(b"acme/7", b"acme/8", 1))
        return real(archive, before)

    broken._read_back = damaged  # type: ignore[method-assign]
    with pytest.raises(VaultError, match="nothing is removed: archive"):
        await broken.archive()
    assert await embedded.first() == 0
    assert [archive.end for archive in await embedded.archiving.archive()] == [300], (
        "the next try writes it anew"
    )


STEPS = ("_carry", "_all_carried", "_write", "_record", "removal")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_who_comes_after_one_that_was_killed_goes_on_and_loses_nothing(
    site: Site, step: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    victim = site.archiving
    if step == "removal":
        owner, name = __import__("vault.store.archives", fromlist=["remove"]), "remove"
    elif step == "_record":
        owner, name = site.log, "commit"
    else:
        owner, name = victim, step
    real = getattr(owner, name)

    async def dies(*arguments: Any) -> Any:
        if step == "_record" and "audit_archives" not in str(arguments[0].reads):
            return await real(*arguments)
        if when == "after":
            await real(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        with pytest.raises(Killed):
            await victim.archive()
    halfway = await site.inspect()
    assert halfway.findings == []
    await site.archiving.archive()
    assert await site.first() == 300
    whole = await site.inspect(folder=site.folder)
    assert (whole.findings, whole.records) == ([], whole.size)
    assert (await site.inspect()).findings == []
    assert sorted(path.suffix for path in site.folder.iterdir() if ".new" not in path.name) == [
        ".archive",
        ".jsonl",
    ]


async def test_the_archive_is_in_the_log_with_its_digest_and_place(embedded: Site) -> None:
    (archive,) = await embedded.archiving.archive()
    rows = [row async for page in store.stream_rows(embedded.database, 300, 400) for row in page]
    (record,) = [row for row in rows if row["action_type"] == "audit.archive"]
    told = json.loads(record["after_state"])
    assert told["sha256"] == archive.sha256
    assert (told["first"], told["end"], told["size_bytes"]) == (
        0,
        300,
        (embedded.folder / archive.file).stat().st_size,
    )
    assert told["folder"] == str(embedded.folder)
    async with embedded.database.read() as connection:
        newest = await store.latest_checkpoint(connection)
    assert newest is not None
    assert newest.size > record["sequence"], "a signed checkpoint covers it"


async def test_two_at_once_archive_it_once(site: Site) -> None:
    done = await asyncio.gather(site.archiving.archive(), site.archiving.archive())
    assert sorted(map(len, done)) == [0, 1]
    assert (await site.inspect(folder=site.folder)).findings == []


async def test_one_worker_does_it_by_itself(embedded: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "_AFTER_SECONDS", 0)
    task = asyncio.create_task(embedded.archiving.run())
    try:
        async with asyncio.timeout(60):
            while await embedded.first() != 300:  # noqa: ASYNC110 - the database tells
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await embedded.inspect(folder=embedded.folder)).findings == []


async def test_what_a_sink_has_still_to_get_stays(embedded: Site) -> None:
    now = embedded.clock.time
    await leases.enrol(embedded.database, "siem")
    await leases.claim(embedded.database, "siem", "me", now, now + datetime.timedelta(minutes=1))
    await embedded.execute("UPDATE audit_sinks SET next_sequence = 280 WHERE name = 'siem'")
    (archive,) = await embedded.archiving.archive()
    assert archive.end == 270, "the checkpoint before what it has still to get"
    embedded.clock.time = now + datetime.timedelta(days=40)
    (archive,) = await embedded.archiving.archive()
    assert archive.end >= 300, "nobody has served it for a month"
