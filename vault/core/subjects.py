"""Data subjects: the people whose data a tenant keeps, each with a key of its own that can be destroyed.

A subject is known here by its pseudonym, an HMAC of its name under an HSM key: the name itself is stored nowhere.
Its key is 32 random bytes, stored wrapped by the tenant's subject key in the HSM. What hangs on it cannot be read
without it: every credential version of the subject is sealed under it once more (`crypto/subject_data.py`).

Erasing a subject must also take its key out of every backup. So the tenant's subject key in the HSM is replaced
(`core/erasures.py`): those who stay are wrapped anew, and the version that the backups need is destroyed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from typing import TYPE_CHECKING

from hsm import KeyNotFound
from vault.core import audit, requests
from vault.core.hsm import Unwrapping, Wrapping, ref
from vault.crypto import memory
from vault.crypto.encoding import encode
from vault.errors import Reason, StartError, VaultError
from vault.model import SYSTEM_TENANT, AuditDraft, KeyPurpose, KeyState, Outcome, Subject, SubjectState
from vault.store import subjects as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    import datetime

    from vault.core.audit import AuditLog
    from vault.core.hsm import Hsm, OneHsm
    from vault.core.keys import Keyring
    from vault.crypto.memory import LockedBuffer
    from vault.model import Key, Origin
    from vault.store.engine import Database
    from vault.store.ledger import Rows

KEY_BYTES = 32
_TRIES = 5


class _KeyMoved(Exception):  # noqa: N818 - not an error: an erasure was first
    """The tenant's subject key was replaced since it was looked up."""


class Subjects:
    """Knows subjects by pseudonym, and opens their keys."""

    def __init__(self, database: Database, hsm: Hsm, log: AuditLog, keyring: Keyring) -> None:
        self._database = database
        self._hsm = hsm
        self._log = log
        self._keyring = keyring
        self._index: LockedBuffer | None = None

    async def start(self) -> None:
        """Derive the key of the pseudonyms from the HSM's. Raises `StartError` if the vault has none."""
        try:
            key = await self._keyring.active(SYSTEM_TENANT, KeyPurpose.SUBJECT_INDEX)
        except VaultError as error:
            if error.reason is Reason.TENANT_NOT_FOUND:
                raise StartError(
                    "keys: the vault lacks a key of its own: run `strongroom keys init`"
                ) from None
            raise
        mac = await self._hsm.mac(key, b"strongroom/subject-index/v1")
        self._index = memory.absorb(mac)

    def pseudonym(self, tenant: str, name: str) -> str:
        """The id by which a subject is known: 22 characters that only this vault can make of the name."""
        requests.printable("subject", name, required=True)
        assert self._index is not None
        digest = hmac.digest(self._index.view, encode("strongroom/subject/v1", tenant, name), hashlib.sha256)
        return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()

    async def get(self, tenant: str, subject_id: str) -> Subject | None:
        """The subject of this pseudonym, as stored now."""
        async with self._database.read() as connection:
            return await store.get_subject(connection, tenant, subject_id)

    async def ensure(self, actor: str, origin: Origin, tenant: str, name: str) -> Subject:
        """The subject of this name, with a key; both made if they are missing.

        Who was erased and comes back gets a new key, which opens nothing of before.
        Raises `FIELD_INVALID`, `TENANT_NOT_FOUND`, `HSM_UNAVAILABLE`.
        """
        subject_id = self.pseudonym(tenant, name)
        found = await self.get(tenant, subject_id)
        if found is not None and found.state is SubjectState.ACTIVE:
            return found
        await self._keyring.active(tenant, KeyPurpose.KEK)  # the tenant must exist
        draft = AuditDraft(
            tenant, actor, "subject.create", f"{tenant}/subjects/{subject_id}", Outcome.GRANTED, origin
        )
        for _ in range(_TRIES):
            key = await self._keyring.ensure_subject_key(tenant, draft)
            with memory.absorb(os.urandom(KEY_BYTES)) as fresh:
                wrapped = await self.wrap(tenant, subject_id, key, fresh)
            try:
                subject: Subject = await self._log.commit(_create(draft, tenant, subject_id, key, wrapped))
            except _KeyMoved:
                self._keyring.forget_tenant(tenant)
            else:
                return subject
        raise VaultError(Reason.KEY_CHANGED, "the tenant's subject key keeps changing; try again")

    async def key(self, subject: Subject) -> LockedBuffer:
        """A subject's key in a locked buffer, the caller's to close.

        Raises `VERSION_DESTROYED` if the subject was erased, `STORED_DATA_DAMAGED`, `HSM_UNAVAILABLE`.
        """
        if subject.state is not SubjectState.ACTIVE:
            raise erased()
        key = await self._keyring.version(subject.tenant, KeyPurpose.SUBJECT, subject.key_version)
        aad = wrap_aad(subject.tenant, subject.subject_id, key.version)
        return await self._hsm.unwrap(Unwrapping(key, subject.wrapped_key, aad))

    async def is_key_gone(self, subject: Subject) -> bool:
        """Whether the HSM has no key any more that could open this subject's. Raises `HSM_UNAVAILABLE`."""
        key = await self._keyring.version(subject.tenant, KeyPurpose.SUBJECT, subject.key_version)
        return not any([await one.call(_has_key, one, key) for one in self._hsm.holders(key)])

    async def wrap(self, tenant: str, subject_id: str, key: Key, subject_key: LockedBuffer) -> bytes:
        """Wrap a subject's key by a version of the tenant's. Raises `HSM_UNAVAILABLE`."""
        return await self._hsm.wrap(Wrapping(key, subject_key, wrap_aad(tenant, subject_id, key.version)))


def wrap_aad(tenant: str, subject_id: str, key_version: int) -> bytes:
    """What the HSM binds a subject's wrapped key to."""
    return encode("strongroom/subject-key/v1", tenant, subject_id, key_version)


def _has_key(one: OneHsm, key: Key) -> bool:
    try:
        one.backend.key_info(ref(key))
    except KeyNotFound:
        return False
    return True


def erased() -> VaultError:
    """What is said of data whose subject was erased."""
    return VaultError(Reason.VERSION_DESTROYED, "the version is destroyed")


def new_subject(tenant: str, subject_id: str, key: Key, wrapped: bytes, now: datetime.datetime) -> Subject:
    """A subject as it begins, with its own key wrapped by this version of the tenant's."""
    return Subject(
        tenant=tenant,
        subject_id=subject_id,
        state=SubjectState.ACTIVE,
        key_version=key.version,
        wrapped_key=wrapped,
        create_time=now,
        erase_time=None,
    )


def _create(draft: AuditDraft, tenant: str, subject_id: str, key: Key, wrapped: bytes) -> Unit:
    own = RowKey("subjects", (tenant, subject_id))
    key_row = RowKey("keys", (tenant, KeyPurpose.SUBJECT.value, key.version))

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row = rows.get(*_flat(own))
        before = store.subject_from(row) if row else None
        if before is not None and before.state is SubjectState.ACTIVE:
            record = audit.repeated(draft)
            return Commit((record,), (), before)
        active = rows.get(*_flat(key_row))
        if active is None or active["state"] != KeyState.ACTIVE.value:
            raise _KeyMoved
        subject = new_subject(tenant, subject_id, key, wrapped, now)
        record = draft._replace(after_state=canonical_json({"key_version": key.version}))
        return Commit((record,), (Write("subjects", store.subject_row(subject)),), subject)

    return Unit((own, key_row), decide)


def _flat(key: RowKey) -> tuple[str, *tuple[str | int, ...]]:
    return (key.table, *key.key)
