"""Verifying webhooks with a secret that stays where it is.

The answer is a verdict and never what the right signature would have been. Every secret and every signature
is tried, each compared in constant time.

Stripe: https://docs.stripe.com/webhooks#verify-manually; Standard Webhooks: specification 1.0.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hmac
import re
from typing import TYPE_CHECKING, NamedTuple

from vault.crypto import memory
from vault.errors import Reason, VaultError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TOLERANCE_SECONDS = 300
_MAX_SIGNATURES = 16
_PREFIX = b"whsec_"
_DIGITS = re.compile(r"[0-9]{1,12}")


class Scheme(enum.StrEnum):
    """How a provider signs its webhooks."""

    STRIPE = "stripe"
    STANDARD_WEBHOOKS = "standard-webhooks"


class Verdict(enum.StrEnum):
    """Why a webhook was or was not accepted."""

    VALID = "valid"
    HEADER_INVALID = "header-invalid"
    SIGNATURE_MISMATCH = "signature-mismatch"
    TOO_OLD = "too-old"
    TOO_NEW = "too-new"


class Verification(NamedTuple):
    """A verdict, and the field whose secret matched; empty if none did."""

    verdict: Verdict
    field_name: str = ""


class _Signed(NamedTuple):
    """What a webhook's headers claim: when it was signed, over what, and the signatures to compare with."""

    timestamp: int
    payload: bytes
    signatures: list[bytes]


def verify(
    scheme: Scheme, secrets: Mapping[str, memoryview], headers: Mapping[str, str], body: bytes, now: float
) -> Verification:
    """Verify a webhook with each of the secrets. `now` is seconds since 1970 UTC.

    Raises `SECRET_UNSUITABLE` if a secret cannot be one of this scheme.
    """
    read, mac = _SCHEMES[scheme]
    signed = read({name.lower(): value for name, value in headers.items()}, body)
    if signed is None:
        return Verification(Verdict.HEADER_INVALID)
    matched = ""
    for field_name, secret in secrets.items():
        expected = mac(secret, signed.payload)
        for signature in signed.signatures:
            if hmac.compare_digest(expected, signature):
                matched = field_name
    if not matched:
        return Verification(Verdict.SIGNATURE_MISMATCH)
    # Judged last, so that only who knows the secret can learn what the clock here says.
    if signed.timestamp < now - TOLERANCE_SECONDS:
        return Verification(Verdict.TOO_OLD, matched)
    if signed.timestamp > now + TOLERANCE_SECONDS:
        return Verification(Verdict.TOO_NEW, matched)
    return Verification(Verdict.VALID, matched)


def _read_stripe(headers: Mapping[str, str], body: bytes) -> _Signed | None:
    items = [item.partition("=") for item in headers.get("stripe-signature", "").split(",")]
    times = [value for name, _, value in items if name.strip() == "t"]
    signatures = [value for name, _, value in items if name.strip() == "v1"]
    if len(times) != 1 or not _DIGITS.fullmatch(times[0]) or not 0 < len(signatures) <= _MAX_SIGNATURES:
        return None
    return _Signed(int(times[0]), times[0].encode() + b"." + body, [value.encode() for value in signatures])


def _mac_stripe(secret: memoryview, payload: bytes) -> bytes:
    # The endpoint secret's own characters are the key, `whsec_` and all.
    return hmac.digest(secret, payload, "sha256").hex().encode()


def _read_standard(headers: Mapping[str, str], body: bytes) -> _Signed | None:
    message_id, time = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    parts = [item.partition(",") for item in headers.get("webhook-signature", "").split(" ")]
    signatures = [value for version, _, value in parts if version == "v1"]
    if not message_id or not _DIGITS.fullmatch(time) or not 0 < len(signatures) <= _MAX_SIGNATURES:
        return None
    payload = f"{message_id}.{time}.".encode() + body
    return _Signed(int(time), payload, [value.encode() for value in signatures])


def _mac_standard(secret: memoryview, payload: bytes) -> bytes:
    text = secret[len(_PREFIX) :] if secret[: len(_PREFIX)] == _PREFIX else secret
    try:
        key = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise VaultError(Reason.SECRET_UNSUITABLE, "the field is not a Standard Webhooks secret") from None
    if len(key) < 2:  # noqa: PLR2004 - shorter ones are shared by the interpreter and must not be wiped
        raise VaultError(Reason.SECRET_UNSUITABLE, "the field is not a Standard Webhooks secret")
    with memory.absorb(key) as locked:
        digest = hmac.digest(locked.view, payload, "sha256")
        return base64.b64encode(digest)


_SCHEMES: dict[
    Scheme,
    tuple[
        Callable[[Mapping[str, str], bytes], _Signed | None],
        Callable[[memoryview, bytes], bytes],
    ],
] = {
    Scheme.STRIPE: (_read_stripe, _mac_stripe),
    Scheme.STANDARD_WEBHOOKS: (_read_standard, _mac_standard),
}
