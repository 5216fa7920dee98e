"""The client's cryptography: sealing what is put, opening what is revealed. No IO."""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from vault.client.secrets import Secrets
from vault.crypto import bundle, contexts, hpke, memory, parcel
from vault.crypto.stream import SessionOpener

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vault.crypto.memory import LockedBuffer
    from vault.v1 import handover_pb2, session_pb2

_TYPE = "ingest-key+jwt"
_DEFAULT = hpke.DEFAULT_SUITE


class SealingError(Exception):
    """What the vault sent cannot be trusted or opened."""


@dataclass(frozen=True)
class IngestKey:
    """A verified public key to seal to."""

    key_id: str
    hpke_suite: int
    public_bytes: bytes
    expire_time: float


def verify_ingest_key(signed_key: str, jwks: bytes) -> IngestKey:
    """The ingest key, if one of the vault's keys signed it and it has not expired. Raises `SealingError`."""
    try:
        keys = KeySet.import_key_set(json.loads(jwks))
        verified = jws.deserialize_compact(signed_key, keys, algorithms=["ES256"])
        if verified.headers().get("typ") != _TYPE:
            raise SealingError("not an ingest key")
        claims = json.loads(verified.payload)
        public = claims["key"]
        key = IngestKey(
            key_id=claims["kid"],
            hpke_suite=claims["hpke_suite"],
            public_bytes=base64.urlsafe_b64decode(public + "=" * (-len(public) % 4)),
            expire_time=float(claims["exp"]),
        )
    except (JoseError, ValueError, KeyError, TypeError, binascii.Error):
        raise SealingError("the vault's ingest key does not verify") from None
    if key.expire_time <= time.time():
        raise SealingError("the vault's ingest key has expired")
    return key


def seal_fields(
    fields: Mapping[str, str | bytes | bytearray | memoryview], name: str, kind: str, key: IngestKey
) -> bytes:
    """Seal a credential's fields so that only the vault can open them, and only as this credential."""
    return _seal(fields, contexts.put_info(name, kind, key.key_id), key)


def seal_handover(
    fields: Mapping[str, str | bytes | bytearray | memoryview], name: str, recipient: str, key: IngestKey
) -> bytes:
    """Seal a hand-over's fields so that only the vault can open them, and only for this recipient."""
    return _seal(fields, contexts.wrap_info(name, recipient, key.key_id), key)


def _seal(fields: Mapping[str, str | bytes | bytearray | memoryview], info: bytes, key: IngestKey) -> bytes:
    plain = {field: value.encode() if isinstance(value, str) else value for field, value in fields.items()}
    with bundle.pack_into(plain, memory.allocate) as packed:
        return hpke.seal(hpke.SUITES[key.hpke_suite], key.public_bytes, info, packed.view)


class Recipient:
    """A key pair for one session: what is revealed is sealed to it."""

    def __init__(self, hpke_suite: int = _DEFAULT) -> None:
        self.hpke_suite = hpke_suite
        self._suite = hpke.SUITES[hpke_suite]
        self._pair = hpke.generate_keypair(self._suite)

    @property
    def public_bytes(self) -> bytes:
        """The public key, as `recipient_key` wants it."""
        return self._pair.public_bytes

    def open_parcel(self, response: session_pb2.SessionServiceRevealResponse) -> list[Secrets]:
        """Open the answer to a reveal of one call."""
        info = contexts.reveal_info(response.session_id, response.credentials)
        with hpke.open(self._suite, self._pair.private, info, response.sealed) as whole:
            parts = parcel.split(whole.view)
            return [
                Secrets(opened.name, opened.version, bundle.select(part, bundle.field_names(part)))
                for opened, part in zip(response.credentials, parts, strict=True)
            ]

    def open_handover(
        self, name: str, handover_id: str, response: handover_pb2.HandoverServiceUnwrapResponse
    ) -> Secrets:
        """Open a hand-over."""
        info = contexts.unwrap_info(handover_id, name, response.field_names)
        return Secrets(name, 1, hpke.open(self._suite, self._pair.private, info, response.sealed))

    def open_session_key(self, opened: session_pb2.SessionOpened) -> LockedBuffer:
        """Open the key of a session."""
        info = contexts.session_key_info(opened.session_id)
        return hpke.open(self._suite, self._pair.private, info, opened.sealed_session_key)


class Reveals:
    """Opens what is revealed on one session."""

    def __init__(self, session_id: str, key: LockedBuffer) -> None:
        self._session_id = session_id
        self._key = key
        self._opener = SessionOpener(key)

    def open(self, result: session_pb2.RevealResult) -> Secrets:
        """Open one reveal."""
        aad = contexts.stream_reveal_aad(self._session_id, result)
        return Secrets(result.name, result.version, self._opener.open(result.counter, aad, result.sealed))

    def close(self) -> None:
        """Wipe the session's key."""
        self._opener.close()
        self._key.close()
