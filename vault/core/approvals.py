"""Approvals: what is too dangerous for one person waits until others have signed for it.

What holds, whatever the order of calls:

- An approval is for one operation with all its arguments (`Operation.digest`) and for the identity that asked.
- Each signature is by the private key of the certificate that made the call, over a statement that names the
  approval, the operation, who asked and the end; so it proves the same to whoever reads it later.
- Distinct people: one identity counts once, one key counts once, who asked never counts. Who asks and who signs does so
  by a token of its own: with one that was delegated, one person could be two.
- It is good once: the unit that does the operation consumes it, in the same transaction.
- How many are needed is configuration without a default; the greater of then and now counts.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vault.clock import UTC, micros
from vault.core import audit, people, requests
from vault.core.policy import problems
from vault.crypto import approvals as signing
from vault.crypto import scopes
from vault.crypto.errors import CryptoError
from vault.crypto.people import PREFIX
from vault.errors import Reason, VaultError, invalid_field
from vault.model import Approval, ApprovalSignature, ApprovalState
from vault.store import approvals
from vault.store.ledger import Commit, Unit
from vault.store.reach import of
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.people import People
    from vault.crypto.approvals import Operation
    from vault.model import Caller
    from vault.store.engine import Database
    from vault.store.ledger import Rows

DESTROY_KEY = "key.destroy"
DELETE_TENANT = "tenant.delete"
CHANGE_POLICY = "policy.write"
RECOVER_DATABASE = "database.recover"
BREAK_GLASS = "session.break_glass"
ISSUE_TOKEN = "token.issue"  # noqa: S105 - an action, not a token
ACTIONS = (DESTROY_KEY, DELETE_TENANT, CHANGE_POLICY, RECOVER_DATABASE, BREAK_GLASS, ISSUE_TOKEN)

MAX_ARGUMENTS = 16
_MAX_SIGNATURE = 1024
_ARGUMENT = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_POSITION = re.compile(r"(-?[0-9]{1,18})\.([A-Za-z0-9_-]{22})")
APPROVE, READ = "approval.approve", "approval.read"


@dataclasses.dataclass(frozen=True)
class ApprovalSettings:
    """How many people it takes for each action, and how long they have."""

    required: Mapping[str, int]
    life: datetime.timedelta

    def __post_init__(self) -> None:
        if set(self.required) != set(ACTIONS) or any(count < 1 for count in self.required.values()):
            raise ValueError("every action needs at least one approval")


class Approvals:
    """Asks for, collects and consumes approvals."""

    def __init__(
        self, settings: ApprovalSettings, database: Database, log: AuditLog, people: People, clock: Clock
    ) -> None:
        self._people = people
        self._settings = settings
        self._database = database
        self._log = log
        self._clock = clock

    async def request(
        self, caller: Caller, operation: Operation, purpose: str, request_id: str, document: str = ""
    ) -> Approval:
        """Ask for an approval. Raises `FIELD_INVALID`, `SCOPE_DENIED`, `REQUEST_ID_REUSED`."""
        operation = self._as_written(caller, operation)
        token = requests.require(caller, operation.action, operation.resource)
        if token.identity != caller.identity:
            raise VaultError(
                Reason.SCOPE_DENIED, "a token of somebody else asks for no approval", action=operation.action
            )
        requests.printable("purpose", purpose, required=True)
        await self._check_document(operation, document)
        repeat = requests.repeat(caller, "approval.request", request_id, operation.digest, purpose)
        approval_id = requests.new_id()

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            if (earlier := repeat.earlier(rows)) is not None:
                record = audit.repeated(audit.granted(caller, "approval.request", earlier))
                return Commit((record,), (), earlier)
            new = Approval(
                approval_id=approval_id,
                operation=operation,
                requested_by=caller.identity,
                purpose=purpose,
                required=self._settings.required[operation.action],
                state=ApprovalState.OPEN,
                signatures=(),
                create_time=now,
                expire_time=now + self._settings.life,
                document=document,
            )
            record = audit.granted(caller, "approval.request", approval_id, after=summary(new))
            writes = (_write(new), *repeat.remember(approval_id, now))
            return Commit((record,), writes, approval_id)

        stored = await self._log.commit(Unit(repeat.reads, decide))
        return await self._stored(token.tenant, stored)

    async def approve(self, caller: Caller, approval_id: str, signature: bytes) -> Approval:
        """Add the caller's signature. Raises `APPROVAL_*`, `APPROVER_UNSUITABLE`, `SIGNATURE_INVALID`."""
        _require_anywhere(caller, APPROVE)
        found = await self._visible(caller, approval_id, (APPROVE,))
        if not 0 < len(signature) <= _MAX_SIGNATURE:
            raise invalid_field("signature", f"1 to {_MAX_SIGNATURE} bytes")
        if caller.identity == found.requested_by:
            raise VaultError(Reason.APPROVER_UNSUITABLE, "who asks cannot approve")
        if requests.token_of(caller).identity != caller.identity:
            raise VaultError(Reason.APPROVER_UNSUITABLE, "nobody approves by a token of somebody else")
        if not _signed(found, caller.certificate.der, signature):
            raise VaultError(Reason.SIGNATURE_INVALID, "not by this certificate over this approval")

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            before = _open(rows, approval_id, now)
            mine = ApprovalSignature(caller.identity, caller.certificate.der, signature, now)
            signed = self.opened(before).signatures
            if _people(dataclasses.replace(before, signatures=(*signed, mine))) != len(signed) + 1:
                raise VaultError(Reason.APPROVER_UNSUITABLE, "this person has approved already")
            after = dataclasses.replace(
                before, signatures=(*before.signatures, self._seal_evidence(caller, mine))
            )
            record = audit.granted(
                caller, "approval.approve", approval_id, before=summary(before), after=summary(after)
            )
            return Commit((record,), (_write(after),), after)

        approved: Approval = await self._log.commit(Unit(self.reads(approval_id), decide))
        return approved

    async def cancel(self, caller: Caller, approval_id: str) -> Approval:
        """Take an approval back. Raises `APPROVAL_NOT_FOUND`, `APPROVAL_ENDED`, `SCOPE_DENIED`."""
        found = await self._visible(caller, approval_id, (APPROVE, READ), also_action=True)
        requests.require(caller, found.operation.action, found.operation.resource)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            before = _open(rows, approval_id, now)
            after = dataclasses.replace(before, state=ApprovalState.CANCELLED)
            record = audit.granted(
                caller, "approval.cancel", approval_id, before=summary(before), after=summary(after)
            )
            return Commit((record,), (_write(after),), after)

        cancelled: Approval = await self._log.commit(Unit(self.reads(approval_id), decide))
        return cancelled

    async def get(self, caller: Caller, approval_id: str) -> Approval:
        """One approval. Raises `APPROVAL_NOT_FOUND`."""
        found = await self._visible(caller, approval_id, (APPROVE, READ), also_action=True)
        await self._log.record(audit.granted(caller, "approval.get", approval_id))
        return found

    async def list_approvals(
        self, caller: Caller, *, only_open: bool, before: str | None, limit: int
    ) -> list[Approval]:
        """What the caller may see, newest first, beginning behind the position `before`."""
        token = requests.token_of(caller)
        wanted: list[Approval] = []
        place = None if before is None else _place(before)
        open_at = self._clock.now() if only_open else None
        while len(wanted) < limit:
            async with self._database.read() as connection:
                page = await approvals.list_approvals(
                    connection, token.tenant, before=place, open_at=open_at, limit=requests.MAX_PAGE
                )
            wanted.extend(item for item in page if _may_see(caller, item, (APPROVE, READ), also_action=True))
            if len(page) < requests.MAX_PAGE:
                break
            place = (page[-1].create_time, page[-1].approval_id)
        await self._log.record(audit.granted(caller, "approval.list", ""))
        return wanted[:limit]

    def reads(self, approval_id: str) -> tuple[RowKey, ...]:
        """The row that a unit must see to consume an approval."""
        return (RowKey("approvals", (approval_id,)),) if _ID.fullmatch(approval_id) else ()

    def consume(
        self, rows: Rows, caller: Caller, operation: Operation, approval_id: str, now: datetime.datetime
    ) -> tuple[Write, ...]:
        """Within a unit's decision: what to write so that the approval is used up by this very operation.

        Raises `APPROVAL_REQUIRED` if none is named or too few people have signed, `APPROVAL_NOT_FOUND`,
        `APPROVAL_MISMATCH`, `APPROVAL_ENDED`, `STORED_DATA_DAMAGED`.
        """
        if not approval_id:
            raise _required(self._settings.required[operation.action])
        before = _open(rows, approval_id, now, tenant=operation.tenant)
        self._people_for(before, caller, operation)
        return (_write(dataclasses.replace(before, state=ApprovalState.CONSUMED)),)

    async def signed_for(self, caller: Caller, operation: Operation, approval_id: str) -> int:
        """How many people have signed for this operation, for who must know before it is decided; `consume` uses it up.

        An approval that somebody else asked for looks absent. Raises as `consume` does.
        """
        found = None
        if _ID.fullmatch(approval_id):
            # Before there is a token: what the caller itself asked for is looked at, and nothing else.
            async with self._database.read(of(operation.tenant)) as connection:
                found = await approvals.get_approval(connection, operation.tenant, approval_id)
        if found is None or found.requested_by != caller.identity:
            raise _not_found()
        return self._people_for(_still_open(found, self._clock.now()), caller, operation)

    def _people_for(self, approval: Approval, caller: Caller, operation: Operation) -> int:
        if approval.operation.digest != operation.digest or approval.requested_by != caller.identity:
            raise VaultError(Reason.APPROVAL_MISMATCH, "the approval is for something else")
        # Once more, since the row lay in the database meanwhile: what does not verify was never signed.
        opened = self.opened(approval)
        if not all(_signed(approval, item.certificate, item.signature) for item in opened.signatures):
            raise VaultError(Reason.STORED_DATA_DAMAGED, "a stored approval does not verify")
        required = max(self._settings.required[operation.action], approval.required)
        people = _people(opened)
        if people < required:
            raise _required(required)
        return people

    def is_approved(self, approval: Approval) -> bool:
        """Whether enough people have signed."""
        required = max(self._settings.required[approval.operation.action], approval.required)
        return _people(self.opened(approval)) >= required

    def _as_written(self, caller: Caller, operation: Operation) -> Operation:
        """The operation as it is stored and signed for: a person's own certificate by what stands for it."""
        _check_operation(operation)
        own = caller.certificate.thumbprint
        if not caller.pseudonym or own not in operation.arguments.values():
            return operation
        alias = self._people.present(caller).certificate(own)
        arguments = {name: alias if value == own else value for name, value in operation.arguments.items()}
        return dataclasses.replace(operation, arguments=arguments)

    async def _check_document(self, operation: Operation, document: str) -> None:
        """A policy is shown to who approves it: whole, as it would be stored, and with nothing that does not show."""
        if operation.action != CHANGE_POLICY:
            if document:
                raise invalid_field("document", f"only for {CHANGE_POLICY}")
            return
        if problems(document):
            raise invalid_field(
                "document", "is required, and must be a policy that Validate finds nothing wrong with"
            )
        if not signing.is_document_of(operation, document):
            raise invalid_field("document", "its SHA-256 must be the argument `sha256` of the operation")
        if not all(character.isprintable() or character in "\n\r\t" for character in document):
            raise invalid_field("document", "holds a character that does not show")
        if self._people.alluded(document) or await self._people.hide(document) != document:
            raise invalid_field("document", "must name people by pseudonym, as Validate gives it")

    def opened(self, approval: Approval) -> Approval:
        """An approval with the evidence of its people opened. Who was erased since has signed no longer.

        Raises `STORED_DATA_DAMAGED`.
        """
        known = (item for item in approval.signatures if not self._is_unknown(item))
        return dataclasses.replace(approval, signatures=tuple(map(self._open_evidence, known)))

    def shown(self, caller: Caller, approval: Approval) -> Approval:
        """An approval as a caller may see it: people's evidence, which names them, only with `audit.identify`."""
        may = people.may_identify(caller)
        return dataclasses.replace(
            approval,
            signatures=tuple(
                dataclasses.replace(item, certificate=b"", signature=b"")
                if item.identity.startswith(PREFIX) and (not may or self._is_unknown(item))
                else self._open_evidence(item)
                for item in approval.signatures
            ),
        )

    def _is_unknown(self, item: ApprovalSignature) -> bool:
        return item.identity.startswith(PREFIX) and self._people.known(item.identity) is None

    def _open_evidence(self, item: ApprovalSignature) -> ApprovalSignature:
        person = self._people.known(item.identity)
        try:
            return item if person is None else _with_evidence(item, person.open)
        except CryptoError:
            raise VaultError(Reason.STORED_DATA_DAMAGED, "a stored approval does not verify") from None

    def _seal_evidence(self, caller: Caller, item: ApprovalSignature) -> ApprovalSignature:
        """As it is stored: certificate and signature lead to a person, and so die with the person's key."""
        return _with_evidence(item, self._people.present(caller).seal) if caller.pseudonym else item

    async def _stored(self, tenant: str, approval_id: str) -> Approval:
        async with self._database.read() as connection:
            found = await approvals.get_approval(connection, tenant, approval_id)
        if found is None:
            raise _not_found()
        return found

    async def _visible(
        self, caller: Caller, approval_id: str, actions: tuple[str, ...], *, also_action: bool = False
    ) -> Approval:
        """The approval, if the caller may know of it; to anyone else it looks absent."""
        token = requests.token_of(caller)
        if not _ID.fullmatch(approval_id):
            raise invalid_field("approval_id", "must be 22 characters of base64url")
        found = await self._stored(token.tenant, approval_id)
        if not _may_see(caller, found, actions, also_action=also_action):
            raise _not_found()
        return found


