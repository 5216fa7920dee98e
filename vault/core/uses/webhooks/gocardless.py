"""GoCardless: `Webhook-Signature: HEX`, HMAC-SHA256 over the body with the endpoint secret's own characters.

Nothing says when it was signed, so a verdict says nothing about age: who receives it drops events seen before.
https://developer.gocardless.com/api-reference/#webhooks-signing-webhooks
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from vault.core.uses.webhooks.verdict import Verdict, Verification, matching

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vault.core.uses.webhooks.verdict import Secret


def verify(secrets: Sequence[Secret], headers: Mapping[str, str], body: bytes, _now: float) -> Verification:
    """Verify a webhook of GoCardless."""
    signature = headers.get("webhook-signature", "")
    if not signature:
        return Verification(Verdict.HEADER_INVALID)
    matched = matching(
        ((secret.field_name, hmac.digest(secret.view, body, "sha256").hex().encode()) for secret in secrets),
        (signature.encode(),),
    )
    return Verification(Verdict.VALID if matched else Verdict.SIGNATURE_MISMATCH, matched)
