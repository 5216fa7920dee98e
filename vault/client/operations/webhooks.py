"""Endpoints that are told of events."""

from __future__ import annotations

import secrets as random
from typing import TYPE_CHECKING

from vault.v1 import webhook_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps


def create_webhook_endpoint(
    access: Access, url: str, events: Sequence[str], credential: str
) -> Steps[webhook_pb2.WebhookEndpoint]:
    """Add an endpoint."""
    response = yield from access.authorised(
        "/vault.v1.WebhookService/CreateEndpoint",
        webhook_pb2.WebhookServiceCreateEndpointRequest(
            url=url, events=events, credential=credential, request_id=random.token_urlsafe(16)
        ),
        webhook_pb2.WebhookServiceCreateEndpointResponse,
    )
    return response.endpoint


def list_webhook_endpoints(access: Access) -> Steps[list[webhook_pb2.WebhookEndpoint]]:
    """The tenant's endpoints."""
    response = yield from access.authorised(
        "/vault.v1.WebhookService/ListEndpoints",
        webhook_pb2.WebhookServiceListEndpointsRequest(),
        webhook_pb2.WebhookServiceListEndpointsResponse,
    )
    return list(response.endpoints)


def delete_webhook_endpoint(access: Access, endpoint_id: str) -> Steps[None]:
    """Remove an endpoint."""
    yield from access.authorised(
        "/vault.v1.WebhookService/DeleteEndpoint",
        webhook_pb2.WebhookServiceDeleteEndpointRequest(endpoint_id=endpoint_id),
        webhook_pb2.WebhookServiceDeleteEndpointResponse,
    )
