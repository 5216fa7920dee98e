"""Sessions: the only place where a secret is open, for as long as one stream lasts.

A session holds its credentials in locked memory. Whatever ends it, the same happens: operations stop,
buffers are wiped and read back, the log says why. The edge owns the stream; a session knows nothing of it
but the events it puts out.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import json
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.core import approvals, audit, policies, redemption, requests, standing
from vault.core.open_sessions import OpenSessions
from vault.core.revocations import REVOKE
from vault.core.uses.material import Material, Surroundings, unknown_field
from vault.core.uses.table import ACTIONS as USE_ACTIONS
from vault.core.uses.table import USES
from vault.crypto import bundle, contexts, hpke, memory, parcel, scopes
from vault.crypto.approvals import Operation
from vault.crypto.bundle import UnknownField
from vault.crypto.errors import FormatError
from vault.crypto.stream import SessionSealer
from vault.errors import Reason, VaultError, invalid_field
from vault.model import SYSTEM_TENANT, Outcome, Standing
from vault.store.ledger import Commit, Unit
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vault.clock import Clock
    from vault.core.approvals import Approvals
    from vault.core.audit import AuditLog
    from vault.core.batch import Load
    from vault.core.credentials import Credentials
    from vault.core.envelopes import Envelopes
    from vault.core.follower import Follower
    from vault.core.policy import Policy
    from vault.crypto.memory import LockedBuffer
    from vault.model import AuditDraft, AuditRecord, Caller, Origin, StoredVersion
    from vault.store.ledger import Rows

MAX_CREDENTIALS = 100
_TICK_SECONDS = 0.2
_LOOK_SECONDS = 5.0  # at the latest, so that a step of the clock ends what it makes too old
_WARN_BEFORE = datetime.timedelta(seconds=30)
_KEY_BYTES = 32

REVEAL = "session.reveal"
_ACTIONS = (REVEAL, *USE_ACTIONS)


class CloseReason(enum.StrEnum):
    """Why a session ended."""

    CLOSED_BY_CALLER = "closed-by-caller"
    DISCONNECTED = "disconnected"
    IDLE = "idle"
    EXPIRED = "expired"
    TOKEN_ENDED = "token-ended"  # noqa: S105 - a reason, not a token
    CREDENTIAL_GONE = "credential-gone"
    SERVER_STOPPING = "server-stopping"
    FAILED = "failed"
    REVOCATIONS_UNKNOWN = "revocations-unknown"
    POLICY_CHANGED = "policy-changed"


@dataclasses.dataclass(frozen=True)
class SessionSettings:
    """The limits of sessions."""

    max_life: datetime.timedelta
    idle: datetime.timedelta
    max_per_worker: int
    max_per_tenant: int
    max_per_identity: int


class Selector(NamedTuple):
    """Which version of a credential (0: the newest), and which of its fields (none: all)."""

    name: str
    version: int
    field_names: tuple[str, ...] = ()


class Opened(NamedTuple):
    """What was opened or revealed."""

    name: str
    version: int
    kind: str
    field_names: tuple[str, ...]


class Revealed(NamedTuple):
    """The answer to a session of one call."""

    session_id: str
    opened: tuple[Opened, ...]
    sealed: bytes


class StreamReveal(NamedTuple):
    """A reveal on an open session."""

    counter: int
    sealed: bytes
    opened: Opened


class Expiring(NamedTuple):
    """Event: the session will soon end."""

    expire_time: datetime.datetime


class Changed(NamedTuple):
    """Event: a credential of the session has a newer version."""

    name: str
    latest_version: int


@dataclasses.dataclass(frozen=True)
class Receipt:
    """What a session did, and that its buffers were wiped."""

    reason: CloseReason
    reveals: int
    uses: int
    buffers: int
    buffers_wiped: int
    duration: datetime.timedelta


class _Content(NamedTuple):
    stored: StoredVersion
    buffer: LockedBuffer


class Session:
    """An open session. Made by `Sessions.open`, ended by `end`, wiped by `Sessions.close`."""

    def __init__(
        self,
        caller: Caller,
        contents: dict[str, _Content],
        key: LockedBuffer,
        log: AuditLog,
        load: Load,
        clock: Clock,
        surroundings: Surroundings,
        *,
        reopen: Callable[[str], Awaitable[_Content]],
        expire_time: datetime.datetime,
    ) -> None:
        self.session_id = new_session_id()
        self.caller = caller
        self.token = requests.token_of(caller)
        self.expire_time = expire_time
        self.open_time = clock.now()
        self.events: asyncio.Queue[Expiring | Changed] = asyncio.Queue()
        self.ended: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
        self.last_used = clock.monotonic()
        self._contents = contents
        self._sealer = SessionSealer(key)
        self._key = key
        self._log = log
        self._load = load
        self._clock = clock
        self._surroundings = surroundings
        self._reopen = reopen
        self._reveals = 0
        self._uses = 0
        self._warned = False

    @property
    def key_view(self) -> memoryview:
        """The session key, to be sealed to the caller."""
        return self._key.view

    @property
    def opened(self) -> tuple[Opened, ...]:
        """What the session holds."""
        return tuple(_opened(content.stored) for content in self._contents.values())

    def end(self, reason: CloseReason) -> None:
        """Let no further operation begin or answer. The first reason stands."""
        if not self.ended.done():
            self.ended.set_result(reason)

    async def reveal(self, name: str, field_names: tuple[str, ...]) -> StreamReveal:
        """Seal fields of a credential of the session to the caller, by the session key."""
        content = self._use(REVEAL, name)
        names = requests.field_names(field_names)
        with _select(content.buffer.view, names) as selected:
            opened = _opened(content.stored, bundle.field_names(selected.view))
            counter, sealed = self._sealer.seal(
                contexts.stream_reveal_aad(self.session_id, opened), selected.view
            )
        self._reveals += 1
        await self._record(REVEAL, opened, fields=list(opened.field_names))
        return StreamReveal(counter, sealed, opened)

    async def use(self, name: str, request: Any, also: str = "") -> Any:
        """Use a credential of the session without revealing it; for the requests see `uses/table.py`.

        `also` names a second one that lends fields to the first; the use must be allowed on both.
        """
        use = USES[type(request)]
        content = self._use(use.action, name)
        lender = self._use(use.action, also) if also else None
        if use.reaches_out:
            # The log knows of it before the provider does.
            await self._record(use.action, _opened(content.stored, ()), intent=request.intent())
            content = self._use(use.action, name)
        material = self._material(content, self._material(lender) if lender else None)
        done = await use.run(material, request, self._surroundings)
        self._uses += 1
        opened = _opened(content.stored, done.field_names)
        await self._record(use.action, opened, fields=list(done.field_names), **done.after)
        if done.renewed:
            await self._renew(name)
        return done.result

    async def _renew(self, name: str) -> None:
        """Go on with the newest version of a credential. The one before is wiped."""
        content = await self._reopen(name)
        if self.ended.done():
            content.buffer.close()
            raise _session_ended()
        before, self._contents[name] = self._contents[name], content
        before.buffer.close()

    def _material(self, content: _Content, companion: Material | None = None) -> Material:
        stored, version = content.stored, content.stored.version
        return Material(
            version.name,
            version.version,
            stored.kind,
            version.field_names,
            content.buffer.view,
            stored.standing,
            companion,
            caller=self.caller,
        )

    async def record_refusal(self, action: str, name: str, reason: Reason) -> None:
        """Make the record of a refused operation durable."""
        known = name if name in self._contents else ""
        draft = audit.granted(self.caller, action, known, session_id=self.session_id)
        await self._log.record(dataclasses.replace(draft, outcome=Outcome.REFUSED, reason=reason.value))

    def tick(self, settings: SessionSettings) -> float:
        """End the session if its time is over; warn before. Returns in how many seconds to look again."""
        left = self.expire_time - self._clock.now()
        idle_left = self.last_used + settings.idle.total_seconds() - self._clock.monotonic()
        if left <= datetime.timedelta(0):
            at_end = self.expire_time >= self.token.expire_time
            self.end(CloseReason.TOKEN_ENDED if at_end else CloseReason.EXPIRED)
        elif idle_left <= 0:
            self.end(CloseReason.IDLE)
        elif not self._warned and left <= _WARN_BEFORE:
            self._warned = True
            self.events.put_nowait(Expiring(self.expire_time))
        due = left if self._warned else left - _WARN_BEFORE
        return min(_LOOK_SECONDS, idle_left, due.total_seconds())

    def notice(self, record: AuditRecord) -> None:
        """Take note of a change in the log."""
        content = self._contents.get(record.resource)
        if content is None:
            return
        after = json.loads(record.after_state or "{}")
        opened = content.stored.version.version
        if record.action == "credential.put":
            if after.get("version", 0) > opened:
                self.events.put_nowait(Changed(record.resource, after["version"]))
        elif _is_gone(record.action, after, opened):
            self.end(CloseReason.CREDENTIAL_GONE)

    def wipe(self, reason: CloseReason) -> Receipt:
        """Wipe every buffer and read each back."""
        self._sealer.close()
        buffers = [self._key, *(content.buffer for content in self._contents.values())]
        wiped = [buffer.close() for buffer in buffers]
        self._contents = {}
        return Receipt(
            reason=reason,
            reveals=self._reveals,
            uses=self._uses,
            buffers=len(buffers),
            buffers_wiped=sum(wiped),
            duration=self._clock.now() - self.open_time,
        )

    def _use(self, action: str, name: str) -> _Content:
        if self.ended.done():
            raise _session_ended()
        self.last_used = self._clock.monotonic()
        requests.credential_name(name)
        requests.require(self.caller, action, name)
        content = self._contents.get(name)
        if content is None:
            raise VaultError(Reason.CREDENTIAL_NOT_FOUND, "not a credential of this session")
        return content

    async def _record(self, action: str, opened: Opened, **after: object) -> None:
        state = canonical_json({"version": opened.version, **after})
        with self._load.call():
            await self._log.record(
                audit.granted(self.caller, action, opened.name, session_id=self.session_id, after=state)
            )
        # The session may have ended while the record was written: then nothing is answered.
        if self.ended.done():
            raise _session_ended()


class Sessions:
    """Opens sessions, watches over them, closes them."""

    def __init__(
        self,
        settings: SessionSettings,
        credentials: Credentials,
        envelopes: Envelopes,
        log: AuditLog,
        follower: Follower,
        approvals_: Approvals,
        load: Load,
        clock: Clock,
        *,
        surroundings: Surroundings,
    ) -> None:
        self._settings = settings
        self._approvals = approvals_
        self._credentials = credentials
        self._envelopes = envelopes
        self._log = log
        self._follower = follower
        self._load = load
        self._clock = clock
        self._surroundings = surroundings
        self._open = OpenSessions()
        self._stopping = False
        self._policy: Policy | None = None
        follower.listen(self._notice)

    async def reveal(
        self,
        caller: Caller,
        wanted: tuple[Selector, ...],
        purpose: str,
        recipient_key: bytes,
        hpke_suite: int,
        approval_id: str = "",
    ) -> Revealed:
        """A session of one call: reveal several credentials, all or none, in one sealed parcel.

        With an approval it breaks the glass: one credential, by the scope `session.break_glass`.
        """
        _authorise(caller, wanted, (approvals.BREAK_GLASS if approval_id else REVEAL,))
        if approval_id and len(wanted) != 1:
            raise invalid_field("credentials", "exactly one with an approval")
        requests.printable("purpose", purpose, required=True)
        suite = _suite(hpke_suite)
        selected = [requests.field_names(item.field_names) for item in wanted]
        stored = await self._credentials.stored([(item.name, item.version) for item in wanted])
        session_id = new_session_id()
        buffers = await self._envelopes.open_all(stored)
        try:
            opened = tuple(
                _opened(item, names or bundle.field_names(buffer.view))
                for item, names, buffer in zip(stored, selected, buffers, strict=True)
            )
            sealed = _seal_parcel(suite, recipient_key, session_id, opened, buffers)
        finally:
            for buffer in buffers:
                buffer.close()
        records = tuple(
            audit.granted(
                caller,
                approvals.BREAK_GLASS if approval_id else REVEAL,
                item.name,
                session_id=session_id,
                after=canonical_json(
                    {"version": item.version, "fields": list(item.field_names), "purpose": purpose}
                ),
            )
            for item in opened
        )
        await self._begin(caller, records, break_glass(wanted[0]) if approval_id else None, approval_id)
        return Revealed(session_id, opened, sealed)

    async def _begin(
        self,
        caller: Caller,
        records: tuple[AuditDraft, ...],
        operation: Operation | None = None,
        approval_id: str = "",
    ) -> None:
        """Make the records of a new session durable, without which nothing is answered.

        In the same transaction the session is counted, where the token is good for a number of them, and the approval
        that an operation needs is used up. Raises `TOKEN_USED_UP`, `APPROVAL_*`.
        """
        token = requests.token_of(caller)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            writes = redemption.count(rows, token, now)
            if operation is not None:
                writes += self._approvals.consume(rows, caller, operation, approval_id, now)
            return Commit(records, writes)

        approval = self._approvals.reads(approval_id) if operation is not None else ()
        await self._log.commit(Unit((*redemption.reads(token), *approval), decide))

    async def open(
        self,
        caller: Caller,
        wanted: tuple[Selector, ...],
        purpose: str,
        recipient_key: bytes,
        hpke_suite: int,
        life: datetime.timedelta | None,
    ) -> tuple[Session, bytes]:
        """Open a session; give it with its session key, sealed to the caller."""
        _authorise(caller, wanted, _ACTIONS)
        requests.printable("purpose", purpose, required=True)
        suite = _suite(hpke_suite)
        if any(item.field_names for item in wanted):
            raise invalid_field("field_names", "must be empty here: a session opens the whole credential")
        if life is not None and not datetime.timedelta(0) < life <= self._settings.max_life:
            raise invalid_field("ttl", f"at most {int(self._settings.max_life.total_seconds())} seconds")
        self._check_limits(caller)
        token = requests.token_of(caller)
        expire_time = min(self._clock.now() + (life or self._settings.max_life), token.expire_time)
        stored = await self._credentials.stored([(item.name, item.version) for item in wanted])
        buffers = await self._envelopes.open_all(stored)
        contents = {
            item.version.name: _Content(item, buffer) for item, buffer in zip(stored, buffers, strict=True)
        }
        session = Session(
            caller,
            contents,
            _new_key(),
            self._log,
            self._load,
            self._clock,
            self._surroundings,
            reopen=self._reopen,
            expire_time=expire_time,
        )
        try:
            sealed_key = _seal(
                suite, recipient_key, contexts.session_key_info(session.session_id), session.key_view
            )
            # Listed before its record is written, so that a revocation in between ends it.
            self._check_limits(caller)
            self._open.add(session)
            self._look_after(session)
            self._end_if_revoked(session)
            if self._policy and not policies.grants(self._policy, session.token, caller.origin):
                # It came into force while this session was made, and has not seen it.
                session.end(CloseReason.POLICY_CHANGED)
            await self._begin(
                caller,
                tuple(
                    audit.granted(
                        caller,
                        "session.open",
                        item.name,
                        session_id=session.session_id,
                        after=canonical_json(
                            {
                                "version": item.version,
                                "purpose": purpose,
                                "expire_time": expire_time.isoformat(),
                            }
                        ),
                    )
                    for item in session.opened
                ),
            )
        except BaseException:
            self._open.discard(session)
            session.wipe(CloseReason.FAILED)
            raise
        return session, sealed_key

    async def close(self, session: Session) -> Receipt:
        """Wipe a session and make the record of its end durable. The wiping never waits."""
        session.end(CloseReason.FAILED)
        opened = session.opened
        receipt = session.wipe(session.ended.result())
        self._open.discard(session)
        state = canonical_json(
            {
                "reason": receipt.reason.value,
                "reveals": receipt.reveals,
                "uses": receipt.uses,
                "buffers": receipt.buffers,
                "buffers_wiped": receipt.buffers_wiped,
                "milliseconds": receipt.duration // datetime.timedelta(milliseconds=1),
            }
        )
        await self._log.record(
            *(
                audit.granted(
                    session.caller, "session.close", item.name, session_id=session.session_id, after=state
                )
                for item in opened
            )
        )
        return receipt

    async def run(self) -> None:
        """End all sessions whenever this worker has lost sight of revocations, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if not self._follower.fresh:
                self._end_all(CloseReason.REVOCATIONS_UNKNOWN)

    def end_where(self, refused: Callable[[Caller], bool]) -> None:
        """End the sessions of callers that would be refused now."""
        for session in self._open:
            if refused(session.caller):
                session.end(CloseReason.TOKEN_ENDED)

    def regrant(self, policy: Policy) -> None:
        """End the sessions of tokens that a new policy would not grant."""
        self._policy = policy
        granted: dict[tuple[str, Origin], bool] = {}
        for session in self._open:
            origin = dataclasses.replace(session.caller.origin, request_id="")
            key = (session.token.token_id, origin)
            if key not in granted:
                granted[key] = policies.grants(policy, session.token, origin)
            if not granted[key]:
                session.end(CloseReason.POLICY_CHANGED)

    def stop(self) -> None:
        """End every session, and let none begin."""
        self._stopping = True
        self._end_all(CloseReason.SERVER_STOPPING)

    def _end_all(self, reason: CloseReason) -> None:
        for session in self._open:
            session.end(reason)

    def _look_after(self, session: Session) -> None:
        """Look at a session's times now, and again when it is due, for as long as it is open."""
        due = session.tick(self._settings)
        if not session.ended.done():
            asyncio.get_running_loop().call_later(due, self._look_after, session)

    async def _reopen(self, name: str) -> _Content:
        (stored,) = await self._credentials.stored([(name, 0)])
        (buffer,) = await self._envelopes.open_all([stored])
        return _Content(stored, buffer)

    def __len__(self) -> int:
        return len(self._open)

    def _notice(self, record: AuditRecord) -> None:
        for session in self._open.concerned_by(record):
            if record.action == REVOKE:
                self._end_if_revoked(session)
            else:
                session.notice(record)

    def _end_if_revoked(self, session: Session) -> None:
        try:
            self._follower.refuse_revoked(session.token, session.caller.identity)
        except VaultError:
            session.end(CloseReason.TOKEN_ENDED)

    def _check_limits(self, caller: Caller) -> None:
        if self._stopping:
            raise VaultError(Reason.SHUTTING_DOWN, "the server is stopping")
        if len(self._open) >= self._settings.max_per_worker:
            raise VaultError(
                Reason.LIMIT_REACHED, "too many sessions on this worker", limit="sessions_per_worker"
            )
        if self._open.of_tenant(requests.token_of(caller).tenant) >= self._settings.max_per_tenant:
            raise VaultError(
                Reason.LIMIT_REACHED, "too many sessions of this tenant", limit="sessions_per_tenant"
            )
        if self._open.of_identity(caller.identity) >= self._settings.max_per_identity:
            raise VaultError(
                Reason.LIMIT_REACHED, "too many sessions of this identity", limit="sessions_per_identity"
            )


