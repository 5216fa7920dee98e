"""What a genuine webhook of a provider says of how a credential stands; of everything else it says, nothing.

Codes are acted on, texts never are: providers call only their codes stable.
https://plaid.com/docs/api/items/#webhooks, https://docs.stripe.com/api/events/types
"""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import TYPE_CHECKING, Any

from vault.core.standing import Event
from vault.model import Standing

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_ID = 128

_PLAID = {
    "LOGIN_REPAIRED": Standing.ACTIVE,
    "PENDING_EXPIRATION": Standing.EXPIRING,
    "PENDING_DISCONNECT": Standing.EXPIRING,
    "USER_PERMISSION_REVOKED": Standing.REVOKED,
    "USER_ACCOUNT_REVOKED": Standing.REVOKED,
}
_PLAID_ERRORS = {"ITEM_LOGIN_REQUIRED": Standing.UPDATE_REQUIRED}
_PLAID_REASONS = {"OAUTH_USER_REVOKED": Standing.REVOKED}
_STRIPE = {
    "account.application.deauthorized": Standing.REVOKED,
    "account.application.authorized": Standing.ACTIVE,
    "financial_connections.account.upcoming_deactivation": Standing.EXPIRING,
    "financial_connections.account.upcoming_account_number_expiry": Standing.EXPIRING,
    "financial_connections.account.deactivated": Standing.UPDATE_REQUIRED,
    "financial_connections.account.reactivated": Standing.ACTIVE,
    "financial_connections.account.disconnected": Standing.REVOKED,
}


def read(scheme: str, body: bytes, now: datetime.datetime) -> Event | None:
    """What a verified webhook says; None if it says nothing of how a credential stands."""
    reader = _READERS.get(scheme)
    if reader is None:
        return None
    try:
        event = json.loads(body)
    except ValueError:
        return None
    found = reader(event, body, now) if isinstance(event, dict) else None
    return found if found and 0 < len(found.object_id) <= _MAX_ID else None


def _plaid(event: dict[str, Any], body: bytes, now: datetime.datetime) -> Event | None:
    if event.get("webhook_type") != "ITEM":
        return None
    code = event.get("webhook_code")
    standing = _PLAID.get(code) if isinstance(code, str) else None
    error = event.get("error")
    if code == "ERROR" and isinstance(error, dict):
        code = error.get("error_code")
        standing = _PLAID_REASONS.get(error.get("error_code_reason", "")) or _PLAID_ERRORS.get(code or "")
    object_id = event.get("item_id")
    if standing is None or not isinstance(object_id, str):
        return None
    # Plaid gives its events no id, and no time but that of the signature: the same body is the same event.
    return Event(object_id, hashlib.sha256(body).hexdigest(), now, standing, str(code))


def _stripe(event: dict[str, Any], _body: bytes, _now: datetime.datetime) -> Event | None:
    kind, event_id, created = event.get("type"), event.get("id"), event.get("created")
    standing = _STRIPE.get(kind) if isinstance(kind, str) else None
    data = event.get("data")
    subject = data.get("object") if isinstance(data, dict) else None
    of_account = isinstance(kind, str) and kind.startswith("account.")
    object_id = (
        event.get("account") if of_account else subject.get("id") if isinstance(subject, dict) else None
    )
    if standing is None or not isinstance(event_id, str) or not isinstance(object_id, str):
        return None
    if not isinstance(created, int) or not 0 < created < 2**33:
        return None
    time = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return Event(object_id, event_id, time, standing, str(kind))


_READERS: dict[str, Callable[[dict[str, Any], bytes, datetime.datetime], Event | None]] = {
    "plaid": _plaid,
    "stripe": _stripe,
}
