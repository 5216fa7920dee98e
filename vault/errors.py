"""The vault's one error, and the reasons it can have.

A reason is stable and public: clients branch on it, `protos/vault/v1/errors.proto` documents it and
`vault/server/status.py` gives it its gRPC code. The message is for people. Neither ever holds a secret
or repeats what the caller sent.
"""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """Why a call was refused. Documented, one by one, in `protos/vault/v1/errors.proto`."""

    CERTIFICATE_REJECTED = "CERTIFICATE_REJECTED"
    TOKEN_MISSING = "TOKEN_MISSING"  # noqa: S105 - a reason, not a token
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105
    TOKEN_REVOKED = "TOKEN_REVOKED"  # noqa: S105
    TOKEN_CERTIFICATE_MISMATCH = "TOKEN_CERTIFICATE_MISMATCH"  # noqa: S105
    TOKEN_USED_UP = "TOKEN_USED_UP"  # noqa: S105
    SCOPE_DENIED = "SCOPE_DENIED"
    POLICY_DENIED = "POLICY_DENIED"
    METHOD_UNKNOWN = "METHOD_UNKNOWN"
    FIELD_INVALID = "FIELD_INVALID"
    SEALED_PAYLOAD_INVALID = "SEALED_PAYLOAD_INVALID"
    RECIPIENT_KEY_INVALID = "RECIPIENT_KEY_INVALID"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"  # noqa: S105
    CURSOR_TOO_OLD = "CURSOR_TOO_OLD"
    SESSION_PROTOCOL = "SESSION_PROTOCOL"
    CREDENTIAL_NOT_FOUND = "CREDENTIAL_NOT_FOUND"
    VERSION_NOT_FOUND = "VERSION_NOT_FOUND"
    TENANT_NOT_FOUND = "TENANT_NOT_FOUND"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    SUBJECT_NOT_FOUND = "SUBJECT_NOT_FOUND"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    ENDPOINT_NOT_FOUND = "ENDPOINT_NOT_FOUND"
    HANDOVER_NOT_FOUND = "HANDOVER_NOT_FOUND"
    RECORD_NOT_FOUND = "RECORD_NOT_FOUND"
    CHECKPOINT_NOT_FOUND = "CHECKPOINT_NOT_FOUND"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    TENANT_EXISTS = "TENANT_EXISTS"
    APPROVAL_NOT_FOUND = "APPROVAL_NOT_FOUND"
    JOB_RUNNING = "JOB_RUNNING"
    POLICY_NOT_FOUND = "POLICY_NOT_FOUND"
    THREAT_NOT_FOUND = "THREAT_NOT_FOUND"
    IDENTITY_FROZEN = "IDENTITY_FROZEN"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    KEY_CHANGED = "KEY_CHANGED"
    CREDENTIAL_DELETED = "CREDENTIAL_DELETED"
    CREDENTIAL_NOT_DELETED = "CREDENTIAL_NOT_DELETED"
    CREDENTIAL_SUSPENDED = "CREDENTIAL_SUSPENDED"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    STANDING_UNREACHABLE = "STANDING_UNREACHABLE"
    VERSION_DESTROYED = "VERSION_DESTROYED"
    HANDOVER_OPENED = "HANDOVER_OPENED"
    HANDOVER_EXPIRED = "HANDOVER_EXPIRED"
    INGEST_KEY_UNKNOWN = "INGEST_KEY_UNKNOWN"
    SECRET_UNSUITABLE = "SECRET_UNSUITABLE"  # noqa: S105
    POLICY_INVALID = "POLICY_INVALID"
    POLICY_CHANGED = "POLICY_CHANGED"
    APPROVAL_REQUIRED = "APPROVAL_REQUIRED"
    APPROVAL_MISMATCH = "APPROVAL_MISMATCH"
    APPROVAL_ENDED = "APPROVAL_ENDED"
    APPROVER_UNSUITABLE = "APPROVER_UNSUITABLE"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    JOB_ENDED = "JOB_ENDED"
    KEY_IN_USE = "KEY_IN_USE"
    KEY_QUARANTINED = "KEY_QUARANTINED"
    KEY_STATE_UNSUITABLE = "KEY_STATE_UNSUITABLE"
    SESSION_ENDED = "SESSION_ENDED"
    LIMIT_REACHED = "LIMIT_REACHED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    STORED_DATA_DAMAGED = "STORED_DATA_DAMAGED"
    HSM_UNAVAILABLE = "HSM_UNAVAILABLE"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    AUDIT_UNAVAILABLE = "AUDIT_UNAVAILABLE"
    REVOCATIONS_UNKNOWN = "REVOCATIONS_UNKNOWN"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    OVERLOADED = "OVERLOADED"
    KIND_MISMATCH = "KIND_MISMATCH"
    STORING_FORBIDDEN = "STORING_FORBIDDEN"
    CONNECTOR_NOT_FOUND = "CONNECTOR_NOT_FOUND"
    DESTINATION_DENIED = "DESTINATION_DENIED"
    UPSTREAM_UNREACHABLE = "UPSTREAM_UNREACHABLE"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    RESPONSE_WITHHELD = "RESPONSE_WITHHELD"
    NOT_REVEALABLE = "NOT_REVEALABLE"
    CREDENTIAL_UPDATE_REQUIRED = "CREDENTIAL_UPDATE_REQUIRED"
    REFRESH_UNDER_WAY = "REFRESH_UNDER_WAY"
    INTERNAL = "INTERNAL"


class VaultError(Exception):
    """A refusal or failure that a caller is told of.

    `reason` is stable; `message` is for people; `metadata` holds a few public words about it, such as
    the name of the field that is wrong.
    """

    def __init__(self, reason: Reason, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata


EX_CONFIG = 78
"""The exit code for what only an operator can mend: configuration, database, HSM (sysexits.h)."""


EX_TEMPFAIL = 75
"""The exit code for what may pass by itself: the database does not answer yet (sysexits.h)."""


class StartError(Exception):
    """The vault cannot start: one line that says what is wrong and what to do."""

    exit_code = EX_CONFIG


class NotYetError(StartError):
    """The vault cannot start now; it may when it is tried again."""

    exit_code = EX_TEMPFAIL


def invalid_field(field: str, rule: str) -> VaultError:
    """The error for a request field that breaks its rule. The field's value is never part of it."""
    return VaultError(Reason.FIELD_INVALID, f"{field}: {rule}", field=field)