def break_glass(wanted: Selector) -> Operation:
    """The operation that is approved when the glass is broken."""
    return Operation(
        approvals.BREAK_GLASS,
        wanted.name,
        {"version": str(wanted.version), "fields": ",".join(sorted(wanted.field_names))},
    )


def _is_gone(action: str, after: dict[str, Any], opened: int) -> bool:
    """Whether a change takes the opened version away from its sessions."""
    if action == standing.SET:
        return after.get("standing") in (Standing.SUSPENDED, Standing.REVOKED)
    return action == "credential.delete" or (
        action == "credential.destroy_version" and after.get("version") == opened
    )


def new_session_id() -> str:
    """128 random bits, base64url: 22 characters."""
    return secrets.token_urlsafe(16)


def _authorise(caller: Caller, wanted: tuple[Selector, ...], any_of: tuple[str, ...]) -> None:
    """Every credential, each on its own: one that is covered never speaks for another."""
    token = requests.token_of(caller)
    if not 0 < len(wanted) <= MAX_CREDENTIALS:
        raise invalid_field("credentials", f"1 to {MAX_CREDENTIALS}")
    for item in wanted:
        requests.credential_name(item.name, "credentials")
    if token.tenant == SYSTEM_TENANT:
        raise VaultError(Reason.SCOPE_DENIED, "the vault's own operators open no credentials")
    for item in wanted:
        if not any(scopes.covers(scope, action, item.name) for scope in token.scopes for action in any_of):
            raise VaultError(Reason.SCOPE_DENIED, "the token's scopes do not cover this", action=any_of[0])
    if len({item.name for item in wanted}) != len(wanted):
        raise invalid_field("credentials", "each at most once")


