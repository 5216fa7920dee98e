"""Credentials whose private key is made in the HSM and never leaves it.

Each version has a key pair of its own, an object of the first HSM. The version's envelope holds where the key is
found, so it cannot be put in the place of another's; public halves are in the database. A key pair is made in two
steps, as tenants' keys are: its row is announced before the HSM makes it, and made active in the transaction that
stores the version. What no version needs (it was destroyed, or a crash came between) is looked for and destroyed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import logging
import secrets
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives import serialization
from joserfc.jwk import ECKey, OKPKey

from hsm import KeyAlgorithm, KeyNotFound, KeySpec
from vault.core import audit, requests
from vault.core.credential_records import deleted, not_found, of_answer
from vault.core.hsm import ref
from vault.core.new_versions import NEW, Beside, Put
from vault.crypto import bundle, kinds, memory
from vault.errors import Reason, VaultError, invalid_field
from vault.model import (
    AuditDraft,
    Credential,
    CredentialKey,
    CredentialKeyState,
    CredentialState,
    HsmObject,
    KeyPurpose,
    Origin,
    Outcome,
)
from vault.store import credential_keys as store
from vault.store.ledger import Commit, Count, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from joserfc.jwk import KeyParameters

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.credentials import Credentials
    from vault.core.hsm import Hsm, OneHsm
    from vault.core.keys import Keyring
    from vault.model import Caller
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.keys")

ACTOR = "strongroom"
ALGORITHMS = {"ES256": KeyAlgorithm.EC_P256, "EdDSA": KeyAlgorithm.ED25519}
CREATE = "credential.create_key"
_GRACE = datetime.timedelta(minutes=10)
"""How long a key may be announced and not in use: far longer than any call lasts."""
_AT_ONCE = 100
_LOOK_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class CreateKey:
    """A request for a new version with a key pair of its own."""

    name: str
    algorithm: str
    labels: dict[str, str]
    kid: str = ""
    """How verifiers know the key; by default its thumbprint (RFC 7638)."""
    formats: tuple[str, ...] = ()
    """What it may sign; by default everything that a scope allows."""
    etag: str = ""
    request_id: str = ""


class Created(NamedTuple):
    """The credential as it is now, and the key pair of its new version."""

    credential: Credential
    key: CredentialKey


class CredentialKeys:
    """Makes, finds and destroys the key pairs of credentials, and signs by them."""

    def __init__(
        self,
        database: Database,
        hsm: Hsm,
        log_: AuditLog,
        keyring: Keyring,
        credentials: Credentials,
        deployment: str,
        clock: Clock,
        *,
        most: int,
    ) -> None:
        self._database = database
        self._hsm = hsm
        self._log = log_
        self._keyring = keyring
        self._credentials = credentials
        self._deployment = deployment
        self._clock = clock
        self._most = most

    async def create(self, caller: Caller, request: CreateKey) -> Created:
        """Store a version whose private key the HSM makes. For the errors see `CredentialService.CreateKey`."""
        requests.credential_name(request.name)
        requests.require(caller, "credential.write", request.name)
        requests.labels(request.labels)
        self._check_algorithm(request.algorithm)
        _check_form(request)
        repeat = requests.repeat(
            caller,
            CREATE,
            request.request_id,
            request.name,
            request.algorithm,
            canonical_json(request.labels),
            request.kid,
            " ".join(request.formats),
            request.etag,
        )
        tenant = request.name.partition("/")[0]
        await self._keyring.active(tenant, KeyPurpose.KEK)
        known = await self._credentials.metadata(request.name)
        # 1. Intent: the row, with the object id that the HSM's object will have.
        key_id = secrets.token_hex(16)
        announced = CredentialKey(
            key_id=key_id,
            tenant=tenant,
            name=request.name,
            version=known.latest_version + 1 if known else 1,
            state=CredentialKeyState.PENDING,
            algorithm=request.algorithm,
            kid=request.kid,
            backend=self._hsm.backend.name,
            label=f"{self._deployment}/sign/{key_id[:24]}",
            public_key=b"",
            create_time=self._clock.now(),
            created_by=caller.identity,
            destroy_time=None,
        )
        said: CredentialKey | str = await self._log.commit(
            _announce(caller, announced, request, known, repeat, self._most)
        )
        if isinstance(said, str):
            return await self._answered(request.name, said)
        # 2. Effect.
        made = dataclasses.replace(
            said,
            state=CredentialKeyState.ACTIVE,
            public_key=await self._make(announced.place, request.algorithm),
        )
        if not made.kid:
            made = dataclasses.replace(made, kid=_jwk_of(made).thumbprint())
        # 3. Outcome: the version, and the key with it.
        put = Put(
            name=request.name,
            kind=kinds.HSM_SIGNING_KEY,
            labels=request.labels,
            sealed=b"",
            ingest_key_id="",
            etag=request.etag or (known.etag if known else NEW),
            request_id="",
        )
        row = Write("credential_keys", store.key_row(made))
        with bundle.pack_into(_fields(made, request.formats), memory.allocate) as plaintext:
            beside = Beside((row.row_key,), (row,))
            credential = await self._credentials.store_made(caller, put, known, plaintext, repeat, beside)
        return Created(credential, made)

    async def public(self, caller: Caller, name: str, version: int) -> CredentialKey:
        """The public half of a version's key (0: the newest). For the errors see `CredentialService.GetPublicKey`."""
        requests.credential_name(name)
        requests.require(caller, "credential.read", name)
        version = requests.version(version)
        known = await self._credentials.metadata(name)
        if known is None:
            raise not_found()
        if known.kind != kinds.HSM_SIGNING_KEY:
            raise VaultError(Reason.SECRET_UNSUITABLE, "the credential's key is not in the HSM")
        async with self._database.read() as connection:
            found = await store.get_key(connection, name, version or known.latest_version)
        if found is None:
            raise VaultError(Reason.VERSION_NOT_FOUND, "the credential has no such version")
        after = canonical_json({"version": found.version})
        await self._log.record(audit.granted(caller, "credential.get_public_key", name, after=after))
        return found

    async def sign(self, reference: str, algorithm: str, message: bytes) -> bytes:
        """Sign by the key that a version's envelope refers to: 64 bytes, ES256 as `r | s`. Raises `HSM_UNAVAILABLE`."""
        place = json.loads(reference)
        key = HsmObject(place["backend"], place["label"], bytes.fromhex(place["object_id"]))
        return await self._hsm.sign(key, ALGORITHMS[algorithm].value, message)

    async def run(self) -> None:
        """Destroy what no version needs, again and again, until cancelled."""
        while True:
            try:
                await self.sweep()
            except VaultError as error:
                log.warning("keys of credentials were not looked after", extra={"reason": error.reason.value})
            await asyncio.sleep(_LOOK_SECONDS)

    async def sweep(self, tenant: str = "") -> None:
        """Destroy the key pairs that no version needs; of a tenant that is erased, also what was just announced."""
        before = self._clock.now() - (datetime.timedelta(0) if tenant else _GRACE)
        while True:
            async with self._database.read() as connection:
                found = await store.useless(
                    connection, announced_before=before, limit=_AT_ONCE, tenant=tenant
                )
            for key in found:
                one = self._hsm.one(key.backend)
                await one.call(_erase, one, key)
                await self._log.commit(self._destroyed(key))
            if len(found) < _AT_ONCE:
                return

    async def of_tenant(self, tenant: str) -> list[CredentialKey]:
        """Every key pair that a tenant ever had."""
        async with self._database.read() as connection:
            return await store.of_tenant(connection, tenant)

    def _check_algorithm(self, algorithm: str) -> None:
        able = {str(found) for found in self._hsm.backend.capabilities().signatures}
        possible = sorted(able & set(ALGORITHMS))
        if algorithm not in possible:
            raise invalid_field("algorithm", f"must be one that the HSM has: {', '.join(possible)}")

    async def _make(self, place: HsmObject, algorithm: str) -> bytes:
        one = self._hsm.one(place.backend)
        await one.call(one.backend.create_key, KeySpec(ref(place), ALGORITHMS[algorithm]))
        return await self._hsm.public_key(place)

    async def _answered(self, name: str, answer: str) -> Created:
        """What an earlier call with the same request id made."""
        credential = of_answer(answer, self._clock.now())
        async with self._database.read() as connection:
            key = await store.get_key(connection, name, credential.latest_version)
        if key is None:
            raise VaultError(Reason.VERSION_NOT_FOUND, "the credential has no such version")
        return Created(credential, key)

    def _destroyed(self, key: CredentialKey) -> Unit:
        own = RowKey("credential_keys", (key.key_id,))
        draft = AuditDraft(
            key.tenant,
            ACTOR,
            "credential.destroy_key",
            key.name,
            Outcome.GRANTED,
            Origin(),
            before_state=_state(key),
        )

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            row = rows.get(own.table, *own.key)
            before = store.key_from(row) if row else key
            after = dataclasses.replace(before, state=CredentialKeyState.DESTROYED, destroy_time=now)
            if before.state is CredentialKeyState.DESTROYED:  # another worker was first
                return Commit((audit.repeated(draft),))
            record = draft._replace(after_state=_state(after))
            return Commit((record,), (Write("credential_keys", store.key_row(after)),))

        return Unit((own,), decide)


