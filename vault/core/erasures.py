"""Crypto-shredding: a tenant, a data subject of it, or a person who calls is unreadable for ever, and that is proved.

What the data hangs on is destroyed in the HSM: for a tenant all its keys, for a subject the tenant's subject key,
after those who stay were wrapped by a new one. A backup from before holds the wrapped keys, and nothing opens them. A
person who calls is a subject of the vault's own tenant (`core/people.py`).

The steps, each of which may be interrupted and is taken up by the next call:

1. Intent: in one transaction the approval is used up, the subject has no key any more (or the tenant no active one).
2. Those who stay: a new version of the tenant's subject key, and every other subject's key wrapped by it.
3. The endpoints of a tenant's webhooks are removed; the credentials are deleted: sessions on them end, everywhere.
4. The keys are destroyed in the HSM.
5. Proof: each key, wrapped key and data key is tried in the HSM, which must not know the key that it needs.
6. What is left in the database goes: wrapped keys and envelopes.
7. The certificate: signed in the HSM, its digest in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from typing import TYPE_CHECKING, NamedTuple

from hsm import KeyNotFound
from vault.core import approvals as approving
from vault.core import audit, erasure_certificate, outgoing, requests
from vault.core.erasure_proof import ErasureProof
from vault.core.hsm import ref
from vault.core.people import ERASE, is_pseudonym
from vault.core.people import RESOURCE as PEOPLE
from vault.core.revocations import EVERY_TENANT, REVOKE, Kind
from vault.core.tokens import Target
from vault.crypto.approvals import Operation
from vault.crypto.people import PREFIX
from vault.errors import Reason, VaultError, invalid_field
from vault.model import (
    SYSTEM_TENANT,
    CredentialState,
    Erasure,
    ErasureState,
    KeyPurpose,
    KeyState,
    Placement,
    Subject,
    SubjectState,
    VersionState,
)
from vault.store import erasures as store
from vault.store import keys as stored_keys
from vault.store import people as stored_people
from vault.store import subjects as stored_subjects
from vault.store import webhook_endpoints
from vault.store.approvals import approval_from
from vault.store.ledger import Commit, Unit, read_head
from vault.store.reach import ALL_TENANTS, declared, widen, with_system
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncIterator, Sequence

    from vault.core.approvals import Approvals
    from vault.core.audit import AuditLog
    from vault.core.checkpoints import Checkpoints
    from vault.core.credential_keys import CredentialKeys
    from vault.core.envelopes import Envelopes
    from vault.core.erasure_proof import Tried
    from vault.core.hsm import Hsm, OneHsm
    from vault.core.keys import Keyring
    from vault.core.people import People
    from vault.core.subjects import Subjects
    from vault.core.tokens import Tokens
    from vault.model import AuditDraft, Caller, Key
    from vault.store.engine import Database
    from vault.store.ledger import Rows

_PAGE = 100


class Whom(NamedTuple):
    """What to erase: a tenant, a subject of it, or a person who calls, by identity or pseudonym."""

    tenant: str = ""
    subject: str = ""
    identity: str = ""

    @property
    def of(self) -> str:
        """The tenant whose keys it concerns."""
        return SYSTEM_TENANT if self.identity else self.tenant


class Description(NamedTuple):
    """What an erasure would take, and the operation to be approved for it."""

    operation: Operation
    credentials: int
    versions: int


class Erasures:
    """Erases tenants, subjects, and people who call."""

    def __init__(
        self,
        database: Database,
        hsm: Hsm,
        log: AuditLog,
        keyring: Keyring,
        subjects: Subjects,
        envelopes: Envelopes,
        checkpoints: Checkpoints,
        approvals: Approvals,
        *,
        credential_keys: CredentialKeys,
        people: People,
        tokens: Tokens,
    ) -> None:
        self._people = people
        self._tokens = tokens
        self._database = database
        self._hsm = hsm
        self._log = log
        self._keyring = keyring
        self._subjects = subjects
        self._proof = ErasureProof(database, hsm, subjects, envelopes)
        self._checkpoints = checkpoints
        self._approvals = approvals
        self._credential_keys = credential_keys

    async def describe(self, caller: Caller, whom: Whom) -> Description:
        """What would be erased: the operation to be approved, and how many credentials and versions go.

        Raises `TENANT_NOT_FOUND`, `SUBJECT_NOT_FOUND`.
        """
        operation = await self._operation(caller, whom)
        tenant, subject_id = whom.of, operation.arguments.get("subject_id", "")
        if subject_id and await self._subjects.get(tenant, subject_id) is None:
            raise not_found()
        if not subject_id:
            await self._keyring.active(tenant, KeyPurpose.KEK)
        async with self._database.read() as connection:
            credentials, versions = await store.count(connection, tenant, subject_id)
        await self._log.record(audit.granted(caller, "tenant.describe_erasure", operation.resource))
        return Description(operation, credentials, versions)

    async def erase(self, caller: Caller, whom: Whom, approval_id: str) -> Erasure:
        """Erase; what was interrupted is taken up. A person whose erasure has begun is named by the pseudonym.

        Raises `TENANT_NOT_FOUND`, `SUBJECT_NOT_FOUND`, `APPROVAL_*`, `HSM_UNAVAILABLE`.
        """
        operation = await self._operation(caller, whom)
        tenant, subject_id = whom.of, operation.arguments.get("subject_id", "")
        async with self._database.read(with_system()) as connection:
            versions = await stored_keys.list_keys(connection, tenant, _purposes(subject_id)[0])
        erasure: Erasure = await self._log.commit(
            self._start(caller, operation, subject_id, tenant, versions, approval_id)
        )
        self._keyring.forget_tenant(tenant)
        if erasure.state is ErasureState.DONE:
            return erasure
        if tenant == SYSTEM_TENANT:
            await self._send_away(caller, PREFIX + subject_id)
        if subject_id:
            await self._move_others(caller, erasure)
        else:
            await self._remove_endpoints(caller, tenant)
        credentials = 0
        async for names in self._names(erasure):
            credentials += len(names)
            await asyncio.gather(*(self._log.commit(_delete(caller, name)) for name in names))
        destroyed = await self._destroy_keys(caller, erasure)
        tried = await self._proof.attempt(erasure, destroyed, self._names(erasure))
        async for names in self._names(erasure):
            await self._empty(caller, names)
        if not subject_id:
            await self._credential_keys.sweep(tenant)
        return await self._certify(caller, erasure, destroyed, credentials, tried)

    async def _operation(self, caller: Caller, whom: Whom) -> Operation:
        # The scope first: who may not erase learns no pseudonym.
        if whom.identity:
            if whom.tenant or whom.subject:
                raise invalid_field("identity", "stands alone: people are no tenant's")
            requests.require(caller, approving.DELETE_TENANT, PEOPLE)
            pseudonym = await self._people.sought(requests.identity(whom.identity))
            if not is_pseudonym(pseudonym):
                raise not_found()
            return Operation(approving.DELETE_TENANT, PEOPLE, {"subject_id": pseudonym.removeprefix(PREFIX)})
        tenant = requests.customer_tenant(whom.tenant)
        if whom.subject:
            requests.require(caller, approving.DELETE_TENANT, f"{tenant}/subjects")
            subject_id = self._subjects.pseudonym(tenant, whom.subject)
            return Operation(approving.DELETE_TENANT, f"{tenant}/subjects", {"subject_id": subject_id})
        requests.require(caller, approving.DELETE_TENANT, f"{SYSTEM_TENANT}/tenants/{tenant}")
        widen(tenant)
        return Operation(approving.DELETE_TENANT, f"{SYSTEM_TENANT}/tenants/{tenant}")

    async def _send_away(self, caller: Caller, pseudonym: str) -> None:
        """End what a person has here: tokens, and with them sessions; and forget whom the pseudonym stands for."""
        self._people.forget(pseudonym)
        draft = audit.granted(caller, REVOKE, pseudonym)._replace(tenant=SYSTEM_TENANT)
        with declared(ALL_TENANTS):
            await self._tokens.withdraw(draft, Target(Kind.IDENTITY, pseudonym, EVERY_TENANT))

    def _start(
        self,
        caller: Caller,
        operation: Operation,
        subject_id: str,
        tenant: str,
        versions: Sequence[Key],
        approval_id: str,
    ) -> Unit:
        own = RowKey("erasures", (tenant, subject_id))
        tenant_key = RowKey("tenants", (tenant,))
        reads = [own, tenant_key, *self._approvals.reads(approval_id)]
        if subject_id:
            reads.append(RowKey("subjects", (tenant, subject_id)))
        active = next((key for key in versions if key.state is KeyState.ACTIVE), None)
        if active is not None:
            reads.append(_key_row(active))

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            record = audit.granted(caller, _action(tenant, subject_id), _resource(tenant, subject_id))
            tenant_row = rows.get(tenant_key.table, *tenant_key.key)
            if tenant_row is None and tenant != SYSTEM_TENANT:
                raise VaultError(Reason.TENANT_NOT_FOUND, "no such tenant")
            subject_row = rows.get("subjects", tenant, subject_id) if subject_id else None
            if subject_id and subject_row is None:
                raise not_found()
            row = rows.get(own.table, *own.key)
            if row is not None and (subject_row is None or subject_row["state"] == SubjectState.ERASED.value):
                record = audit.repeated(record)
                return Commit((record,), (), store.erasure_from(row))
            if active is None or (current := rows.get(*_flat(_key_row(active)))) is None:
                raise VaultError(Reason.TENANT_NOT_FOUND, "no such tenant")
            if current["state"] != KeyState.ACTIVE.value:
                raise VaultError(
                    Reason.KEY_CHANGED, "the tenant's key was replaced at this moment; try again"
                )
            consumed = self._approvals.consume(rows, caller, operation, approval_id, now)
            erasure = Erasure(
                tenant=tenant,
                subject_id=subject_id,
                state=ErasureState.RUNNING,
                key_version=active.version,
                requested_by=caller.identity,
                approved_by=tuple(
                    item.identity
                    for item in approval_from(rows.get("approvals", approval_id) or {}).signatures
                ),
                create_time=now,
                end_time=None,
                certificate="",
            )
            writes = [*consumed, Write("erasures", store.erasure_row(erasure))]
            if subject_row is not None:
                writes.append(
                    Write("subjects", {**subject_row, "state": SubjectState.ERASED.value, "erase_time": now})
                )
            else:
                writes.append(Write("keys", {**current, "state": KeyState.DECRYPT_ONLY.value}))
                # No key has version 0: nothing is sealed for this tenant any more.
                writes.append(Write("tenants", {**(tenant_row or {}), "kek_version": 0}))
            return Commit((record,), tuple(writes), erasure, urgent=tenant == SYSTEM_TENANT)

        return Unit(tuple(reads), decide)

    async def _move_others(self, caller: Caller, erasure: Erasure) -> None:
        """Wrap the keys of those who stay by a version that the backups do not know."""
        active = await self._keyring.active(erasure.tenant, KeyPurpose.SUBJECT)
        if active.version <= erasure.key_version:
            draft = audit.granted(caller, "key.rotate", f"{erasure.tenant}/subject")
            active = await self._keyring.replace_subject_key(erasure.tenant, draft)
        while True:
            async with self._database.read() as connection:
                page = await stored_subjects.under_older_key(
                    connection, erasure.tenant, active.version, _PAGE
                )
            if not page:
                return
            await asyncio.gather(*(self._move(caller, subject, active) for subject in page))

    async def _move(self, caller: Caller, subject: Subject, active: Key) -> None:
        with await self._subjects.key(subject) as key:
            wrapped = await self._subjects.wrap(subject.tenant, subject.subject_id, active, key)
        own = RowKey("subjects", (subject.tenant, subject.subject_id))
        after = dataclasses.replace(subject, key_version=active.version, wrapped_key=wrapped)

        def decide(rows: Rows, _now: datetime.datetime) -> Commit:
            resource = _resource(subject.tenant, subject.subject_id)
            record = audit.granted(caller, "subject.rewrap", resource)
            if rows.get(*_flat(own)) != stored_subjects.subject_row(subject):
                # Erased or moved meanwhile: the next look tells.
                return Commit((audit.repeated(record),))
            return Commit((record,), (Write("subjects", stored_subjects.subject_row(after)),))

        await self._log.commit(Unit((own,), decide))

    async def _remove_endpoints(self, caller: Caller, tenant: str) -> None:
        """What signs the tenant's webhooks goes too: they could only fail."""
        async with self._database.read() as connection:
            endpoints = await webhook_endpoints.active(connection, tenant)
        for endpoint in endpoints:
            await self._log.commit(outgoing.removal(caller, tenant, endpoint.endpoint_id))

    async def _names(self, erasure: Erasure) -> AsyncIterator[list[str]]:
        after = ""
        while True:
            async with self._database.read() as connection:
                names = await store.list_names(
                    connection, erasure.tenant, erasure.subject_id, after=after, limit=_PAGE
                )
            if not names:
                return
            yield names
            after = names[-1]

    async def _destroy_keys(self, caller: Caller, erasure: Erasure) -> list[Key]:
        """Destroy in the HSM what the data hangs on. Gives every version that is destroyed, now or before."""
        gone: list[Key] = []
        for purpose in _purposes(erasure.subject_id):
            async with self._database.read(with_system()) as connection:
                versions = await stored_keys.list_keys(connection, erasure.tenant, purpose)
            for key in reversed(versions):
                if erasure.subject_id and key.version > erasure.key_version:
                    continue
                for one in self._hsm.holders(key):
                    await one.call(_destroy_in_thread, one, key)
                if key.state is not KeyState.DESTROYED:
                    await self._log.commit(_destroyed(caller, key))
                gone.append(key)
        if any(key.placement is Placement.WRAPPED for key in gone):
            # A backup may still have them, wrapped: what they are wrapped under goes as well.
            await self._keyring.renew_root(caller.identity)
        await self._hsm.forget_keys()
        self._keyring.forget_tenant(erasure.tenant)
        return gone

    async def _empty(self, caller: Caller, names: Sequence[str]) -> None:
        async with self._database.read() as connection:
            wanted = await store.holding_versions(connection, names)
        await asyncio.gather(*(self._log.commit(_destroy(caller, *item)) for item in wanted))

    async def _certify(
        self, caller: Caller, erasure: Erasure, destroyed: Sequence[Key], credentials: int, tried: Tried
    ) -> Erasure:
        signing = [] if erasure.subject_id else await self._credential_keys.of_tenant(erasure.tenant)
        async with self._database.read() as connection:
            head = await read_head(connection)
            number = (
                await stored_people.number_of(connection, erasure.subject_id)
                if erasure.tenant == SYSTEM_TENANT
                else None
            )
        note = await self._checkpoints.attest(
            erasure_certificate.text(
                _action(erasure.tenant, erasure.subject_id).partition(".")[0],
                erasure,
                tried,
                credentials=credentials,
                keys=destroyed,
                signing_keys=signing,
                head=head,
            )
        )
        own = RowKey("erasures", (erasure.tenant, erasure.subject_id))
        subject_key = RowKey("subjects", (erasure.tenant, erasure.subject_id))

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            row = rows.get(*_flat(own))
            before = store.erasure_from(row) if row else erasure
            action = _action(erasure.tenant, erasure.subject_id) + "d"
            record = audit.granted(
                caller,
                action,
                _resource(erasure.tenant, erasure.subject_id),
                after=canonical_json({"certificate": hashlib.sha256(note.encode()).hexdigest()}),
            )
            if before.state is ErasureState.DONE:
                return Commit((audit.repeated(record),), (), before)
            done = dataclasses.replace(before, state=ErasureState.DONE, end_time=now, certificate=note)
            writes = [Write("erasures", store.erasure_row(done))]
            subject_row = rows.get(*_flat(subject_key)) if erasure.subject_id else None
            if subject_row is not None:
                writes.append(Write("subjects", {**subject_row, "wrapped_key": b""}))
            if number is not None:
                row = stored_people.person_row(number, erasure.subject_id, b"")
                writes.append(Write("people", row))
            return Commit((record,), tuple(writes), done)

        reads = [own, subject_key] if erasure.subject_id else [own]
        if number is not None:
            reads.append(RowKey("people", (number,)))
        done: Erasure = await self._log.commit(Unit(tuple(reads), decide))
        await self._checkpoints.sign()
        return done


