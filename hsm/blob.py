"""The byte format of a wrapped data key. Pure functions; frozen by `hsm/conformance/blobs.json`.

    byte 0      format version, 1
    byte 1      scheme
    scheme 1    AES-256-GCM, 96-bit IV:  iv (12) | ciphertext (= length of the key) | tag (16)
    scheme 2    AES-256-GCM, 128-bit IV: iv (16) | ciphertext | tag (16)      some HSMs in FIPS mode
    scheme 3    AES-KWP (RFC 5649): size of the key (1) | KWP of: key, padded by zeros to eight bytes | digest
    scheme 4    HashiCorp Vault or OpenBao Transit: what follows "vault:v1:", decoded; laid out as scheme 1

What a scheme authenticates beside the caller's AAD are the two leading bytes, so a blob cannot be passed
off as another scheme: the AAD given to GCM is `format | scheme | aad`, and the digest under KWP is SHA-256 of
`"strongroom-kwp-1" | format | scheme | size of the key | aad`, unambiguous because only the last part varies
in length. The padding is ours, as SoftHSM gives keys back with the padding that KWP itself would add.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from hsm.errors import HsmIntegrityError

FORMAT: Final = 1
GCM_12: Final = 1
GCM_16: Final = 2
KWP: Final = 3
TRANSIT: Final = 4

GCM_TAG: Final = 16  # bytes; never taken from data, as a module may accept a truncated tag
HEADER: Final = 2
DIGEST: Final = 32  # of the KWP context
KWP_OVERHEAD: Final = 8
MIN_DEK: Final = 16
MAX_DEK: Final = 64
MAX_BLOB: Final = 4096

IV_SIZES: Final = {GCM_12: 12, GCM_16: 16}


class Wrapped(NamedTuple):
    """A parsed blob. `iv` is empty where the scheme has none of its own."""

    scheme: int
    iv: bytes
    body: bytes
    dek_size: int


def header(scheme: int) -> bytes:
    """The two leading bytes of a blob."""
    return bytes((FORMAT, scheme))


def bind(scheme: int, aad: bytes) -> bytes:
    """The AAD that a GCM scheme gives to the HSM: header and the caller's AAD."""
    return header(scheme) + aad


def kwp_digest(size: int, aad: bytes) -> bytes:
    """The 32 bytes that KWP, which has no AAD, wraps together with a key of that size."""
    return hashlib.sha256(b"strongroom-kwp-1" + header(KWP) + bytes((size,)) + aad).digest()


def kwp_padded(size: int) -> int:
    """What a key of that size takes up, in bytes."""
    return -(-size // 8) * 8


def parse(blob: bytes, *, op: str = "unwrap") -> Wrapped:
    """Take a blob apart. Raises `HsmIntegrityError` if it is not one that `wrap` can have made."""
    if not HEADER < len(blob) <= MAX_BLOB or blob[0] != FORMAT:
        raise HsmIntegrityError(op, "not a wrapped key of a known format")
    scheme = blob[1]
    if scheme in IV_SIZES:
        start = HEADER + IV_SIZES[scheme]
        size = len(blob) - start - GCM_TAG
        iv, body = blob[HEADER:start], blob[start:]
    elif scheme == KWP:
        iv, body, size = b"", blob[HEADER + 1 :], blob[HEADER]
        if len(body) != kwp_padded(size) + DIGEST + KWP_OVERHEAD:
            raise HsmIntegrityError(op, "a wrapped key of an impossible length")
    elif scheme == TRANSIT:
        iv, body = b"", blob[HEADER:]
        size = len(body) - IV_SIZES[GCM_12] - GCM_TAG
    else:
        raise HsmIntegrityError(op, "not a wrapped key of a known scheme")
    if not MIN_DEK <= size <= MAX_DEK:
        raise HsmIntegrityError(op, "a wrapped key of an impossible length")
    return Wrapped(scheme, iv, body, size)
