"""Hand-overs: a secret wrapped for one identity, opened by it once, gone afterwards.

Opening is decided where every write is: under the log's lock. Of many that try at once one finds the secret waiting;
in that very commit the secret leaves the database, and only then does the answer leave the vault. So it is opened at
most once, and an answer lost on its way is lost for good: better than a secret that somebody else may have read.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
import re
from typing import TYPE_CHECKING, NamedTuple

from vault.core import audit, fields, requests
from vault.crypto import contexts, envelope, hpke
from vault.crypto.errors import FormatError
from vault.errors import Reason, VaultError, invalid_field
from vault.model import (
    CredentialState,
    Handover,
    HandoverState,
    KeyPurpose,
    Standing,
    StoredVersion,
    VersionState,
)
from vault.store import handovers as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.envelopes import Envelopes
    from vault.core.ingest import IngestKeys
    from vault.core.keys import Keyring
    from vault.core.people import People
    from vault.model import Caller
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.handovers")

WRAP, UNWRAP = "handover.wrap", "handover.unwrap"
MAX_LIFE = datetime.timedelta(hours=24)
DEFAULT_LIFE = datetime.timedelta(hours=1)
MAX_SEALED = 98_304
_SWEEP_SECONDS = 60.0
_SWEEP_ROWS = 500
_TRIES = 5
_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_RECIPIENT = re.compile(
    r"spiffe://[!-~]{1,246}|person:[A-Za-z0-9_-]{22}|(?=.{1,255}$)[a-z0-9-]+(\.[a-z0-9-]+)+"
)


@dataclasses.dataclass(frozen=True)
class Wrap:
    """A request to wrap a secret."""

    name: str
    recipient: str
    sealed: bytes = dataclasses.field(repr=False)
    ingest_key_id: str
    life: datetime.timedelta | None
    request_id: str


class Unwrapped(NamedTuple):
    """The one opening: what it was, and the secret, sealed to the caller."""

    handover: Handover
    sealed: bytes


class _Moved(Exception):  # noqa: N818 - not an error: the key was rotated meanwhile
    """The key that the secret was sealed under is no longer the tenant's newest."""


class Handovers:
    """Wraps, unwraps, and lets what nobody opened expire."""

    def __init__(
        self,
        database: Database,
        log_: AuditLog,
        keyring: Keyring,
        ingest: IngestKeys,
        envelopes: Envelopes,
        people: People,
        clock: Clock,
    ) -> None:
        self._people = people
        self._database = database
        self._log = log_
        self._keyring = keyring
        self._ingest = ingest
        self._envelopes = envelopes
        self._clock = clock

    async def wrap(self, caller: Caller, wrap: Wrap) -> Handover:
        """Keep a secret for one identity. For the errors see `HandoverService.Wrap`."""
        requests.credential_name(wrap.name)
        token = requests.require(caller, WRAP, wrap.name)
        life = _check(wrap)
        repeat = requests.repeat(
            caller, WRAP, wrap.request_id, wrap.name, wrap.recipient, wrap.sealed, wrap.ingest_key_id,
            life // datetime.timedelta(seconds=1),
        )  # fmt: skip
        info = contexts.wrap_info(wrap.name, wrap.recipient, wrap.ingest_key_id)
        recipient = await self._people.written(wrap.recipient)
        with await self._ingest.open(wrap.ingest_key_id, info, wrap.sealed) as plaintext:
            names = fields.checked(plaintext).field_names
            handover_id = requests.new_id()
            for _ in range(_TRIES):
                kek = await self._keyring.active(token.tenant, KeyPurpose.KEK)
                sealed = await self._envelopes.seal(kek, _bound_name(wrap.name, handover_id), 1, plaintext)
                now = self._clock.now()
                new = Handover(
                    name=wrap.name,
                    handover_id=handover_id,
                    sender=caller.identity,
                    recipient=recipient,
                    state=HandoverState.WAITING,
                    suite=envelope.parse(sealed).suite,
                    kek_version=kek.version,
                    field_names=names,
                    create_time=now,
                    expire_time=now + life,
                    end_time=None,
                    envelope=sealed,
                )
                try:
                    kept: Handover = await self._log.commit(_wrap_unit(caller, new, repeat))
                except _Moved:
                    self._keyring.forget_tenant(token.tenant)
                else:
                    return kept
        raise VaultError(Reason.KEY_CHANGED, "the tenant's key keeps changing; try again")

    async def unwrap(
        self, caller: Caller, name: str, handover_id: str, recipient_key: bytes, hpke_suite: int
    ) -> Unwrapped:
        """Open a secret, once. For the errors see `HandoverService.Unwrap`."""
        requests.credential_name(name)
        requests.require(caller, UNWRAP, name)
        if not _ID.fullmatch(handover_id):
            raise invalid_field("handover_id", "must be 22 characters of base64url")
        suite = hpke.SUITES.get(hpke_suite or hpke.DEFAULT_SUITE)
        if suite is None:
            raise invalid_field("hpke_suite", "1 (X25519) or 2 (MLKEM768-X25519)")
        async with self._database.read() as connection:
            found = await store.get(connection, name, handover_id)
        handover = _openable(found, caller, self._clock.now())
        (opened,) = await self._envelopes.open_all([_stored(handover)])
        with opened:
            info = contexts.unwrap_info(handover.handover_id, name, handover.field_names)
            try:
                sealed = hpke.seal(suite, recipient_key, info, opened.view)
            except FormatError:
                raise VaultError(
                    Reason.RECIPIENT_KEY_INVALID, "not a public key of this HPKE suite"
                ) from None
        await self._log.commit(_unwrap_unit(caller, handover))
        return Unwrapped(handover, sealed)

    async def run(self) -> None:
        """Destroy what nobody opened in time, again and again, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self.sweep()
            except VaultError as error:
                log.warning("cannot let hand-overs expire", extra={"reason": error.reason.value})

    async def sweep(self) -> None:
        """Destroy what nobody opened in time. They could not be opened any more; now they cannot be at all."""
        async with self._database.read() as connection:
            overdue = await store.overdue(connection, self._clock.now(), _SWEEP_ROWS)
        for handover in overdue:
            await self._log.commit(_expire_unit(handover))


def _check(wrap: Wrap) -> datetime.timedelta:
    if not _RECIPIENT.fullmatch(wrap.recipient):
        # Nobody else could ever open it.
        raise invalid_field(
            "recipient", "must be a SPIFFE ID or a DNS name, as a certificate names its holder"
        )
    if not 0 < len(wrap.sealed) <= MAX_SEALED:
        raise invalid_field("sealed", f"1 to {MAX_SEALED} bytes")
    if not wrap.ingest_key_id:
        raise invalid_field("ingest_key_id", "is required")
    if wrap.life is not None and not datetime.timedelta(seconds=1) <= wrap.life <= MAX_LIFE:
        raise invalid_field("ttl", f"1 to {int(MAX_LIFE.total_seconds())} seconds")
    return wrap.life or DEFAULT_LIFE


def _bound_name(name: str, handover_id: str) -> str:
    """What the envelope is bound to. The colon keeps it apart from every credential's name."""
    return f"{name}:{handover_id}"


