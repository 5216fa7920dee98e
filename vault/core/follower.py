"""What other workers and replicas did: this worker follows the audit log.

The log is one sequence in the order of commits, so following it misses nothing. From it come revocations
(a token revoked anywhere is refused here within a second) and the changes that end or inform sessions. A
worker that has not been able to look for `STALE_SECONDS` trusts no token.

A log only grows. If it is shorter than this worker has seen it, or another record stands where it saw the last one, the
database was set back while the vault ran: by an older copy, or a standby that lacked the end. What was revoked since is
forgotten then, so this worker trusts no token any more until it is started again, which the anchors judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from vault.core import revocations
from vault.core.revocations import REVOKE, Kind, Revocation, Revocations
from vault.crypto import merkle
from vault.errors import Reason, VaultError
from vault.store import audit, wakeups
from vault.store import revocations as stored
from vault.store.ledger import Head, read_head
from vault.store.reach import ALL_TENANTS, NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from vault.clock import Clock
    from vault.model import AuditRecord, Token
    from vault.store.engine import Database

log = logging.getLogger("strongroom.follower")

STALE_SECONDS = 5.0
POLL_SECONDS = 0.2
_FORGET_EVERY_SECONDS = 60.0

FOLLOWED = (
    REVOKE,
    "credential.put",
    "credential.delete",
    "credential.undelete",
    "credential.destroy_version",
    "credential.set_standing",
    "policy.apply",
    "person.create",
    "person.erase",
    "threat.find",
    "threat.release",
    "key.create_tenant",
    "key.rotate",
    "tenant.erase",
    "key.retire",
    "key.quarantine",
    "key.restore",
    "key.schedule_destruction",
    "key.destroy",
    "key.rewrap_root",
    "job.start",
    "job.update",
)


class Follower:
    """Knows what was revoked, and tells listeners what changed."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._head = Head(0, merkle.EMPTY)
        self._last: audit.Mark | None = None
        self.set_back = False
        """Whether the log is not the one that this worker has followed so far."""
        self._revoked = Revocations()
        self._listeners: list[Callable[[AuditRecord], None]] = []
        self._seen = float("-inf")
        self._pruned = clock.monotonic()
        self._looking = asyncio.Lock()

    def listen(self, listener: Callable[[AuditRecord], None]) -> None:
        """Have `listener` called with the record of every change. It must not block."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Learn everything that is revoked now. Raises `STORAGE_UNAVAILABLE`."""
        async with self._database.read(ALL_TENANTS) as connection:
            self._head = await read_head(connection)
            last = self._head.size - 1
            self._last = (await audit.marks(connection, last, last)).get(last)
            now = self._clock.now()
            async for row in stored.revoked_ids(connection, now):
                one = Revocation(
                    Kind.TOKEN, row["tenant"], row["token_id"], row["revoke_time"], row["forget_time"]
                )
                self._revoked.add(one)
            for row in await stored.revoked_groups(connection, now):
                many = Revocation(
                    Kind(row["kind"]), row["tenant"], row["subject"], row["issued_until"], row["forget_time"]
                )
                self._revoked.add(many)
        self._seen = self._clock.monotonic()

    async def run(self) -> None:
        """Look again and again, and at once when another worker did something urgent, until cancelled."""
        woken = asyncio.Event()
        listening = asyncio.create_task(wakeups.listen(self._database, woken.set))
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await woken.wait()
                woken.clear()
                try:
                    async with asyncio.timeout(STALE_SECONDS):
                        await self.look()
                except (VaultError, TimeoutError) as error:
                    log.warning("cannot follow the log", extra={"error": type(error).__name__})
        finally:
            listening.cancel()

    async def look(self) -> None:
        """Take in what was committed since the last look."""
        async with self._looking:
            asked = self._clock.monotonic()
            async with self._database.read(NOBODY) as connection:
                head = await read_head(connection)
            seen = self._head.size
            grown = head.size > seen
            marks: dict[int, audit.Mark] = {}
            records: list[AuditRecord] = []
            if grown:
                async with self._database.read(ALL_TENANTS) as connection:
                    marks = await audit.marks(connection, seen - 1, head.size - 1)
                    records = await audit.granted_between(connection, seen, head.size, FOLLOWED)
            if (not grown and head != self._head) or _differ(self._last, marks.get(seen - 1)):
                self._find_set_back(head.size)
            if grown:
                self._head, self._last = head, marks.get(head.size - 1)
            for record in records:
                if record.action == REVOKE:
                    self._revoked.add(revocations.from_record(record))
                for listener in self._listeners:
                    listener(record)
            self._seen = asked
            self._forget()

    @property
    def fresh(self) -> bool:
        """Whether this worker knows recent enough what is revoked."""
        return not self.trouble

    @property
    def trouble(self) -> str:
        """Why this worker does not know what is revoked; empty if it does."""
        if self.set_back:
            return "the database was set back while this worker ran"
        if self._clock.monotonic() - self._seen > STALE_SECONDS:
            return "this worker cannot see what is revoked"
        return ""

    def refuse_revoked(self, token: Token, holder: str) -> None:
        """Raise `TOKEN_REVOKED`, or `REVOCATIONS_UNKNOWN` if this worker cannot tell.

        `holder` is the identity that shows the token.
        """
        if not self.fresh:
            raise VaultError(Reason.REVOCATIONS_UNKNOWN, "this worker cannot see what is revoked")
        if self._revoked.cover(token, holder):
            raise VaultError(Reason.TOKEN_REVOKED, "the token was revoked")

    def _find_set_back(self, size: int) -> None:
        if not self.set_back:
            log.critical("the database was set back", extra={"records": size, "had_seen": self._head.size})
        self.set_back = True

    def _forget(self) -> None:
        if self._clock.monotonic() - self._pruned >= _FORGET_EVERY_SECONDS:
            self._pruned = self._clock.monotonic()
            self._revoked.forget(self._clock.now())


def _differ(seen: audit.Mark | None, found: audit.Mark | None) -> bool:
    """Whether another record stands where one was seen. One that was edited is for verification to find."""
    return (
        seen is not None
        and found is not None
        and seen.record_id != found.record_id
        and seen.leaf_hash != found.leaf_hash
    )
