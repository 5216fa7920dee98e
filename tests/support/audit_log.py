"""A log in SQLite with rows, checkpoints and anchors, to be altered by somebody who has all but the private key."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.postgres import owner_url
from vault.clock import SystemClock
from vault.core.anchors import Held
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.core.inspection import inspect
from vault.crypto import merkle, notes
from vault.model import AuditDraft, Checkpoint, Origin, Outcome
from vault.store import audit as store
from vault.store.engine import Database, connect
from vault.store.ledger import Commit, Unit, read_head
from vault.store.rows import RowKey, Write
from vault.store.schema import migrate

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = "strongroom/audit"


class Copy:
    """A log in SQLite, with a pristine copy to go back to."""

    def __init__(self, file: Path, url: str = "") -> None:
        # As whoever owns the tables: nothing else could alter them.
        self.database: Database = connect(owner_url(url) or f"sqlite:///{file}")
        self._file = file
        self.key = ed25519.Ed25519PrivateKey.generate()
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.verifier = notes.verifier_key(ORIGIN, spki)
        self.anchors: list[Held] = []
        self._tree = merkle.EMPTY

    async def make(self, records: int = 22) -> None:
        """Records of 10 rows that are written again and again, and a checkpoint after every ten of them."""
        await migrate(self.database)
        await self._fill(records)
        if not self.database.is_postgresql:
            self._pristine = self._snapshot()

    async def reopen(self) -> None:
        """Connect anew, from another event loop."""
        self.database = connect(f"sqlite:///{self._file}")

    async def _fill(self, records: int) -> None:
        log = AuditLog(self.database, SystemClock(), Load(), wait_seconds=30)
        clock = SystemClock()
        for turn in range(records):
            row = {
                "tenant": f"t{turn % 10}", "kek_version": turn, "create_time": clock.now(), "created_by": "me",
            }  # fmt: skip
            origin = Origin("192.0.2.1", "device", f"request-{turn}")
            draft = AuditDraft(
                "acme", "me", "test", f"acme/{turn}", Outcome.GRANTED, origin, after_state='{"a":1}'
            )
            commit = Commit((draft,), (Write("tenants", row),))
            key = RowKey("tenants", (row["tenant"],))
            await log.commit(Unit((key,), lambda _rows, _now, commit=commit: commit))
            if turn % 10 == 9:
                await self.sign()
            if turn == 14 and not self.database.is_postgresql:
                self.older_database = self._snapshot()

    def _snapshot(self) -> sqlite3.Connection:
        source, target = self.open(), sqlite3.connect(":memory:")
        source.backup(target)
        source.close()
        return target

    async def sign(self) -> None:
        async with self.database.read() as connection:
            head = await read_head(connection)
        body = notes.checkpoint_body(ORIGIN, head.size, head.frontier.root())
        note = notes.sign_with(body, self.verifier, self.key.sign(body.encode()))
        encoded = merkle.encode_frontier(head.frontier)
        now = SystemClock().now()
        checkpoint = Checkpoint(head.size, head.frontier.root(), encoded, note, now)
        leaves = [
            row["leaf_hash"]
            async for rows in store.stream_rows(self.database, self._tree.size, head.size)
            for row in rows
        ]
        self._tree, nodes = self._tree.grow(leaves)
        await store.insert_checkpoint(self.database, checkpoint, nodes)
        self.anchors.append(Held(f"anchor {head.size}", note))

    def open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        connection.row_factory = sqlite3.Row
        return connection

    def restore(self, into: sqlite3.Connection) -> None:
        self._pristine.backup(into)

    async def findings(self, anchors: list[Held], *, state: bool = True) -> list[str]:
        now = SystemClock().now()
        report = await inspect(self.database, ORIGIN, [self.verifier], now, anchors=anchors, state=state)
        return report.findings
