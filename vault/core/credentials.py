"""Credentials: sealed in, kept in immutable versions, listed by metadata, deleted, destroyed."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from vault.core import audit, fields, requests, standing
from vault.core.batch import Batcher, Load
from vault.core.credential_records import deleted, not_found, state_of
from vault.core.new_versions import Beside, Moved, NewVersion, Put, check_put, put_unit
from vault.crypto import bundle, kinds, memory, scopes
from vault.crypto.contexts import put_info
from vault.errors import Reason, VaultError, invalid_field
from vault.model import (
    Credential,
    CredentialState,
    KeyPurpose,
    StoredVersion,
    SubjectState,
    Version,
    VersionState,
)
from vault.store import activity as activities
from vault.store import credentials as store
from vault.store.ledger import Commit, Unit
from vault.store.reach import Reach, covers, current, union
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Mapping, Sequence

    from vault.core.audit import AuditLog
    from vault.core.envelopes import Envelopes
    from vault.core.ingest import IngestKeys
    from vault.core.keys import Keyring
    from vault.core.subjects import Subjects
    from vault.crypto.memory import LockedBuffer
    from vault.model import Caller, Subject
    from vault.store.engine import Database
    from vault.store.ledger import Rows

_TRIES = 5

_Found = TypeVar("_Found", bound=StoredVersion | Credential)


class _Wanted(NamedTuple):
    """A look-up that shares a query with those of other callers."""

    reach: Reach
    name: str
    version: int = 0

    def own(self, found: _Found | None) -> _Found | None:
        """What was found, if it lies in this caller's reach: the query was made in everybody's."""
        return found if found is not None and covers(self.reach, found.tenant) else None


class Credentials:
    """What can be done with credentials short of opening them."""

    def __init__(
        self,
        database: Database,
        log: AuditLog,
        keyring: Keyring,
        subjects: Subjects,
        ingest: IngestKeys,
        envelopes: Envelopes,
        load: Load,
    ) -> None:
        self._database = database
        self._log = log
        self._keyring = keyring
        self._subjects = subjects
        self._ingest = ingest
        self._envelopes = envelopes
        self._stored: Batcher[_Wanted, StoredVersion | Credential | None] = Batcher(
            self._get_stored, load, limit=64, concurrency=2
        )
        self._known: Batcher[_Wanted, Credential | None] = Batcher(
            self._get_known, load, limit=64, concurrency=2
        )

    async def put(self, caller: Caller, put: Put) -> Credential:
        """Store a version. For the errors see `CredentialService.Put`."""
        requests.credential_name(put.name)
        requests.require(caller, "credential.write", put.name)
        repeat = check_put(caller, put)
        known = await self.metadata(put.name)
        kind = put.kind or (known.kind if known else "")
        if not kind:
            raise invalid_field("kind", "is required for a new credential")
        if kind == kinds.HSM_SIGNING_KEY:
            raise invalid_field("kind", "is made by the HSM: see CreateKey")
        with await self._ingest.open(
            put.ingest_key_id, put_info(put.name, kind, put.ingest_key_id), put.sealed
        ) as plaintext:
            return await self._store(caller, put, known, kind, plaintext, repeat)

    async def metadata(self, name: str) -> Credential | None:
        """A credential's metadata, for the vault's own use."""
        return await self._known(_Wanted(current(), name))

    async def store_made(
        self,
        caller: Caller,
        put: Put,
        known: Credential | None,
        plaintext: LockedBuffer,
        repeat: requests.Repeat,
        beside: Beside,
    ) -> Credential:
        """Store a version that the vault itself made, as `put.kind`. Raises as `put`."""
        return await self._store(caller, put, known, put.kind, plaintext, repeat, beside)

    async def keep(
        self,
        caller: Caller,
        name: str,
        kind: str,
        values: Mapping[str, memoryview],
        *,
        labels: Mapping[str, str] = MappingProxyType({}),
        expected: int | None = None,
        beside: Beside | None = None,
    ) -> Credential:
        """Store what a provider gave as a version of its own. The vault made the call, so it needs no ingest key.

        `labels`: beside those that it has; `expected`: only if this is still the newest version; `beside`: what to
        write in the same transaction.
        Raises `ETAG_MISMATCH`, `KIND_MISMATCH`, and as `put`.
        """
        known = await self.metadata(name)
        if expected is not None and (known is None or known.latest_version != expected):
            raise requests.etag_mismatch()
        put = Put(
            name=name,
            kind=kind,
            labels={**(known.labels if known else {}), **labels},
            sealed=b"",
            ingest_key_id="",
            etag=known.etag if known and expected is not None else "",
            request_id="",
        )
        repeat = requests.repeat(caller, "credential.put", "")
        with bundle.pack_into(values, memory.allocate) as plaintext:
            return await self._store(caller, put, known, kind, plaintext, repeat, beside)

    async def _store(
        self,
        caller: Caller,
        put: Put,
        known: Credential | None,
        kind: str,
        plaintext: LockedBuffer,
        repeat: requests.Repeat,
        beside: Beside | None = None,
    ) -> Credential:
        told = fields.checked(plaintext, kind)
        tenant = put.name.partition("/")[0]
        for _ in range(_TRIES):
            kek = await self._keyring.active(tenant, KeyPurpose.KEK)
            number = known.latest_version + 1 if known else 1
            subject = await self._subject(caller, tenant, put, known)
            sealed = await self._envelopes.seal(kek, put.name, number, plaintext, subject)
            new = NewVersion(put, kind, number, kek, told, sealed, subject)
            try:
                credential: Credential = await self._log.commit(put_unit(caller, new, repeat, beside))
            except Moved:
                self._keyring.forget_tenant(tenant)
                known = await self.metadata(put.name)
            else:
                return credential
        raise VaultError(Reason.ETAG_MISMATCH, "others keep changing this credential; try again")

    async def _subject(
        self, caller: Caller, tenant: str, put: Put, known: Credential | None
    ) -> Subject | None:
        """Whose data a version is: said with the first, and the same ever after."""
        if put.subject:
            subject = await self._subjects.ensure(caller.identity, caller.origin, tenant, put.subject)
            if known is not None and known.subject_id != subject.subject_id:
                raise invalid_field("subject", "cannot be changed")
            return subject
        if known is None or not known.subject_id:
            return None
        found = await self._subjects.get(tenant, known.subject_id)
        if found is None or found.state is not SubjectState.ACTIVE:
            raise invalid_field("subject", "is required: whose data it was is erased")
        return found

    async def get(self, caller: Caller, name: str) -> Credential:
        """A credential's metadata. Raises `CREDENTIAL_NOT_FOUND`."""
        requests.credential_name(name)
        requests.require(caller, "credential.read", name)
        credential = await self.metadata(name)
        if credential is None:
            raise not_found()
        await self._log.record(audit.granted(caller, "credential.get", name))
        (told,) = await self._with_activity([credential])
        return told

    async def list_credentials(
        self, caller: Caller, prefix: str, *, after: str, limit: int, show_deleted: bool
    ) -> list[Credential]:
        """Metadata of the credentials that the token may read, by name, beginning after the name `after`.

        May give fewer than `limit` only at the end.
        """
        token = requests.token_of(caller)
        prefix = requests.prefix(token.tenant, prefix)
        readable = [scope for scope in token.scopes if scope.action == "credential.read"]
        if not readable:
            raise VaultError(Reason.SCOPE_DENIED, "the token has no scope to read", action="credential.read")
        found: list[Credential] = []
        while True:
            async with self._database.read() as connection:
                page = await store.list_credentials(
                    connection, prefix=prefix, after=after, limit=limit, show_deleted=show_deleted
                )
            found.extend(
                credential
                for credential in page
                if any(scopes.covers(scope, "credential.read", credential.name) for scope in readable)
            )
            if len(found) >= limit or len(page) < limit:
                break
            after = page[-1].name
        found = found[:limit]
        await self._log.record(
            audit.granted(caller, "credential.list", prefix, after=canonical_json({"count": len(found)}))
        )
        return await self._with_activity(found)

    async def _with_activity(self, found: Sequence[Credential]) -> list[Credential]:
        async with self._database.read() as connection:
            known = await activities.of(connection, found)
        return [dataclasses.replace(item, activity=known.get(item.name)) for item in found]

    async def list_versions(self, caller: Caller, name: str, *, before: int, limit: int) -> list[Version]:
        """A credential's versions, newest first, below the version `before`. Raises `CREDENTIAL_NOT_FOUND`."""
        requests.credential_name(name)
        requests.require(caller, "credential.read", name)
        async with self._database.read() as connection:
            found = await store.list_versions(connection, name, before=before, limit=limit)
        if not found and await self.metadata(name) is None:
            raise not_found()
        await self._log.record(audit.granted(caller, "credential.list_versions", name))
        return found

    async def delete(self, caller: Caller, name: str, etag: str, request_id: str) -> Credential:
        """Delete: neither revealed nor used until undeleted."""

        def change(credential: Credential, now: datetime.datetime) -> Credential:
            if credential.state is CredentialState.DELETED:
                raise deleted()
            return dataclasses.replace(credential, state=CredentialState.DELETED, delete_time=now)

        return await self._change(caller, "credential.delete", name, etag, request_id, change)

    async def undelete(self, caller: Caller, name: str, etag: str, request_id: str) -> Credential:
        """Bring a deleted credential back."""

        def change(credential: Credential, _now: datetime.datetime) -> Credential:
            if credential.state is not CredentialState.DELETED:
                raise VaultError(Reason.CREDENTIAL_NOT_DELETED, "the credential is not deleted")
            return dataclasses.replace(credential, state=CredentialState.ACTIVE, delete_time=None)

        return await self._change(caller, "credential.undelete", name, etag, request_id, change)

    async def destroy_version(
        self, caller: Caller, name: str, version: int, etag: str, request_id: str
    ) -> Version:
        """Erase a version's ciphertext and wrapped data key for ever."""
        requests.credential_name(name)
        requests.require(caller, "credential.destroy", name)
        if version < 1:
            raise invalid_field("version", "is required, from 1")
        version = requests.version(version)
        repeat = requests.repeat(caller, "credential.destroy_version", request_id, name, version, etag)
        own = RowKey("credentials", (name,))
        row_key = RowKey("credential_versions", (name, version))

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            row = rows.get("credentials", name)
            if row is None:
                raise not_found()
            version_row = rows.get("credential_versions", name, version)
            if version_row is None:
                raise VaultError(Reason.VERSION_NOT_FOUND, "the credential has no such version")
            record = audit.granted(caller, "credential.destroy_version", f"{name}")
            if repeat.earlier(rows) is not None:
                return Commit((audit.repeated(record),), (), store.version_from(version_row))
            requests.check_etag(etag, row["etag"])
            before = store.version_from(version_row)
            if before.state is VersionState.DESTROYED:
                raise VaultError(Reason.VERSION_DESTROYED, "the version is destroyed")
            after = dataclasses.replace(before, state=VersionState.DESTROYED, destroy_time=now)
            credential = dataclasses.replace(
                store.credential_from(row),
                etag=requests.new_etag(),
                update_time=now,
                updated_by=caller.identity,
            )
            record = record._replace(before_state=_version_state(before), after_state=_version_state(after))
            writes = (
                Write("credential_versions", store.version_row(after, b"")),
                Write("credentials", store.credential_row(credential)),
                *repeat.remember(str(version), now),
            )
            return Commit((record,), writes, after)

        result: Version = await self._log.commit(Unit((own, row_key, *repeat.reads), decide))
        return result

    async def stored(self, wanted: Sequence[tuple[str, int]]) -> list[StoredVersion]:
        """Versions ready to be opened (0: the newest), all or none.

        Raises `CREDENTIAL_NOT_FOUND`, `VERSION_NOT_FOUND`, `CREDENTIAL_DELETED`, `VERSION_DESTROYED`.
        """
        reach = current()
        each = [_Wanted(reach, name, requests.version(version)) for name, version in wanted]
        if len(each) == 1:
            return [_openable(await self._stored(each[0]))]
        return [_openable(found) for found in await self._get_stored(each)]

    async def _change(
        self,
        caller: Caller,
        action: str,
        name: str,
        etag: str,
        request_id: str,
        change: Callable[[Credential, datetime.datetime], Credential],
    ) -> Credential:
        requests.credential_name(name)
        requests.require(caller, "credential.delete", name)
        repeat = requests.repeat(caller, action, request_id, name, etag)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            row = rows.get("credentials", name)
            if row is None:
                raise not_found()
            before = store.credential_from(row)
            record = audit.granted(caller, action, name)
            if repeat.earlier(rows) is not None:
                return Commit((audit.repeated(record),), (), before)
            requests.check_etag(etag, before.etag)
            after = dataclasses.replace(
                change(before, now), etag=requests.new_etag(), update_time=now, updated_by=caller.identity
            )
            record = record._replace(before_state=state_of(before), after_state=state_of(after))
            writes = (Write("credentials", store.credential_row(after)), *repeat.remember(after.etag, now))
            return Commit((record,), writes, after)

        result: Credential = await self._log.commit(
            Unit((RowKey("credentials", (name,)), *repeat.reads), decide)
        )
        return result

    async def _get_stored(
        self, wanted: Sequence[_Wanted]
    ) -> list[StoredVersion | Credential | BaseException | None]:
        async with self._database.read(union(one.reach for one in wanted)) as connection:
            found = await store.get_stored(connection, [(one.name, one.version) for one in wanted])
        return [one.own(item) for one, item in zip(wanted, found, strict=True)]

    async def _get_known(self, wanted: Sequence[_Wanted]) -> list[Credential | BaseException | None]:
        async with self._database.read(union(one.reach for one in wanted)) as connection:
            credentials = await store.get_many(connection, [one.name for one in wanted])
        found = {credential.name: credential for credential in credentials}
        return [one.own(found.get(one.name)) for one in wanted]


def _openable(found: StoredVersion | Credential | BaseException | None) -> StoredVersion:
    if found is None:
        raise not_found()
    if not isinstance(found, StoredVersion):
        raise VaultError(Reason.VERSION_NOT_FOUND, "the credential has no such version")
    if found.credential_state is CredentialState.DELETED:
        raise deleted()
    if found.state is VersionState.DESTROYED:
        raise VaultError(Reason.VERSION_DESTROYED, "the version is destroyed")
    standing.refuse_unusable(found.standing)
    return found


def _version_state(version: Version) -> str:
    return canonical_json({"version": version.version, "state": version.state.value})
