"""Verifying webhooks with a secret that stays where it is.

The answer is a verdict and never what the right signature would have been. Every secret and every signature is
tried, each compared in constant time.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from vault.core import standing
from vault.core.requests import field_names as checked_field_names
from vault.core.uses.material import Done, message
from vault.core.uses.webhooks import adyen, braintree, events, gocardless, plaid, standard, stripe
from vault.core.uses.webhooks.verdict import Secret, Verdict, Verification
from vault.crypto import kinds
from vault.errors import invalid_field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vault.core.uses.material import Material, Surroundings, Told

MAX_HEADERS = 16
MAX_HEADER = 4096
MAX_SECRETS = 4


class Scheme(enum.StrEnum):
    """How a provider signs its webhooks."""

    STRIPE = "stripe"
    STANDARD_WEBHOOKS = "standard-webhooks"
    PLAID = "plaid"
    BRAINTREE = "braintree"
    ADYEN = "adyen"
    ADYEN_PLATFORM = "adyen-platform"
    GOCARDLESS = "gocardless"


_VERIFIERS: dict[Scheme, Callable[[Sequence[Secret], Mapping[str, str], bytes, float], Verification]] = {
    Scheme.STRIPE: stripe.verify,
    Scheme.STANDARD_WEBHOOKS: standard.verify,
    Scheme.PLAID: plaid.verify,
    Scheme.BRAINTREE: braintree.verify,
    Scheme.ADYEN: adyen.verify,
    Scheme.ADYEN_PLATFORM: adyen.verify_whole,
    Scheme.GOCARDLESS: gocardless.verify,
}


class VerifyWebhook(NamedTuple):
    """Ask for a verdict on a webhook."""

    field_names: tuple[str, ...]
    scheme: Scheme
    headers: Mapping[str, str]
    body: bytes
    apply_to: str = ""
    connector: str = ""
    """Plaid only, instead of secrets: by which its key is fetched, with the credential's client_id and secret."""


class Verified(NamedTuple):
    """The verdict, the field whose secret matched, and whether a credential's standing was set by what was said."""

    verification: Verification
    standing_set: bool = False


async def run(material: Material, request: VerifyWebhook, surroundings: Surroundings) -> Done:
    """Verify a webhook with secrets of a credential, or with a key that its provider gives for it."""
    if request.connector:
        if request.scheme is not Scheme.PLAID or request.field_names:
            raise invalid_field("connector", "goes with Plaid, and without field_names")
    elif not 0 < len(checked_field_names(request.field_names)) <= MAX_SECRETS:
        raise invalid_field("field_names", f"1 to {MAX_SECRETS}")
    headers = request.headers
    if len(headers) > MAX_HEADERS or any(len(value) > MAX_HEADER for value in headers.values()):
        raise invalid_field("headers", f"at most {MAX_HEADERS}, of at most {MAX_HEADER} characters each")
    if len(_lowered(headers)) != len(headers):
        raise invalid_field("headers", "each at most once")
    body = message("body", request.body, least=1)
    if request.apply_to:
        standing.check_apply(material.caller, request.apply_to)
    now = surroundings.now()
    if request.connector:
        result = await _verify_by_fetched_key(material, request, surroundings, now.timestamp())
    else:
        secrets = [
            Secret(name, material.field(name, kinds.VERIFY_WEBHOOK), _public(material, name))
            for name in request.field_names
        ]
        result = verify(request.scheme, secrets, headers, body, now.timestamp())
    applied = False
    if request.apply_to and result.verdict is Verdict.VALID:
        event = events.read(request.scheme.value, _lowered(headers), body, now)
        if event is not None:
            applied = await surroundings.outside().standings.observe(material.caller, request.apply_to, event)
    after: dict[str, Told] = {
        "scheme": request.scheme.value,
        "verdict": result.verdict.value,
        "matched": result.field_name,
        **({"connector": request.connector} if request.connector else {}),
        **({"applied_to": request.apply_to} if applied else {}),
    }
    return Done(Verified(result, applied), request.field_names, after)


async def _verify_by_fetched_key(
    material: Material, request: VerifyWebhook, surroundings: Surroundings, now: float
) -> Verification:
    headers = _lowered(request.headers)
    kid = plaid.key_id(headers)
    jwk = None
    if kid:
        keys = surroundings.outside().webhook_keys
        jwk = await keys.get(material, request.connector, kid, surroundings)
    return plaid.verify_by(jwk, headers, request.body, now)


def verify(
    scheme: Scheme, secrets: Sequence[Secret], headers: Mapping[str, str], body: bytes, now: float
) -> Verification:
    """Verify a webhook with each of the secrets. `now` is seconds since 1970 UTC.

    Raises `SECRET_UNSUITABLE` if a secret cannot be one of this scheme.
    """
    return _VERIFIERS[scheme](secrets, _lowered(headers), body, now)


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _public(material: Material, field_name: str) -> str:
    """The public key's name that stands beside a private key: `public_key` for `private_key`, and so on."""
    return material.public_text(field_name.replace("private", "public")) if "private" in field_name else ""