def pem(key: CredentialKey) -> str:
    """The public key as PEM (RFC 7468)."""
    public = serialization.load_der_public_key(key.public_key)
    text = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return text.decode("ascii")


def jwk(key: CredentialKey) -> str:
    """The public key as a JWK (RFC 7517)."""
    return canonical_json({**_jwk_of(key).as_dict(private=False), "kid": key.kid})


def _jwk_of(key: CredentialKey) -> ECKey | OKPKey:
    options: KeyParameters = {"use": "sig", "alg": key.algorithm}
    kind = ECKey if key.algorithm == "ES256" else OKPKey
    return kind.import_key(pem(key), options)


def _announce(
    caller: Caller,
    key: CredentialKey,
    request: CreateKey,
    known: Credential | None,
    repeat: requests.Repeat,
    most: int,
) -> Unit:
    """The unit that announces a key pair; its result is that, or an earlier answer.

    A tenant has so many at most, announced ones with them: they take room in the HSM, which every tenant needs.
    """
    own = RowKey("credential_keys", (key.key_id,))
    alive = Count("credential_keys", key.tenant, CredentialKeyState.DESTROYED)

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        record = audit.granted(caller, CREATE, key.name)
        if (earlier := repeat.earlier(rows)) is not None:
            return Commit((audit.repeated(record),), (), earlier)
        _check_known(request, known)
        if rows.count(alive) >= most:
            raise VaultError(
                Reason.LIMIT_REACHED,
                "the tenant has as many keys of credentials in the HSM as it may",
                limit="credential_keys_per_tenant",
            )
        announced = dataclasses.replace(key, create_time=now)
        record = record._replace(after_state=_state(announced))
        return Commit((record,), (Write("credential_keys", store.key_row(announced)),), announced)

    return Unit((own, *repeat.reads), decide, counts=(alive,))


