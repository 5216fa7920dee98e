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
from typing import TYPE_CHECKING

from vault.core import audit as audit_log
from vault.core.hsm import ref
from vault.core.inspection import inspect, replay
from vault.core.verification import Report, Verification
from vault.crypto import merkle, notes
from vault.crypto.errors import CryptoError
from vault.errors import Reason, StartError, VaultError
from vault.model import SYSTEM_TENANT, Checkpoint, KeyPurpose
from vault.store import audit, tree
from vault.store.ledger import read_head
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from pathlib import Path

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.model import Caller, Key
    from vault.store.engine import Database
    from vault.store.ledger import Head

log = logging.getLogger("strongroom.checkpoints")


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
        self._verifiers = await verifier_keys(self._origin, self._keyring, self._hsm)
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
            frontier, nodes = await self._verified(last, head)
            body = notes.checkpoint_body(self._origin, head.size, frontier.root())
            checkpoint = Checkpoint(
                size=head.size,
                root=frontier.root(),
                frontier=merkle.encode_frontier(frontier),
                note=await self._note(body),
                create_time=self._clock.now(),
            )
            await audit.insert_checkpoint(self._database, checkpoint, nodes)
            await asyncio.to_thread(self._write_anchor, checkpoint)
            return checkpoint

    async def attest(self, text: str) -> str:
        """A signed note (C2SP) over a text of lines, by the key that signs checkpoints. Raises `HSM_UNAVAILABLE`.

        Its first line must say what it is, and must not be the log's origin: no checkpoint begins so.
        """
        if text.partition("\n")[0] == self._origin:
            raise ValueError("this would read as a checkpoint")
        return await self._note(text)

    async def verify(self, caller: Caller) -> Report:
        """Verify the whole log from the database; the verdict is audited."""
        anchored = self._anchored()
        report = await inspect(
            self._database,
            self._origin,
            self._verifiers,
            self._clock.now(),
            anchors=[("anchor", anchored)] if anchored is not None else [],
        )
        state = canonical_json({"valid": not report.findings, "records": report.records})
        await self._log.record(audit_log.granted(caller, "audit.verify", "", after=state))
        return report

    async def _verified(
        self, last: Checkpoint | None, head: Head
    ) -> tuple[merkle.Frontier, list[merkle.Node]]:
        """The frontier at the head and the nodes to store, if the last checkpoint and everything since verify.

        Raises `STORED_DATA_DAMAGED`.
        """
        report = Report()
        start = merkle.EMPTY
        async with self._database.read() as connection:
            kept = await tree.stored_until(connection)
        if last is not None and kept >= last.size >> merkle.LEVEL_BITS:
            with contextlib.suppress(CryptoError):
                start = merkle.decode_frontier(last.frontier)
        verification = Verification(self._origin, self._verifiers, report, start=start)
        nodes: list[merkle.Node] = []
        if last is not None:
            nodes += await replay(self._database, verification, last.size)
            verification.checkpoint(last.size, last.note, last.frontier, last.root)
        if not report.findings:
            nodes += await replay(self._database, verification, head.size)
            verification.finish(head.size, head.frontier)
        if report.findings:
            log.critical("the log does not verify; not signed", extra={"findings": report.findings[:3]})
            raise VaultError(Reason.STORED_DATA_DAMAGED, "the log does not verify; nothing was signed")
        return verification.frontier, nodes

    def signed_head(self, checkpoint: Checkpoint) -> notes.CheckpointHead:
        """What a stored checkpoint's note says, if it is signed. Raises `STORED_DATA_DAMAGED`."""
        try:
            head = notes.verify_checkpoint(checkpoint.note, self._verifiers)
        except CryptoError:
            head = None
        if head is None or (head.origin, head.size) != (self._origin, checkpoint.size):
            raise VaultError(Reason.STORED_DATA_DAMAGED, "a checkpoint does not verify")
        return head

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

    def _anchored(self) -> str | None:
        if self._anchor is None or not self._anchor.exists():
            return None
        try:
            return self._anchor.read_text()
        except (OSError, UnicodeDecodeError):
            return ""

    def _read_anchor(self) -> notes.CheckpointHead | None:
        note = self._anchored()
        if note is None:
            return None
        try:
            return notes.verify_checkpoint(note, self._verifiers)
        except CryptoError:
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
        return notes.sign_with(body, await _verifier(self._origin, self._hsm, key), signature)


async def verifier_keys(origin: str, keyring: Keyring, hsm: Hsm) -> list[str]:
    """The verifier keys of all keys in the HSM that signed checkpoints, newest first. Raises `HSM_UNAVAILABLE`."""
    keys = await keyring.versions(SYSTEM_TENANT, KeyPurpose.CHECKPOINT)
    return [await _verifier(origin, hsm, key) for key in keys]


async def _verifier(origin: str, hsm: Hsm, key: Key) -> str:
    return notes.verifier_key(origin, await hsm.call(hsm.backend.public_key, ref(key)))
