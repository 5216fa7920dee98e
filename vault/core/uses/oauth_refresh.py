"""Refreshing an OAuth grant (RFC 6749, 6): once, whoever asks, on whichever worker; and nothing of it shown.

A lease in the database, taken under the ledger's lock, lets one worker refresh a version of a grant; the others wait
for the next version. The provider's answer is stored, by compare-and-set on the version that was refreshed, before
anybody is answered, in a task that the end of a session does not stop. `invalid_grant` moves the standing to
UPDATE_REQUIRED; anything else that goes wrong changes nothing.

What cannot be promised: if this process is killed between the provider's answer and the commit, a refresh token that
the provider has just rotated is lost with it. The stored one is then tried again, which FAPI 2.0 has servers accept.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import secrets
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from vault.core import audit
from vault.core.egress.calls import Capture, Injection, Request
from vault.core.egress.connectors import named
from vault.core.new_versions import Beside
from vault.core.uses import sign
from vault.core.uses.http_call import update_required
from vault.core.uses.material import Done
from vault.core.uses.outside import OwnCopy
from vault.crypto import bundle, kinds
from vault.errors import Reason, VaultError, invalid_field
from vault.model import Standing
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from vault.core.egress.calls import Answer
    from vault.core.egress.connectors import Connector, Oauth
    from vault.core.uses.material import Material, Surroundings, Told
    from vault.model import Credential
    from vault.store.ledger import Rows
    from vault.store.rows import Row

ACTION = "session.use.oauth_refresh"
_KIND, _CLIENT_KIND = "oauth_grant", "oauth_client"
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LOOK_SECONDS = 0.1
_LEAST_GRACE = datetime.timedelta(seconds=15)
_MAX_EXPIRES_IN = 10 * 366 * 86_400
_MAX_DIGITS = len(str(_MAX_EXPIRES_IN))
_CAPTURED = ("access_token", "refresh_token", "expires_in", "token_type", "scope")


@dataclasses.dataclass(frozen=True)
class OauthRefresh:
    """Ask that the grant be refreshed, unless that has been done since the session opened it."""

    connector: str
    also: str = ""

    def intent(self) -> dict[str, object]:
        """What the log says before anything is sent."""
        return {"connector": named(self.connector)}


class Refreshed(NamedTuple):
    """The grant's newest version, and whether this call made it."""

    version: int
    refreshed: bool
    expires_at: int


async def run(material: Material, request: OauthRefresh, surroundings: Surroundings) -> Done:
    """Refresh a grant, or wait for whoever does."""
    outside = surroundings.outside()
    if material.companion is None or material.companion.kind != _CLIENT_KIND or material.kind != _KIND:
        raise invalid_field(
            "client_name", f"an {_KIND} is refreshed with the {_CLIENT_KIND} that it was given to"
        )
    connector = outside.connectors.get(request.connector, material.kind)
    if connector.oauth is None:
        raise VaultError(Reason.CONNECTOR_NOT_FOUND, "the connector does not say how to refresh")
    own = OwnCopy(material)
    with own:
        patience = _LEAST_GRACE.total_seconds() + connector.limits.seconds
        until = asyncio.get_running_loop().time() + patience
        while asyncio.get_running_loop().time() < until:
            (newest,) = await outside.credentials.stored([(material.name, 0)])
            if newest.version > material.version:
                return _done(Refreshed(newest.version, refreshed=False, expires_at=0))
            if newest.standing is Standing.UPDATE_REQUIRED:
                raise update_required()
            lease = secrets.token_urlsafe(16)
            if await outside.log.commit(_lease_unit(material, lease, patience)):
                # A copy of its own: the task outlives this one if the session ends.
                copy = OwnCopy(own.material)
                return await outside.finish(_refresh(copy, connector, connector.oauth, lease, surroundings))
            await asyncio.sleep(_LOOK_SECONDS)
    raise VaultError(Reason.REFRESH_UNDER_WAY, "the grant is being refreshed elsewhere and it takes long")


async def _refresh(
    own: OwnCopy, connector: Connector, oauth: Oauth, lease: str, surroundings: Surroundings
) -> Done:
    outside = surroundings.outside()
    with own as material:
        try:
            answer = await outside.calls.make(await _request(material, connector, oauth, surroundings))
            if not answer.captured:
                await _refused(material, answer, surroundings)
            try:
                kept, expires_at = await _keep(material, answer, surroundings)
            finally:
                for buffer in answer.captured:
                    buffer.close()
        except BaseException:
            await outside.log.commit(_release_unit(material, lease))
            raise
    return _done(Refreshed(kept.latest_version, refreshed=True, expires_at=expires_at))