def _check_known(request: CreateKey, known: Credential | None) -> None:
    """What storing the version would refuse: no key is made for it."""
    if known is not None and known.state is CredentialState.DELETED:
        raise deleted()
    if known is not None and request.etag == NEW:
        raise requests.etag_mismatch()
    if request.etag and request.etag != NEW:
        requests.check_etag(request.etag, known.etag if known else "")
    if known is not None and known.kind != kinds.HSM_SIGNING_KEY:
        raise invalid_field(
            "name", "is of a credential of another kind, and a credential's kind never changes"
        )


def _fields(key: CredentialKey, formats: tuple[str, ...]) -> dict[str, bytes]:
    place = key.place
    values = {
        "private_key": canonical_json(
            {"backend": place.backend, "label": place.label, "object_id": place.object_id.hex()}
        ),
        "algorithm": key.algorithm,
        "kid": key.kid,
        "formats": " ".join(formats),
    }
    return {name: value.encode() for name, value in values.items() if value}


def _check_form(request: CreateKey) -> None:
    rules = kinds.KINDS[kinds.HSM_SIGNING_KEY].fields
    for field, value in (("kid", request.kid), ("formats", " ".join(request.formats))):
        if value and not rules[field].form.fullmatch(value.encode("utf-8", "replace")):
            raise invalid_field(field, rules[field].rule)


def _state(key: CredentialKey) -> str:
    return canonical_json(
        {"algorithm": key.algorithm, "label": key.label, "state": key.state.value, "version": key.version}
    )


def _erase(one: OneHsm, key: CredentialKey) -> None:
    try:
        one.backend.destroy_key(ref(key.place), confirm=key.label)
    except KeyNotFound:
        log.info("a credential's key was destroyed already, or never made", extra={"label": key.label})