def not_found() -> VaultError:
    """The error for a subject that is not there."""
    return VaultError(Reason.SUBJECT_NOT_FOUND, "the tenant has no such subject")


def _purposes(subject_id: str) -> tuple[KeyPurpose, ...]:
    return (KeyPurpose.SUBJECT,) if subject_id else (KeyPurpose.KEK, KeyPurpose.SUBJECT)


def _action(tenant: str, subject_id: str) -> str:
    if tenant == SYSTEM_TENANT:
        return ERASE
    return "subject.erase" if subject_id else "tenant.erase"


def _resource(tenant: str, subject_id: str) -> str:
    if tenant == SYSTEM_TENANT:
        return f"{PEOPLE}/{subject_id}"
    return f"{tenant}/subjects/{subject_id}" if subject_id else f"{tenant}/keys"


def _key_row(key: Key) -> RowKey:
    return RowKey("keys", (key.tenant, key.purpose.value, key.version))


def _flat(key: RowKey) -> tuple[str, *tuple[str | int, ...]]:
    return (key.table, *key.key)


def _destroy_in_thread(hsm: OneHsm, key: Key) -> None:
    # If it is not there, an earlier run did it, or it was announced and never made.
    with contextlib.suppress(KeyNotFound):
        hsm.backend.destroy_key(ref(key), confirm=key.label)
    try:
        hsm.backend.key_info(ref(key))
    except KeyNotFound:
        return
    raise VaultError(Reason.HSM_UNAVAILABLE, "the HSM still has a key that it was told to destroy")


