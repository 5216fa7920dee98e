"""Watches: what changed among a tenant's credentials, as it happens, from wherever a caller left off.

The changes are read from the audit log, which is one sequence in the order of commits: a position in it is all that a
caller needs to miss nothing across a lost connection, whichever worker or replica it comes back to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, NamedTuple

from vault.core import audit, requests
from vault.crypto import scopes
from vault.errors import Reason, VaultError
from vault.store import archives
from vault.store import audit as store
from vault.store.ledger import read_head
from vault.store.reach import ALL_TENANTS

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncGenerator

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.follower import Follower
    from vault.crypto.scopes import Scope
    from vault.model import AuditRecord, Caller, Token
    from vault.store.engine import Database

CHANGES = (
    "credential.put",
    "credential.delete",
    "credential.undelete",
    "credential.destroy_version",
    "credential.set_standing",
)
"""The actions of the log that are changes of a credential."""

_READ = "credential.read"
_PAGE = 500
_HEARTBEAT_SECONDS = 15.0


class Change(NamedTuple):
    """A change of one credential. `version`: the one that was stored or destroyed, else 0."""

    name: str
    action: str
    version: int
    time: datetime.datetime
    identity: str


class Seen(NamedTuple):
    """What happened (nothing, if it is only a sign of life), and the position behind it."""

    change: Change | None
    position: int


class Watches:
    """Lets callers follow what changes."""

    def __init__(self, database: Database, log: AuditLog, follower: Follower, clock: Clock) -> None:
        self._database = database
        self._log = log
        self._clock = clock
        self._open: dict[asyncio.Event, Token] = {}
        follower.listen(self._notice)

    async def watch(self, caller: Caller, prefix: str, position: int | None) -> AsyncGenerator[Seen]:
        """Changes of the credentials under a prefix that the token may read, from `position` or from now on.

        The first thing it gives is a sign of life. It goes on until it is closed, as the edge does when its caller is
        no longer let in, or until it cannot see. For the errors at the beginning see `CredentialService.Watch`.
        """
        token = requests.token_of(caller)
        readable = [scope for scope in token.scopes if scope.action == _READ]
        if not readable:
            raise VaultError(Reason.SCOPE_DENIED, "the token has no scope to read", action=_READ)
        prefix = requests.prefix(token.tenant, prefix)
        await self._refuse_archived(position)
        await self._log.record(audit.granted(caller, "credential.watch", prefix))
        wake = asyncio.Event()
        self._open[wake] = token
        try:
            async for seen in self._follow(token.tenant, readable, prefix, position, wake):
                yield seen
        finally:
            del self._open[wake]

    async def _follow(
        self, tenant: str, readable: list[Scope], prefix: str, position: int | None, wake: asyncio.Event
    ) -> AsyncGenerator[Seen]:
        told = float("-inf")
        while True:
            wake.clear()
            records, position = await self._read(tenant, position)
            for record in records:
                change = _change(record)
                if change and _is_under(change.name, prefix) and _may_read(readable, change.name):
                    yield Seen(change, record.sequence + 1)
                    told = self._clock.monotonic()
            if self._clock.monotonic() - told >= _HEARTBEAT_SECONDS:
                yield Seen(None, position)
                told = self._clock.monotonic()
            if len(records) < _PAGE:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_HEARTBEAT_SECONDS):
                        await wake.wait()

    async def _refuse_archived(self, position: int | None) -> None:
        """Raise `CURSOR_TOO_OLD` if not all that came behind a position is in the database any more."""
        if position is None:
            return
        async with self._database.read(ALL_TENANTS) as connection:
            first = await archives.first_sequence(connection)
        if position < first:
            raise VaultError(
                Reason.CURSOR_TOO_OLD, "what changed behind this cursor was archived: list anew, then watch"
            )

    async def _read(self, tenant: str, position: int | None) -> tuple[list[AuditRecord], int]:
        """A page of the tenant's changes, and the position behind it."""
        async with self._database.read() as connection:
            head = await read_head(connection)
            if position is None:
                return [], head.size
            records = await store.granted_of_tenant(
                connection, tenant, position, head.size, CHANGES, limit=_PAGE
            )
        return records, records[-1].sequence + 1 if len(records) == _PAGE else max(position, head.size)

    def _notice(self, record: AuditRecord) -> None:
        if record.action in CHANGES:
            for wake, token in self._open.items():
                if token.tenant == record.tenant:
                    wake.set()


def _change(record: AuditRecord) -> Change | None:
    """The change that a record tells of; None for a repeated request, which changed nothing."""
    after = json.loads(record.after_state or "{}")
    if after.get("repeated"):
        return None
    versioned = record.action in ("credential.put", "credential.destroy_version")
    version = after.get("version", 0) if versioned else 0
    return Change(record.resource, record.action, version, record.created_at, record.identity)


def _is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}/")


def _may_read(readable: list[Scope], name: str) -> bool:
    return any(scopes.covers(scope, _READ, name) for scope in readable)
