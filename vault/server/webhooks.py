"""`vault.v1.WebhookService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.server import wire
from vault.v1 import webhook_pb2 as pb

if TYPE_CHECKING:
    from vault.core.outgoing import Condition, Outgoing
    from vault.model import Caller, WebhookEndpoint


class WebhookService:
    """Says which endpoints are told what happens."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def create_endpoint(
        self, request: pb.WebhookServiceCreateEndpointRequest, caller: Caller
    ) -> pb.WebhookServiceCreateEndpointResponse:
        """See the proto."""
        endpoint = await self._outgoing.create(
            caller, request.url, tuple(request.events), request.credential, request.request_id
        )
        return pb.WebhookServiceCreateEndpointResponse(endpoint=_endpoint(endpoint))

    async def list_endpoints(
        self, _request: pb.WebhookServiceListEndpointsRequest, caller: Caller
    ) -> pb.WebhookServiceListEndpointsResponse:
        """See the proto."""
        found = await self._outgoing.list_endpoints(caller)
        return pb.WebhookServiceListEndpointsResponse(
            endpoints=[_endpoint(endpoint, condition) for endpoint, condition in found]
        )

    async def delete_endpoint(
        self, request: pb.WebhookServiceDeleteEndpointRequest, caller: Caller
    ) -> pb.WebhookServiceDeleteEndpointResponse:
        """See the proto."""
        await self._outgoing.delete(caller, request.endpoint_id)
        return pb.WebhookServiceDeleteEndpointResponse()


def _endpoint(endpoint: WebhookEndpoint, condition: Condition | None = None) -> pb.WebhookEndpoint:
    return pb.WebhookEndpoint(
        endpoint_id=endpoint.endpoint_id,
        tenant=endpoint.tenant,
        url=endpoint.url,
        events=endpoint.events,
        credential=endpoint.credential,
        create_time=wire.timestamp(endpoint.create_time),
        created_by=endpoint.created_by,
        error=condition.error if condition else "",
        failing_since=wire.timestamp(condition.failing_since) if condition else None,
    )
