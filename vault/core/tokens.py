"""Tokens: JWTs (RFC 9068) signed in the HSM, bound to the client certificate (RFC 8705), at most 24 hours.

Nothing is stored when a token is issued but its audit record. A token is accepted when the vault's own key
signed these very bytes (`signing.py`), every claim is what this code writes, and it is neither expired nor revoked;
the check list is RFC 8725.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import hmac
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from vault.core import audit, requests, token_claims
from vault.core.policy import Circumstances
from vault.core.revocations import EVERY_TENANT, MAX_TOKEN_LIFE, REVOKE, SKEW, Kind, Revocation, state_of
from vault.core.signing import invalid_token
from vault.crypto import narrowing, scopes
from vault.crypto.approvals import issue_token
from vault.errors import Reason, VaultError, invalid_field
from vault.model import SYSTEM_TENANT, Token
from vault.store import revocations
from vault.store.ledger import Commit, Unit
from vault.store.reach import declare, of, widen
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.core.approvals import Approvals
    from vault.core.audit import AuditLog
    from vault.core.follower import Follower
    from vault.core.people import People
    from vault.core.policies import InForce, Policies
    from vault.core.signing import SigningKeys
    from vault.crypto.approvals import Operation
    from vault.model import AuditDraft, Caller, Certificate
    from vault.store.engine import Database
    from vault.store.ledger import Rows

MAX_TOKEN_CHARS = 4096
_CACHED = 10_000
_SECOND = datetime.timedelta(seconds=1)


@dataclasses.dataclass(frozen=True)
class TokenSettings:
    """What the configuration says of tokens. It can lower the life of a token, never raise it."""

    issuer: str
    audience: str
    default_life: datetime.timedelta
    max_life: datetime.timedelta

    def __post_init__(self) -> None:
        if not _SECOND <= self.default_life <= self.max_life <= MAX_TOKEN_LIFE:
            raise ValueError("1 s <= default_life <= max_life <= 24 h")


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a caller wants of a token. `life` None: the default. `max_sessions` 0: no limit."""

    scopes: tuple[str, ...]
    life: datetime.timedelta | None
    purpose: str
    max_sessions: int = 0
    thumbprint: str = ""
    """The certificate to bind it to, if not the caller's own."""
    narrowable: bool = False
    """Whether it can be narrowed without the vault."""
    approval_id: str = ""
    """The approval of others for just this token, to be used up by it."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What to revoke: a token's id, an identity, or nothing for a whole tenant (empty: the caller's own)."""

    kind: Kind
    subject: str = ""
    tenant: str = ""
    issued_until: datetime.datetime | None = None


@dataclasses.dataclass(frozen=True)
class IssuedToken:
    """A token as it leaves the vault, once."""

    text: str = dataclasses.field(repr=False)
    token: Token


