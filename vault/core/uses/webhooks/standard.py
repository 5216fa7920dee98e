"""Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,BASE64[ v1a,BASE64...]`.

Over `ID.TIMESTAMP.BODY`: `v1` is HMAC-SHA256 with what stands in base64 behind `whsec_`; `v1a` is Ed25519, for the
public key behind `whpk_`.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vault.core.uses.material import unsuitable
from vault.core.uses.webhooks.verdict import MAX_SIGNATURES, Verdict, Verification, aged, matching
from vault.crypto import memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vault.core.uses.webhooks.verdict import Secret

_PREFIX = b"whsec_"
_PUBLIC = b"whpk_"
_DIGITS = re.compile(r"[0-9]{1,12}")
# No dot: the parts of what is signed must be told apart. Nothing beyond ASCII: no HTTP header holds it.
_ID = re.compile(r"[!-\-/-~]{1,256}")


def verify(secrets: Sequence[Secret], headers: Mapping[str, str], body: bytes, now: float) -> Verification:
    """Verify a Standard Webhook. Raises `SECRET_UNSUITABLE` if a secret cannot be one of this scheme."""
    message_id, time = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    parts = [item.partition(",") for item in headers.get("webhook-signature", "").split(" ")]
    signatures = [(version, value.encode()) for version, _, value in parts if version in ("v1", "v1a")]
    if (
        not _ID.fullmatch(message_id)
        or not _DIGITS.fullmatch(time)
        or not 0 < len(signatures) <= MAX_SIGNATURES
    ):
        return Verification(Verdict.HEADER_INVALID)
    payload = f"{message_id}.{time}.".encode() + body
    matched = ""
    for secret in secrets:
        if secret.view[: len(_PUBLIC)] == _PUBLIC:
            given = [value for version, value in signatures if version == "v1a"]
            found = secret.field_name if _signed(secret.view, payload, given) else ""
        else:
            given = [value for version, value in signatures if version == "v1"]
            found = matching([(secret.field_name, _mac(secret.view, payload))], given)
        matched = matched or found
    if not matched:
        return Verification(Verdict.SIGNATURE_MISMATCH)
    return aged(matched, int(time), now)


def sign(secret: memoryview, payload: bytes) -> bytes:
    """The `v1` signature of `ID.TIMESTAMP.BODY`, in base64. Raises `SECRET_UNSUITABLE`."""
    return _mac(secret, payload)


def _signed(public: memoryview, payload: bytes, signatures: list[bytes]) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(
            binascii.a2b_base64(public[len(_PUBLIC) :], strict_mode=True)
        )
    except (binascii.Error, ValueError):
        raise unsuitable("the field is not a Standard Webhooks public key") from None
    for signature in signatures:
        with contextlib.suppress(InvalidSignature, binascii.Error, ValueError):
            key.verify(binascii.a2b_base64(signature, strict_mode=True), payload)
            return True
    return False


def _mac(secret: memoryview, payload: bytes) -> bytes:
    text = secret[len(_PREFIX) :] if secret[: len(_PREFIX)] == _PREFIX else secret
    try:
        key = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise unsuitable("the field is not a Standard Webhooks secret") from None
    if len(key) < 2:  # noqa: PLR2004 - shorter ones are shared by the interpreter and must not be wiped
        raise unsuitable("the field is not a Standard Webhooks secret")
    with memory.absorb(key) as locked:
        return base64.b64encode(hmac.digest(locked.view, payload, "sha256"))