def _openable(handover: Handover | None, caller: Caller, now: datetime.datetime) -> Handover:
    if handover is None or handover.recipient != caller.identity:
        raise VaultError(Reason.HANDOVER_NOT_FOUND, "no such hand-over for this identity")
    if handover.state is HandoverState.OPENED:
        log.critical("a hand-over was to be opened twice", extra={"handover": handover.handover_id})
        raise VaultError(Reason.HANDOVER_OPENED, "it has been opened; if not by you, its secret is known")
    if handover.state is HandoverState.EXPIRED or now >= handover.expire_time:
        raise VaultError(Reason.HANDOVER_EXPIRED, "nobody opened it in time")
    return handover


def _stored(handover: Handover) -> StoredVersion:
    """A hand-over as the envelopes know it: a version, the only one, of what it is bound to."""
    return StoredVersion(
        name=_bound_name(handover.name, handover.handover_id),
        version=1,
        tenant=handover.tenant,
        kind="handover",
        state=VersionState.ENABLED,
        credential_state=CredentialState.ACTIVE,
        standing=Standing.ACTIVE,
        suite=handover.suite,
        kek_version=handover.kek_version,
        field_names=handover.field_names,
        envelope=handover.envelope,
    )


def _row_key(handover: Handover) -> RowKey:
    return RowKey("handovers", (handover.name, handover.handover_id))


def _wrap_unit(caller: Caller, new: Handover, repeat: requests.Repeat) -> Unit:
    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        record = audit.granted(caller, WRAP, new.name)
        earlier = repeat.earlier(rows)
        if earlier is not None:
            handover_id, _, expire_time = earlier.partition(" ")
            kept = dataclasses.replace(
                new, handover_id=handover_id, expire_time=datetime.datetime.fromisoformat(expire_time)
            )
            return Commit((audit.repeated(record),), (), kept)
        tenant = rows.get("tenants", new.tenant)
        if tenant is None:
            raise VaultError(Reason.TENANT_NOT_FOUND, "no such tenant")
        if tenant["kek_version"] != new.kek_version:
            raise _Moved
        record = record._replace(after_state=_state(new))
        remembered = repeat.remember(f"{new.handover_id} {new.expire_time.isoformat()}", now)
        return Commit((record,), (Write("handovers", store.handover_row(new)), *remembered), new)

    return Unit((_row_key(new), RowKey("tenants", (new.tenant,)), *repeat.reads), decide)


def _unwrap_unit(caller: Caller, seen: Handover) -> Unit:
    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row = rows.get("handovers", seen.name, seen.handover_id)
        before = _openable(store.handover_from(row) if row else None, caller, now)
        after = _ended(before, HandoverState.OPENED, now)
        record = audit.granted(caller, UNWRAP, seen.name)
        record = record._replace(before_state=_state(before), after_state=_state(after))
        return Commit((record,), (Write("handovers", store.handover_row(after)),), after)

    return Unit((_row_key(seen),), decide)


def _expire_unit(seen: Handover) -> Unit:
    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row = rows.get("handovers", seen.name, seen.handover_id)
        before = store.handover_from(row) if row else seen
        if before.state is not HandoverState.WAITING:
            return Commit(())
        after = _ended(before, HandoverState.EXPIRED, now)
        record = audit.by_vault(seen.tenant, "handover.expire", seen.name)
        record = record._replace(before_state=_state(before), after_state=_state(after))
        return Commit((record,), (Write("handovers", store.handover_row(after)),), after)

    return Unit((_row_key(seen),), decide)


def _ended(handover: Handover, state: HandoverState, now: datetime.datetime) -> Handover:
    return dataclasses.replace(handover, state=state, end_time=now, envelope=b"")


def _state(handover: Handover) -> str:
    return canonical_json(
        {
            "handover_id": handover.handover_id,
            "state": handover.state.value,
            "recipient": handover.recipient,
            "field_names": list(handover.field_names),
            "expire_time": handover.expire_time.isoformat(),
        }
    )
