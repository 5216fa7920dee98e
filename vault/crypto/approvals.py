"""What people sign when they approve an operation, and how it is checked.

Vault, SDK and whoever reads the evidence later call the same functions; `docs/formats.md` says the same for other
languages. Nothing here does IO.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from vault.crypto.encoding import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
        PrivateKeyTypes,
        PublicKeyTypes,
    )

_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


@dataclass(frozen=True)
class Operation:
    """One operation with all its arguments: what is approved is this and nothing else."""

    action: str
    """The scope action, for example `key.destroy`."""
    resource: str
    """On what, beginning with the tenant, for example `acme/keys`."""
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def tenant(self) -> str:
        """The tenant that it concerns."""
        return self.resource.partition("/")[0]

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical encoding: action, resource, then each argument's name and value, by name."""
        pairs = [part for item in sorted(self.arguments.items()) for part in item]
        return hashlib.sha256(
            encode("strongroom/operation/v1", self.action, self.resource, len(self.arguments), *pairs)
        ).digest()


def statement(approval_id: str, operation: Operation, requested_by: str, expire_micros: int) -> bytes:
    """The bytes that an approver signs. `expire_micros`: the end of the approval, microseconds since 1970."""
    return encode("strongroom/approval/v1", approval_id, operation.digest, requested_by, expire_micros)


def sign(key: PrivateKeyTypes, message: bytes) -> bytes:
    """Sign with a client certificate's private key. Raises `TypeError` for a kind of key that none may have."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(_curve_hash(key.curve)))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, _PSS, hashes.SHA256())
    raise TypeError("must be an EC, Ed25519 or RSA key")


def verifies(key: PublicKeyTypes | CertificatePublicKeyTypes, signature: bytes, message: bytes) -> bool:
    """Whether the signature is this key's over this message."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(_curve_hash(key.curve)))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, _PSS, hashes.SHA256())
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _curve_hash(curve: ec.EllipticCurve) -> hashes.HashAlgorithm:
    return hashes.SHA384() if isinstance(curve, ec.SECP384R1) else hashes.SHA256()
