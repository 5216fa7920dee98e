"""What of a request may stand in an audit record: an allow-list for each message, field by field.

Every field of every request has a row here, so that whoever adds one decides; a test walks the descriptors and fails if
one has none. What is not listed as recorded is withheld. The edge obeys this for refusals, where it alone chooses what
to record; the services do for grants, where nothing but names, numbers and what the caller said it was for is recorded.
"""

from __future__ import annotations

from typing import NamedTuple


class Fields(NamedTuple):
    """The fields of a message: what may stand in a record, and what never does."""

    recorded: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()


_PAGE = ("page_size", "page_token")
_WRITE = ("etag", "request_id")

MESSAGES: dict[str, Fields] = {
    "ApprovalServiceRequestRequest": Fields(("operation", "purpose"), ("request_id", "document")),
    "Operation": Fields(("action", "resource", "arguments")),
    "ApprovalServiceApproveRequest": Fields(("approval_id",), ("signature",)),
    "ApprovalServiceGetRequest": Fields(("approval_id",)),
    "ApprovalServiceListRequest": Fields((), ("only_open", *_PAGE)),
    "ApprovalServiceCancelRequest": Fields(("approval_id",)),
    "AuditServiceListRequest": Fields(
        ("tenant",),
        (
            "action", "resource", "identity", *_PAGE, "outcome", "start_time", "end_time", "network", "device_id",
            "first_sequence", "newest_first", "wait",
        ),
    ),
    "AuditServiceGetCheckpointRequest": Fields(),
    "AuditServiceVerifyRequest": Fields(),
    "AuditServiceWatchVerifyRequest": Fields(),
    "AuditServiceListSinksRequest": Fields(),
    "AuditServiceReportRequest": Fields(("standard", "period", "cryptoperiod")),
    "AuditServiceListCheckpointsRequest": Fields((), _PAGE),
    "AuditServiceGetInclusionProofRequest": Fields(("sequence", "size")),
    "AuditServiceIdentifyRequest": Fields(("pseudonyms",)),
    "AuditServiceAcceptLossRequest": Fields(("sequence", "approval_id")),
    "AuditServiceGetConsistencyProofRequest": Fields(("old_size", "size")),
    "CredentialServiceGetIngestKeyRequest": Fields((), ("hpke_suite",)),
    "CredentialServicePutRequest": Fields(
        ("name", "kind", "rotation_period"), ("labels", "sealed", "ingest_key_id", "subject", *_WRITE)
    ),
    "CredentialServiceGetRequest": Fields(("name",)),
    "CredentialServiceListRequest": Fields(("prefix",), ("show_deleted", *_PAGE)),
    "CredentialServiceListVersionsRequest": Fields(("name",), _PAGE),
    "CredentialServiceWatchRequest": Fields(("prefix",), ("cursor",)),
    "CredentialServiceSetStandingRequest": Fields(("name", "standing", "note", "expire_time"), _WRITE),
    "CredentialServiceCreateKeyRequest": Fields(("name", "algorithm"), ("labels", "kid", "formats", *_WRITE)),
    "CredentialServiceGetPublicKeyRequest": Fields(("name", "version")),
    "CredentialServiceDeleteRequest": Fields(("name",), _WRITE),
    "CredentialServiceUndeleteRequest": Fields(("name",), _WRITE),
    "CredentialServiceDestroyVersionRequest": Fields(("name", "version"), _WRITE),
    "HandoverServiceWrapRequest": Fields(
        ("name", "recipient", "ttl"), ("sealed", "ingest_key_id", "request_id")
    ),
    "HandoverServiceUnwrapRequest": Fields(("name", "handover_id"), ("recipient_key", "hpke_suite")),
    "WebhookServiceCreateEndpointRequest": Fields(("url", "events", "credential"), ("request_id",)),
    "WebhookServiceListEndpointsRequest": Fields(),
    "WebhookServiceDeleteEndpointRequest": Fields(("endpoint_id",)),
    "JobServiceStartRequest": Fields(
        ("tenant", "kind", "source_version", "suite", "max_per_second", "validate_only"), ("request_id",)
    ),
    "JobServiceGetRequest": Fields(("tenant", "job_id")),
    "JobServiceListRequest": Fields(("tenant",), _PAGE),
    "JobServiceListFailuresRequest": Fields(("tenant", "job_id"), _PAGE),
    "JobServiceUpdateRequest": Fields(("tenant", "job_id", "command", "max_per_second", "validate_only")),
    "JobServiceWatchRequest": Fields(("tenant", "job_id")),
    "KeyServiceCreateTenantRequest": Fields(("tenant", "homes", "validate_only"), ("request_id",)),
    "KeyServiceRotateRequest": Fields(("tenant", "purpose", "homes", "validate_only"), ("request_id",)),
    "KeyHomes": Fields(("placement", "backends")),
    "ErasureServiceDescribeRequest": Fields(("tenant",), ("subject", "identity")),
    "ErasureServiceEraseRequest": Fields(("tenant", "approval_id"), ("subject", "identity")),
    "KeyServiceGetStatusRequest": Fields(("tenant",)),
    "KeyServiceListUsesRequest": Fields(("tenant", "version"), _PAGE),
    "KeyServiceRetireRequest": Fields(("tenant", "version", "validate_only")),
    "KeyServiceQuarantineRequest": Fields(("tenant", "version", "refuse_reads", "validate_only")),
    "KeyServiceRestoreRequest": Fields(("tenant", "version", "validate_only")),
    "KeyServiceDestroyRequest": Fields(("tenant", "version", "delay", "approval_id", "validate_only")),
    "KeyServiceSetScheduleRequest": Fields(("tenant", "schedule", "validate_only")),
    "KeySchedule": Fields(("purpose", "every", "max_wraps", "rewrap")),
    "KeyServiceListRequest": Fields(("tenant",), _PAGE),
    "KeyServiceDescribeRequest": Fields(("tenant", "version")),
    "SessionServiceOpenRequest": Fields(
        (
            "start", "reveal", "verify_webhook", "hmac", "verify_hmac", "totp", "answer_challenge", "sign",
            "http_call", "oauth_refresh", "link_token",
        ),
        ("operation_id", "close"),
    ),
    "SessionStart": Fields(("credentials", "purpose", "ttl"), ("recipient_key", "hpke_suite")),
    "CredentialSelector": Fields(("name", "version", "field_names")),
    "RevealOperation": Fields(("name", "field_names")),
    "VerifyWebhookOperation": Fields(
        ("name", "field_names", "scheme", "apply_to", "connector"), ("headers", "body")
    ),
    "SessionClose": Fields(),
    "HmacOperation": Fields(("name", "field_name", "hash"), ("message", "raw", "context")),
    "VerifyHmacOperation": Fields(("name", "field_name", "hash"), ("message", "raw", "context", "mac")),
    "TotpOperation": Fields(("name", "field_name")),
    "AnswerChallengeOperation": Fields(("name", "field_name"), ("challenge",)),
    "SignOperation": Fields(("name", "field_name"), ("jws", "client_assertion", "http", "raw")),
    "SignJws": Fields((), ("payload", "header", "unencoded")),
    "SignClientAssertion": Fields((), ("audience", "client_id")),
    "SignHttp": Fields((), ("method", "target_uri", "headers", "components", "body", "label", "tag")),
    "SignRaw": Fields((), ("message",)),
    "HttpCallOperation": Fields(
        ("name", "connector", "method", "path", "host", "also_name", "capture_name"), ("query", "headers", "body")
    ),
    "QueryParameter": Fields((), ("name", "value")),
    "OauthRefreshOperation": Fields(("name", "client_name", "connector")),
    "LinkTokenOperation": Fields(
        ("name", "also_name", "connector"),
        ("client_user_id", "client_name", "language", "country_codes", "redirect_uri"),
    ),
    "ThreatServiceListRequest": Fields((), ("only_open", *_PAGE)),
    "ThreatServiceExplainRequest": Fields(("threat_id",)),
    "ThreatServiceReleaseRequest": Fields(("threat_id", "purpose")),
    "ThreatServiceGetBlastRadiusRequest": Fields(("token_id",), ("identity", "certificate")),
    "PolicyServiceGetRequest": Fields(("version",)),
    "PolicyServiceListRequest": Fields((), _PAGE),
    "PolicyServiceValidateRequest": Fields((), ("text",)),
    "PolicyServiceApplyRequest": Fields(
        ("base_version", "comment", "approval_id"), ("text", "request_id")
    ),
    "PolicyServiceExplainRequest": Fields(("identity", "scope"), ("circumstances",)),
    "PolicyServiceListReachersRequest": Fields(("name",), ("identities", "circumstances")),
    "PolicyCircumstances": Fields(
        (), ("purpose", "ttl", "device_id", "ip_address", "time", "approvals")
    ),
    "SessionServiceRevealRequest": Fields(
        ("credentials", "purpose", "approval_id"), ("recipient_key", "hpke_suite")
    ),
    "TokenServiceIssueRequest": Fields(
        ("tenant", "scopes", "ttl", "purpose", "max_sessions", "narrowable", "approval_id")
    ),
    "TokenServiceExchangeRequest": Fields(
        ("scopes", "ttl", "certificate_thumbprint", "purpose", "max_sessions", "narrowable")
    ),
    "TokenServiceRevokeRequest": Fields(
        ("token_id", "parent_id", "identity", "all", "tenant", "issued_before")
    ),
    "TokenServiceIntrospectRequest": Fields((), ("token",)),
    "TokenServiceGetJwksRequest": Fields(),
}  # fmt: skip


def may_record(message: str, field: str) -> bool:
    """Whether a field of a message may stand in a record. What has no row may not."""
    return field in MESSAGES.get(message, Fields()).recorded