def position(approval: Approval) -> str:
    """Where a page that ends with this approval ended."""
    return f"{micros(approval.create_time)}.{approval.approval_id}"


def summary(approval: Approval) -> str:
    """What the audit log tells of an approval."""
    operation = approval.operation
    return canonical_json(
        {
            "action": operation.action,
            "resource": operation.resource,
            "arguments": dict(operation.arguments),
            "digest": operation.digest.hex(),
            "requested_by": approval.requested_by,
            "required": approval.required,
            "state": approval.state.value,
            "approved_by": [item.identity for item in approval.signatures],
            "expire_time": approval.expire_time.isoformat(),
        }
    )


def _check_operation(operation: Operation) -> None:
    if operation.action not in ACTIONS:
        raise invalid_field("operation.action", "must be one that can be approved")
    requests.credential_name(operation.resource, "operation.resource")
    if len(operation.arguments) > MAX_ARGUMENTS:
        raise invalid_field("operation.arguments", f"at most {MAX_ARGUMENTS}")
    for name, value in operation.arguments.items():
        if not _ARGUMENT.fullmatch(name):
            raise invalid_field("operation.arguments", "names must be [a-z][a-z0-9_]{0,62}")
        requests.printable("operation.arguments", value)


def _require_anywhere(caller: Caller, action: str) -> None:
    """Refuse before any look-up a token that could approve nothing at all."""
    if not any(scope.action == action for scope in requests.token_of(caller).scopes):
        raise VaultError(Reason.SCOPE_DENIED, "the token's scopes do not cover this", action=action)


