"""What webhooks of providers say of how a credential stands."""

from __future__ import annotations

import datetime
import json
import time
from typing import Any
from urllib.parse import urlencode

import braintree
import pytest

from vault.core.uses.webhooks import events
from vault.model import Standing

NOW = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)


def read(scheme: str, event: Any, jwt: str = "a.b.c") -> events.Event | None:
    return events.read(scheme, {"plaid-verification": jwt}, json.dumps(event).encode(), NOW)


@pytest.mark.parametrize(
    ("event", "standing"),
    [
        ({"webhook_code": "ERROR", "error": {"error_code": "ITEM_LOGIN_REQUIRED"}}, Standing.UPDATE_REQUIRED),
        (
            {
                "webhook_code": "ERROR",
                "error": {"error_code": "ITEM_LOGIN_REQUIRED", "error_code_reason": "OAUTH_USER_REVOKED"},
            },
            Standing.REVOKED,
        ),
        ({"webhook_code": "PENDING_EXPIRATION"}, Standing.EXPIRING),
        ({"webhook_code": "PENDING_DISCONNECT"}, Standing.EXPIRING),
        ({"webhook_code": "USER_PERMISSION_REVOKED"}, Standing.REVOKED),
        ({"webhook_code": "LOGIN_REPAIRED"}, Standing.ACTIVE),
    ],
)
def test_plaids_item_webhooks(event: dict[str, Any], standing: Standing) -> None:
    found = read("plaid", {"webhook_type": "ITEM", "item_id": "item-1", **event})
    assert found is not None
    assert (found.object_id, found.standing, found.time) == ("item-1", standing, NOW)


def test_plaid_says_when_consent_ends() -> None:
    event = {"webhook_type": "ITEM", "webhook_code": "PENDING_EXPIRATION", "item_id": "item-1"}
    found = read("plaid", {**event, "consent_expiration_time": "2026-12-01T12:00:00+01:00"})
    assert found is not None
    assert found.expire_time == datetime.datetime(2026, 12, 1, 11, tzinfo=datetime.UTC)
    for no_time in (None, 5, "", "soon", "2026-12-01", "0001-01-01T00:00:00+14:00", ["2026-12-01T00:00:00Z"]):
        found = read("plaid", {**event, "consent_expiration_time": no_time})
        assert found is not None
        assert (found.standing, found.expire_time) == (Standing.EXPIRING, None)


def test_an_equal_body_signed_anew_is_another_event_if_it_is_bad_news_and_the_same_if_it_is_good() -> None:
    """Plaid gives no id: in doubt an item is said to be broken, rather than well."""
    for event, same in (
        ({"webhook_code": "ERROR", "error": {"error_code": "ITEM_LOGIN_REQUIRED"}}, False),
        ({"webhook_code": "PENDING_DISCONNECT"}, False),
        ({"webhook_code": "USER_ACCOUNT_REVOKED"}, False),
        ({"webhook_code": "LOGIN_REPAIRED"}, True),
    ):
        first, mirrored, anew = (
            read("plaid", {"webhook_type": "ITEM", "item_id": "i", **event}, jwt)
            for jwt in ("head.one.signature", "head.one.mirrored", "head.two.signature")
        )
        assert first is not None
        assert mirrored == first, "another signature of the very same"
        assert anew is not None
        assert (anew.event_id == first.event_id) is same
        assert not first.timed


def test_braintrees_notices_are_read_as_its_own_library_makes_them() -> None:
    gateway = braintree.BraintreeGateway(
        braintree.Configuration(
            braintree.Environment.Sandbox, merchant_id="m", public_key="pk", private_key="sk"
        )
    )
    kinds = braintree.WebhookNotification.Kind

    def made(kind: str) -> events.Event | None:
        form = gateway.webhook_testing.sample_notification(kind, "merchant_1")
        return events.read("braintree", {}, urlencode(form).encode(), NOW)

    revoked = made(kinds.OAuthAccessRevoked)
    assert revoked is not None
    assert (revoked.object_id, revoked.standing) == ("merchant_1", Standing.REVOKED)
    assert abs(revoked.time.timestamp() - time.time()) < 60
    disconnected = made(kinds.PartnerMerchantDisconnected)
    assert disconnected is not None
    assert (disconnected.object_id, disconnected.standing) == ("abc123", Standing.REVOKED)
    for kind in (kinds.ConnectedMerchantStatusTransitioned, kinds.PartnerMerchantDeclined, kinds.Check):
        assert made(kind) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"bt_payload=", b"bt_payload=AAAA", b"bt_payload=PG5vdGlmaWNhdGlvbj4&bt_payload=x", b"\xff\xfe"],
)
def test_what_braintree_never_sends_says_nothing(body: bytes) -> None:
    assert events.read("braintree", {}, body, NOW) is None


