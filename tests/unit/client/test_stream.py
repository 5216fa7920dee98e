"""What the SDK asks for on a session."""

from __future__ import annotations

import pytest

from vault.client.stream import SCHEMES, SessionState

SIGNED = {
    "stripe": ["Stripe-Signature"],
    "standard-webhooks": ["webhook-id", "webhook-timestamp", "webhook-signature"],
    "plaid": ["Plaid-Verification"],
    "braintree": [],
    "adyen": [],
    "adyen-platform": ["HmacSignature"],
    "gocardless": ["Webhook-Signature"],
}


@pytest.mark.parametrize("spelt", [str, str.lower, str.upper])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_of_a_requests_headers_those_are_sent_that_the_scheme_reads(scheme: str, spelt: type[str]) -> None:
    wanted = {spelt(name): "signature" for name in SIGNED[scheme]}
    others = {f"X-Header-{number}": "v" * 5000 for number in range(40)} | {"Cookie": "session=canary"}
    asked = SessionState(["acme/stripe"], "test", None).verify_webhook(
        scheme, others | wanted, b"{}", ("webhook_secret",), "", "", ""
    )
    assert dict(asked.verify_webhook.headers) == wanted
