"""A credential's standing with its provider: whether what it holds still works, who said so, when and why.

    ACTIVE            it works
    EXPIRING          it works, and soon will not, or is to be rotated: renew it
    UPDATE_REQUIRED   its provider wants the customer, or a new version: opened still, since mending it needs it
    SUSPENDED         refused until somebody lifts it
    REVOKED           refused for ever: its provider or its owner ended it

Storing a new version mends what a new version can mend. Events of a provider may come late or twice: one that is older
than what is known, or was seen before, changes nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import hashlib
import logging
from typing import TYPE_CHECKING, NamedTuple

from vault.core import audit, requests
from vault.errors import Reason, VaultError, invalid_field
from vault.model import Credential, CredentialState, Standing
from vault.store import credentials as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.model import AuditDraft, Caller
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.standing")

SET = "credential.set_standing"
PROVIDER_ID = "provider_id"
REMIND_BEFORE = datetime.timedelta(days=7)
"""How long before a credential expires it is said to be expiring."""

_NEXT: dict[Standing, frozenset[Standing]] = {
    standing: frozenset(Standing) - {standing} if standing is not Standing.REVOKED else frozenset()
    for standing in Standing
}
_USABLE = frozenset({Standing.ACTIVE, Standing.EXPIRING})
_MENDED = frozenset({Standing.EXPIRING, Standing.UPDATE_REQUIRED})
_BY_VAULT = "strongroom"
_SWEEP_SECONDS = 60.0
_SWEEP_ROWS = 500


class Event(NamedTuple):
    """What a provider said: of which of its objects, under which id, when it happened, and what follows from it."""

    object_id: str
    event_id: str
    time: datetime.datetime
    standing: Standing
    note: str
    timed: bool = True
    """Whether the provider says when it happened. If not, `time` is now, and the same said again is nothing new."""
    expire_time: datetime.datetime | None = None
    """When what the credential holds ends, if the provider says so."""


def change(before: Credential, standing: Standing, note: str, by: str, now: datetime.datetime) -> Credential:
    """The credential with another standing. Raises `STANDING_UNREACHABLE` if it can never be reached from here."""
    if standing is not before.standing and standing not in _NEXT[before.standing]:
        raise VaultError(Reason.STANDING_UNREACHABLE, "a revoked credential stays revoked: store another")
    return dataclasses.replace(
        before, standing=standing, standing_note=note, standing_by=by, standing_time=now
    )


def mend(before: Credential | None, after: Credential, by: str, now: datetime.datetime) -> Credential:
    """A credential that gets a new version: it works again, as far as a new version can mend it.

    Raises `CREDENTIAL_REVOKED`.
    """
    if before is None or before.standing is Standing.ACTIVE:
        return after
    refuse_revoked(before.standing)
    kept = dataclasses.replace(
        after,
        standing=before.standing,
        standing_note=before.standing_note,
        standing_by=before.standing_by,
        standing_time=before.standing_time,
    )
    if before.standing not in _MENDED:
        return kept
    return change(kept, Standing.ACTIVE, "a new version was stored", by, now)


def refuse_unusable(standing: Standing) -> None:
    """Raise `CREDENTIAL_SUSPENDED` or `CREDENTIAL_REVOKED` for what may not be opened."""
    if standing is Standing.SUSPENDED:
        raise VaultError(Reason.CREDENTIAL_SUSPENDED, "the credential is suspended")
    refuse_revoked(standing)


def refuse_revoked(standing: Standing) -> None:
    """Raise `CREDENTIAL_REVOKED` for what will never work again."""
    if standing is Standing.REVOKED:
        raise VaultError(Reason.CREDENTIAL_REVOKED, "the credential was revoked")


def check_apply(caller: Caller, name: str) -> None:
    """Whether the caller may have events of a provider take effect on a credential. Raises `SCOPE_DENIED`."""
    requests.credential_name(name, "apply_to")
    requests.require(caller, SET, name)


class Standings:
    """Sets standings: for callers, for events of providers, and when time has come."""

    def __init__(self, database: Database, log_: AuditLog, clock: Clock) -> None:
        self._database = database
        self._log = log_
        self._clock = clock

    async def set(
        self,
        caller: Caller,
        name: str,
        standing: Standing | None,
        note: str,
        expire_time: datetime.datetime | None,
        etag: str,
        request_id: str,
    ) -> Credential:
        """Set standing (None: leave it) and time of expiry (None: none). See `CredentialService.SetStanding`."""
        requests.credential_name(name)
        requests.require(caller, SET, name)
        requests.printable("note", note, required=standing is not None)
        if expire_time is not None and expire_time <= self._clock.now():
            raise invalid_field("expire_time", "must lie ahead")
        expiry = expire_time.isoformat() if expire_time else ""
        wanted = standing.value if standing else ""
        repeat = requests.repeat(caller, SET, request_id, name, wanted, note, expiry, etag)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            before = _existing(rows, name)
            record = audit.granted(caller, SET, name)
            if repeat.earlier(rows) is not None:
                repeated = audit.repeated(record)
                return Commit((repeated,), (), before)
            requests.check_etag(etag, before.etag)
            after = dataclasses.replace(before, expire_time=expire_time)
            if standing is not None:
                after = change(after, standing, note, caller.identity, now)
            commit = _commit(record, before, after, caller.identity, now)
            return commit._replace(writes=(*commit.writes, *repeat.remember(after.etag, now)))

        result: Credential = await self._log.commit(Unit((_key(name), *repeat.reads), decide))
        return result

    async def observe(self, caller: Caller, name: str, event: Event) -> bool:
        """Let a genuine event of a provider take effect on the credential that stands for the object it is about.

        Once, and not if a later one has: returns whether it changed anything. Which object a credential stands for, its
        label `provider_id` says. A suspension outlasts whatever the provider says, except that it is revoked. Raises
        `SCOPE_DENIED`, `FIELD_INVALID` if it stands for another, `CREDENTIAL_NOT_FOUND`, `CREDENTIAL_DELETED`.
        """
        check_apply(caller, name)
        event_key = hashlib.sha256(event.event_id.encode()).hexdigest()
        repeat = requests.Repeat(f"provider:{name}", SET, event_key, b"")

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            before = _existing(rows, name)
            if before.labels.get(PROVIDER_ID) != event.object_id:
                raise invalid_field(
                    "apply_to", f"its label {PROVIDER_ID} does not name what the webhook is about"
                )
            if repeat.earlier(rows) is not None or not _is_news(before, event):
                return Commit(())
            after = change(before, event.standing, event.note, caller.identity, event.time)
            if event.expire_time is not None or event.standing is Standing.ACTIVE:
                after = dataclasses.replace(after, expire_time=event.expire_time)
            commit = _commit(audit.granted(caller, SET, name), before, after, before.updated_by, now)
            return commit._replace(writes=(*commit.writes, *repeat.remember(after.etag, now)))

        result: Credential | None = await self._log.commit(Unit((_key(name), *repeat.reads), decide))
        return result is not None

    async def require_update(self, caller: Caller, name: str, version: int, note: str) -> None:
        """Let a credential be UPDATE_REQUIRED because its provider refused this version. Later versions are spared."""

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            before = _existing(rows, name)
            if before.latest_version != version or before.standing not in _USABLE:
                return Commit(())
            after = change(before, Standing.UPDATE_REQUIRED, note, _BY_VAULT, now)
            return _commit(audit.granted(caller, SET, name), before, after, before.updated_by, now)

        await self._log.commit(Unit((_key(name),), decide))

    async def run(self) -> None:
        """Say of what expires or is to be rotated that it is, in time, again and again, until cancelled."""
        while True:
            try:
                await self.sweep()
            except VaultError as error:
                log.warning("cannot look for what is due", extra={"reason": error.reason.value})
            await asyncio.sleep(_SWEEP_SECONDS)

    async def sweep(self) -> None:
        """Let what will soon expire or is to be rotated be EXPIRING, and what has expired be UPDATE_REQUIRED."""
        now = self._clock.now()
        async with self._database.read() as connection:
            due = await store.due(connection, now + REMIND_BEFORE, now, _SWEEP_ROWS)
        for credential in due:
            await self._log.commit(_due_unit(credential.name))


def _is_news(before: Credential, event: Event) -> bool:
    """Whether an event that was not seen before may change how a credential stands."""
    known = before.standing_time
    # Providers give whole seconds.
    if known is not None and before.standing_by != _BY_VAULT and event.time < known.replace(microsecond=0):
        return False
    if before.standing is Standing.REVOKED:
        return False
    if before.standing is Standing.SUSPENDED:
        return event.standing is Standing.REVOKED
    return event.timed or (before.standing, before.standing_note) != (event.standing, event.note)


def _due(credential: Credential, now: datetime.datetime) -> tuple[Standing, str] | None:
    """How a credential stands by now, and why, if nobody has said so yet."""
    expires, rotates = credential.expire_time, credential.rotation_due_time
    if expires is not None and expires <= now and credential.standing in _USABLE:
        return Standing.UPDATE_REQUIRED, "it has expired"
    if credential.standing is not Standing.ACTIVE:
        return None
    if expires is not None and expires <= now + REMIND_BEFORE:
        return Standing.EXPIRING, f"it expires at {expires.isoformat()}"
    if rotates is not None and rotates <= now:
        return Standing.EXPIRING, f"its rotation is due since {rotates.isoformat()}"
    return None


def _due_unit(name: str) -> Unit:
    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        before = _existing(rows, name)
        due = _due(before, now)
        if due is None:
            return Commit(())
        after = change(before, *due, _BY_VAULT, now)
        record = audit.by_vault(before.tenant, SET, name)
        return _commit(record, before, after, before.updated_by, now)

    return Unit((_key(name),), decide)


def _commit(
    record: AuditDraft, before: Credential, after: Credential, by: str, now: datetime.datetime
) -> Commit:
    after = dataclasses.replace(after, etag=requests.new_etag(), update_time=now, updated_by=by)
    record = record._replace(before_state=_state(before), after_state=_state(after))
    return Commit((record,), (Write("credentials", store.credential_row(after)),), after)


def _existing(rows: Rows, name: str) -> Credential:
    row = rows.get("credentials", name)
    if row is None:
        raise VaultError(Reason.CREDENTIAL_NOT_FOUND, "no such credential")
    credential = store.credential_from(row)
    if credential.state is CredentialState.DELETED:
        raise VaultError(Reason.CREDENTIAL_DELETED, "the credential is deleted")
    return credential


def _state(credential: Credential) -> str:
    return canonical_json(
        {
            "standing": credential.standing.value,
            "note": credential.standing_note,
            "etag": credential.etag,
            "expire_time": credential.expire_time.isoformat() if credential.expire_time else "",
        }
    )


def _key(name: str) -> RowKey:
    return RowKey("credentials", (name,))
