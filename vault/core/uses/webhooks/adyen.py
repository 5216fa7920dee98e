"""Adyen: HMAC-SHA256 in base64, with a key that is shown in hex.

Standard webhooks carry a signature in each notification item (`additionalData.hmacSignature`) over eight of its fields,
joined by colons; every item must verify, and nothing else of the body is vouched for. Platform and management webhooks
are signed as a whole, in the header `HmacSignature`. Neither says when it was signed: who receives it drops
notifications seen before. https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from typing import TYPE_CHECKING, Any

from vault.core.uses.material import unsuitable
from vault.core.uses.webhooks.verdict import Verdict, Verification, matching
from vault.crypto import memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vault.core.uses.webhooks.verdict import Secret

_KEY_BYTES = 32
_MAX_ITEMS = 100


class _RepeatedError(ValueError):
    """An object names a member twice, so two readers may read two things."""


def verify(secrets: Sequence[Secret], _headers: Mapping[str, str], body: bytes, _now: float) -> Verification:
    """Verify a standard webhook: every item of it. Names the first secret that matched."""
    try:
        items = [_item(item) for item in _items(body)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Verification(Verdict.BODY_INVALID)
    if not 0 < len(items) <= _MAX_ITEMS:
        return Verification(Verdict.BODY_INVALID)
    fields = [
        matching(((secret.field_name, _mac(secret.view, payload)) for secret in secrets), (signature,))
        for payload, signature in items
    ]
    if not all(fields):
        return Verification(Verdict.SIGNATURE_MISMATCH)
    return Verification(Verdict.VALID, fields[0])


def verify_whole(
    secrets: Sequence[Secret], headers: Mapping[str, str], body: bytes, _now: float
) -> Verification:
    """Verify a platform or management webhook."""
    signature = headers.get("hmacsignature", "")
    if not signature:
        return Verification(Verdict.HEADER_INVALID)
    matched = matching(
        ((secret.field_name, _mac(secret.view, body)) for secret in secrets), (signature.encode(),)
    )
    return Verification(Verdict.VALID if matched else Verdict.SIGNATURE_MISMATCH, matched)


def _items(body: bytes) -> list[Any]:
    document = json.loads(body, object_pairs_hook=_once)
    found = document["notificationItems"]
    if not isinstance(found, list):
        raise TypeError("not a list")
    return found


def _item(item: Any) -> tuple[bytes, bytes]:
    """What is signed of an item, and its signature."""
    values = item["NotificationRequestItem"]
    amount = values.get("amount") or {}
    parts = (
        values.get("pspReference"),
        values.get("originalReference"),
        values.get("merchantAccountCode"),
        values.get("merchantReference"),
        amount.get("value"),
        amount.get("currency"),
        values.get("eventCode"),
        values.get("success"),
    )
    signature = values["additionalData"]["hmacSignature"]
    return ":".join(map(_text, parts)).encode(), signature.encode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise TypeError("not a text or a number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _RepeatedError("a member is named twice")
    return made


def _mac(secret: memoryview, payload: bytes) -> bytes:
    if len(secret) != 2 * _KEY_BYTES:
        raise unsuitable("the field is not an HMAC key in hex")
    try:
        key = binascii.a2b_hex(secret)
    except binascii.Error:
        raise unsuitable("the field is not an HMAC key in hex") from None
    with memory.absorb(key) as locked:
        return base64.b64encode(hmac.digest(locked.view, payload, "sha256"))