async def _refused(material: Material, answer: Answer, surroundings: Surroundings) -> None:
    """Raise what the provider's refusal means."""
    try:
        document = json.loads(answer.body)
        error = document.get("error") if isinstance(document, dict) else None
    except (ValueError, RecursionError):
        error = None
    if answer.status in (400, 401) and error == "invalid_grant":
        await surroundings.outside().standings.require_update(
            material.caller, material.name, material.version, "the provider says invalid_grant"
        )
        raise update_required()
    raise VaultError(
        Reason.UPSTREAM_FAILED, "the provider did not refresh the grant", status=str(answer.status)
    )


async def _keep(material: Material, answer: Answer, surroundings: Surroundings) -> tuple[Credential, int]:
    got = dict(zip(_CAPTURED, answer.captured, strict=True))
    values = dict(bundle.fields(material.view))
    for name in ("access_token", "refresh_token", "token_type", "scope"):
        given = got[name].view
        if not len(given):
            continue
        # Nothing else that a provider says may cost the grant itself.
        if name == "refresh_token" or kinds.fits(_KIND, name, given):
            values[name] = given
        else:
            values.pop(name, None)
    expires_at = 0
    values.pop("expires_at", None)
    text = bytes(got["expires_in"].view)
    # By its length first: whatever a provider says of the time, the grant that it rotated is kept.
    if len(text) <= _MAX_DIGITS and text.isdigit() and int(text) <= _MAX_EXPIRES_IN:
        expires_at = int(surroundings.now().timestamp()) + int(text)
        values["expires_at"] = memoryview(str(expires_at).encode())
    kept = await surroundings.outside().credentials.keep(
        material.caller,
        material.name,
        material.kind,
        values,
        expected=material.version,
        beside=Beside((_key(material),), (Write("refreshes", _row(material, "", surroundings.now())),)),
    )
    return kept, expires_at


async def _request(
    material: Material, connector: Connector, oauth: Oauth, surroundings: Surroundings
) -> Request:
    client = material.companion
    assert client is not None
    token = Injection(
        "form", "refresh_token", (material.field("refresh_token", kinds.OAUTH_REFRESH),), (True,)
    )
    injections = [token]
    form = {"grant_type": "refresh_token"}
    identifier = client.field("client_id", kinds.OAUTH_REFRESH)
    if oauth.client == "private_key_jwt":
        audience = oauth.audience or f"https://{connector.hosts[0]}{oauth.path}"
        asserted = await sign.client_assertion(
            client, sign.ClientAssertion("private_key", audience), surroundings
        )
        form |= {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": asserted.result.compact}
    else:
        secret = client.field("client_secret", kinds.OAUTH_REFRESH)
        if oauth.client == "basic":
            injections.append(Injection("basic", "", (identifier, secret), (False, True)))
        else:
            injections.append(Injection("form", "client_id", (identifier,), (False,)))
            injections.append(Injection("form", "client_secret", (secret,), (True,)))
    return Request(
        host=connector.hosts[0],
        port=connector.port,
        method="POST",
        path=oauth.path,
        query=(),
        headers={"accept": "application/json", "content-type": "application/x-www-form-urlencoded"},
        body=urlencode(form).encode(),
        injections=tuple(injections),
        captures=tuple(
            Capture(f"/{name}", "strongroom" if name.endswith("_token") else "", name != "access_token")
            for name in _CAPTURED
        ),
        response_bytes=65_536,
        seconds=connector.limits.seconds,
        only_captures=True,
        loopback=connector.development is not None,
        ca_file=connector.development.ca_file if connector.development else None,
    )


def _lease_unit(material: Material, lease: str, patience: float) -> Unit:
    """Take the lease on refreshing this version; whether it was free."""
    credential_key = RowKey("credentials", (material.name,))

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row, credential = rows.get("refreshes", material.name), rows.get("credentials", material.name)
        free = row is None or not row["holder"] or row["expire_time"] <= now
        if not free or credential is None or credential["latest_version"] != material.version:
            return Commit((), (), result=False)
        taken = _row(material, lease, now + datetime.timedelta(seconds=patience))
        record = audit.granted(
            material.caller,
            ACTION,
            material.name,
            after=canonical_json({"lease": "taken", "version": material.version}),
        )
        return Commit((record,), (Write("refreshes", taken),), result=True)

    return Unit((_key(material), credential_key), decide)


def _release_unit(material: Material, lease: str) -> Unit:
    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row = rows.get("refreshes", material.name)
        if row is None or row["holder"] != lease:
            return Commit(())
        record = audit.granted(
            material.caller,
            ACTION,
            material.name,
            after=canonical_json({"lease": "released", "version": material.version}),
        )
        return Commit((record,), (Write("refreshes", _row(material, "", now)),))

    return Unit((_key(material),), decide)


def _key(material: Material) -> RowKey:
    return RowKey("refreshes", (material.name,))


def _row(material: Material, holder: str, expire_time: datetime.datetime) -> Row:
    return {"name": material.name, "holder": holder, "version": material.version, "expire_time": expire_time}


def _done(result: Refreshed) -> Done:
    after: dict[str, Told] = {"refreshed": result.refreshed, "newest": result.version}
    return Done(result, ("refresh_token",), after, renewed=True)