class Tokens:
    """Issues, verifies, revokes."""

    def __init__(
        self,
        settings: TokenSettings,
        database: Database,
        keys: SigningKeys,
        log: AuditLog,
        follower: Follower,
        policies: Policies,
        approvals: Approvals,
        clock: Clock,
        *,
        people: People,
    ) -> None:
        self._people = people
        self._settings = settings
        self._database = database
        self._keys = keys
        self._log = log
        self._follower = follower
        self._policies = policies
        self._approvals = approvals
        self._clock = clock
        self._verified: OrderedDict[bytes, Token] = OrderedDict()

    async def issue(self, caller: Caller, tenant: str, wish: Wish) -> IssuedToken:
        """Issue a token.

        Raises `FIELD_INVALID`, `POLICY_DENIED`, `APPROVAL_*`, `HSM_UNAVAILABLE`, `AUDIT_UNAVAILABLE`.
        """
        requests.tenant_name(tenant)
        granted = token_claims.parse_scopes(tenant, wish.scopes)
        life = self._life(wish, self._settings.max_life)
        now = self._clock.now().replace(microsecond=0)
        operation, signed = None, 0
        if wish.approval_id:
            certificate = self._certificate(caller, caller.certificate.thumbprint)
            operation = _operation(certificate, tenant, wish, life)
            signed = await self._approvals.signed_for(caller, operation, wish.approval_id)
        in_force = await self._policies.in_force()
        in_force.policy.refuse_ungranted(
            caller.certificate.identity,
            granted,
            Circumstances(
                wish.purpose,
                int(life.total_seconds()),
                caller.observed.device_id,
                caller.observed.ip_address,
                now,
                signed,
            ),
        )
        # Without a token it is the policy that says whose rows the caller may see.
        declare(of(tenant))
        token = Token(
            token_id=requests.new_id(),
            identity=caller.identity,
            tenant=tenant,
            scopes=granted,
            thumbprint=caller.certificate.thumbprint,
            issue_time=now,
            # Neither longer than asked for nor than the certificate it is bound to.
            expire_time=min(now + life, caller.certificate.not_after).replace(microsecond=0),
            max_sessions=wish.max_sessions,
            policy=in_force.policy.version,
        )
        approved = {"approval": wish.approval_id, "approvals": signed} if operation else {}
        record = audit.granted(
            caller,
            "token.issue",
            token.token_id,
            after=_summary(
                token,
                wish,
                self._certificate(caller, token.thumbprint),
                policy=in_force.policy.version,
                **approved,
            ),
        )._replace(
            tenant=tenant,
            token_id=token.token_id,
        )
        checks = _Checks(caller, in_force, operation)
        return await self._hand_out(token, wish, record, checks)

    async def exchange(self, caller: Caller, wish: Wish) -> IssuedToken:
        """A weaker token for the caller's own (RFC 8693). Never a scope, a second or a session more than it has.

        Raises `FIELD_INVALID`, `SCOPE_DENIED`, `LIMIT_REACHED`, `HSM_UNAVAILABLE`, `AUDIT_UNAVAILABLE`.
        """
        parent = requests.token_of(caller)
        thumbprint = wish.thumbprint or caller.certificate.thumbprint
        if thumbprint != caller.certificate.thumbprint:
            requests.require(caller, "token.delegate", f"{parent.tenant}/tokens")
            requests.thumbprint(thumbprint)
        granted = token_claims.weaker_scopes(parent, wish.scopes)
        now = self._clock.now().replace(microsecond=0)
        life = self._life(wish, parent.expire_time - now)
        token = Token(
            token_id=requests.new_id(),
            identity=parent.identity,
            tenant=parent.tenant,
            scopes=granted,
            thumbprint=thumbprint,
            issue_time=now,
            expire_time=min(now + life, parent.expire_time),
            max_sessions=wish.max_sessions,
            ancestors=token_claims.ancestry(parent),
            policy=parent.policy,
        )
        bound_to = self._certificate(caller, thumbprint)
        after = _summary(token, wish, bound_to, parent=token.parent_id, root=token.root_id)
        record = audit.granted(caller, "token.exchange", token.token_id, after=after)
        return await self._hand_out(token, wish, record)

    def _certificate(self, caller: Caller, thumbprint: str) -> str:
        """What may be written of the certificate that a token is bound to."""
        if not caller.pseudonym or thumbprint != caller.certificate.thumbprint:
            return thumbprint
        return self._people.present(caller).certificate(thumbprint)

    def _life(self, wish: Wish, longest: datetime.timedelta) -> datetime.timedelta:
        """What is common to every wish, checked; and the life."""
        requests.printable("purpose", wish.purpose)
        if not 0 <= wish.max_sessions <= token_claims.MAX_SESSIONS:
            raise invalid_field("max_sessions", f"1 to {token_claims.MAX_SESSIONS}")
        life = min(self._settings.default_life, longest) if wish.life is None else wish.life
        if not _SECOND <= life <= longest:
            raise invalid_field("ttl", f"1 to {int(longest.total_seconds())} seconds")
        return life

    async def _hand_out(
        self, token: Token, wish: Wish, record: AuditDraft, checks: _Checks | None = None
    ) -> IssuedToken:
        seed = narrowing.new_seed() if wish.narrowable else None
        if seed is not None:
            token = dataclasses.replace(token, narrowing_key=narrowing.public_key(seed))
        text = await self._keys.sign(
            "at+jwt", token_claims.claims(token, self._settings.issuer, self._settings.audience)
        )
        if seed is not None:
            text = narrowing.with_seed(text, seed)
        if len(text) > MAX_TOKEN_CHARS:
            raise invalid_field("scopes", f"make a token longer than {MAX_TOKEN_CHARS} characters")
        if checks is None:
            await self._log.record(record)
        else:
            await self._record_issue(record, wish.approval_id, checks)
        return IssuedToken(text, token)

    async def _record_issue(self, record: AuditDraft, approval_id: str, checks: _Checks) -> None:
        """Make the record durable and use up the approval, unless policy or approval have changed meanwhile."""

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            if not self._policies.is_current(rows, checks.in_force):
                raise VaultError(Reason.POLICY_CHANGED, "the policy was changed meanwhile: try again")
            if checks.operation is None:
                return Commit((record,))
            return Commit(
                (record,), self._approvals.consume(rows, checks.caller, checks.operation, approval_id, now)
            )

        reads = self._policies.reads(checks.in_force)
        if checks.operation is not None:
            reads = (*reads, *self._approvals.reads(approval_id))
        await self._log.commit(Unit(reads, decide))

    async def verify(self, text: str, certificate: Certificate, holder: str) -> Token:
        """The token, if it is good for this certificate now, which `holder` shows, as revocations name them.

        Raises `TOKEN_*`, `REVOCATIONS_UNKNOWN`.
        """
        token = await self._authenticate(text)
        if not hmac.compare_digest(token.thumbprint, certificate.thumbprint):
            raise VaultError(Reason.TOKEN_CERTIFICATE_MISMATCH, "the token is bound to another certificate")
        self.recheck(token, holder)
        return token

    def recheck(self, token: Token, identity: str) -> None:
        """Whether a verified token is still good: for what lasts. Raises `TOKEN_EXPIRED`, `TOKEN_REVOKED`."""
        if self._clock.now() >= token.expire_time:
            raise VaultError(Reason.TOKEN_EXPIRED, "the token's life is over")
        self._follower.refuse_revoked(token, identity)

    async def revoke(self, caller: Caller, target: Target) -> datetime.datetime:
        """Revoke tokens; give the moment. Raises `FIELD_INVALID`, `SCOPE_DENIED`."""
        own = requests.token_of(caller)
        tenant = target.tenant or own.tenant
        if target.kind in (Kind.TOKEN, Kind.CHILDREN):
            requests.token_id(target.subject)
        if tenant != own.tenant or target.kind in (Kind.IDENTITY, Kind.ALL) or target.subject != own.token_id:
            reach = own.tenant if own.tenant == SYSTEM_TENANT else requests.tenant_name(tenant)
            requests.require(caller, "token.revoke", f"{reach}/tokens")
        if tenant != EVERY_TENANT:
            requests.tenant_name(tenant)
        elif target.kind in (Kind.TOKEN, Kind.CHILDREN):
            raise invalid_field("tenant", "must be the token's")
        if target.kind is Kind.IDENTITY:
            named = await self._people.written(requests.identity(target.subject))
            target = dataclasses.replace(target, subject=named)
        if target.issued_until and target.issued_until > self._clock.now():
            raise invalid_field("issued_before", "must not be in the future")
        if tenant != own.tenant:
            widen(tenant)
        draft = audit.granted(caller, REVOKE, target.subject or tenant)._replace(
            tenant=SYSTEM_TENANT if tenant == EVERY_TENANT else tenant,
        )
        return await self.withdraw(draft, dataclasses.replace(target, tenant=tenant))

    async def withdraw(self, draft: AuditDraft, target: Target) -> datetime.datetime:
        """Revoke, on the authority of whoever the record names; give the moment."""
        single = target.kind is Kind.TOKEN
        key: tuple[str, ...] = (
            (target.tenant, target.subject) if single else (target.tenant, target.kind.value, target.subject)
        )
        row_key = RowKey("revocations" if single else "group_revocations", key)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            until = (target.issued_until or now).replace(microsecond=0)
            forget_time = now + MAX_TOKEN_LIFE + SKEW
            said = Revocation(target.kind, target.tenant, target.subject, until, forget_time)
            record = draft._replace(after_state=state_of(said))
            row = rows.get(row_key.table, *row_key.key)
            if row is not None and (single or row["issued_until"] >= until):
                return Commit((record,), (), row["revoke_time"])
            new = {
                "tenant": target.tenant,
                "revoked_by": draft.identity,
                "revoke_time": now,
                "forget_time": forget_time,
            }
            if single:
                new |= {"token_id": target.subject}
            else:
                new |= {"kind": target.kind.value, "subject": target.subject, "issued_until": until}
            return Commit((record,), (Write(row_key.table, new),), now, urgent=True)

        moment: datetime.datetime = await self._log.commit(Unit((row_key,), decide))
        await self._follower.look()
        return moment

    async def introspect(self, caller: Caller, text: str) -> tuple[Token, int | None] | None:
        """The token if it would be accepted now and this caller may know, otherwise None.

        With it, how many sessions it may still open; None if there is no limit.
        """
        own = requests.token_of(caller)
        if not 0 < len(text) <= MAX_TOKEN_CHARS:
            raise invalid_field("token", f"1 to {MAX_TOKEN_CHARS} characters")
        token = await self._seen_by(caller, text)
        after = canonical_json({"active": token is not None})
        record = audit.granted(caller, "token.introspect", token.token_id if token else "", after=after)
        await self._log.record(record._replace(tenant=own.tenant))
        return None if token is None else (token, await self._sessions_left(token))

    async def _sessions_left(self, token: Token) -> int | None:
        limits = token.session_limits
        if not limits:
            return None
        # The token may be one for another tenant that the caller's own certificate holds.
        async with self._database.read(of(token.tenant)) as connection:
            opened = await revocations.sessions_opened(connection, token.tenant, list(limits))
        return min(max(0, most - opened.get(token_id, 0)) for token_id, most in limits.items())

    async def _seen_by(self, caller: Caller, text: str) -> Token | None:
        try:
            token = await self._authenticate(text)
            if self._clock.now() >= token.expire_time:
                return None
            self._follower.refuse_revoked(token, token.identity)
        except VaultError as error:
            if error.reason in (Reason.TOKEN_INVALID, Reason.TOKEN_REVOKED):
                return None
            raise
        own = requests.token_of(caller)
        if token.thumbprint == caller.certificate.thumbprint:
            return token
        if token.tenant != own.tenant:
            return None
        may = any(scopes.covers(scope, "token.introspect", f"{own.tenant}/tokens") for scope in own.scopes)
        return token if may else None

    async def _authenticate(self, text: str) -> Token:
        """What the vault signed. Remembered by digest, since checking a signature is dear."""
        if len(text) > MAX_TOKEN_CHARS or not text.isascii():
            raise invalid_token()
        if self._keys.stale:
            await self._keys.look_again()
            # What a version signed that is no longer trusted must not live on here.
            self._verified.clear()
        digest = hashlib.sha256(text.encode()).digest()
        token = self._verified.get(digest)
        if token is None:
            if not self._keys.knows(text):
                # Signed perhaps by a version so new that this worker has not heard of it.
                await self._keys.look_again()
            token = self._parse(text)
            principal = await self._people.named(token.identity)
            if principal is None:
                raise VaultError(Reason.TOKEN_REVOKED, "the token was revoked")
            token = self._verified[digest] = dataclasses.replace(token, principal=principal)
            if len(self._verified) > _CACHED:
                self._verified.popitem(last=False)
        return token

    def _parse(self, text: str) -> Token:
        jwt, tilde, _ = text.partition("~")
        payload = self._keys.open(jwt)
        token = token_claims.parse(payload, self._settings.issuer, self._settings.audience)
        if token.issue_time > self._clock.now() + SKEW:
            raise invalid_token()
        if bool(tilde) != bool(token.narrowing_key):
            # Without its seed a token that can be narrowed is not whole: it may have been cut out of a weaker one.
            raise invalid_token()
        return token_claims.narrow(token, text) if tilde else token


class _Checks(NamedTuple):
    """What a token was granted on, to be seen again in the transaction of its record."""

    caller: Caller
    in_force: InForce
    operation: Operation | None


def _operation(certificate: str, tenant: str, wish: Wish, life: datetime.timedelta) -> Operation:
    """What others must have signed for: this token for this certificate. Raises `FIELD_INVALID`."""
    try:
        return issue_token(
            tenant,
            wish.scopes,
            certificate,
            ttl_seconds=int(life.total_seconds()),
            purpose=wish.purpose,
            max_sessions=wish.max_sessions,
            narrowable=wish.narrowable,
        )
    except ValueError as error:
        raise invalid_field("scopes", str(error)) from None


def _summary(token: Token, wish: Wish, certificate: str, **more: object) -> str:
    """What the record of a new token says of it."""
    if token.max_sessions:
        more["max_sessions"] = token.max_sessions
    return canonical_json(
        {
            "scopes": list(wish.scopes),
            "expire_time": token.expire_time.isoformat(),
            "purpose": wish.purpose,
            "certificate": certificate,
            **more,
        }
    )
