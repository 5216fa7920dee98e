"""What webhooks of providers say of how a credential stands."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from vault.core.uses.webhooks import events
from vault.model import Standing

NOW = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)


def read(scheme: str, event: Any) -> events.Event | None:
    return events.read(scheme, json.dumps(event).encode(), NOW)


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
    assert events.read("stripe", b"\xff{", NOW) is None
