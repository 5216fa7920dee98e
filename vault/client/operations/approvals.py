"""What others must sign for."""

from __future__ import annotations

import secrets as random
from typing import TYPE_CHECKING

from vault.client.operations.access import collect
from vault.client.sealing import SealingError
from vault.crypto import approvals
from vault.v1 import approval_pb2

if TYPE_CHECKING:
    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps

_POLICY = "policy.write"


def request_approval(
    access: Access, operation: approvals.Operation, purpose: str, document: str = ""
) -> Steps[approval_pb2.Approval]:
    """Ask for an approval of an operation."""
    response = yield from access.authorised(
        "/vault.v1.ApprovalService/Request",
        approval_pb2.ApprovalServiceRequestRequest(
            operation=approval_pb2.Operation(
                action=operation.action, resource=operation.resource, arguments=operation.arguments
            ),
            purpose=purpose,
            request_id=random.token_urlsafe(16),
            document=document,
        ),
        approval_pb2.ApprovalServiceRequestResponse,
    )
    return response.approval


def approve(access: Access, approval: approval_pb2.Approval) -> Steps[approval_pb2.Approval]:
    """Sign for exactly what `approval` shows, with the private key of the profile's certificate."""
    verified_document(approval)
    message = approvals.statement(
        approval.approval_id,
        _operation(approval),
        approval.requested_by,
        approval.expire_time.ToMicroseconds(),
    )
    response = yield from access.authorised(
        "/vault.v1.ApprovalService/Approve",
        approval_pb2.ApprovalServiceApproveRequest(
            approval_id=approval.approval_id,
            signature=approvals.sign(access.profile.private_key(), message),
        ),
        approval_pb2.ApprovalServiceApproveResponse,
    )
    return response.approval


def verified_document(approval: approval_pb2.Approval) -> str:
    """The policy that an approval is of; empty if it is of something else.

    Raises `SealingError` if it is not there (as in a list), or not the one that is signed for.
    """
    operation = _operation(approval)
    if operation.action != _POLICY and not approval.document:
        return ""
    if not approvals.is_document_of(operation, approval.document):
        raise SealingError("the policy that came with the approval is not the one that is to be approved")
    return approval.document


def _operation(approval: approval_pb2.Approval) -> approvals.Operation:
    shown = approval.operation
    return approvals.Operation(shown.action, shown.resource, dict(shown.arguments))


def get_approval(access: Access, approval_id: str) -> Steps[approval_pb2.Approval]:
    """One approval."""
    response = yield from access.authorised(
        "/vault.v1.ApprovalService/Get",
        approval_pb2.ApprovalServiceGetRequest(approval_id=approval_id),
        approval_pb2.ApprovalServiceGetResponse,
    )
    return response.approval


def list_approvals(access: Access, *, only_open: bool) -> Steps[list[approval_pb2.Approval]]:
    """The approvals that the caller may see, newest first."""
    request = approval_pb2.ApprovalServiceListRequest(only_open=only_open)
    return collect(
        access,
        "/vault.v1.ApprovalService/List",
        request,
        approval_pb2.ApprovalServiceListResponse,
        "approvals",
    )


def cancel_approval(access: Access, approval_id: str) -> Steps[approval_pb2.Approval]:
    """Take an approval back."""
    response = yield from access.authorised(
        "/vault.v1.ApprovalService/Cancel",
        approval_pb2.ApprovalServiceCancelRequest(approval_id=approval_id),
        approval_pb2.ApprovalServiceCancelResponse,
    )
    return response.approval