def _destroyed(caller: Caller, key: Key) -> Unit:
    own = _key_row(key)
    homes = [RowKey("key_homes", (*own.key, home.backend)) for home in key.homes]

    def decide(rows: Rows, _now: datetime.datetime) -> Commit:
        row = rows.get(*_flat(own))
        assert row is not None
        emptied = [{**(rows.get(*_flat(home)) or {}), "wrapped": b""} for home in homes]
        summary = {"purpose": key.purpose.value, "version": key.version, "label": key.label}
        record = audit.granted(
            caller,
            "key.destroy",
            f"{key.tenant}/keys",
            before=canonical_json({**summary, "state": row["state"]}),
            after=canonical_json({**summary, "state": KeyState.DESTROYED.value}),
        )
        writes = (
            Write("keys", {**row, "state": KeyState.DESTROYED.value}),
            *(Write("key_homes", home) for home in emptied),
        )
        return Commit((record,), writes)

    return Unit((own, *homes), decide)


def _delete(caller: Caller, name: str) -> Unit:
    """Delete a credential, so that sessions on it end."""
    own = RowKey("credentials", (name,))

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row = rows.get(*_flat(own))
        assert row is not None
        record = _as_of(caller, name, "credential.delete")
        if row["state"] == CredentialState.DELETED.value:
            return Commit((audit.repeated(record),))
        after = {**row, "state": CredentialState.DELETED.value, "delete_time": now, "update_time": now}
        return Commit((record,), (Write("credentials", after),))

    return Unit((own,), decide)


def _destroy(caller: Caller, name: str, version: int) -> Unit:
    own = RowKey("credential_versions", (name, version))

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row = rows.get(*_flat(own))
        assert row is not None
        after = {**row, "state": VersionState.DESTROYED.value, "envelope": b"", "destroy_time": now}
        record = _as_of(caller, name, "credential.destroy_version")
        return Commit((record,), (Write("credential_versions", after),))

    return Unit((own,), decide)


def _as_of(caller: Caller, name: str, action: str) -> AuditDraft:
    """A record in the log of the tenant that it concerns, whoever's token it was."""
    return audit.granted(caller, action, name)._replace(tenant=name.partition("/")[0])
