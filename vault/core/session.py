"""One open session: what may be done in it, and what ends it.

A session holds its credentials in locked memory. Whatever ends it, the same happens: operations stop,
buffers are wiped and read back, the log says why. The edge owns the stream; a session knows nothing of it
but the events it puts out.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import enum
import functools
import json
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.core import audit, requests, standing
from vault.core.uses.material import Material, Surroundings, unknown_field
from vault.core.uses.table import USES
from vault.crypto import bundle, contexts, kinds
from vault.crypto.bundle import UnknownField
from vault.crypto.stream import SessionSealer
from vault.errors import Reason, VaultError
from vault.model import Outcome, Standing
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.batch import Load
    from vault.core.uses.material import Told
    from vault.crypto.memory import LockedBuffer
    from vault.model import AuditRecord, Caller, StoredVersion

REVEAL = "session.reveal"
_LOOK_SECONDS = 5.0  # at the latest, so that a step of the clock ends what it makes too old
_WARN_BEFORE = datetime.timedelta(seconds=30)


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
    TOKEN_REVOKED = "token-revoked"  # noqa: S105 - a reason, not a token
    CERTIFICATE_REVOKED = "certificate-revoked"


_REVOKED = frozenset(
    {CloseReason.TOKEN_REVOKED, CloseReason.CERTIFICATE_REVOKED, CloseReason.CREDENTIAL_GONE}
)
"""What ends a session because somebody took away what it stands on."""


@dataclasses.dataclass(frozen=True)
class SessionSettings:
    """The limits of sessions."""

    max_life: datetime.timedelta
    idle: datetime.timedelta
    max_per_worker: int
    max_per_tenant: int
    max_per_identity: int
    max_bytes_per_tenant: int
    """How much locked memory the sessions of a tenant may hold."""


class Opened(NamedTuple):
    """What was opened or revealed."""

    name: str
    version: int
    kind: str
    field_names: tuple[str, ...]


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


class Revoked(NamedTuple):
    """Event: what the session stands on was taken away, so it ends; with the credential's name if it is that."""

    reason: CloseReason
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Receipt:
    """What a session did, and that its buffers were wiped."""

    reason: CloseReason
    reveals: int
    uses: int
    buffers: int
    buffers_wiped: int
    duration: datetime.timedelta


class Content(NamedTuple):
    """A credential in a session: the version, and its fields in the clear, in locked memory."""

    stored: StoredVersion
    buffer: LockedBuffer
    field_names: tuple[str, ...]
    """As the sealed content names them, not as the database does."""


