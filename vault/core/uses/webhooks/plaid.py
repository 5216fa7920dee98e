"""Plaid: `Plaid-Verification`, a JWT signed with ES256 that holds the SHA-256 of the body, five minutes old at most.

The key is one of Plaid's, by the JWT's `kid`: a JWK from `/webhook_verification_key/get`. The algorithm is pinned: what
the header says is compared with it, never followed. https://plaid.com/docs/api/webhooks/webhook-verification/
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from vault.core.uses.material import unsuitable
from vault.core.uses.webhooks.verdict import Verdict, Verification, aged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vault.core.uses.webhooks.verdict import Secret

KEY_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_MAX_JWT = 2048
_HALF = 32
_PART = re.compile(r"[A-Za-z0-9_-]+")


def verify(keys: Sequence[Secret], headers: Mapping[str, str], body: bytes, now: float) -> Verification:
    """Verify a webhook of Plaid with JWKs, or sets of them, in JSON. Raises `SECRET_UNSUITABLE` if they are none."""
    kid = key_id(headers)
    if not kid:
        return Verification(Verdict.HEADER_INVALID)
    for secret in keys:
        jwk = _find(secret.view, kid)
        if jwk is not None and _in_use(jwk, now):
            return verify_by(jwk, headers, body, now, secret.field_name)
    return Verification(Verdict.KEY_UNKNOWN)


def verify_by(
    jwk: Mapping[str, Any] | None, headers: Mapping[str, str], body: bytes, now: float, field_name: str = ""
) -> Verification:
    """Verify a webhook of Plaid by the key that its `kid` names, if there is one. Raises `SECRET_UNSUITABLE`."""
    parts = _parts(headers)
    if parts is None:
        return Verification(Verdict.HEADER_INVALID)
    _, claims, signed, signature = parts
    if jwk is None or not _in_use(jwk, now):
        return Verification(Verdict.KEY_UNKNOWN)
    if not _verifies(jwk, signed, signature):
        return Verification(Verdict.SIGNATURE_MISMATCH)
    iat, digest = claims.get("iat"), claims.get("request_body_sha256")
    if not isinstance(iat, int) or not isinstance(digest, str) or not digest.isascii():
        return Verification(Verdict.HEADER_INVALID, field_name)
    if not hmac.compare_digest(digest, hashlib.sha256(body).hexdigest()):
        return Verification(Verdict.SIGNATURE_MISMATCH)
    return aged(field_name, iat, now)


def key_id(headers: Mapping[str, str]) -> str:
    """The id of the key that the webhook claims to be signed with; empty if it is malformed."""
    parts = _parts(headers)
    return parts[0] if parts else ""


def _parts(headers: Mapping[str, str]) -> tuple[str, dict[str, Any], bytes, bytes] | None:
    """The key's id, the claims, what is signed, and the signature."""
    jwt = headers.get("plaid-verification", "")
    parts = jwt.split(".")
    if len(jwt) > _MAX_JWT or len(parts) != 3 or not all(map(_PART.fullmatch, parts)):  # noqa: PLR2004
        return None
    try:
        header, claims = json.loads(_decoded(parts[0])), json.loads(_decoded(parts[1]))
        signature = _decoded(parts[2])
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        return None
    kid = header.get("kid")
    if header.get("alg") != "ES256" or "crit" in header or len(signature) != 2 * _HALF:
        return None
    if not isinstance(kid, str) or not KEY_ID.fullmatch(kid):
        return None
    return kid, claims, f"{parts[0]}.{parts[1]}".encode(), signature


def _find(view: memoryview, kid: str) -> dict[str, Any] | None:
    try:
        document = json.loads(bytes(view))
    except ValueError:
        raise unsuitable("the field is not a JWK or a set of them") from None
    keys = document.get("keys", [document]) if isinstance(document, dict) else document
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise unsuitable("the field is not a JWK or a set of them")
    return next((key for key in keys if key.get("kid") == kid), None)


def _in_use(jwk: Mapping[str, Any], now: float) -> bool:
    expired = jwk.get("expired_at")
    return expired is None or (isinstance(expired, int) and expired > now)


def _verifies(jwk: Mapping[str, Any], signed: bytes, signature: bytes) -> bool:
    try:
        if (jwk["kty"], jwk["crv"], jwk.get("alg", "ES256")) != ("EC", "P-256", "ES256"):
            raise unsuitable("the key is not one for ES256")
        x, y = (int.from_bytes(_decoded(jwk[name]), "big") for name in ("x", "y"))
        key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except (KeyError, ValueError, TypeError):
        raise unsuitable("the key is not one for ES256") from None
    r, s = int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise ValueError("not base64url") from None