def _suite(number: int) -> hpke.HpkeSuite:
    suite = hpke.SUITES.get(number or hpke.DEFAULT_SUITE)
    if suite is None:
        raise invalid_field("hpke_suite", "1 (X25519) or 2 (MLKEM768-X25519)")
    return suite


def _seal(suite: hpke.HpkeSuite, recipient_key: bytes, info: bytes, plaintext: memoryview) -> bytes:
    try:
        return hpke.seal(suite, recipient_key, info, plaintext)
    except FormatError:
        raise VaultError(Reason.RECIPIENT_KEY_INVALID, "not a public key of this HPKE suite") from None


def _seal_parcel(
    suite: hpke.HpkeSuite,
    recipient_key: bytes,
    session_id: str,
    opened: tuple[Opened, ...],
    buffers: list[LockedBuffer],
) -> bytes:
    selected: list[LockedBuffer] = []
    try:
        for item, buffer in zip(opened, buffers, strict=True):
            selected.append(_select(buffer.view, item.field_names))
        with parcel.join([part.view for part in selected]) as whole:
            return _seal(suite, recipient_key, contexts.reveal_info(session_id, opened), whole.view)
    finally:
        for part in selected:
            part.close()


def _select(view: memoryview, names: tuple[str, ...]) -> LockedBuffer:
    try:
        return bundle.select(view, names or bundle.field_names(view))
    except UnknownField:
        raise unknown_field() from None


def _opened(stored: StoredVersion, names: tuple[str, ...] | None = None) -> Opened:
    version = stored.version
    return Opened(version.name, version.version, stored.kind, version.field_names if names is None else names)


def _new_key() -> LockedBuffer:
    return memory.absorb(secrets.token_bytes(_KEY_BYTES))


def _session_ended() -> VaultError:
    return VaultError(Reason.SESSION_ENDED, "the session has ended")
