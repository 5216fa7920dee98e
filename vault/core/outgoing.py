"""Outgoing webhooks: a tenant's endpoints are told what happened, signed, in order, until they answer.

The audit log is the outbox: an event is there in the very transaction that made it happen, and an endpoint's place in
the log is all there is to remember. One worker at a time serves an endpoint, by a lease; an event is sent until the
endpoint takes it, always under the id of its record.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import logging
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import urlsplit

from vault.core import audit, requests
from vault.core.uses.webhooks import standard
from vault.crypto import bundle
from vault.errors import Reason, VaultError, invalid_field
from vault.model import EndpointState, WebhookEndpoint
from vault.store import audit as log_store
from vault.store import sinks as places
from vault.store import webhook_endpoints as store
from vault.store.ledger import Commit, Count, Unit, read_head
from vault.store.reach import ALL_TENANTS
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.credentials import Credentials
    from vault.core.envelopes import Envelopes
    from vault.model import AuditRecord, Caller
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.outgoing")

MANAGE = "webhook.manage"
KIND = "webhook_endpoint"
MAX_ENDPOINTS = 20
EVENTS = {
    "credential.put": "credential.put",
    "credential.delete": "credential.deleted",
    "credential.undelete": "credential.undeleted",
    "credential.destroy_version": "credential.version_destroyed",
    "credential.set_standing": "credential.standing_changed",
    "handover.unwrap": "handover.opened",
    "handover.expire": "handover.expired",
    "session.close": "session.closed",
    "threat.find": "threat.found",
}
"""What an endpoint can be told of: the log's action, and the type of the event."""

_FIELDS = ("signing_secret", "previous_signing_secret")
_SHOWN = ("version", "standing", "note", "handover_id", "reason", "reveals", "uses", "rule")
_MAX_URL = 512
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_POLL_SECONDS = 1.0
_TIDY_SECONDS = 10.0
_LEASE = datetime.timedelta(seconds=15)
_PAGE = 100
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 900.0


class Post(Protocol):
    """The way out: make an HTTPS POST to a public address and give the answer's status."""

    async def __call__(self, host: str, port: int, path: str, headers: dict[str, str], body: bytes) -> int:
        """Raises `VaultError` if there was no answer."""


class Condition(NamedTuple):
    """How an endpoint does: what went wrong with the last attempt, and since when."""

    error: str
    failing_since: datetime.datetime | None


