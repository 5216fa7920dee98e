"""What stands for a person where identities are kept: pseudonyms, and copies under the person's own key.

Everything here is made with one key of 32 random bytes, the person's. Whoever has the key can make a pseudonym again
and open a copy; once the key is destroyed, nobody can tell whose they are, not even who knows every name.

Layout of a sealed copy:

    format           1 byte    1
    nonce           12 bytes
    ciphertext       the rest, by AES-256-GCM, with the 16-byte tag at its end

The key of each use is derived by HKDF-SHA256 (RFC 5869) from the person's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vault.crypto.encoding import encode
from vault.crypto.errors import FormatError, IntegrityError
from vault.crypto.memory import LockedBuffer, allocate

PREFIX = "person:"
"""What every pseudonym begins with. No identity does: it is neither a SPIFFE ID nor a DNS name."""
KEY_BYTES = 32
_FORMAT = 1
_NONCE_BYTES, _TAG_BYTES = 12, 16


def pseudonym(key: LockedBuffer, identity: str) -> str:
    """What stands for a person's identity."""
    return PREFIX + alias(key, "identity", identity)[:22]


def alias(key: LockedBuffer, kind: str, value: str) -> str:
    """What stands for something that points at a person: 43 characters that only the key can make of the value."""
    with _derive(key, "alias") as derived:
        digest = hmac.digest(derived.view, encode("strongroom/alias/v1", kind, value), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def seal(key: LockedBuffer, what: str, plaintext: bytes, *, nonce: bytes | None = None) -> bytes:
    """Encrypt a copy of something of a person's. `what` says of what, and is bound. `nonce` is for tests only."""
    nonce = os.urandom(_NONCE_BYTES) if nonce is None else nonce
    with _derive(key, "seal") as derived:
        return bytes((_FORMAT,)) + nonce + AESGCM(derived.view).encrypt(nonce, plaintext, _bound(what))


def open(key: LockedBuffer, what: str, sealed: bytes) -> bytes:  # noqa: A001 - the pair of seal
    """Decrypt a copy. Raises `FormatError`, `IntegrityError`."""
    if len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES or sealed[0] != _FORMAT:
        raise FormatError("not a sealed copy")
    nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        with _derive(key, "seal") as derived:
            return AESGCM(derived.view).decrypt(nonce, ciphertext, _bound(what))
    except InvalidTag:
        raise IntegrityError("a sealed copy does not verify") from None


def _bound(what: str) -> bytes:
    return encode("strongroom/person-copy/v1", _FORMAT, what)


def _derive(key: LockedBuffer, use: str) -> LockedBuffer:
    # The person's key is uniformly random: no extract step (RFC 5869, section 3.3).
    out = allocate(KEY_BYTES)
    HKDFExpand(hashes.SHA256(), KEY_BYTES, encode("strongroom/person/v1", use)).derive_into(
        key.view, out.view
    )
    return out
