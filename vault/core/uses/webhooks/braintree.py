"""Braintree: a form of `bt_signature` (`PUBLIC_KEY|HEX` pairs joined by `&`) and `bt_payload` (base64 of XML).

HMAC-SHA1 over the payload as sent, with the SHA-1 of the private key as its key; so too the answer to a challenge.
The XML says when it was made; Braintree tries again for 24 hours, so that long it is taken.
https://developer.paypal.com/braintree/docs/guides/webhooks/parse
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import hmac
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from vault.core.uses.webhooks.verdict import (
    MAX_SIGNATURES,
    TOLERANCE_SECONDS,
    Verdict,
    Verification,
    aged,
    matching,
)
from vault.crypto import memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vault.core.uses.webhooks.verdict import Secret

TRIES_SECONDS = 24 * 3600 + TOLERANCE_SECONDS
_PAYLOAD = re.compile(r"[A-Za-z0-9+/=\n]+")
# A root element of this name, and its own timestamp: Braintree writes it first. No XML parser is needed, nor wanted.
_TIMESTAMP = re.compile(
    rb"\s*(?:<\?xml[^<>]*\?>\s*)?<notification>\s*(?:<kind>[^<>]*</kind>\s*)?"
    rb'<timestamp type="datetime">([0-9T:Z-]{20})</timestamp>'
)


def verify(secrets: Sequence[Secret], _headers: Mapping[str, str], body: bytes, now: float) -> Verification:
    """Verify a webhook of Braintree: `body` is the form as it was posted."""
    try:
        form = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=8)
    except (ValueError, UnicodeDecodeError):
        return Verification(Verdict.BODY_INVALID)
    signatures, payloads = form.get("bt_signature", []), form.get("bt_payload", [])
    if len(signatures) != 1 or len(payloads) != 1 or not _PAYLOAD.fullmatch(payloads[0]):
        return Verification(Verdict.BODY_INVALID)
    pairs = [pair.partition("|") for pair in signatures[0].split("&")]
    if len(pairs) > MAX_SIGNATURES:
        return Verification(Verdict.BODY_INVALID)
    matched = ""
    for secret in secrets:
        own = [given.encode() for public, _, given in pairs if public == secret.public and secret.public]
        # Some frameworks strip the newline at the end of the payload.
        for payload in (payloads[0], payloads[0] + "\n"):
            matched = matched or matching([(secret.field_name, mac(secret.view, payload.encode()))], own)
    if not matched:
        return Verification(Verdict.SIGNATURE_MISMATCH)
    signed_at = _signed_at(payloads[0])
    if signed_at is None:
        return Verification(Verdict.BODY_INVALID, matched)
    return aged(matched, signed_at, now, oldest=TRIES_SECONDS)


def mac(private_key: memoryview, payload: bytes) -> bytes:
    """Braintree's signature of a payload, in hex."""
    with memory.absorb(hashlib.sha1(private_key).digest()) as key:  # noqa: S324 - Braintree's choice
        return hmac.digest(key.view, payload, "sha1").hex().encode()


def _signed_at(payload: str) -> float | None:
    try:
        found = _TIMESTAMP.match(base64.b64decode(payload))
        if found is None:
            return None
        return datetime.datetime.fromisoformat(found[1].decode()).timestamp()
    except (binascii.Error, ValueError):
        return None
