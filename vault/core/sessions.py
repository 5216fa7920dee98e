"""Opening sessions, watching over those that are open, closing them; and the session of one call.

The only place where a secret is open is a session (`core/session.py`), for as long as one stream lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import functools
import secrets
from typing import TYPE_CHECKING, NamedTuple

from vault.core import approvals, audit, policies, redemption, requests
from vault.core.open_sessions import Openings, OpenSessions
from vault.core.revocations import REVOKE
from vault.core.session import (
    REVEAL,
    CloseReason,
    Content,
    Opened,
    Session,
    content_of,
    new_session_id,
    opened_of,
    refuse_kept,
    select,
    takes_away,
)
from vault.core.uses.table import ACTIONS as USE_ACTIONS
from vault.crypto import bundle, contexts, hpke, memory, parcel, scopes
from vault.crypto.approvals import Operation
from vault.crypto.errors import FormatError
from vault.errors import Reason, VaultError, invalid_field
from vault.model import SYSTEM_TENANT
from vault.store.ledger import Commit, Unit
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vault.clock import Clock
    from vault.core.approvals import Approvals
    from vault.core.audit import AuditLog
    from vault.core.batch import Load
    from vault.core.credentials import Credentials
    from vault.core.envelopes import Envelopes
    from vault.core.follower import Follower
    from vault.core.policy import Policy
    from vault.core.session import Content, Receipt, SessionSettings
    from vault.core.uses.material import Surroundings
    from vault.crypto.memory import LockedBuffer
    from vault.model import AuditDraft, AuditRecord, Caller, Origin, StoredVersion
    from vault.store.ledger import Rows

MAX_CREDENTIALS = 100
_TICK_SECONDS = 0.2
_KEY_BYTES = 32

_ACTIONS = (REVEAL, *USE_ACTIONS)


class Selector(NamedTuple):
    """Which version of a credential (0: the newest), and which of its fields (none: all)."""

    name: str
    version: int
    field_names: tuple[str, ...] = ()


class Revealed(NamedTuple):
    """The answer to a session of one call."""

    session_id: str
    opened: tuple[Opened, ...]
    sealed: bytes


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
        self._openings = Openings()
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
        places = [(item.name, item.version) for item in wanted]
        with self._openings.of(item.name for item in wanted) as heard:
            stored = await self._credentials.stored(places)
            for one in stored:
                refuse_kept(one)
            session_id = new_session_id()
            with await self._envelopes.open_parcel(stored) as whole:
                opened, sealed = _seal_parcel(suite, recipient_key, session_id, stored, selected, whole)
            if _taken_away(stored, heard):
                await self._credentials.stored(places)
        action = approvals.BREAK_GLASS if approval_id else REVEAL
        records = tuple(
            [
                audit.granted(
                    caller,
                    action,
                    item.name,
                    session_id=session_id,
                    after=_revealed_state(item.version, item.field_names, purpose),
                )
                for item in opened
            ]
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
        with self._openings.of(item.name for item in wanted) as heard:
            stored = await self._credentials.stored([(item.name, item.version) for item in wanted])
            buffers = await self._envelopes.open_all(stored)
        contents = {item.name: content_of(item, buffer) for item, buffer in zip(stored, buffers, strict=True)}
        session = Session(
            caller,
            contents,
            _new_key(),
            self._log,
            self._load,
            self._clock,
            self._surroundings,
            reopen=self._reopen,
            more_memory=self._more_memory,
            expire_time=expire_time,
        )
        try:
            sealed_key = _seal(
                suite, recipient_key, contexts.session_key_info(session.session_id), session.key_view
            )
            # Listed before its record is written, so that a revocation in between ends it.
            self._check_limits(caller, session.locked_bytes)
            self._open.add(session)
            self._look_after(session)
            self._end_if_revoked(session)
            if self._policy and not policies.grants(self._policy, session.token, caller.observed):
                # It came into force while this session was made, and has not seen it.
                session.end(CloseReason.POLICY_CHANGED)
            for record in heard:
                session.notice(record)
            begun = asyncio.ensure_future(self._begin(caller, _open_records(session, purpose)))
            await asyncio.shield(begun)
        except asyncio.CancelledError:
            # Nothing above it waits: it has begun.
            session.end(CloseReason.DISCONNECTED)
            await asyncio.shield(asyncio.ensure_future(self._leave(session, begun)))
            raise
        except BaseException:
            session.end(CloseReason.FAILED)
            self._wipe(session)
            raise
        return session, sealed_key

    async def _leave(self, session: Session, begun: asyncio.Future[None]) -> None:
        """End a session whose caller went while its first record was written: if that came about, so does its last."""
        opened = session.opened
        receipt = self._wipe(session)
        with contextlib.suppress(VaultError):
            await begun
            await self._record_end(session, opened, receipt)

    async def close(self, session: Session) -> Receipt:
        """Wipe a session and make the record of its end durable. The wiping never waits."""
        session.end(CloseReason.FAILED)
        opened = session.opened
        receipt = self._wipe(session)
        await self._record_end(session, opened, receipt)
        return receipt

    def _wipe(self, session: Session) -> Receipt:
        receipt = session.wipe(session.ended.result())
        self._open.discard(session)
        return receipt

    async def _record_end(self, session: Session, opened: tuple[Opened, ...], receipt: Receipt) -> None:
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

    async def run(self) -> None:
        """End all sessions whenever this worker has lost sight of revocations, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if not self._follower.fresh:
                self._end_all(CloseReason.REVOCATIONS_UNKNOWN)

    def end_where(self, refused: Callable[[Caller], bool]) -> None:
        """End the sessions of callers whose certificate is not accepted any more."""
        known: dict[str, bool] = {}
        for session in self._open:
            thumbprint = session.caller.certificate.thumbprint
            if thumbprint not in known:
                known[thumbprint] = refused(session.caller)
            if known[thumbprint]:
                # What ends by its time, as every certificate does, was not revoked: the first reason stands.
                session.tick(self._settings)
                session.end(CloseReason.CERTIFICATE_REVOKED)

    def regrant(self, policy: Policy) -> None:
        """End the sessions of tokens that a new policy would not grant."""
        self._policy = policy
        granted: dict[tuple[str, Origin], bool] = {}
        for session in self._open:
            origin = dataclasses.replace(session.caller.observed, request_id="")
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

    async def _reopen(self, session: Session, name: str) -> Content:
        with self._openings.of([name]) as heard:
            (stored,) = await self._credentials.stored([(name, 0)])
            (buffer,) = await self._envelopes.open_all([stored])
            try:
                if _taken_away([stored], heard):
                    await self._credentials.stored([(name, stored.version)])
                more_bytes = len(buffer) - session.bytes_of(name)
                self._check_memory(session.token.tenant, more_bytes)
            except BaseException:
                buffer.close()
                raise
        self._open.grow(session, more_bytes)
        return content_of(stored, buffer)

    def __len__(self) -> int:
        return len(self._open)

    def _notice(self, record: AuditRecord) -> None:
        self._openings.notice(record)
        for session in self._open.concerned_by(record):
            if record.action == REVOKE:
                self._end_if_revoked(session)
            else:
                session.notice(record)

    def _end_if_revoked(self, session: Session) -> None:
        try:
            self._follower.refuse_revoked(session.token, session.caller.identity)
        except VaultError as error:
            revoked = error.reason is Reason.TOKEN_REVOKED
            session.end(CloseReason.TOKEN_REVOKED if revoked else CloseReason.REVOCATIONS_UNKNOWN)

    def _check_limits(self, caller: Caller, more_bytes: int = 0) -> None:
        if self._stopping:
            raise VaultError(Reason.SHUTTING_DOWN, "the server is stopping")
        if len(self._open) >= self._settings.max_per_worker:
            raise VaultError(
                Reason.LIMIT_REACHED, "too many sessions on this worker", limit="sessions_per_worker"
            )
        tenant = requests.token_of(caller).tenant
        if self._open.of_tenant(tenant) >= self._settings.max_per_tenant:
            raise VaultError(
                Reason.LIMIT_REACHED, "too many sessions of this tenant", limit="sessions_per_tenant"
            )
        self._check_memory(tenant, more_bytes)
        if self._open.of_identity(caller.identity) >= self._settings.max_per_identity:
            raise VaultError(
                Reason.LIMIT_REACHED, "too many sessions of this identity", limit="sessions_per_identity"
            )

    @contextlib.contextmanager
    def _more_memory(self, session: Session, more_bytes: int) -> Iterator[None]:
        """Let a session hold more until the block is left. Raises `LIMIT_REACHED`."""
        self._check_memory(session.token.tenant, more_bytes)
        self._open.grow(session, more_bytes)
        try:
            yield
        finally:
            self._open.grow(session, -more_bytes)

    def _check_memory(self, tenant: str, more_bytes: int) -> None:
        if self._open.bytes_of_tenant(tenant) + more_bytes > self._settings.max_bytes_per_tenant:
            raise VaultError(
                Reason.LIMIT_REACHED,
                "the sessions of this tenant hold too much memory",
                limit="session_bytes_per_tenant",
            )


