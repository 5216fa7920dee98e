"""What a genuine webhook of a provider says of how a credential stands; of everything else it says, nothing.

Codes are acted on, texts never are: providers call only their codes stable.
https://plaid.com/docs/api/items/#webhooks, https://docs.stripe.com/api/events/types,
https://developer.paypal.com/braintree/docs/guides/webhooks/parse
"""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import TYPE_CHECKING, Any

from vault.core.standing import Event
from vault.core.uses.webhooks import braintree
from vault.model import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
_BRAINTREE = {"oauth_access_revoked": "merchant-id", "partner_merchant_disconnected": "partner-merchant-id"}
"""What revokes, and which element says whom it is about."""
_STRIPE = {
    "account.application.deauthorized": Standing.REVOKED,
    "account.application.authorized": Standing.ACTIVE,
    "financial_connections.account.upcoming_deactivation": Standing.EXPIRING,
    "financial_connections.account.upcoming_account_number_expiry": Standing.EXPIRING,
    "financial_connections.account.expected_deactivation_date_updated": Standing.EXPIRING,
    "financial_connections.authorization.upcoming_deactivation": Standing.EXPIRING,
    "financial_connections.account.deactivated": Standing.UPDATE_REQUIRED,
    "financial_connections.account.reactivated": Standing.ACTIVE,
    "financial_connections.account.disconnected": Standing.REVOKED,
}


def read(scheme: str, headers: Mapping[str, str], body: bytes, now: datetime.datetime) -> Event | None:
    """What a verified webhook says; None if it says nothing of how a credential stands. `headers` in lower case."""
    reader = _READERS.get(scheme)
    found = reader(headers, body, now) if reader else None
    return found if found and 0 < len(found.object_id) <= _MAX_ID else None


def _json(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _plaid(headers: Mapping[str, str], body: bytes, now: datetime.datetime) -> Event | None:
    """Plaid gives its events neither an id nor a time, and sends one that was not taken for 24 hours, signed anew.

    So an equal body is the same event, or the same again: nobody can tell. Bad news is believed then, and good news is
    not: an ACTIVE too many would hide a credential that is broken. The very same signature is the same event always.
    """
    event = _json(body)
    if event.get("webhook_type") != "ITEM":
        return None
    code = _text(event.get("webhook_code"))
    standing = _PLAID.get(code)
    error = event.get("error")
    if code == "ERROR" and isinstance(error, dict):
        code = _text(error.get("error_code"))
        standing = _PLAID_REASONS.get(_text(error.get("error_code_reason"))) or _PLAID_ERRORS.get(code)
    if standing is None:
        return None
    signed = headers.get("plaid-verification", "").rpartition(".")[0].encode()
    event_id = hashlib.sha256(body if standing is Standing.ACTIVE else signed).hexdigest()
    expires = _time(event.get("consent_expiration_time")) if standing is Standing.EXPIRING else None
    return Event(_text(event.get("item_id")), event_id, now, standing, code, timed=False, expire_time=expires)


def _time(value: object) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(_text(value))
        return found.astimezone(datetime.UTC) if found.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _braintree(_headers: Mapping[str, str], body: bytes, _now: datetime.datetime) -> Event | None:
    """Braintree gives no id; its events hold the second they were made in, so equal ones are the same."""
    notice = braintree.notice(body)
    if notice is None or notice.kind not in _BRAINTREE:
        return None
    event_id = hashlib.sha256(notice.payload).hexdigest()
    time = datetime.datetime.fromtimestamp(notice.time, datetime.UTC)
    object_id = notice.text(_BRAINTREE[notice.kind])
    return Event(object_id, event_id, time, Standing.REVOKED, notice.kind)


def _stripe(_headers: Mapping[str, str], body: bytes, _now: datetime.datetime) -> Event | None:
    event = _json(body)
    kind, event_id, created = _text(event.get("type")), event.get("id"), event.get("created")
    standing = _STRIPE.get(kind)
    data = event.get("data")
    subject = data.get("object") if isinstance(data, dict) else None
    of_account = kind.startswith("account.")
    object_id = (
        event.get("account") if of_account else subject.get("id") if isinstance(subject, dict) else None
    )
    if standing is None or not isinstance(event_id, str) or not isinstance(object_id, str):
        return None
    if not isinstance(created, int) or not 0 < created < 2**33:
        return None
    time = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return Event(object_id, event_id, time, standing, kind)


_READERS: dict[str, Callable[[Mapping[str, str], bytes, datetime.datetime], Event | None]] = {
    "plaid": _plaid,
    "stripe": _stripe,
    "braintree": _braintree,
}
