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
    from collections.abc import Mapping, Sequence

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


def is_document_of(operation: Operation, document: str) -> bool:
    """Whether the operation's argument `sha256`, in hex, is of this text: who signs for the one signs for the other."""
    return hashlib.sha256(document.encode()).hexdigest() == operation.arguments.get("sha256")


MAX_APPROVED_SCOPES = 10
MAX_ARGUMENT_CHARS = 128
"""People approve what they can read: so many scopes, and no longer ones."""


def issue_token(
    tenant: str,
    scopes: Sequence[str],
    thumbprint: str,
    *,
    ttl_seconds: int,
    purpose: str,
    max_sessions: int = 0,
    narrowable: bool = False,
) -> Operation:
    """The issue of one token, with all that it shall be good for. `thumbprint`: of the certificate it is bound to.

    Raises `ValueError` for more scopes, or longer ones, than an approval can show.
    """
    if len(scopes) > MAX_APPROVED_SCOPES or any(len(scope) > MAX_ARGUMENT_CHARS for scope in scopes):
        raise ValueError(
            f"with an approval at most {MAX_APPROVED_SCOPES} scopes of at most {MAX_ARGUMENT_CHARS} characters"
        )
    return Operation(
        "token.issue",
        f"{tenant}/tokens",
        {
            "certificate": thumbprint,
            "ttl_seconds": str(ttl_seconds),
            "purpose": purpose,
            "max_sessions": str(max_sessions),
            "narrowable": "true" if narrowable else "false",
            **{f"scope_{place}": scope for place, scope in enumerate(sorted(scopes), 1)},
        },
    )


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
