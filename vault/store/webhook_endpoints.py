"""Look-ups of webhook endpoints, and their places in the log, which are rows of `sinks.py`.

Endpoints are written through `ledger.py`. Their places follow from them: one for each that is told of events, no other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, literal, select

from vault.model import EndpointState, WebhookEndpoint
from vault.store.rows import canonical_json
from vault.store.tables import audit_records, audit_sinks, webhook_endpoints

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


def endpoint_from(row: Row) -> WebhookEndpoint:
    """An endpoint from its row."""
    return WebhookEndpoint(
        tenant=row["tenant"],
        endpoint_id=row["endpoint_id"],
        url=row["url"],
        events=tuple(json.loads(row["events"])),
        credential=row["credential"],
        state=EndpointState(row["state"]),
        create_time=row["create_time"],
        created_by=row["created_by"],
    )


def endpoint_row(endpoint: WebhookEndpoint) -> Row:
    """An endpoint's row."""
    return {
        "tenant": endpoint.tenant,
        "endpoint_id": endpoint.endpoint_id,
        "url": endpoint.url,
        "events": canonical_json(endpoint.events),
        "credential": endpoint.credential,
        "state": endpoint.state.value,
        "create_time": endpoint.create_time,
        "created_by": endpoint.created_by,
    }


async def active(connection: AsyncConnection, tenant: str = "") -> list[WebhookEndpoint]:
    """The endpoints that are told of events: a tenant's, or all."""
    table = webhook_endpoints
    statement = select(table).where(table.c.state == EndpointState.ACTIVE.value)
    if tenant:
        statement = statement.where(table.c.tenant == tenant)
    rows = (await connection.execute(statement.order_by(table.c.create_time, table.c.endpoint_id))).mappings()
    return [endpoint_from(dict(row)) for row in rows]


CREATE = "webhook.create"
_PLACES = "webhook:"
_IS_ACTIVE = webhook_endpoints.c.state == EndpointState.ACTIVE.value
_IS_ITS_PLACE = audit_sinks.c.name == literal(_PLACES) + webhook_endpoints.c.endpoint_id


def place_of(endpoint_id: str) -> str:
    """What the place of an endpoint is called."""
    return _PLACES + endpoint_id


async def without_place(connection: AsyncConnection) -> list[WebhookEndpoint]:
    """The endpoints that are to be told of events and have no place yet."""
    statement = select(webhook_endpoints).where(_IS_ACTIVE, ~exists().where(_IS_ITS_PLACE))
    return [endpoint_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def sequence_of(connection: AsyncConnection, endpoint: WebhookEndpoint) -> int | None:
    """Where in the log an endpoint was made; None if that is not in the database any more."""
    records = audit_records
    statement = select(records.c.sequence).where(
        records.c.created_at == endpoint.create_time,
        records.c.tenant == endpoint.tenant,
        records.c.action_type == CREATE,
        records.c.after_state.contains(endpoint.endpoint_id, autoescape=True),
    )
    found: int | None = (await connection.execute(statement.limit(1))).scalar()
    return found


async def forget_places(connection: AsyncConnection) -> None:
    """Remove the places of endpoints that were removed. The connection must see every tenant's endpoints."""
    has_endpoint = exists().where(_IS_ITS_PLACE, _IS_ACTIVE)
    await connection.execute(delete(audit_sinks).where(audit_sinks.c.name.startswith(_PLACES), ~has_endpoint))