def _may_see(caller: Caller, approval: Approval, actions: tuple[str, ...], *, also_action: bool) -> bool:
    if also_action:
        actions = (*actions, approval.operation.action)
        if approval.requested_by == caller.identity:
            return True
    return any(
        scopes.covers(scope, action, approval.operation.resource)
        for scope in requests.token_of(caller).scopes
        for action in actions
    )


def _open(rows: Rows, approval_id: str, now: datetime.datetime, *, tenant: str = "") -> Approval:
    row = rows.get("approvals", approval_id) if _ID.fullmatch(approval_id) else None
    if row is None or (tenant and row["tenant"] != tenant):
        raise _not_found()
    return _still_open(approvals.approval_from(row), now)


def _still_open(found: Approval, now: datetime.datetime) -> Approval:
    state = found.state.value
    if found.state is ApprovalState.OPEN and now >= found.expire_time:
        state = "expired"
    if state != ApprovalState.OPEN.value:
        raise VaultError(Reason.APPROVAL_ENDED, "the approval is used, cancelled or expired", state=state)
    return found


def _people(approval: Approval) -> int:
    """How many distinct people have signed, by identity and by key; who asked is none of them."""
    identities = {item.identity for item in approval.signatures} - {approval.requested_by}
    keys = {_public_key_bytes(item.certificate) for item in approval.signatures}
    return min(len(identities), len(keys))


