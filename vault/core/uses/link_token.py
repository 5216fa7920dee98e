"""Minting the link token by which a customer mends a credential that its provider no longer accepts.

Plaid's update mode: `/link/token/create` with the item's access token, which its provider wants in the body and which
stays here; the caller gets the link token, which is made to be handed to the customer's device and lives 30 minutes.
What is asked for is fixed but for the fields below. https://plaid.com/docs/link/update-mode/
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from typing import TYPE_CHECKING, NamedTuple

from vault.core import requests
from vault.core.egress.connectors import named
from vault.core.uses import http_call
from vault.core.uses.material import Done
from vault.core.uses.outside import OwnCopy
from vault.errors import Reason, VaultError, invalid_field

if TYPE_CHECKING:
    from vault.core.uses.material import Material, Surroundings

_MAX_CLIENT_NAME = 30
_MAX_COUNTRIES = 32
_LANGUAGE = re.compile(r"[a-z]{2}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_REDIRECT = re.compile(r"https://[!-~]{1,500}")
_OK = 200


@dataclasses.dataclass(frozen=True)
class LinkToken:
    """Ask for a link token. `also` names a second credential of the session that lends fields, such as Plaid's app."""

    connector: str
    client_user_id: str
    client_name: str
    language: str
    country_codes: tuple[str, ...]
    redirect_uri: str = ""
    also: str = ""

    def intent(self) -> dict[str, object]:
        """What the log says before anything is sent."""
        return {"connector": named(self.connector)}


class Minted(NamedTuple):
    """A link token, and when it ends, if the provider said so."""

    link_token: str
    expire_time: datetime.datetime | None


async def run(material: Material, request: LinkToken, surroundings: Surroundings) -> Done:
    """Mint a link token for the credential."""
    body = _body(request)
    known = surroundings.outside().connectors
    connector = known.get(request.connector, material.kind)
    if material.companion is not None:
        known.get(request.connector, material.companion.kind)
    if connector.link_token is None:
        raise VaultError(Reason.CONNECTOR_NOT_FOUND, "the connector does not say how to mint a link token")
    route = connector.link_token.route
    call = http_call.HttpCall(request.connector, "POST", connector.link_token.path, body=body)
    # A copy: the session may end, and its buffers be wiped, while this waits.
    with OwnCopy(material) as own:
        answer = await http_call.make(own, connector, route, call, surroundings)
    names = tuple(connector.inject[name].field for name in route.inject)
    return Done(_minted(answer), names, {"status": answer.status})


def _body(request: LinkToken) -> bytes:
    requests.printable("client_user_id", request.client_user_id, required=True)
    if not 0 < len(request.client_name) <= _MAX_CLIENT_NAME or not request.client_name.isprintable():
        raise invalid_field("client_name", f"1 to {_MAX_CLIENT_NAME} printable characters")
    if not _LANGUAGE.fullmatch(request.language):
        raise invalid_field("language", "two small letters (ISO 639-1)")
    countries = request.country_codes
    if not 0 < len(countries) <= _MAX_COUNTRIES or not all(map(_COUNTRY.fullmatch, countries)):
        raise invalid_field("country_codes", f"1 to {_MAX_COUNTRIES}, each two capital letters (ISO 3166-1)")
    if request.redirect_uri and not _REDIRECT.fullmatch(request.redirect_uri):
        raise invalid_field("redirect_uri", "an https URI of at most 508 characters")
    document: dict[str, object] = {
        "user": {"client_user_id": request.client_user_id},
        "client_name": request.client_name,
        "language": request.language,
        "country_codes": list(countries),
    }
    if request.redirect_uri:
        document["redirect_uri"] = request.redirect_uri
    return json.dumps(document).encode()


def _minted(answer: http_call.HttpAnswer) -> Minted:
    failed = VaultError(
        Reason.UPSTREAM_FAILED, "the provider did not mint a link token", status=str(answer.status)
    )
    if answer.status != _OK:
        raise failed
    try:
        document = json.loads(answer.body)
        token, expiration = document["link_token"], document.get("expiration")
        ends = datetime.datetime.fromisoformat(expiration) if expiration else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise failed from None
    if not isinstance(token, str) or not token:
        raise failed
    return Minted(token, ends)