class Outgoing:
    """A tenant's endpoints, and the deliveries to them."""

    def __init__(
        self,
        database: Database,
        log_: AuditLog,
        credentials: Credentials,
        envelopes: Envelopes,
        post: Post,
        clock: Clock,
    ) -> None:
        self._database = database
        self._log = log_
        self._credentials = credentials
        self._envelopes = envelopes
        self._post = post
        self._clock = clock
        self._holder = secrets.token_hex(8)
        self._served: dict[str, asyncio.Task[None]] = {}
        self._tidied = float("-inf")

    async def create(
        self, caller: Caller, url: str, events: tuple[str, ...], credential: str, request_id: str
    ) -> WebhookEndpoint:
        """Add an endpoint. For the errors see `WebhookService.CreateEndpoint`."""
        tenant = _tenant(caller)
        _check(url, events)
        requests.credential_name(credential, "credential")
        requests.require(caller, "credential.read", credential)
        (signer,) = await self._credentials.stored([(credential, 0)])
        if signer.kind != KIND:
            raise VaultError(Reason.SECRET_UNSUITABLE, f"the credential must be of the kind {KIND}")
        repeat = requests.repeat(caller, MANAGE, request_id, url, canonical_json(events), credential)
        new = WebhookEndpoint(
            tenant=tenant,
            endpoint_id=requests.new_id(),
            url=url,
            events=tuple(sorted(events)),
            credential=credential,
            state=EndpointState.ACTIVE,
            create_time=self._clock.now(),
            created_by=caller.identity,
        )
        alive = Count("webhook_endpoints", tenant, EndpointState.DELETED)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            record = audit.granted(caller, store.CREATE, f"{tenant}/webhooks", after=_state(new))
            earlier = repeat.earlier(rows)
            if earlier is not None:
                return Commit((audit.repeated(record),), (), dataclasses.replace(new, endpoint_id=earlier))
            if rows.count(alive) >= MAX_ENDPOINTS:
                raise VaultError(
                    Reason.LIMIT_REACHED, "the tenant has as many as it may", limit="webhook_endpoints"
                )
            # The moment of its record, by which that is found again.
            made = dataclasses.replace(new, create_time=now)
            writes = (
                Write("webhook_endpoints", store.endpoint_row(made)),
                *repeat.remember(made.endpoint_id, now),
            )
            return Commit((record,), writes, made)

        key = RowKey("webhook_endpoints", (tenant, new.endpoint_id))
        result: WebhookEndpoint = await self._log.commit(Unit((key, *repeat.reads), decide, counts=(alive,)))
        return result

    async def list_endpoints(self, caller: Caller) -> list[tuple[WebhookEndpoint, Condition]]:
        """The tenant's endpoints, and how each does."""
        tenant = _tenant(caller)
        async with self._database.read() as connection:
            found = await store.active(connection, tenant)
            states = {state.name: state for state in await places.states(connection)}
        await self._log.record(audit.granted(caller, "webhook.list", f"{tenant}/webhooks"))
        conditions = [states.get(store.place_of(endpoint.endpoint_id)) for endpoint in found]
        return [
            (endpoint, Condition(state.error, state.failing_since) if state else Condition("", None))
            for endpoint, state in zip(found, conditions, strict=True)
        ]

    async def delete(self, caller: Caller, endpoint_id: str) -> None:
        """Remove an endpoint. Raises `ENDPOINT_NOT_FOUND`."""
        tenant = _tenant(caller)
        requests.endpoint_id(endpoint_id)
        await self._log.commit(removal(caller, tenant, endpoint_id))

    async def run(self) -> None:
        """Serve every endpoint until cancelled."""
        try:
            while True:
                try:
                    endpoints = await self._endpoints()
                except VaultError:
                    endpoints = []
                for endpoint in endpoints:
                    serving = self._served.get(endpoint.endpoint_id)
                    if serving is None or serving.done():
                        self._served[endpoint.endpoint_id] = asyncio.create_task(self._serve(endpoint))
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            for serving in self._served.values():
                serving.cancel()
            await asyncio.gather(*self._served.values(), return_exceptions=True)

    async def _endpoints(self) -> list[WebhookEndpoint]:
        """Every endpoint that is to be told of events, once each of them, and no other, has its place in the log.

        A place is made and removed after its endpoint, by whichever worker looks first, so none is left over or missing
        whenever a worker is killed.
        """
        if self._clock.monotonic() - self._tidied > _TIDY_SECONDS:
            self._tidied = self._clock.monotonic()
            async with self._database.write(ALL_TENANTS) as connection:
                await store.forget_places(connection)
        async with self._database.read(ALL_TENANTS) as connection:
            begins = {
                endpoint.endpoint_id: await store.sequence_of(connection, endpoint)
                for endpoint in await store.without_place(connection)
            }
            endpoints = await store.active(connection)
        for endpoint_id, begin in begins.items():
            await places.enrol(self._database, store.place_of(endpoint_id), begin)
        return endpoints

    async def _serve(self, endpoint: WebhookEndpoint) -> None:
        """Tell an endpoint all that it was not told yet; if it fails, pause and leave it to the next round."""
        place = store.place_of(endpoint.endpoint_id)
        now = self._clock.now()
        try:
            claimed = await places.claim(self._database, place, self._holder, now, now + _LEASE)
            if claimed is None:
                return
            position, _ = claimed
            pause = _FIRST_PAUSE
            while True:
                records, behind = await self._next(endpoint, position)
                for record in records:
                    while problem := await self._deliver(endpoint, record):
                        await self._failed(endpoint, problem)
                        if not await self._pause(endpoint, pause):
                            return
                        pause = min(pause * 2, _LONGEST_PAUSE)
                    pause = _FIRST_PAUSE
                    if not await self._advance(place, record.sequence + 1):
                        return
                if behind > position and not await self._advance(place, behind):
                    return
                position = behind
                if not records:
                    return
        except VaultError as error:
            log.warning("cannot serve an endpoint", extra={"reason": error.reason.value})

    async def _pause(self, endpoint: WebhookEndpoint, seconds: float) -> bool:
        """Wait, and keep the lease meanwhile. Whether the endpoint is still there and ours to serve."""
        place = store.place_of(endpoint.endpoint_id)
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            await asyncio.sleep(min(left, _LEASE.total_seconds() / 3))
            now = self._clock.now()
            if await places.claim(self._database, place, self._holder, now, now + _LEASE) is None:
                return False
        async with self._database.read() as connection:
            known = await store.active(connection, endpoint.tenant)
        return any(other.endpoint_id == endpoint.endpoint_id for other in known)

    async def _next(self, endpoint: WebhookEndpoint, position: int) -> tuple[list[AuditRecord], int]:
        actions = [action for action, event in EVENTS.items() if event in endpoint.events]
        async with self._database.read() as connection:
            size = (await read_head(connection)).size
            records = await log_store.granted_of_tenant(
                connection, endpoint.tenant, position, size, actions, limit=_PAGE
            )
        full = len(records) == _PAGE
        return [r for r in records if not _is_repeat(r)], records[-1].sequence + 1 if full else max(
            position, size
        )

    async def _advance(self, place: str, position: int) -> bool:
        until = self._clock.now() + _LEASE
        return await places.advance(self._database, place, self._holder, position, until)

    async def _failed(self, endpoint: WebhookEndpoint, problem: str) -> None:
        place, now = store.place_of(endpoint.endpoint_id), self._clock.now()
        if await places.fail(self._database, place, self._holder, problem, now):
            record = audit.by_vault(endpoint.tenant, "webhook.fail", f"{endpoint.tenant}/webhooks")
            after = canonical_json({"endpoint_id": endpoint.endpoint_id, "error": problem})
            await self._log.record(record._replace(after_state=after))

    async def _deliver(self, endpoint: WebhookEndpoint, record: AuditRecord) -> str:
        """Send an event. What went wrong; empty if the endpoint took it."""
        body = _body(record)
        time = str(int(self._clock.now().timestamp()))
        try:
            signature = await self._sign(endpoint, f"{record.record_id}.{time}.".encode() + body)
            headers = {
                "content-type": "application/json",
                "webhook-id": record.record_id,
                "webhook-timestamp": time,
                "webhook-signature": signature,
            }
            parts = urlsplit(endpoint.url)
            status = await self._post(
                parts.hostname or "", parts.port or 443, parts.path or "/", headers, body
            )
        except VaultError as error:
            return error.reason.value
        return "" if 200 <= status < 300 else f"HTTP {status}"  # noqa: PLR2004 - RFC 9110, 15.3

    async def _sign(self, endpoint: WebhookEndpoint, payload: bytes) -> str:
        """The signatures by each secret that the credential holds: two while one is being rolled."""
        stored = await self._credentials.stored([(endpoint.credential, 0)])
        (opened,) = await self._envelopes.open_all(stored)
        with opened:
            names = [name for name in _FIELDS if name in bundle.field_names(opened.view)]
            macs = [standard.sign(bundle.field_view(opened.view, name), payload) for name in names]
        return " ".join(f"v1,{mac.decode()}" for mac in macs)


