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
from typing import TYPE_CHECKING, NamedTuple
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
# A root element of this name, and its own timestamp and kind: Braintree writes them first. No XML parser is needed, nor
# wanted.
_HEAD = re.compile(
    rb"\s*(?:<\?xml[^<>]*\?>\s*)?<notification>\s*(?:<kind>([^<>]*)</kind>\s*)?"
    rb'<timestamp type="datetime">([0-9T:Z-]{20})</timestamp>\s*(?:<kind>([^<>]*)</kind>)?'
)


class Notice(NamedTuple):
    """What a webhook of Braintree says: its kind, when it was made (seconds since 1970 UTC), and all of it."""

    kind: str
    time: float
    payload: bytes

    def text(self, element: str) -> str:
        """The text of the only element of this name; empty if there is none, or more than one."""
        name = element.encode()
        found: list[bytes] = re.findall(rb"<%b>([^<>&]*)</%b>" % (name, name), self.payload)
        return found[0].decode("ascii", "replace") if len(found) == 1 else ""


def notice(body: bytes) -> Notice | None:
    """What a webhook that was verified says; None if it is not readable."""
    payloads = parse_qs(body.decode("ascii", "replace"), max_num_fields=8).get("bt_payload", [])
    return _read(payloads[0]) if len(payloads) == 1 else None


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
    read = _read(payloads[0])
    if read is None:
        return Verification(Verdict.BODY_INVALID, matched)
    return aged(matched, read.time, now, oldest=TRIES_SECONDS)


def mac(private_key: memoryview, payload: bytes) -> bytes:
    """Braintree's signature of a payload, in hex."""
    with memory.absorb(hashlib.sha1(private_key).digest()) as key:  # noqa: S324 - Braintree's choice
        return hmac.digest(key.view, payload, "sha1").hex().encode()


def _read(payload: str) -> Notice | None:
    try:
        decoded = base64.b64decode(payload)
        found = _HEAD.match(decoded)
        if found is None:
            return None
        kind = (found[1] or found[3] or b"").decode("ascii")
        return Notice(kind, datetime.datetime.fromisoformat(found[2].decode()).timestamp(), decoded)
    except (binascii.Error, ValueError):
        return None
