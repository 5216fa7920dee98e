"""Archiving the beginning of the log: what is older than the retention goes to other storage, and only then away.

One archive at a time, in steps that can each be repeated, so that a process killed between any two loses nothing and
whoever comes next goes on:

1. The whole log, and every row against it, is verified. Nothing is archived of what does not verify.
2. Rows that only old records vouch for are vouched for anew, by records that stay (`audit.carry_rows`). Each must still
   be the one that the old record says; that none was forgotten is checked against the log itself.
3. The file is written, read back from the storage and verified by the public keys alone.
4. A signed statement about it (`archives.py`) is put beside it and, with its record (`audit.archive`), into the log.
5. A checkpoint is signed that covers that record.
6. The records are removed (`store/archives.py`), after the file was verified once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from vault.core import archives, audit, export
from vault.core.archives import Archive
from vault.core.inspection import inspect_into
from vault.core.records import moment_text
from vault.core.state import VOUCHED, written
from vault.core.verification import Report, Verification
from vault.crypto import merkle
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError
from vault.model import SYSTEM_TENANT
from vault.store import archives as store
from vault.store import audit as log_store
from vault.store import sinks as leases
from vault.store.ledger import Commit, Unit, read_head
from vault.store.rows import RowKey, Write, canonical_json, row_digest
from vault.store.state import Comparison, row_keys

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from vault.clock import Clock
    from vault.core.anchors import Anchors
    from vault.core.audit import AuditLog
    from vault.core.checkpoint_keys import CheckpointKeys
    from vault.core.checkpoints import Checkpoints
    from vault.model import Checkpoint
    from vault.store.archives import Due
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.archiving")

ARCHIVE = "audit.archive"
CARRY = "audit.carry_rows"
_RESOURCE = f"{SYSTEM_TENANT}/audit"
_LEASE = timedelta(hours=2)
_FORGOTTEN_READER = timedelta(days=31)
_AFTER_SECONDS = 60.0
_EVERY_SECONDS = 6 * 3600.0
_ROWS_A_RECORD = 200


@dataclass(frozen=True)
class ArchiveSettings:
    """Where archives go, and how many whole months before the current one stay in the database."""

    folder: Path
    months: int


class Plan(NamedTuple):
    """What an archiving would do."""

    remove: Archive | None
    """Archived already, and not removed yet."""
    due: Due | None


class Archiving:
    """Archives what is due."""

    def __init__(
        self,
        settings: ArchiveSettings,
        keys: CheckpointKeys,
        checkpoints: Checkpoints,
        anchors: Anchors,
        database: Database,
        log_: AuditLog,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._checkpoints = checkpoints
        self._anchors = anchors
        self._database = database
        self._log = log_
        self._clock = clock
        self._holder = secrets.token_hex(8)

    async def run(self) -> None:
        """Archive what is due, now and then, in one worker of all, until cancelled."""
        await asyncio.sleep(_AFTER_SECONDS)
        while True:
            try:
                await self.archive()
            except (VaultError, OSError) as error:
                log.error("the log was not archived", extra={"reason": _reason(error)})  # noqa: TRY400
            await asyncio.sleep(_EVERY_SECONDS)

    async def plan(self) -> Plan:
        """What is to be done. Raises `STORED_DATA_DAMAGED` if the statement about an archive does not verify."""
        sealed = await self._sealed()
        now = self._clock.now()
        before = store.months_before(now, self._settings.months)
        async with self._database.read() as connection:
            first = await store.first_sequence(connection)
            pending = sealed[-1] if sealed and sealed[-1].end > first else None
            return Plan(
                pending, None if pending else await store.due(connection, before, now - _FORGOTTEN_READER)
            )

    async def archive(self) -> list[Archive]:
        """Do it, unless another worker does; gives what was removed from the database.

        Raises `STORED_DATA_DAMAGED` if the log, a row or an archive does not verify, `STORAGE_UNAVAILABLE`,
        `HSM_UNAVAILABLE`, `OSError` of the folder.
        """
        await leases.enrol(self._database, store.LEASE)
        now = self._clock.now()
        if await leases.claim(self._database, store.LEASE, self._holder, now, now + _LEASE) is None:
            return []
        try:
            return await self._archive()
        finally:
            with contextlib.suppress(VaultError):
                await leases.release(self._database, store.LEASE, self._holder, self._clock.now())

    async def _archive(self) -> list[Archive]:
        removed: list[Archive] = []
        plan = await self.plan()
        if plan.remove is None and plan.due is not None:
            await self._seal(plan.due)
            plan = await self.plan()
        if plan.remove is not None:
            await asyncio.to_thread(self._read_back, plan.remove, (await self._sealed())[:-1])
            await self._checkpoints.sign()
            await store.remove(self._database, plan.remove.end, self._clock.now())
            removed.append(plan.remove)
        return removed

    async def _sealed(self) -> list[Archive]:
        """Every archive that the database knows of, by its signed statement, oldest first."""
        async with self._database.read() as connection:
            rows = await store.rows(connection)
        found: list[Archive] = []
        for row in rows:
            keys = (*self._keys.verifiers, *(found[-1].keys if found else ()))
            try:
                found.append(archives.verify(str(row["note"]), keys))
            except CryptoError:
                raise _damaged(f"the statement of archive {row['end_sequence']} does not verify") from None
        return found

    async def _seal(self, due: Due) -> None:
        with Comparison() as comparison:
            held = await self._anchors.held()
            report = await inspect_into(
                comparison,
                self._database,
                self._keys.origin,
                self._keys.verifiers,
                self._clock.now(),
                anchors=held,
            )
            if report.findings:
                raise _damaged(f"the log does not verify: {report.findings[0]}")
            await self._carry(comparison, due.end)
            await self._all_carried(comparison, report.size, due.end)
        archive = await self._write(due)
        note = await self._checkpoints.attest(archives.text(archive))
        await asyncio.to_thread(_put, self._settings.folder / (archive.file + archives.SUFFIX), note.encode())
        await self._log.commit(self._record(archive, note))

    async def _carry(self, comparison: Comparison, end: int) -> None:
        """Have records that stay vouch for the rows that only records before `end` vouch for."""
        digests: dict[RowKey, bytes] = {}
        for table in VOUCHED:
            async for keys in row_keys(self._database, table):
                for key in keys:
                    last = comparison.last_write(str(key))
                    if last is not None and last[0] < end:
                        digests[key] = last[1]
                    if len(digests) == _ROWS_A_RECORD:
                        await self._log.commit(_vouch(digests))
                        digests = {}
        if digests:
            await self._log.commit(_vouch(digests))

    async def _all_carried(self, comparison: Comparison, since: int, end: int) -> None:
        async with self._database.read() as connection:
            size = (await read_head(connection)).size
        async for rows in log_store.stream_rows(self._database, since, size):
            comparison.write(written(rows))
        forgotten = await asyncio.to_thread(comparison.not_since, end)
        if forgotten:
            raise _damaged(f"no record that stays vouches for row {forgotten[0]}")

    async def _write(self, due: Due) -> Archive:
        """Write the file, and read it back as it came to lie on the storage."""
        before = await self._sealed()
        async with self._database.read() as connection:
            start = export.frontier_at(due.first, await log_store.get_checkpoint(connection, due.first))
            cut = await log_store.get_checkpoint(connection, due.end)
            ends = [await log_store.get_row(connection, place) for place in (due.first, due.end - 1)]
        since, until = (moment_text(row["created_at"]) if row else "" for row in ends)
        header = export.Header(self._keys.origin, self._keys.verifiers, start)
        source = export.part_of(self._database, header, due.end)
        source = source._replace(checkpoints=self._cosigned(source.checkpoints))
        name = archives.file_name(due.first, due.end)
        path = self._settings.folder / name
        fresh = path.with_suffix(f".{self._holder}.new")
        with _created(fresh) as file:
            async for _, text in export.pages(source):
                await asyncio.to_thread(file.write, text.encode())
            await asyncio.to_thread(_settle, file)
        fresh.replace(path)
        _settle_folder(path.parent)
        digest, size = await asyncio.to_thread(_digest, path)
        archive = Archive(
            origin=self._keys.origin,
            first=due.first,
            end=due.end,
            frontier=export.frontier_at(due.end, cut),
            since=since,
            until=until,
            file=name,
            sha256=digest,
            size_bytes=size,
            keys=(),
        )
        return await asyncio.to_thread(self._read_back, archive, before)

    def _read_back(self, archive: Archive, before: Sequence[Archive]) -> Archive:
        """The archive with the keys that its records introduce, if its file is whole. Raises `STORED_DATA_DAMAGED`."""
        report = Report()
        start, learned = (before[-1].frontier, before[-1].keys) if before else (merkle.EMPTY, ())
        verification = Verification(
            archive.origin, self._keys.verifiers, report, start=start, learned=learned
        )
        archives.replay(self._settings.folder, archive, verification, verification.take)
        verification.finish(archive.end, archive.frontier)
        if not report.findings and report.signed_size != archive.end:
            report.find(f"archive {archive.file}: no checkpoint stands at its end")
        if report.findings:
            raise _damaged(report.findings[0])
        return archive._replace(keys=tuple(dict.fromkeys(verification.learned)))

    async def _cosigned(self, checkpoints: AsyncIterator[Checkpoint]) -> AsyncIterator[Checkpoint]:
        async for checkpoint in checkpoints:
            async with self._database.read() as connection:
                (whole,) = await log_store.with_cosignatures(connection, [checkpoint])
            yield whole

    def _record(self, archive: Archive, note: str) -> Unit:
        after = canonical_json({**archives.values(archive), "folder": str(self._settings.folder)})
        draft = audit.by_vault(SYSTEM_TENANT, ARCHIVE, _RESOURCE)._replace(after_state=after)
        key = RowKey("audit_archives", (archive.end,))

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            if rows.get(key.table, *key.key) is not None:
                return Commit(())
            row = {
                "end_sequence": archive.end,
                "first_sequence": archive.first,
                "note": note,
                "create_time": now,
            }
            return Commit((draft,), (Write(key.table, row),))

        return Unit((key,), decide)


def _vouch(digests: Mapping[RowKey, bytes]) -> Unit:
    """A record for rows as they are, those that still are what the log says; it is checked later that all were."""
    draft = audit.by_vault(SYSTEM_TENANT, CARRY, _RESOURCE)

    def decide(rows: Rows, _now: datetime.datetime) -> Commit:
        vouched = tuple(
            Write(key.table, row)
            for key, digest in digests.items()
            if (row := rows.get(key.table, *key.key)) is not None and row_digest(key.table, row) == digest
        )
        return Commit((draft,) if vouched else (), vouched=vouched)

    return Unit(tuple(digests), decide)


def _damaged(text: str) -> VaultError:
    return VaultError(Reason.STORED_DATA_DAMAGED, f"nothing is removed: {text}")


def _reason(error: VaultError | OSError) -> str:
    return error.message if isinstance(error, VaultError) else (error.strerror or type(error).__name__)


def _created(path: Path) -> BinaryIO:
    """A new file that nobody but its owner and group reads: the log names people."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "wb")


def _put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and have it on the disk."""
    fresh = path.with_suffix(".new")
    with _created(fresh) as file:
        file.write(data)
        _settle(file)
    fresh.replace(path)
    _settle_folder(path.parent)


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _settle_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()