def removal(caller: Caller, tenant: str, endpoint_id: str) -> Unit:
    """The unit that removes an endpoint. Raises `ENDPOINT_NOT_FOUND`."""
    key = RowKey("webhook_endpoints", (tenant, endpoint_id))

    def decide(rows: Rows, _now: datetime.datetime) -> Commit:
        row = rows.get("webhook_endpoints", tenant, endpoint_id)
        if row is None:
            raise VaultError(Reason.ENDPOINT_NOT_FOUND, "no such endpoint")
        before = store.endpoint_from(row)
        after = dataclasses.replace(before, state=EndpointState.DELETED)
        record = audit.granted(
            caller, "webhook.delete", f"{tenant}/webhooks", before=_state(before), after=_state(after)
        )
        return Commit(
            (record._replace(tenant=tenant),), (Write("webhook_endpoints", store.endpoint_row(after)),)
        )

    return Unit((key,), decide)


def _tenant(caller: Caller) -> str:
    tenant = requests.token_of(caller).tenant
    requests.require(caller, MANAGE, f"{tenant}/webhooks")
    return tenant


def _check(url: str, events: tuple[str, ...]) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError:
        raise invalid_field("url", "is not a URL") from None
    plain = f"https://{parts.hostname}" + (f":{port}" if parts.port else "") + parts.path
    if len(url) > _MAX_URL or url != plain or not _HOST.fullmatch(parts.hostname or ""):
        raise invalid_field("url", f"must be https://host[:port]/path, at most {_MAX_URL} characters")
    if not _PATH.fullmatch(parts.path) or not 0 < port < 65536:  # noqa: PLR2004 - a port's numbers
        raise invalid_field("url", "its path or port is malformed")
    if not events or len(set(events)) != len(events) or not set(events) <= set(EVENTS.values()):
        raise invalid_field("events", f"some of {', '.join(EVENTS.values())}, each once")


def _body(record: AuditRecord) -> bytes:
    """What the endpoint is told: names and numbers, never a secret."""
    after: Mapping[str, object] = json.loads(record.after_state or "{}")
    data = {"name": record.resource, "by": record.identity, "sequence": record.sequence}
    shown = {key: after[key] for key in _SHOWN if key in after}
    event = {
        "type": EVENTS[record.action],
        "timestamp": record.created_at.isoformat(),
        "data": {**data, **shown},
    }
    return canonical_json(event).encode()


def _is_repeat(record: AuditRecord) -> bool:
    return bool(json.loads(record.after_state or "{}").get("repeated"))


def _state(endpoint: WebhookEndpoint) -> str:
    return canonical_json(
        {
            "endpoint_id": endpoint.endpoint_id,
            "url": endpoint.url,
            "events": list(endpoint.events),
            "credential": endpoint.credential,
            "state": endpoint.state.value,
        }
    )
