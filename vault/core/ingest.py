"""Ingest keys: the public keys that callers seal new secrets to.

An ingest key is an HPKE key pair made here, its public half signed in the HSM, its private half stored
wrapped by an HSM key. All workers share it through the database. It is offered for `OFFERED` and opens for
`GRACE` longer, so that what was sealed just before a change still arrives.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from typing import TYPE_CHECKING

from vault.core import audit
from vault.core.hsm import Unwrapping, Wrapping
from vault.crypto import hpke
from vault.crypto.encoding import encode
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError, invalid_field
from vault.model import SYSTEM_TENANT, IngestKey, KeyPurpose
from vault.store import keys
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.core.signing import SigningKeys
    from vault.crypto.memory import LockedBuffer
    from vault.model import Caller
    from vault.store.engine import Database
    from vault.store.ledger import Rows

OFFERED = datetime.timedelta(days=7)
GRACE = datetime.timedelta(days=1)
_REFRESH = datetime.timedelta(hours=1)
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{43}")


class IngestKeys:
    """Makes, offers and uses ingest keys."""

    def __init__(
        self,
        issuer: str,
        database: Database,
        hsm: Hsm,
        keyring: Keyring,
        log: AuditLog,
        signing_keys: SigningKeys,
        clock: Clock,
    ) -> None:
        self._issuer = issuer
        self._database = database
        self._hsm = hsm
        self._keyring = keyring
        self._log = log
        self._signing_keys = signing_keys
        self._clock = clock
        self._offered: dict[int, IngestKey] = {}
        self._open: dict[str, tuple[IngestKey, hpke.PrivateKey]] = {}

    async def offer(self, caller: Caller, hpke_suite: int) -> IngestKey:
        """The key to seal to now; made if there is none. Raises `FIELD_INVALID`, `HSM_UNAVAILABLE`."""
        number = hpke_suite or hpke.DEFAULT_SUITE
        if number not in hpke.SUITES:
            raise invalid_field("hpke_suite", "1 (X25519) or 2 (MLKEM768-X25519)")
        alive_at = self._clock.now() + GRACE + _REFRESH
        kek = await self._keyring.active(SYSTEM_TENANT, KeyPurpose.INGEST)
        key = self._offered.get(number)
        if key is None or key.expire_time <= alive_at or key.kek_version != kek.version:
            async with self._database.read() as connection:
                key = await keys.newest_ingest_key(connection, number, alive_at)
            if key is None or key.kek_version != kek.version:
                key = await self._make(caller, number)
            self._offered[number] = key
        await self._log.record(audit.granted(caller, "credential.get_ingest_key", key.key_id))
        return key

    async def open(self, key_id: str, info: bytes, sealed: bytes) -> LockedBuffer:
        """Open what a caller sealed. Raises `INGEST_KEY_UNKNOWN`, `SEALED_PAYLOAD_INVALID`, `HSM_UNAVAILABLE`."""
        key, private = await self._private(key_id)
        try:
            return hpke.open(hpke.SUITES[key.hpke_suite], private, info, sealed)
        except CryptoError:
            raise VaultError(Reason.SEALED_PAYLOAD_INVALID, "the sealed payload does not open") from None

    async def _private(self, key_id: str) -> tuple[IngestKey, hpke.PrivateKey]:
        known = self._open.get(key_id)
        if known is None:
            known = await self._unwrap(key_id)
            now = self._clock.now()
            # Those whose time is over open nothing any more, and do not stay in memory.
            self._open = {name: one for name, one in self._open.items() if now < one[0].expire_time}
            self._open[key_id] = known
        if self._clock.now() >= known[0].expire_time:
            self._open.pop(key_id, None)
            raise _unknown()
        return known

    async def _unwrap(self, key_id: str) -> tuple[IngestKey, hpke.PrivateKey]:
        if not _KEY_ID.fullmatch(key_id):
            raise _unknown()
        async with self._database.read() as connection:
            key = await keys.get_ingest_key(connection, key_id)
        if key is None or self._clock.now() >= key.expire_time:
            raise _unknown()
        kek = await self._keyring.version(SYSTEM_TENANT, KeyPurpose.INGEST, key.kek_version)
        suite = hpke.SUITES[key.hpke_suite]
        aad = _aad(key_id, key.hpke_suite, key.kek_version)
        with await self._hsm.unwrap(Unwrapping(kek, key.wrapped_seed, aad)) as seed:
            return key, hpke.keypair_from_seed(suite, seed).private

    async def _make(self, caller: Caller, number: int) -> IngestKey:
        kek = await self._keyring.active(SYSTEM_TENANT, KeyPurpose.INGEST)
        with hpke.new_seed() as seed:
            pair = hpke.keypair_from_seed(hpke.SUITES[number], seed)
            key_id = (
                base64.urlsafe_b64encode(hashlib.sha256(pair.public_bytes).digest()).rstrip(b"=").decode()
            )
            wrapped = await self._hsm.wrap(Wrapping(kek, seed, _aad(key_id, number, kek.version)))
        now = self._clock.now().replace(microsecond=0)
        claims = {
            "iss": self._issuer,
            "kid": key_id,
            "hpke_suite": number,
            "key": base64.urlsafe_b64encode(pair.public_bytes).rstrip(b"=").decode(),
            "iat": int(now.timestamp()),
            "exp": int((now + OFFERED).timestamp()),
        }
        key = IngestKey(
            key_id=key_id,
            hpke_suite=number,
            signed_key=await self._signing_keys.sign("ingest-key+jwt", claims),
            wrapped_seed=wrapped,
            kek_version=kek.version,
            create_time=now,
            expire_time=now + OFFERED + GRACE,
        )
        after = canonical_json({"hpke_suite": number, "expire_time": key.expire_time.isoformat()})

        def decide(_rows: Rows, _now: datetime.datetime) -> Commit:
            record = audit.granted(caller, "ingest_key.create", key_id, after=after)
            return Commit((record,), (Write("ingest_keys", keys.ingest_key_row(key)),))

        await self._log.commit(Unit((RowKey("ingest_keys", (key_id,)),), decide))
        return key


def _aad(key_id: str, hpke_suite: int, kek_version: int) -> bytes:
    return encode("strongroom/ingest-key/v1", key_id, hpke_suite, kek_version)


def _unknown() -> VaultError:
    return VaultError(Reason.INGEST_KEY_UNKNOWN, "this ingest key is unknown or expired; fetch a current one")
