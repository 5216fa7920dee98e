"""HPKE (RFC 9180, base mode, single shot): how secrets travel, to the vault and from it.

Suite 1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. A public key is 32 bytes.
Suite 2: MLKEM768-X25519 (X-Wing), HKDF-SHA256, AES-256-GCM. A public key is the 1184 bytes of ML-KEM-768, then the
32 of X25519.
A sealed message is `enc || ct`. A private key is kept as the 32-byte seed that it is made from: for suite 1 the key
itself, for suite 2 stretched by SHAKE256 to 64 bytes for ML-KEM and 32 for X25519 (draft-connolly-cfrg-xwing-kem).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from vault.crypto.errors import FormatError, IntegrityError
from vault.crypto.memory import LockedBuffer, absorb

if TYPE_CHECKING:
    from cryptography.utils import Buffer

PrivateKey = X25519PrivateKey | hpke.MLKEM768X25519PrivateKey

DEFAULT_SUITE = 1
SEED_BYTES = 32
_X25519 = 32
_MLKEM_PUBLIC = 1184
_MLKEM_SEED = 64
_TAG = 16
_AES_KEY = 32


@dataclass(frozen=True, slots=True)
class HpkeSuite:
    """A numbered set of HPKE algorithms."""

    number: int
    name: str
    public_bytes: int
    enc_bytes: int
    engine: hpke.Suite = field(repr=False)


@dataclass(frozen=True, slots=True)
class HpkeKeyPair:
    """A key pair. The private half never shows."""

    public_bytes: bytes
    private: PrivateKey = field(repr=False)


def _engine(kem: hpke.KEM) -> hpke.Suite:
    return hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


SUITES = {
    1: HpkeSuite(1, "X25519-HKDF-SHA256-AES-256-GCM", _X25519, _X25519, _engine(hpke.KEM.X25519)),
    2: HpkeSuite(
        2,
        "MLKEM768-X25519-HKDF-SHA256-AES-256-GCM",
        _MLKEM_PUBLIC + _X25519,
        hpke.KEM.MLKEM768_X25519.enc_length(),
        _engine(hpke.KEM.MLKEM768_X25519),
    ),
}


def new_seed() -> LockedBuffer:
    """What a new private key is made from: 256 bits from the kernel, in locked memory."""
    return absorb(os.urandom(SEED_BYTES))


def generate_keypair(suite: HpkeSuite) -> HpkeKeyPair:
    """A new key pair that is not meant to be kept."""
    with new_seed() as seed:
        return keypair_from_seed(suite, seed)


def keypair_from_seed(suite: HpkeSuite, seed: LockedBuffer) -> HpkeKeyPair:
    """The key pair that a seed makes. Raises `FormatError` for a seed of another length."""
    if len(seed) != SEED_BYTES:
        raise FormatError("a seed has 32 bytes")
    if suite.number == 1:
        x25519 = X25519PrivateKey.from_private_bytes(seed.view)
        return HpkeKeyPair(x25519.public_key().public_bytes_raw(), x25519)
    with absorb(hashlib.shake_256(seed.view).digest(_MLKEM_SEED + _X25519)) as stretched:
        mlkem = MLKEM768PrivateKey.from_seed_bytes(stretched.view[:_MLKEM_SEED])
        x25519 = X25519PrivateKey.from_private_bytes(stretched.view[_MLKEM_SEED:])
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return HpkeKeyPair(public, hpke.MLKEM768X25519PrivateKey(mlkem, x25519))


def seal(suite: HpkeSuite, public_bytes: bytes, info: bytes, plaintext: Buffer) -> bytes:
    """Seal to a public key; `enc || ct`. Raises `FormatError` if it is not a public key of this suite."""
    try:
        return suite.engine.encrypt(plaintext, _public_key(suite, public_bytes), info)
    except ValueError:
        raise FormatError("not a public key of this suite") from None
    finally:
        _overwrite_freed_keys()


def open(suite: HpkeSuite, private: PrivateKey, info: bytes, sealed: bytes) -> LockedBuffer:  # noqa: A001
    """Open into locked memory. Raises `FormatError` if it is too short, `IntegrityError` if it does not open."""
    if len(sealed) < suite.enc_bytes + _TAG:
        raise FormatError("a sealed message is cut short")
    try:
        return absorb(suite.engine.decrypt(sealed, private, info))
    except (InvalidTag, ValueError):
        raise IntegrityError("a sealed message does not open") from None
    finally:
        _overwrite_freed_keys()


def _overwrite_freed_keys() -> None:
    """Overwrite the message's key, which the library has held as `bytes` and just let go of.

    The interpreter's allocator clears nothing that is freed, and glibc's `M_PERTURB` does not reach it. It lends first
    what came back last, so a few objects of the same size lie where the key lay; four were always enough.
    """
    _ = [bytes(_AES_KEY) for _ in range(16)]


def _public_key(suite: HpkeSuite, data: bytes) -> X25519PublicKey | hpke.MLKEM768X25519PublicKey:
    if len(data) != suite.public_bytes:
        raise FormatError("a public key of this length does not fit the suite")
    if suite.number == 1:
        return X25519PublicKey.from_public_bytes(data)
    return hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(data[:_MLKEM_PUBLIC]),
        X25519PublicKey.from_public_bytes(data[_MLKEM_PUBLIC:]),
    )
