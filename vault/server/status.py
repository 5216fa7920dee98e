"""The one table from the vault's reasons to gRPC's codes, and how a refusal looks on the wire (AIP-193)."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from vault.errors import Reason, VaultError

DOMAIN = "strongroom"
_DETAILS = "grpc-status-details-bin"

_C = grpc.StatusCode
CODES: dict[Reason, grpc.StatusCode] = {
    Reason.CERTIFICATE_REJECTED: _C.UNAUTHENTICATED,
    Reason.TOKEN_MISSING: _C.UNAUTHENTICATED,
    Reason.TOKEN_INVALID: _C.UNAUTHENTICATED,
    Reason.TOKEN_EXPIRED: _C.UNAUTHENTICATED,
    Reason.TOKEN_REVOKED: _C.UNAUTHENTICATED,
    Reason.TOKEN_CERTIFICATE_MISMATCH: _C.UNAUTHENTICATED,
    Reason.TOKEN_USED_UP: _C.UNAUTHENTICATED,
    Reason.SCOPE_DENIED: _C.PERMISSION_DENIED,
    Reason.POLICY_DENIED: _C.PERMISSION_DENIED,
    Reason.FIELD_INVALID: _C.INVALID_ARGUMENT,
    Reason.SEALED_PAYLOAD_INVALID: _C.INVALID_ARGUMENT,
    Reason.RECIPIENT_KEY_INVALID: _C.INVALID_ARGUMENT,
    Reason.PAGE_TOKEN_INVALID: _C.INVALID_ARGUMENT,
    Reason.SESSION_PROTOCOL: _C.INVALID_ARGUMENT,
    Reason.CREDENTIAL_NOT_FOUND: _C.NOT_FOUND,
    Reason.VERSION_NOT_FOUND: _C.NOT_FOUND,
    Reason.TENANT_NOT_FOUND: _C.NOT_FOUND,
    Reason.KEY_NOT_FOUND: _C.NOT_FOUND,
    Reason.UNKNOWN_FIELD: _C.NOT_FOUND,
    Reason.HANDOVER_NOT_FOUND: _C.NOT_FOUND,
    Reason.RECORD_NOT_FOUND: _C.NOT_FOUND,
    Reason.CHECKPOINT_NOT_FOUND: _C.NOT_FOUND,
    Reason.JOB_NOT_FOUND: _C.NOT_FOUND,
    Reason.TENANT_EXISTS: _C.ALREADY_EXISTS,
    Reason.APPROVAL_NOT_FOUND: _C.NOT_FOUND,
    Reason.JOB_RUNNING: _C.ALREADY_EXISTS,
    Reason.REQUEST_ID_REUSED: _C.ALREADY_EXISTS,
    Reason.ETAG_MISMATCH: _C.ABORTED,
    Reason.KEY_CHANGED: _C.ABORTED,
    Reason.CREDENTIAL_DELETED: _C.FAILED_PRECONDITION,
    Reason.CREDENTIAL_NOT_DELETED: _C.FAILED_PRECONDITION,
    Reason.VERSION_DESTROYED: _C.FAILED_PRECONDITION,
    Reason.HANDOVER_OPENED: _C.FAILED_PRECONDITION,
    Reason.HANDOVER_EXPIRED: _C.FAILED_PRECONDITION,
    Reason.INGEST_KEY_UNKNOWN: _C.FAILED_PRECONDITION,
    Reason.SECRET_UNSUITABLE: _C.FAILED_PRECONDITION,
    Reason.APPROVAL_REQUIRED: _C.FAILED_PRECONDITION,
    Reason.APPROVAL_MISMATCH: _C.FAILED_PRECONDITION,
    Reason.APPROVAL_ENDED: _C.FAILED_PRECONDITION,
    Reason.APPROVER_UNSUITABLE: _C.FAILED_PRECONDITION,
    Reason.SIGNATURE_INVALID: _C.INVALID_ARGUMENT,
    Reason.JOB_ENDED: _C.FAILED_PRECONDITION,
    Reason.KEY_IN_USE: _C.FAILED_PRECONDITION,
    Reason.KEY_QUARANTINED: _C.FAILED_PRECONDITION,
    Reason.KEY_STATE_UNSUITABLE: _C.FAILED_PRECONDITION,
    Reason.SESSION_ENDED: _C.FAILED_PRECONDITION,
    Reason.LIMIT_REACHED: _C.RESOURCE_EXHAUSTED,
    Reason.DEADLINE_EXCEEDED: _C.DEADLINE_EXCEEDED,
    Reason.STORED_DATA_DAMAGED: _C.DATA_LOSS,
    Reason.HSM_UNAVAILABLE: _C.UNAVAILABLE,
    Reason.STORAGE_UNAVAILABLE: _C.UNAVAILABLE,
    Reason.AUDIT_UNAVAILABLE: _C.UNAVAILABLE,
    Reason.REVOCATIONS_UNKNOWN: _C.UNAVAILABLE,
    Reason.SHUTTING_DOWN: _C.UNAVAILABLE,
    Reason.OVERLOADED: _C.UNAVAILABLE,
    Reason.KIND_MISMATCH: _C.INVALID_ARGUMENT,
    Reason.STORING_FORBIDDEN: _C.INVALID_ARGUMENT,
    Reason.CONNECTOR_NOT_FOUND: _C.NOT_FOUND,
    Reason.DESTINATION_DENIED: _C.PERMISSION_DENIED,
    Reason.UPSTREAM_UNREACHABLE: _C.UNAVAILABLE,
    Reason.UPSTREAM_FAILED: _C.UNKNOWN,
    Reason.RESPONSE_WITHHELD: _C.DATA_LOSS,
    Reason.CREDENTIAL_UPDATE_REQUIRED: _C.FAILED_PRECONDITION,
    Reason.REFRESH_UNDER_WAY: _C.UNAVAILABLE,
    Reason.INTERNAL: _C.INTERNAL,
}


def code(error: VaultError) -> grpc.StatusCode:
    """The canonical code of an error."""
    return CODES[error.reason]


def trailing_metadata(error: VaultError) -> tuple[tuple[str, bytes], ...]:
    """`google.rpc.Status` with one `ErrorInfo`, as gRPC clients look for it."""
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=error.metadata)
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=code(error).value[0], message=error.message, details=[detail])
    return ((_DETAILS, status.SerializeToString()),)
