"""`HandoverService`: from protobuf to `core.handovers` and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core.handovers import Wrap
from vault.server import wire
from vault.v1 import handover_pb2 as pb

if TYPE_CHECKING:
    from vault.core.handovers import Handovers
    from vault.model import Caller


class HandoverService:
    """See `protos/vault/v1/handover.proto`."""

    def __init__(self, handovers: Handovers) -> None:
        self._handovers = handovers

    async def wrap(
        self, request: pb.HandoverServiceWrapRequest, caller: Caller
    ) -> pb.HandoverServiceWrapResponse:
        """See the proto."""
        handover = await self._handovers.wrap(
            caller,
            Wrap(
                name=request.name,
                recipient=request.recipient,
                sealed=request.sealed,
                ingest_key_id=request.ingest_key_id,
                life=wire.span("ttl", request.ttl) if request.HasField("ttl") else None,
                request_id=request.request_id,
            ),
        )
        return pb.HandoverServiceWrapResponse(
            handover_id=handover.handover_id, expire_time=wire.timestamp(handover.expire_time)
        )

    async def unwrap(
        self, request: pb.HandoverServiceUnwrapRequest, caller: Caller
    ) -> pb.HandoverServiceUnwrapResponse:
        """See the proto."""
        unwrapped = await self._handovers.unwrap(
            caller, request.name, request.handover_id, request.recipient_key, request.hpke_suite
        )
        return pb.HandoverServiceUnwrapResponse(
            sealed=unwrapped.sealed,
            field_names=unwrapped.handover.field_names,
            sender=unwrapped.handover.sender,
            create_time=wire.timestamp(unwrapped.handover.create_time),
        )