class Session:
    """An open session. Made by `Sessions.open`, ended by `end`, wiped by `Sessions.close`."""

    def __init__(
        self,
        caller: Caller,
        contents: dict[str, Content],
        key: LockedBuffer,
        log: AuditLog,
        load: Load,
        clock: Clock,
        surroundings: Surroundings,
        *,
        reopen: Callable[[Session, str], Awaitable[Content]],
        more_memory: Callable[[Session, int], AbstractContextManager[None]],
        expire_time: datetime.datetime,
    ) -> None:
        self.session_id = new_session_id()
        self.caller = caller
        self.token = requests.token_of(caller)
        self.expire_time = expire_time
        self.open_time = clock.now()
        self.events: asyncio.Queue[Expiring | Changed] = asyncio.Queue()
        self.ended: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
        self.revoked: Revoked | None = None
        self.last_used = clock.monotonic()
        self._contents = contents
        self._materials: dict[str, Material] = {}
        self._allowed: set[tuple[str, str]] = set()
        self._sealer = SessionSealer(key)
        self._key = key
        self._log = log
        self._load = load
        self._clock = clock
        self._surroundings = surroundings
        self._reopen = reopen
        self._more_memory = more_memory
        self._waits = 0
        """How many uses wait for a provider."""
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
        return tuple(opened_of(content.stored) for content in self._contents.values())

    @property
    def locked_bytes(self) -> int:
        """How much locked memory the session holds."""
        return len(self._key) + sum(len(content.buffer) for content in self._contents.values())

    def bytes_of(self, name: str) -> int:
        """How much of it a credential takes; none if the session has ended."""
        content = self._contents.get(name)
        return len(content.buffer) if content else 0

    def end(self, reason: CloseReason, name: str = "") -> None:
        """Let no further operation begin or answer. The first reason stands; `name`: of the credential that is gone."""
        if not self.ended.done():
            self.ended.set_result(reason)
            if reason in _REVOKED:
                self.revoked = Revoked(reason, name)

    async def reveal(self, name: str, field_names: tuple[str, ...]) -> StreamReveal:
        """Seal fields of a credential of the session to the caller, by the session key."""
        content = self._use(REVEAL, name)
        refuse_kept(content.stored)
        whole = content.buffer.view
        names = requests.field_names(field_names)
        if not names or names == content.field_names:
            opened = opened_of(content.stored, content.field_names)
            counter, sealed = self._sealer.seal(contexts.stream_reveal_aad(self.session_id, opened), whole)
        else:
            with select(whole, names) as selected:
                opened = opened_of(content.stored, names)
                counter, sealed = self._sealer.seal(
                    contexts.stream_reveal_aad(self.session_id, opened), selected.view
                )
        self._reveals += 1
        await self._record(REVEAL, opened, _used_state(opened.version, opened.field_names))
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
            intent = _state(content.stored.version, intent=request.intent())
            await self._record(use.action, opened_of(content.stored, ()), intent)
            # Either may have been renewed meanwhile, and what was before it wiped.
            content = self._use(use.action, name)
            lender = self._use(use.action, also) if also else None
        material = self._material(content)
        if lender is not None:
            material = dataclasses.replace(material, companion=self._material(lender))
        if use.reaches_out:
            with self._reaching_out(len(content.buffer) + (len(lender.buffer) if lender else 0)):
                done = await use.run(material, request, self._surroundings)
        else:
            done = await use.run(material, request, self._surroundings)
        self._uses += 1
        opened = opened_of(content.stored, done.field_names)
        state = _used_state(opened.version, opened.field_names, tuple(done.after.items()))
        await self._record(use.action, opened, state)
        if done.renewed:
            await self._renew(name)
        return done.result

    @contextlib.contextmanager
    def _reaching_out(self, copied_bytes: int) -> Iterator[None]:
        """Such a use works on copies, with which it may wait; and who waits for a provider is not idle."""
        with self._more_memory(self, copied_bytes):
            self._waits += 1
            try:
                yield
            finally:
                self._waits -= 1
                self.last_used = self._clock.monotonic()

    async def _renew(self, name: str) -> None:
        """Go on with the newest version of a credential. The one before is wiped."""
        content = await self._reopen(self, name)
        if self.ended.done():
            content.buffer.close()
            raise _session_ended()
        before, self._contents[name] = self._contents[name], content
        self._materials.pop(name, None)
        before.buffer.close()

    def _material(self, content: Content) -> Material:
        name = content.stored.name
        known = self._materials.get(name)
        if known is None:
            known = self._materials[name] = Material(
                name,
                content.stored.version,
                content.stored.kind,
                content.stored.field_names,
                content.buffer.view,
                content.stored.standing,
                caller=self.caller,
            )
        return known

    async def record_refusal(self, action: str, name: str, reason: Reason) -> None:
        """Make the record of a refused operation durable."""
        known = name if name in self._contents else ""
        draft = audit.granted(self.caller, action, known, session_id=self.session_id)
        await self._log.record(draft._replace(outcome=Outcome.REFUSED, reason=reason.value))

    def tick(self, settings: SessionSettings) -> float:
        """End the session if its time is over; warn before. Returns in how many seconds to look again."""
        left = self.expire_time - self._clock.now()
        last_used = self._clock.monotonic() if self._waits else self.last_used
        idle_left = last_used + settings.idle.total_seconds() - self._clock.monotonic()
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
        opened = content.stored.version
        if record.action == "credential.put":
            version = json.loads(record.after_state or "{}").get("version", 0)
            if version > opened:
                self.events.put_nowait(Changed(record.resource, version))
        elif takes_away(record, opened):
            self.end(CloseReason.CREDENTIAL_GONE, record.resource)

    def wipe(self, reason: CloseReason) -> Receipt:
        """Wipe every buffer and read each back."""
        self._sealer.close()
        buffers = [self._key, *(content.buffer for content in self._contents.values())]
        wiped = [buffer.close() for buffer in buffers]
        self._contents = {}
        self._materials = {}
        return Receipt(
            reason=reason,
            reveals=self._reveals,
            uses=self._uses,
            buffers=len(buffers),
            buffers_wiped=sum(wiped),
            duration=self._clock.now() - self.open_time,
        )

    def _use(self, action: str, name: str) -> Content:
        if self.ended.done():
            raise _session_ended()
        self.last_used = self._clock.monotonic()
        if (action, name) not in self._allowed:
            requests.credential_name(name)
            requests.require(self.caller, action, name)
            if name not in self._contents:
                raise VaultError(Reason.CREDENTIAL_NOT_FOUND, "not a credential of this session")
            # The token's scopes never change, and a session keeps its credentials as long as it lives.
            self._allowed.add((action, name))
        return self._contents[name]

    async def _record(self, action: str, opened: Opened, state: str) -> None:
        with self._load.call():
            await self._log.record(
                audit.granted(self.caller, action, opened.name, session_id=self.session_id, after=state)
            )
        # The session may have ended while the record was written: then nothing is answered.
        if self.ended.done():
            raise _session_ended()