def _public_key_bytes(certificate: bytes) -> bytes:
    key = x509.load_der_x509_certificate(certificate).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _signed(approval: Approval, certificate: bytes, signature: bytes) -> bool:
    message = signing.statement(
        approval.approval_id, approval.operation, approval.requested_by, micros(approval.expire_time)
    )
    return signing.verifies(x509.load_der_x509_certificate(certificate).public_key(), signature, message)


def _with_evidence(item: ApprovalSignature, change: Callable[[str, bytes], bytes]) -> ApprovalSignature:
    return dataclasses.replace(
        item,
        certificate=change("certificate", item.certificate),
        signature=change("signature", item.signature),
    )


def _write(approval: Approval) -> Write:
    return Write("approvals", approvals.approval_row(approval))


def _place(text: str) -> tuple[datetime.datetime, str]:
    found = _POSITION.fullmatch(text)
    if found is None:
        raise VaultError(Reason.PAGE_TOKEN_INVALID, "not a page token of this caller and query")
    moment = datetime.datetime.fromtimestamp(0, UTC) + datetime.timedelta(microseconds=int(found[1]))
    return moment, found[2]


def _not_found() -> VaultError:
    return VaultError(Reason.APPROVAL_NOT_FOUND, "no such approval")


def _required(count: int) -> VaultError:
    return VaultError(Reason.APPROVAL_REQUIRED, "this needs the approval of others", required=str(count))
