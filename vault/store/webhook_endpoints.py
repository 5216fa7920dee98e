"""Look-ups of webhook endpoints. Writes go through `ledger.py`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import select

from vault.model import EndpointState, WebhookEndpoint
from vault.store.rows import canonical_json
from vault.store.tables import webhook_endpoints

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
