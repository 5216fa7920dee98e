"""The public keys of Plaid's webhooks, fetched from Plaid by the id that a webhook names.

Whoever can reach a caller's webhook endpoint can name any id, so what that may cost is bounded: a key is fetched once
for all who ask at the same time, an id that Plaid does not know is remembered for a minute, and a credential may have
so many fetches a minute made on a worker. A key is asked for again after an hour, since Plaid says only then that it is
no longer in use.

What one credential was told is never another's: so nobody decides by a credential of their own what others see.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.core import audit
from vault.core.uses import http_call
from vault.core.uses.outside import OwnCopy
from vault.errors import Reason, VaultError
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from vault.core.uses.material import Material, Surroundings

ACTION = "session.use.verify_webhook"
PATH = "/webhook_verification_key/get"
KEPT_SECONDS = 3600.0
UNKNOWN_KEPT_SECONDS = 60.0
FETCHES_A_MINUTE = 20
_MOST = 1024
_MINUTE = 60.0
_OK = 200
_UNKNOWN = "INVALID_WEBHOOK_VERIFICATION_KEY_ID"

Jwk = dict[str, Any]


class _Id(NamedTuple):
    credential: str
    connector: str
    kid: str


class _Known(NamedTuple):
    jwk: Jwk | None
    until: float


class WebhookKeys:
    """Fetches keys and remembers them, a bounded number."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Id, _Known] = OrderedDict()
        self._fetching: dict[_Id, asyncio.Task[Jwk | None]] = {}
        self._fetched: OrderedDict[str, deque[float]] = OrderedDict()

    async def get(
        self, material: Material, connector: str, kid: str, surroundings: Surroundings
    ) -> Jwk | None:
        """The key of this id; None if Plaid has none. Raises `LIMIT_REACHED`, `UPSTREAM_*`, `DESTINATION_DENIED`."""
        wanted = _Id(material.name, connector, kid)
        now = surroundings.now().timestamp()
        known = self._known.get(wanted)
        if known is not None and now < known.until:
            return known.jwk
        fetching = self._fetching.get(wanted)
        if fetching is None:
            self._spend(material.name, now)
            # Copied before anything is waited for: the session may end, and others still wait for the key.
            work = self._fetch(wanted, OwnCopy(material), surroundings)
            self._fetching[wanted] = fetching = surroundings.outside().begin(work)
            fetching.add_done_callback(lambda _done: self._fetching.pop(wanted, None))
        return await asyncio.shield(fetching)

    async def _fetch(self, wanted: _Id, own: OwnCopy, surroundings: Surroundings) -> Jwk | None:
        outside = surroundings.outside()
        with own as material:
            connector = outside.connectors.get(wanted.connector, material.kind)
            route = connector.route("POST", PATH)
            body = json.dumps({"key_id": wanted.kid}).encode()
            call = http_call.HttpCall(wanted.connector, "POST", PATH, body=body)
            intent = canonical_json({"intent": call.intent()})
            # The log knows of it before the provider does.
            await outside.log.record(audit.granted(material.caller, ACTION, wanted.credential, after=intent))
            jwk = _key(await http_call.make(material, connector, route, call, surroundings), wanted.kid)
        kept = UNKNOWN_KEPT_SECONDS if jwk is None else KEPT_SECONDS
        self._known[wanted] = _Known(jwk, surroundings.now().timestamp() + kept)
        self._known.move_to_end(wanted)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return jwk

    def _spend(self, credential: str, now: float) -> None:
        fetched = self._fetched.setdefault(credential, deque(maxlen=FETCHES_A_MINUTE))
        self._fetched.move_to_end(credential)
        if len(self._fetched) > _MOST:
            self._fetched.popitem(last=False)
        if len(fetched) == FETCHES_A_MINUTE and now - fetched[0] < _MINUTE:
            raise VaultError(
                Reason.LIMIT_REACHED, "too many webhooks name keys that are not at hand", limit="webhook_keys"
            )
        fetched.append(now)


def _key(answer: http_call.HttpAnswer, kid: str) -> Jwk | None:
    try:
        document = json.loads(answer.body)
        if answer.status == _OK and document["key"]["kid"] == kid:
            jwk: Jwk = document["key"]
            return jwk
        if answer.status != _OK and document["error_code"] == _UNKNOWN:
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise VaultError(Reason.UPSTREAM_FAILED, "the provider gave no key", status=str(answer.status))
