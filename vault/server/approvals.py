"""`vault.v1.ApprovalService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core import approvals, requests
from vault.crypto.approvals import Operation
from vault.model import ApprovalState
from vault.server import wire
from vault.v1 import approval_pb2 as pb

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.core.approvals import Approvals
    from vault.model import Approval, Caller
    from vault.server.pages import Pages

_STATES = {
    ApprovalState.CONSUMED: pb.APPROVAL_STATE_CONSUMED,
    ApprovalState.CANCELLED: pb.APPROVAL_STATE_CANCELLED,
}


class ApprovalService:
    """Serves approvals."""

    def __init__(self, approvals_: Approvals, pages: Pages, clock: Clock) -> None:
        self._approvals = approvals_
        self._pages = pages
        self._clock = clock

    async def request(
        self, request: pb.ApprovalServiceRequestRequest, caller: Caller
    ) -> pb.ApprovalServiceRequestResponse:
        """See the proto."""
        sent = request.operation
        operation = Operation(sent.action, sent.resource, dict(sent.arguments))
        found = await self._approvals.request(
            caller, operation, request.purpose, request.request_id, request.document
        )
        return pb.ApprovalServiceRequestResponse(approval=self._wire(caller, found))

    async def approve(
        self, request: pb.ApprovalServiceApproveRequest, caller: Caller
    ) -> pb.ApprovalServiceApproveResponse:
        """See the proto."""
        found = await self._approvals.approve(caller, request.approval_id, request.signature)
        return pb.ApprovalServiceApproveResponse(approval=self._wire(caller, found))

    async def get(
        self, request: pb.ApprovalServiceGetRequest, caller: Caller
    ) -> pb.ApprovalServiceGetResponse:
        """See the proto."""
        found = await self._approvals.get(caller, request.approval_id)
        return pb.ApprovalServiceGetResponse(approval=self._wire(caller, found))

    async def list(
        self, request: pb.ApprovalServiceListRequest, caller: Caller
    ) -> pb.ApprovalServiceListResponse:
        """See the proto."""
        size = requests.page_size(request.page_size)
        query = ("approval.list", str(request.only_open))
        before = self._pages.position(caller, query, request.page_token)
        found = await self._approvals.list_approvals(
            caller, only_open=request.only_open, before=before, limit=size + 1
        )
        page = found[:size]
        more = len(found) > size
        return pb.ApprovalServiceListResponse(
            approvals=[self._wire(caller, item) for item in page],
            next_page_token=self._pages.token(caller, query, approvals.position(page[-1])) if more else "",
        )

    async def cancel(
        self, request: pb.ApprovalServiceCancelRequest, caller: Caller
    ) -> pb.ApprovalServiceCancelResponse:
        """See the proto."""
        found = await self._approvals.cancel(caller, request.approval_id)
        return pb.ApprovalServiceCancelResponse(approval=self._wire(caller, found))

    def _wire(self, caller: Caller, value: Approval) -> pb.Approval:
        return pb.Approval(
            approval_id=value.approval_id,
            operation=pb.Operation(
                action=value.operation.action,
                resource=value.operation.resource,
                arguments=value.operation.arguments,
            ),
            requested_by=value.requested_by,
            purpose=value.purpose,
            required=value.required,
            state=self._state(value),
            signatures=[
                pb.ApprovalSignature(
                    identity=item.identity,
                    certificate=item.certificate,
                    signature=item.signature,
                    create_time=wire.timestamp(item.create_time),
                )
                for item in self._approvals.shown(caller, value).signatures
            ],
            create_time=wire.timestamp(value.create_time),
            expire_time=wire.timestamp(value.expire_time),
            document=value.document,
        )

    def _state(self, value: Approval) -> pb.ApprovalState:
        if value.state is not ApprovalState.OPEN:
            return _STATES[value.state]
        if self._clock.now() >= value.expire_time:
            return pb.APPROVAL_STATE_EXPIRED
        if self._approvals.is_approved(value):
            return pb.APPROVAL_STATE_APPROVED
        return pb.APPROVAL_STATE_PENDING
