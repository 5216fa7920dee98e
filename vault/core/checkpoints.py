"""Checkpoints: signed heads of the log, read back and verified before they are signed.

A signature over an unverified root would make one flipped bit in the database unrecoverable; so what a
checkpoint covers is read back, every leaf is hashed anew from its columns, and only a tree that comes out
as the database says is signed. The newest checkpoint is also written to the anchor, a file on other
storage: a database older than its anchor is refused at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vault.core import audit as audit_log
from vault.core.hsm import ref
from vault.core.state import State, explained, odd_rows
from vault.crypto import merkle, notes
from vault.crypto.errors import CryptoError
from vault.errors import Reason, StartError, VaultError
from vault.model import SYSTEM_TENANT, Checkpoint, KeyPurpose
from vault.store import audit
from vault.store.ledger import leaf_hash, read_head
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.model import Caller, Key
    from vault.store.engine import Database
    from vault.store.rows import Row

log = logging.getLogger("strongroom.checkpoints")

_MAX_FINDINGS = 100


@dataclass
class Report:
    """What a verification of the log found. No findings: it is whole."""

    records: int = 0
    checkpoints: int = 0
    root: bytes = b""
    findings: list[str] = field(default_factory=list)

    def find(self, text: str) -> None:
        """Note a finding; the first hundred are enough."""
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(text)


class Checkpoints:
    """Signs and verifies heads of the log."""

    def __init__(
        self,
        origin: str,
        anchor: Path | None,
        database: Database,
        hsm: Hsm,
        keyring: Keyring,
        log_: AuditLog,
        clock: Clock,
    ) -> None:
        self._origin = origin
        self._anchor = anchor
        self._database = database
        self._hsm = hsm
        self._keyring = keyring
        self._log = log_
        self._clock = clock
        self._verifiers: list[str] = []
        self._signing = asyncio.Lock()

    async def start(self) -> None:
        """Fetch the verifier keys from the HSM; refuse a database that is older than its anchor."""
        for key in await self._keyring.versions(SYSTEM_TENANT, KeyPurpose.CHECKPOINT):
            self._verifiers.append(await self._verifier(key))
        await self._refuse_rollback()

    @property
    def verifier_key(self) -> str:
        """The verifier key of the signing key in use, in the form of the C2SP signed-note specification."""
        return self._verifiers[0]

    async def run(self, seconds: float) -> None:
        """Sign a checkpoint whenever the log has grown, every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.sign()
            except VaultError as error:
                log.error("cannot sign a checkpoint", extra={"reason": error.reason.value})  # noqa: TRY400

    async def latest(self, caller: Caller) -> Checkpoint:
        """The newest checkpoint; a new one if the log has grown. Raises `STORED_DATA_DAMAGED`."""
        checkpoint = await self.sign()
        await self._log.record(
            audit_log.granted(
                caller, "audit.get_checkpoint", "", after=canonical_json({"size": checkpoint.size})
            )
        )
        return checkpoint

    async def sign(self) -> Checkpoint:
        """Verify what came since the last checkpoint, then sign the head.

        Raises `STORED_DATA_DAMAGED` if what is stored does not come out as the head says.
        """
        async with self._signing:
            async with self._database.read() as connection:
                head = await read_head(connection)
                last = await audit.latest_checkpoint(connection)
            if head.size == 0:
                raise VaultError(Reason.CHECKPOINT_NOT_FOUND, "the log is empty")
            if last is not None and last.size == head.size:
                return last
            report = Report()
            frontier = self._verified_frontier(last)
            frontier = await self._replay(frontier, head.size, report)
            if report.findings or frontier != head.frontier:
                log.critical("the log does not verify; not signed", extra={"findings": report.findings[:3]})
                raise VaultError(Reason.STORED_DATA_DAMAGED, "the log does not verify; nothing was signed")
            body = notes.checkpoint_body(self._origin, head.size, frontier.root())
            checkpoint = Checkpoint(
                size=head.size,
                root=frontier.root(),
                frontier=merkle.encode_frontier(frontier),
                note=await self._note(body),
                create_time=self._clock.now(),
            )
            await audit.insert_checkpoint(self._database, checkpoint)
            await asyncio.to_thread(self._write_anchor, checkpoint)
            return checkpoint

    async def verify(self, caller: Caller) -> Report:
        """Verify the whole log from the database; the verdict is audited."""
        report = await self.check()
        state = canonical_json({"valid": not report.findings, "records": report.records})
        await self._log.record(audit_log.granted(caller, "audit.verify", "", after=state))
        return report

    async def check(self) -> Report:
        """Verify the whole log: sequence, hashes, tree, checkpoints, signatures, anchor; and the rows against it."""
        report = Report()
        state = State()
        async with self._database.read() as connection:
            head = await read_head(connection)
        frontier = merkle.EMPTY
        async for checkpoint in self._checkpoints(head.size):
            frontier = await self._replay(frontier, checkpoint.size, report, state)
            self._check_checkpoint(checkpoint, frontier, report)
        frontier = await self._replay(frontier, head.size, report, state)
        await self._check_rows(head.size, state, report)
        if frontier != head.frontier:
            report.find(f"head: the records do not make the tree of {head.size} that the head says")
        self._check_anchor(head.size, report)
        report.root = frontier.root()
        return report

    async def _checkpoints(self, size: int) -> AsyncIterator[Checkpoint]:
        after = 0
        while True:
            async with self._database.read() as connection:
                page = await audit.list_checkpoints(connection, after, 500)
            for checkpoint in page:
                if checkpoint.size <= size:
                    yield checkpoint
            if not page:
                return
            after = page[-1].size

    async def _check_rows(self, size: int, state: State, report: Report) -> None:
        """Hold every row against the log, of which `state` knows the first `size` records."""
        seen: set[str] = set()
        odd = await odd_rows(self._database, state, seen)
        for key in state.missing(seen, self._clock.now()):
            report.find(f"row {key}: it is gone")
        async with self._database.read() as connection:
            now = await read_head(connection)
        later = [row async for rows in audit.stream_rows(self._database, size, now.size) for row in rows]
        explained(odd, later, report.find)

    async def _replay(
        self, frontier: merkle.Frontier, end: int, report: Report, state: State | None = None
    ) -> merkle.Frontier:
        """Hash the records from the frontier's size to `end` anew and let the tree grow by them."""
        async for rows in audit.stream_rows(self._database, frontier.size, end):
            hashes = await asyncio.to_thread(_leaf_hashes, rows, frontier.size, report)
            frontier = frontier.append_many(hashes)
            if state is not None:
                state.take(rows)
            report.records += len(rows)
        if frontier.size < end:
            report.find(f"sequence {frontier.size}: {end - frontier.size} records are missing before {end}")
        return frontier

    def _verified_frontier(self, last: Checkpoint | None) -> merkle.Frontier:
        """Where the last checkpoint ended, if its signature holds and its frontier makes its root."""
        if last is None:
            return merkle.EMPTY
        report = Report()
        try:
            frontier = merkle.decode_frontier(last.frontier)
        except CryptoError:
            frontier = merkle.EMPTY
        self._check_checkpoint(last, frontier, report)
        if report.findings:
            log.critical("the last checkpoint does not verify", extra={"findings": report.findings[:3]})
            raise VaultError(
                Reason.STORED_DATA_DAMAGED, "the last checkpoint does not verify; nothing was signed"
            )
        return frontier

    def _check_checkpoint(self, checkpoint: Checkpoint, frontier: merkle.Frontier, report: Report) -> None:
        name = f"checkpoint {checkpoint.size}"
        try:
            head = notes.verify_checkpoint(checkpoint.note, self._verifiers)
        except CryptoError:
            report.find(f"{name}: its signature does not verify")
            return
        if (head.origin, head.size, head.root) != (self._origin, checkpoint.size, checkpoint.root):
            report.find(f"{name}: its columns are not what was signed")
        if merkle.encode_frontier(frontier) != checkpoint.frontier:
            report.find(f"{name}: its frontier is not that of the records")
        if (frontier.size, frontier.root()) != (head.size, head.root):
            report.find(f"{name}: the records do not make the tree that was signed")
        report.checkpoints += 1

    def _check_anchor(self, size: int, report: Report) -> None:
        head = self._read_anchor()
        if head is not None and head.size > size:
            report.find(f"anchor: it has seen {head.size} records, the database holds {size}")

    async def _refuse_rollback(self) -> None:
        head = self._read_anchor()
        if head is None:
            return
        async with self._database.read() as connection:
            stored = await read_head(connection)
            known = [
                item
                for item in await audit.list_checkpoints(connection, head.size - 1, 1)
                if item.size == head.size
            ]
        if stored.size < head.size:
            raise StartError(
                f"audit: the database holds {stored.size} records and its anchor has seen {head.size}: "
                "it was rolled back or truncated"
            )
        if known and known[0].root != head.root:
            raise StartError(
                f"audit: the database's tree of {head.size} records is not the one in the anchor"
            )

    def _read_anchor(self) -> notes.CheckpointHead | None:
        if self._anchor is None or not self._anchor.exists():
            return None
        try:
            return notes.verify_checkpoint(self._anchor.read_text(), self._verifiers)
        except (CryptoError, OSError, UnicodeDecodeError):
            raise StartError(f"audit.anchor_file: {self._anchor} does not verify") from None

    def _write_anchor(self, checkpoint: Checkpoint) -> None:
        if self._anchor is None:
            return
        with contextlib.suppress(StartError):
            head = self._read_anchor()
            if head is not None and head.size >= checkpoint.size:
                return
        fresh = self._anchor.with_suffix(f".{os.getpid()}.new")
        try:
            fresh.write_text(checkpoint.note)
            fresh.replace(self._anchor)
        except OSError as error:
            log.error("cannot write the anchor", extra={"error": type(error).__name__})  # noqa: TRY400

    async def _note(self, body: str) -> str:
        key = await self._keyring.active(SYSTEM_TENANT, KeyPurpose.CHECKPOINT)
        signature = await self._hsm.sign(key, key.algorithm, body.encode())
        return notes.sign_with(body, await self._verifier(key), signature)

    async def _verifier(self, key: Key) -> str:
        spki = await self._hsm.call(self._hsm.backend.public_key, ref(key))
        return notes.verifier_key(self._origin, spki)


def _leaf_hashes(rows: list[Row], first: int, report: Report) -> list[bytes]:
    hashes = []
    for expected, row in enumerate(rows, first):
        if row["sequence"] != expected:
            report.find(f"sequence {row['sequence']}: {expected} was expected")
        computed = leaf_hash(row)
        if computed != row["leaf_hash"]:
            report.find(f"sequence {row['sequence']}: the record was altered")
        hashes.append(computed)
    return hashes