def break_glass(wanted: Selector) -> Operation:
    """The operation that is approved when the glass is broken."""
    return Operation(
        approvals.BREAK_GLASS,
        wanted.name,
        {"version": str(wanted.version), "fields": ",".join(sorted(wanted.field_names))},
    )


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


def _taken_away(stored: Sequence[StoredVersion], heard: Sequence[AuditRecord]) -> bool:
    """Whether something that was heard while they were opened took one of the versions away."""
    versions = {item.name: item.version for item in stored}
    return any(takes_away(record, versions[record.resource]) for record in heard)


def _open_records(session: Session, purpose: str) -> tuple[AuditDraft, ...]:
    expire_time = session.expire_time.isoformat()
    return tuple(
        audit.granted(
            session.caller,
            "session.open",
            item.name,
            session_id=session.session_id,
            after=canonical_json({"version": item.version, "purpose": purpose, "expire_time": expire_time}),
        )
        for item in session.opened
    )


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
    stored: Sequence[StoredVersion],
    selected: Sequence[tuple[str, ...]],
    whole: LockedBuffer,
) -> tuple[tuple[Opened, ...], bytes]:
    """Of each credential in a parcel the fields that were asked for, none meaning all: what they are, and sealed."""
    contents = parcel.split(whole.view)
    held = [bundle.field_names(content) for content in contents]
    wanted = [names or own for names, own in zip(selected, held, strict=True)]
    opened = tuple([opened_of(item, names) for item, names in zip(stored, wanted, strict=True)])
    info = contexts.reveal_info(session_id, opened)
    if wanted == held:
        return opened, _seal(suite, recipient_key, info, whole.view)
    with contextlib.ExitStack() as parts:
        chosen = [parts.enter_context(select(*each)).view for each in zip(contents, wanted, strict=True)]
        with parcel.join(chosen) as joined:
            return opened, _seal(suite, recipient_key, info, joined.view)


@functools.lru_cache(maxsize=4096)
def _revealed_state(version: int, names: tuple[str, ...], purpose: str) -> str:
    """What the log says of a reveal: the same again and again, most of all within a bundle."""
    return canonical_json({"version": version, "fields": list(names), "purpose": purpose})


def _new_key() -> LockedBuffer:
    return memory.absorb(secrets.token_bytes(_KEY_BYTES))
