"""Checkpoints: signed heads of the log, read back and verified before they are signed.

A signature over an unverified root would make one flipped bit in the database unrecoverable; so what a
checkpoint covers is read back, every leaf is hashed anew from its columns, and only a tree that comes out
as the database says is signed. Every checkpoint goes to the anchors (`anchors.py`): a database older than one of them
is refused at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from vault.core import audit as audit_log
from vault.core.inspection import inspect, replay
from vault.core.recovery import lost_heads
from vault.core.verification import Report, Verification
from vault.crypto import merkle, notes
from vault.crypto.errors import CryptoError
from vault.errors import Reason, StartError, VaultError
from vault.model import Checkpoint
from vault.store import archives, audit, tree
from vault.store.ledger import read_head
from vault.store.reach import ALL_TENANTS, declared
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vault.clock import Clock
    from vault.core.anchors import Anchors, Held, Silent
    from vault.core.audit import AuditLog
    from vault.core.checkpoint_keys import CheckpointKeys
    from vault.core.recovery import Recovery
    from vault.model import Caller
    from vault.store.engine import Database
    from vault.store.ledger import Head

log = logging.getLogger("strongroom.checkpoints")

_LOOK_SECONDS = 1.0


class Following(Protocol):
    """Who has followed the log since this process began."""

    set_back: bool
    """Whether it is not the log any more that was followed."""

    async def look(self) -> None:
        """See what the log is now."""


class Checkpoints:
    """Signs and verifies heads of the log."""

    def __init__(
        self,
        keys: CheckpointKeys,
        anchors: Anchors,
        recovery: Recovery,
        database: Database,
        log_: AuditLog,
        clock: Clock,
    ) -> None:
        self.alarm = ""
        """Why no checkpoint can be signed, if what is stored does not verify."""
        self._keys = keys
        self._anchors = anchors
        self._recovery = recovery
        self._database = database
        self._log = log_
        self._clock = clock
        self._accepted = False
        self._signing = asyncio.Lock()
        self._following: Following | None = None

    def heed(self, following: Following) -> None:
        """From now on sign nothing once this finds that the log was set back."""
        self._following = following

    async def start(self, *, new_anchors: bool = False) -> None:
        """Fetch the verifier keys from the HSM; refuse a database that is older than one of its anchors.

        An anchor that shows nothing may have been lost with what it knew, and is refused too, unless the log is as new;
        `new_anchors`: somebody says that the empty ones are new. Raises `StartError`, `HSM_UNAVAILABLE`.
        """
        await self._keys.learn()
        held, silent = await self._anchors.ask()
        for anchor in silent:
            if not anchor.empty or not (new_anchors or await self._is_new()):
                raise StartError(_lost(anchor))
        await self._refuse_rollback(held)
        self._accepted = True
        if silent and not new_anchors:
            await self._tell_first()

    @property
    def verifier_keys(self) -> tuple[str, ...]:
        """Those of all keys in the HSM that signed checkpoints, newest first."""
        return self._keys.verifiers

    @property
    def verifier_key(self) -> str:
        """The verifier key of the signing key in use, in the form of the C2SP signed-note specification."""
        return self._keys.newest

    async def run(self, *, seconds: float, records: int) -> None:
        """Sign a checkpoint when the log has grown, after so many seconds or records, until cancelled.

        All workers look; what counts is the newest checkpoint in the database, whoever signed it.
        """
        while True:
            await asyncio.sleep(min(seconds, _LOOK_SECONDS))
            try:
                if await self._due(seconds, records):
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
        """Verify what came since the last checkpoint, then sign the head and hand it to the anchors.

        Raises `STORED_DATA_DAMAGED` if what is stored does not come out as the head says, or was not held against the
        anchors by `start`: a refused start that signed would put its log in the place of what they know.
        """
        if not self._accepted:
            raise VaultError(
                Reason.STORED_DATA_DAMAGED, "the anchors do not vouch for it; nothing was signed"
            )
        # Whoever asks for it, the log is everybody's.
        with declared(ALL_TENANTS):
            return await self._sign()

    async def _sign(self) -> Checkpoint:
        async with self._signing:
            await self._refuse_set_back()
            async with self._database.read() as connection:
                last = await audit.latest_checkpoint(connection)
            await self._keys.introduce(last.note if last else None)
            async with self._database.read() as connection:
                head = await read_head(connection)
            if head.size == 0:
                raise VaultError(Reason.CHECKPOINT_NOT_FOUND, "the log is empty")
            if last is None or last.size != head.size:
                frontier, nodes = await self._verified(last, head)
                body = notes.checkpoint_body(self._keys.origin, head.size, frontier.root())
                last = Checkpoint(
                    size=head.size,
                    root=frontier.root(),
                    frontier=merkle.encode_frontier(frontier),
                    note=await self._keys.sign(body, last.note if last else None),
                    create_time=self._clock.now(),
                )
                await audit.insert_checkpoint(self._database, last, nodes)
            await self._anchors.tell(last)
            return await self._cosigned(last)

    async def attest(self, text: str) -> str:
        """A signed note (C2SP) over a text of lines, by the key that signs checkpoints. Raises `HSM_UNAVAILABLE`.

        Its first line must say what it is, and must not be the log's origin: no checkpoint begins so.
        """
        if text.partition("\n")[0] == self._keys.origin:
            raise ValueError("this would read as a checkpoint")
        return await self._keys.attest(text)

    async def verify(
        self, caller: Caller, watch: Callable[[int, int], None] = lambda _records, _all: None
    ) -> Report:
        """Verify the whole log from the database; the verdict is audited. `watch` is told how far it is."""
        with declared(ALL_TENANTS):
            report = await inspect(
                self._database,
                self._keys.origin,
                self._keys.verifiers,
                self._clock.now(),
                anchors=await self._recovery.in_force(
                    self._database, await self._anchors.held(), self._keys.verifiers
                ),
                watch=watch,
            )
        state = canonical_json({"valid": not report.findings, "records": report.records})
        await self._log.record(audit_log.granted(caller, "audit.verify", "", after=state))
        return report

    async def _due(self, seconds: float, records: int) -> bool:
        async with self._database.read() as connection:
            head = await read_head(connection)
            last = await audit.latest_checkpoint(connection)
        if last is None:
            return head.size > 0
        age = (self._clock.now() - last.create_time).total_seconds()
        return head.size - last.size >= (1 if age >= seconds else records)

    async def _cosigned(self, checkpoint: Checkpoint) -> Checkpoint:
        async with self._database.read() as connection:
            (whole,) = await audit.with_cosignatures(connection, [checkpoint])
        return whole

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
        verification = Verification(self._keys.origin, self._keys.verifiers, report, start=start)
        nodes: list[merkle.Node] = []
        if last is not None:
            nodes += await replay(self._database, verification, last.size)
            verification.checkpoint(last.size, last.note, last.frontier, last.root)
        if not report.findings:
            nodes += await replay(self._database, verification, head.size)
            verification.finish(head.size, head.frontier)
        self.alarm = report.findings[0] if report.findings else ""
        if report.findings:
            log.critical("the log does not verify; not signed", extra={"findings": report.findings[:3]})
            raise VaultError(Reason.STORED_DATA_DAMAGED, "the log does not verify; nothing was signed")
        return verification.frontier, nodes

    async def _refuse_set_back(self) -> None:
        """What was set back verifies as far as it goes, so only who saw more can tell."""
        if self._following is None:
            return
        await self._following.look()
        if self._following.set_back:
            self.alarm = "the database was set back"
            raise VaultError(Reason.STORED_DATA_DAMAGED, "the database was set back; nothing was signed")

    async def _is_new(self) -> bool:
        """Whether the log may well be one that no anchor has heard of."""
        async with self._database.read() as connection:
            # Whoever signed the first checkpoint may have been killed before it told the anchors.
            known = await audit.list_checkpoints(connection, 0, 2)
            return len(known) < 2 and await archives.first_sequence(connection) == 0  # noqa: PLR2004 - one is none

    async def _tell_first(self) -> None:
        """Tell the anchors of a new log of its first checkpoint, if there is one that they were not told of."""
        async with self._database.read() as connection:
            first = await audit.latest_checkpoint(connection)
        if first is not None:
            await self._anchors.tell(first)

    async def _refuse_rollback(self, held: Sequence[Held]) -> None:
        lost = await lost_heads(self._database, held, self._keys.verifiers)
        # Only where something is lost is the log searched for recoveries that gave it up.
        gone = await self._recovery.accepted(self._database) if lost else set()
        async with self._database.read() as connection:
            stored = await read_head(connection)
        for name, size, root in lost:
            if (size, root) in gone:
                continue
            if stored.size < size:
                raise StartError(
                    f"audit: the database holds {stored.size} records and its anchor has seen {size}: "
                    "it was rolled back or truncated; see `strongroom recover`"
                )
            raise StartError(f"audit: the database's tree of {size} records is not the one in {name}")


def _lost(anchor: Silent) -> str:
    way_on = (
        "if it is new, and only then, say so by `strongroom audit begin-anchors`"
        if anchor.empty
        else "no start without it; if it is lost for good, take it out of the configuration"
    )
    return (
        f"audit: the anchor {anchor.name}: {anchor.reason}, so nobody can tell whether the database was rolled back: "
        f"is it mounted? {way_on} (docs/operations.md, Anchors)"
    )
