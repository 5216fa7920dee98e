"""The keys that tokens and ingest keys are signed by, and compact JWS (RFC 7515) made and verified with them.

The newest version signs; every version verifies for as long as something it signed can be good. So a rotation
overlaps: what was signed before it stays good, on every worker, and no worker needs a restart. The header of a JWS is
known beforehand, key by key: nothing in it is ever interpreted (RFC 8725).
"""

from __future__ import annotations

import base64
import datetime
import functools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc.jwk import ECKey

from vault.errors import Reason, VaultError
from vault.model import SYSTEM_TENANT, KeyPurpose, KeyState
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.model import AuditRecord, Key

KEPT = datetime.timedelta(days=8)
"""How long a version verifies after the next was announced: longer than a token or the offer of an ingest key lasts."""
_LOOK_AGAIN_SECONDS = 1.0
_ECDSA = ec.ECDSA(hashes.SHA256())


class _Public(NamedTuple):
    jwk: ECKey
    key: ec.EllipticCurvePublicKey
    kid: str


class SigningKeys:
    """The vault's signing key in its versions."""

    def __init__(self, keyring: Keyring, hsm: Hsm, clock: Clock) -> None:
        self._keyring = keyring
        self._hsm = hsm
        self._clock = clock
        # Of each version: what it verifies with, by the object's id in the HSM; and by the header of a token it signed.
        self._public: dict[bytes, _Public] = {}
        self._by_header: dict[str, _Public] = {}
        self.stale = True
        """Whether the log told of a change that was not looked at yet."""
        self._looked = float("-inf")

    async def start(self) -> None:
        """Fetch the public half of every version from the HSM."""
        await self._learn()

    def notice(self, record: AuditRecord) -> None:
        """Take note of a change in the log: what is remembered may be out of date."""
        if record.action.startswith("key."):
            self.stale = True

    async def jwks(self) -> bytes:
        """The public keys of every version that is valid now, as a JWK set (RFC 7517)."""
        # Looked up each time: another worker may have signed by a version made a moment ago.
        await self._learn()
        keys = [{**public.jwk.as_dict(private=False), "kid": public.kid} for public in self._public.values()]
        return json.dumps({"keys": keys}, sort_keys=True).encode()

    async def sign(self, typ: str, claims: dict[str, Any]) -> str:
        """A compact JWS over claims, signed in the HSM by the active version. Raises `HSM_UNAVAILABLE`."""
        key = await self._keyring.active(SYSTEM_TENANT, KeyPurpose.TOKEN)
        if key.object_id not in self._public:
            await self._learn()
        header = _header(self._public[key.object_id].kid, typ)
        signed = f"{header}.{b64(canonical_json(claims).encode())}"
        return f"{signed}.{b64(await self._hsm.sign(key, key.algorithm, signed.encode()))}"

    def knows(self, text: str) -> bool:
        """Whether a token's header is that of a version known here."""
        return text.partition(".")[0] in self._by_header

    async def look_again(self) -> None:
        """Learn of versions that another worker may have made; at most once a second, whoever asks."""
        if self.stale or self._clock.monotonic() - self._looked >= _LOOK_AGAIN_SECONDS:
            await self._learn()

    def open(self, text: str) -> bytes:
        """Verify a token, and give the very bytes that were signed. Raises `TOKEN_INVALID`."""
        parts = text.split(".")
        public = self._by_header.get(parts[0])
        # The whole header is known beforehand: there is no `crit`, `jku` or `jwk` to fall for.
        if public is None or len(parts) != 3:  # noqa: PLR2004 - a compact JWS has three parts
            raise invalid_token()
        raw = unb64(parts[2])
        if len(raw) != 64:  # noqa: PLR2004 - r and s, 32 bytes each
            raise invalid_token()
        der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        try:
            public.key.verify(der, f"{parts[0]}.{parts[1]}".encode(), _ECDSA)
        except InvalidSignature:
            raise invalid_token() from None
        return unb64(parts[1])

    async def _learn(self) -> None:
        # Before the look: a change that is told of meanwhile asks for another.
        self.stale = False
        self._looked = self._clock.monotonic()
        try:
            public: dict[bytes, _Public] = {}
            for key in self._valid(await self._keyring.versions(SYSTEM_TENANT, KeyPurpose.TOKEN)):
                public[key.object_id] = self._public.get(key.object_id) or await self._fetch(key)
        except BaseException:
            self.stale = True
            raise
        self._public = public
        self._by_header = {_header(one.kid, "at+jwt"): one for one in public.values()}

    def _valid(self, versions: list[Key]) -> list[Key]:
        """Those versions, of all, newest first, by which something good may be signed."""
        now = self._clock.now()
        successors = [None, *versions]
        return [
            key
            for key, successor in zip(versions, successors, strict=False)
            if key.state is KeyState.ACTIVE
            or (
                # Not if it is suspected of compromise, nor once it was retired by hand.
                key.state is KeyState.DECRYPT_ONLY
                and successor is not None
                and now < successor.create_time + KEPT
            )
        ]

    async def _fetch(self, key: Key) -> _Public:
        spki = await self._hsm.public_key(key)
        public = serialization.load_der_public_key(spki)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise VaultError(Reason.HSM_UNAVAILABLE, "the HSM's signing key is not of an elliptic curve")
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        jwk = ECKey.import_key(pem, {"use": "sig", "alg": "ES256"})
        return _Public(jwk, public, jwk.thumbprint())


def invalid_token() -> VaultError:
    """The error for whatever is not a token of this vault's."""
    return VaultError(Reason.TOKEN_INVALID, "the token is not one of this vault's")


def b64(data: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Strict base64url: one text for one value, so that no second spelling of a token is accepted."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise invalid_token() from None
    if b64(data) != text:
        raise invalid_token()
    return data


@functools.lru_cache(maxsize=256)
def _header(kid: str, typ: str) -> str:
    return b64(canonical_json({"alg": "ES256", "kid": kid, "typ": typ}).encode())