def test_a_braintree_notice_that_names_two_merchants_says_nothing() -> None:
    import base64

    xml = (
        b'<notification><timestamp type="datetime">2026-11-23T14:02:18Z</timestamp><kind>oauth_access_revoked</kind>'
        b"<subject>%b</subject></notification>"
    )
    for subject, named in (
        (b"<merchant-id>a</merchant-id>", "a"),
        (b"<merchant-id>a</merchant-id>" * 2, None),
    ):
        body = urlencode({"bt_payload": base64.b64encode(xml % subject)}).encode()
        found = events.read("braintree", {}, body, NOW)
        assert (found.object_id if found else None) == named


@pytest.mark.parametrize(
    ("kind", "standing"),
    [
        ("account.upcoming_deactivation", Standing.EXPIRING),
        ("account.upcoming_account_number_expiry", Standing.EXPIRING),
        ("account.expected_deactivation_date_updated", Standing.EXPIRING),
        ("authorization.upcoming_deactivation", Standing.EXPIRING),
        ("account.deactivated", Standing.UPDATE_REQUIRED),
        ("account.reactivated", Standing.ACTIVE),
        ("account.disconnected", Standing.REVOKED),
    ],
)
def test_stripes_financial_connections(kind: str, standing: Standing) -> None:
    event = {"id": "evt_1", "created": 1, "type": f"financial_connections.{kind}"}
    found = read("stripe", {**event, "data": {"object": {"id": "fca_1"}}})
    assert found is not None
    assert (found.object_id, found.standing) == ("fca_1", standing)


def test_stripes_events_carry_their_own_id_and_time() -> None:
    event = {"id": "evt_1", "type": "account.application.deauthorized", "created": 1_760_000_000}
    found = read("stripe", {**event, "account": "acct_1", "data": {"object": {"id": "ca_1"}}})
    assert found is not None
    assert (found.object_id, found.event_id, found.standing) == ("acct_1", "evt_1", Standing.REVOKED)
    assert found.time == datetime.datetime.fromtimestamp(1_760_000_000, datetime.UTC)


@pytest.mark.parametrize(
    ("scheme", "event"),
    [
        ("plaid", {"webhook_type": "TRANSACTIONS", "webhook_code": "DEFAULT_UPDATE", "item_id": "i"}),
        ("plaid", {"webhook_type": "ITEM", "webhook_code": "NEW_ACCOUNTS_AVAILABLE", "item_id": "i"}),
        ("plaid", {"webhook_type": "ITEM", "webhook_code": "LOGIN_REPAIRED", "item_id": 7}),
        ("plaid", {"webhook_type": "ITEM", "webhook_code": ["LOGIN_REPAIRED"], "item_id": "i"}),
        ("plaid", {"webhook_type": "ITEM", "webhook_code": "ERROR", "error": "x", "item_id": "i"}),
        (
            "plaid",
            {"webhook_type": "ITEM", "webhook_code": "ERROR", "item_id": "i", "error": {"error_code": []}},
        ),
        (
            "plaid",
            {
                "webhook_type": "ITEM",
                "webhook_code": "ERROR",
                "item_id": "i",
                "error": {"error_code": {}, "error_code_reason": ["OAUTH_USER_REVOKED"]},
            },
        ),
        ("plaid", {"webhook_type": ["ITEM"], "webhook_code": "LOGIN_REPAIRED", "item_id": "i"}),
        ("stripe", {"id": "e", "type": {"account.": 1}, "created": 1, "account": "a"}),
        ("plaid", {"webhook_type": "ITEM", "webhook_code": "LOGIN_REPAIRED", "item_id": "i" * 129}),
        ("plaid", ["not", "an", "object"]),
        ("stripe", {"id": "evt_1", "type": "charge.succeeded", "created": 1, "account": "acct_1"}),
        ("stripe", {"id": "e", "type": "account.application.deauthorized", "created": "now", "account": "a"}),
        ("stripe", {"id": "e", "type": "account.application.deauthorized", "created": 2**40, "account": "a"}),
        ("adyen", {"eventCode": "AUTHORISATION"}),
    ],
)
def test_whatever_else_is_said_says_nothing(scheme: str, event: Any) -> None:
    assert read(scheme, event) is None


def test_what_is_not_json_says_nothing() -> None:
    for body in (b"\xff{", b"[" * 5000):
        assert events.read("stripe", {}, body, NOW) is None
