"""Stripe: `Stripe-Signature: t=SECONDS,v1=HEX[,v1=HEX...]`, HMAC-SHA256 over `SECONDS.BODY`.

The key is the endpoint secret's own characters, `whsec_` and all. While a secret is rolled, both sign. Other schemes
than `v1` are ignored. https://docs.stripe.com/webhooks#verify-manually
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING

from vault.core.uses.webhooks.verdict import MAX_SIGNATURES, Verdict, Verification, aged, matching

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vault.core.uses.webhooks.verdict import Secret

_DIGITS = re.compile(r"[0-9]{1,12}")


def verify(secrets: Sequence[Secret], headers: Mapping[str, str], body: bytes, now: float) -> Verification:
    """Verify a webhook of Stripe."""
    times, signatures = [], []
    for item in headers.get("stripe-signature", "").split(","):
        name, _, value = item.partition("=")
        match name.strip():
            case "t":
                times.append(value)
            case "v1":
                signatures.append(value.encode())
    if len(times) != 1 or not _DIGITS.fullmatch(times[0]) or not 0 < len(signatures) <= MAX_SIGNATURES:
        return Verification(Verdict.HEADER_INVALID)
    payload = b"%b.%b" % (times[0].encode(), body)
    expected = [
        (secret.field_name, hmac.digest(secret.view, payload, "sha256").hex().encode()) for secret in secrets
    ]
    matched = matching(expected, signatures)
    if not matched:
        return Verification(Verdict.SIGNATURE_MISMATCH)
    return aged(matched, int(times[0]), now)