def content_of(stored: StoredVersion, buffer: LockedBuffer) -> Content:
    """A version that was opened into a buffer, as a session holds it."""
    return Content(stored, buffer, bundle.field_names(buffer.view))


def new_session_id() -> str:
    """128 random bits, base64url: 22 characters."""
    return secrets.token_urlsafe(16)


def opened_of(stored: StoredVersion, names: tuple[str, ...] | None = None) -> Opened:
    """How a version is named to its caller: with these of its fields, or with all."""
    return Opened(stored.name, stored.version, stored.kind, stored.field_names if names is None else names)


def _state(version: int, **after: object) -> str:
    return canonical_json({"version": version, **after})


@functools.lru_cache(maxsize=4096)
def _used_state(version: int, names: tuple[str, ...], more: tuple[tuple[str, Told], ...] = ()) -> str:
    """What the log says of a reveal or a use: the same again and again."""
    return _state(version, fields=list(names), **dict(more))


def refuse_kept(stored: StoredVersion) -> None:
    """Raise `NOT_REVEALABLE` for what the vault itself cannot show."""
    if stored.kind == kinds.HSM_SIGNING_KEY:
        raise VaultError(Reason.NOT_REVEALABLE, "the HSM gives this private key out to nobody")


def select(view: memoryview, names: tuple[str, ...]) -> LockedBuffer:
    """Some fields of a bundle, in a buffer of their own. Raises `UNKNOWN_FIELD`."""
    try:
        return bundle.select(view, names)
    except UnknownField:
        raise unknown_field() from None


def takes_away(record: AuditRecord, version: int) -> bool:
    """Whether a change of a credential takes this version of it away from whoever opened it."""
    if record.action == "credential.delete":
        return True
    after = json.loads(record.after_state or "{}")
    if record.action == standing.SET:
        return after.get("standing") in (Standing.SUSPENDED, Standing.REVOKED)
    return record.action == "credential.destroy_version" and after.get("version") == version


def _session_ended() -> VaultError:
    return VaultError(Reason.SESSION_ENDED, "the session has ended")
