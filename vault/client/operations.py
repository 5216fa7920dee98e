"""What a client does, written once for both SDKs, without IO.

Each operation is a generator: it yields the calls it needs and is sent their answers, or thrown their
errors. `sync.py` and `aio.py` only carry calls to the wire and answers back.
"""

from __future__ import annotations

import dataclasses
import secrets as random
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from vault.client.errors import StrongroomError
from vault.client.sealing import IngestKey, Recipient, seal_fields, seal_handover, verify_ingest_key
from vault.crypto import approvals, kinds
from vault.v1 import (
    approval_pb2,
    audit_pb2,
    credential_pb2,
    erasure_pb2,
    handover_pb2,
    job_pb2,
    key_pb2,
    policy_pb2,
    session_pb2,
    threat_pb2,
    token_pb2,
    webhook_pb2,
)

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.message import Message

    from vault.client.profile import Profile
    from vault.client.secrets import Secrets

T = TypeVar("T")

MAX_TRIES = 6
# A client has a connection of its own: a server takes 64 calls and sessions at once on each.
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
MAX_WATCH_TRIES = 30
WATCH_JOB = "/vault.v1.JobService/Watch"
KEY_PURPOSES = {
    "kek": key_pb2.KEY_PURPOSE_KEK,
    "token": key_pb2.KEY_PURPOSE_TOKEN,
    "checkpoint": key_pb2.KEY_PURPOSE_CHECKPOINT,
    "ingest": key_pb2.KEY_PURPOSE_INGEST,
}
JOB_KINDS = {"rewrap": job_pb2.JOB_KIND_REWRAP, "reencrypt": job_pb2.JOB_KIND_REENCRYPT}
JOB_COMMANDS = {
    "": job_pb2.JOB_COMMAND_UNSPECIFIED,
    "pause": job_pb2.JOB_COMMAND_PAUSE,
    "resume": job_pb2.JOB_COMMAND_RESUME,
    "cancel": job_pb2.JOB_COMMAND_CANCEL,
}
_RENEW_AT = 0.8
_RENEW_REASONS = ("TOKEN_EXPIRED", "TOKEN_REVOKED")
_NOT_BEGUN = ("OVERLOADED", "SHUTTING_DOWN", "REVOCATIONS_UNKNOWN", "HSM_UNAVAILABLE")
_PAGE = 500
_DAY = 86_400
_WAIT_SECONDS = 10
FOLLOW_SECONDS = 0.5
"""How long to leave the log alone between two looks: each look makes a record of its own."""
_OUTCOMES = {
    "": audit_pb2.OUTCOME_UNSPECIFIED,
    "granted": audit_pb2.OUTCOME_GRANTED,
    "refused": audit_pb2.OUTCOME_REFUSED,
}


@dataclasses.dataclass(frozen=True)
class Call:
    """One call on the wire. Safe to repeat, being a read or a write with a request_id, unless it says otherwise."""

    method: str
    request: Message
    response: type[Message]
    token: str = dataclasses.field(default="", repr=False)
    repeatable: bool = True

    def may_repeat(self, failure: StrongroomError, attempt: int) -> bool:
        """Whether to try once more after this failure of try number `attempt`, counted from 0."""
        return (
            failure.code is grpc.StatusCode.UNAVAILABLE
            and attempt < MAX_TRIES - 1
            and (self.repeatable or failure.reason in _NOT_BEGUN)
        )


Steps = Generator[Call, Any, T]


class AuditFilters(TypedDict, total=False):
    """Which audit records are meant: those that meet every condition given."""

    tenant: str
    identity: str
    action: str
    resource: str
    """A credential's name or another resource; or a prefix that ends in `/**`."""
    outcome: Literal["", "granted", "refused"]
    since: datetime.datetime | None
    until: datetime.datetime | None
    network: str
    """An address, or a network in CIDR notation."""
    device_id: str
    first_sequence: int
    newest_first: bool


AuditPage = audit_pb2.AuditServiceListResponse


class Operations:
    """A client's state (its token, the ingest key), and its operations."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._token: token_pb2.TokenServiceIssueResponse | None = None
        self._renew_time = 0.0
        self._ingest_key: IngestKey | None = None

    def use_token(self, text: str) -> None:
        """Use this token instead of issuing one."""
        self._token = token_pb2.TokenServiceIssueResponse(token=text)
        self._renew_time = float("inf")

    def issue_token(
        self,
        scopes: Sequence[str],
        ttl_seconds: int,
        purpose: str,
        tenant: str = "",
        max_sessions: int = 0,
        narrowable: bool = False,
        approval_id: str = "",
    ) -> Steps[token_pb2.TokenServiceIssueResponse]:
        """Issue a token."""
        request = token_pb2.TokenServiceIssueRequest(
            tenant=tenant or self.profile.tenant,
            scopes=scopes,
            ttl=Duration(seconds=ttl_seconds),
            purpose=purpose,
            max_sessions=max_sessions,
            narrowable=narrowable,
            approval_id=approval_id,
        )
        response: token_pb2.TokenServiceIssueResponse = yield Call(
            "/vault.v1.TokenService/Issue", request, token_pb2.TokenServiceIssueResponse
        )
        return response

    def request_token(
        self,
        scopes: Sequence[str],
        ttl_seconds: int,
        purpose: str,
        max_sessions: int,
        narrowable: bool,
    ) -> Steps[approval_pb2.Approval]:
        """Ask for the approval of one token for the profile's certificate."""
        operation = approvals.issue_token(
            self.profile.tenant,
            scopes,
            self.profile.thumbprint(),
            ttl_seconds=ttl_seconds,
            purpose=purpose,
            max_sessions=max_sessions,
            narrowable=narrowable,
        )
        return self.request_approval(operation, purpose)

    @property
    def has_token(self) -> bool:
        """Whether the token at hand is good for a while."""
        return self._token is not None and time.time() < self._renew_time

    @property
    def has_ingest_key(self) -> bool:
        """Whether the ingest key at hand is good."""
        return self._ingest_key is not None and time.time() < self._ingest_key.expire_time

    def token(self) -> Steps[str]:
        """The client's token: issued when it is first needed, and anew well before it ends."""
        if self._token is None or not self.has_token:
            profile = self.profile
            self._token = yield from self.issue_token(profile.scopes, profile.token_seconds, "")
            left = self._token.expire_time.seconds - time.time()
            self._renew_time = time.time() + left * _RENEW_AT
        return self._token.token

    def renews(self, failure: StrongroomError) -> bool:
        """Whether a new token mends this failure; then the old one is forgotten."""
        if failure.reason not in _RENEW_REASONS or self._renew_time == float("inf"):
            return False
        self._token = None
        return True

    def authorised(
        self, method: str, request: Message, response: type[T], *, repeatable: bool = True
    ) -> Steps[T]:
        """A call with the client's token; tried once more with a new one if this one has ended."""
        call = Call(method, request, response, repeatable=repeatable)  # type: ignore[arg-type]  # T is always a message
        token = yield from self.token()
        try:
            return (yield dataclasses.replace(call, token=token))  # type: ignore[no-any-return]
        except StrongroomError as error:
            if not self.renews(error):
                raise
        token = yield from self.token()
        return (yield dataclasses.replace(call, token=token))  # type: ignore[no-any-return]

    def put(
        self,
        name: str,
        fields: Mapping[str, str | bytes | bytearray | memoryview],
        kind: str,
        labels: Mapping[str, str] | None,
        etag: str,
        request_id: str,
        subject: str,
        rotation_days: int | None,
    ) -> Steps[credential_pb2.Credential]:
        """Seal and store a credential."""
        plain = {
            field: value.encode() if isinstance(value, str) else value for field, value in fields.items()
        }
        if kind:
            kinds.check(kind, plain)
        else:
            kinds.check_storable(plain)
        request_id = request_id or random.token_urlsafe(16)

        def request(key: IngestKey) -> Message:
            return credential_pb2.CredentialServicePutRequest(
                name=name,
                kind=kind,
                labels=labels or {},
                sealed=seal_fields(plain, name, kind, key),
                ingest_key_id=key.key_id,
                etag=etag,
                request_id=request_id,
                subject=subject,
                rotation_period=None if rotation_days is None else Duration(seconds=rotation_days * 86_400),
            )

        response = yield from self._sealed(
            "/vault.v1.CredentialService/Put", request, credential_pb2.CredentialServicePutResponse
        )
        return response.credential

    def set_standing(
        self,
        name: str,
        standing: str,
        note: str,
        expire_time: datetime.datetime | None,
        etag: str,
    ) -> Steps[credential_pb2.Credential]:
        """Set how a credential stands, and when it expires."""
        request = credential_pb2.CredentialServiceSetStandingRequest(
            name=name, standing=standing, note=note, etag=etag, request_id=random.token_urlsafe(16)
        )
        if expire_time is not None:
            request.expire_time.FromDatetime(expire_time)
        response = yield from self.authorised(
            "/vault.v1.CredentialService/SetStanding",
            request,
            credential_pb2.CredentialServiceSetStandingResponse,
        )
        return response.credential

    def create_key(
        self,
        name: str,
        algorithm: str,
        labels: Mapping[str, str] | None,
        kid: str,
        formats: Sequence[str],
        etag: str,
        request_id: str,
    ) -> Steps[credential_pb2.PublicKey]:
        """Have a key pair made in the HSM, as a new version of a credential."""
        response = yield from self.authorised(
            "/vault.v1.CredentialService/CreateKey",
            credential_pb2.CredentialServiceCreateKeyRequest(
                name=name,
                algorithm=algorithm,
                labels=labels or {},
                kid=kid,
                formats=formats,
                etag=etag,
                request_id=request_id or random.token_urlsafe(16),
            ),
            credential_pb2.CredentialServiceCreateKeyResponse,
        )
        return response.public_key

    def public_key(self, name: str, version: int) -> Steps[credential_pb2.PublicKey]:
        """The public half of a key in the HSM."""
        response = yield from self.authorised(
            "/vault.v1.CredentialService/GetPublicKey",
            credential_pb2.CredentialServiceGetPublicKeyRequest(name=name, version=version),
            credential_pb2.CredentialServiceGetPublicKeyResponse,
        )
        return response.public_key

    def create_webhook_endpoint(
        self, url: str, events: Sequence[str], credential: str
    ) -> Steps[webhook_pb2.WebhookEndpoint]:
        """Add an endpoint."""
        response = yield from self.authorised(
            "/vault.v1.WebhookService/CreateEndpoint",
            webhook_pb2.WebhookServiceCreateEndpointRequest(
                url=url, events=events, credential=credential, request_id=random.token_urlsafe(16)
            ),
            webhook_pb2.WebhookServiceCreateEndpointResponse,
        )
        return response.endpoint

    def list_webhook_endpoints(self) -> Steps[list[webhook_pb2.WebhookEndpoint]]:
        """The tenant's endpoints."""
        response = yield from self.authorised(
            "/vault.v1.WebhookService/ListEndpoints",
            webhook_pb2.WebhookServiceListEndpointsRequest(),
            webhook_pb2.WebhookServiceListEndpointsResponse,
        )
        return list(response.endpoints)

    def delete_webhook_endpoint(self, endpoint_id: str) -> Steps[None]:
        """Remove an endpoint."""
        yield from self.authorised(
            "/vault.v1.WebhookService/DeleteEndpoint",
            webhook_pb2.WebhookServiceDeleteEndpointRequest(endpoint_id=endpoint_id),
            webhook_pb2.WebhookServiceDeleteEndpointResponse,
        )

    def wrap(
        self,
        name: str,
        fields: Mapping[str, str | bytes | bytearray | memoryview],
        recipient: str,
        ttl_seconds: int,
    ) -> Steps[handover_pb2.HandoverServiceWrapResponse]:
        """Seal and wrap a secret for one identity."""
        request_id = random.token_urlsafe(16)

        def request(key: IngestKey) -> Message:
            return handover_pb2.HandoverServiceWrapRequest(
                name=name,
                recipient=recipient,
                sealed=seal_handover(fields, name, recipient, key),
                ingest_key_id=key.key_id,
                ttl=Duration(seconds=ttl_seconds),
                request_id=request_id,
            )

        return self._sealed(
            "/vault.v1.HandoverService/Wrap", request, handover_pb2.HandoverServiceWrapResponse
        )

    def unwrap(self, name: str, handover_id: str) -> Steps[Secrets]:
        """Open a wrapped secret, once."""
        recipient = Recipient()
        request = handover_pb2.HandoverServiceUnwrapRequest(
            name=name,
            handover_id=handover_id,
            recipient_key=recipient.public_bytes,
            hpke_suite=recipient.hpke_suite,
        )
        response = yield from self.authorised(
            "/vault.v1.HandoverService/Unwrap",
            request,
            handover_pb2.HandoverServiceUnwrapResponse,
            repeatable=False,
        )
        return recipient.open_handover(name, handover_id, response)

    def get(self, name: str) -> Steps[credential_pb2.Credential]:
        """A credential's metadata."""
        response = yield from self.authorised(
            "/vault.v1.CredentialService/Get",
            credential_pb2.CredentialServiceGetRequest(name=name),
            credential_pb2.CredentialServiceGetResponse,
        )
        return response.credential

    def list_credentials(self, prefix: str, *, show_deleted: bool) -> Steps[list[credential_pb2.Credential]]:
        """The metadata of all credentials under a prefix."""
        request = credential_pb2.CredentialServiceListRequest(
            prefix=prefix, page_size=_PAGE, show_deleted=show_deleted
        )
        found: list[credential_pb2.Credential] = []
        while True:
            page = yield from self.authorised(
                "/vault.v1.CredentialService/List", request, credential_pb2.CredentialServiceListResponse
            )
            found.extend(page.credentials)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def list_versions(self, name: str) -> Steps[list[credential_pb2.CredentialVersion]]:
        """A credential's versions, newest first."""
        request = credential_pb2.CredentialServiceListVersionsRequest(name=name, page_size=_PAGE)
        found: list[credential_pb2.CredentialVersion] = []
        while True:
            page = yield from self.authorised(
                "/vault.v1.CredentialService/ListVersions",
                request,
                credential_pb2.CredentialServiceListVersionsResponse,
            )
            found.extend(page.versions)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def delete(self, name: str, etag: str) -> Steps[credential_pb2.Credential]:
        """Delete a credential."""
        response = yield from self.authorised(
            "/vault.v1.CredentialService/Delete",
            credential_pb2.CredentialServiceDeleteRequest(
                name=name, etag=etag, request_id=random.token_urlsafe(16)
            ),
            credential_pb2.CredentialServiceDeleteResponse,
        )
        return response.credential

    def undelete(self, name: str, etag: str) -> Steps[credential_pb2.Credential]:
        """Bring a deleted credential back."""
        response = yield from self.authorised(
            "/vault.v1.CredentialService/Undelete",
            credential_pb2.CredentialServiceUndeleteRequest(
                name=name, etag=etag, request_id=random.token_urlsafe(16)
            ),
            credential_pb2.CredentialServiceUndeleteResponse,
        )
        return response.credential

    def destroy_version(self, name: str, version: int, etag: str) -> Steps[credential_pb2.CredentialVersion]:
        """Destroy a version for ever."""
        response = yield from self.authorised(
            "/vault.v1.CredentialService/DestroyVersion",
            credential_pb2.CredentialServiceDestroyVersionRequest(
                name=name, version=version, etag=etag, request_id=random.token_urlsafe(16)
            ),
            credential_pb2.CredentialServiceDestroyVersionResponse,
        )
        return response.version

    def reveal(
        self, names: Sequence[str], purpose: str, field_names: Sequence[str], approval_id: str = ""
    ) -> Steps[list[Secrets]]:
        """Reveal several credentials in one call."""
        recipient = Recipient()
        request = session_pb2.SessionServiceRevealRequest(
            credentials=[
                session_pb2.CredentialSelector(name=name, field_names=field_names) for name in names
            ],
            purpose=purpose,
            recipient_key=recipient.public_bytes,
            hpke_suite=recipient.hpke_suite,
            approval_id=approval_id,
        )
        response = yield from self.authorised(
            "/vault.v1.SessionService/Reveal", request, session_pb2.SessionServiceRevealResponse
        )
        return recipient.open_parcel(response)

    def exchange_token(
        self,
        scopes: Sequence[str],
        ttl_seconds: int | None,
        certificate_thumbprint: str,
        purpose: str,
        max_sessions: int,
        narrowable: bool,
    ) -> Steps[token_pb2.TokenServiceExchangeResponse]:
        """A weaker token for the client's own."""
        return self.authorised(
            "/vault.v1.TokenService/Exchange",
            token_pb2.TokenServiceExchangeRequest(
                scopes=scopes,
                ttl=None if ttl_seconds is None else Duration(seconds=ttl_seconds),
                certificate_thumbprint=certificate_thumbprint,
                purpose=purpose,
                max_sessions=max_sessions,
                narrowable=narrowable,
            ),
            token_pb2.TokenServiceExchangeResponse,
        )

    def revoke(
        self, request: token_pb2.TokenServiceRevokeRequest
    ) -> Steps[token_pb2.TokenServiceRevokeResponse]:
        """Revoke tokens."""
        return self.authorised("/vault.v1.TokenService/Revoke", request, token_pb2.TokenServiceRevokeResponse)

    def introspect_token(self, text: str) -> Steps[token_pb2.TokenServiceIntrospectResponse]:
        """What a token is good for."""
        return self.authorised(
            "/vault.v1.TokenService/Introspect",
            token_pb2.TokenServiceIntrospectRequest(token=text),
            token_pb2.TokenServiceIntrospectResponse,
        )

    def jwks(self) -> Steps[bytes]:
        """The vault's public keys, as a JWK set."""
        response: token_pb2.TokenServiceGetJwksResponse = yield Call(
            "/vault.v1.TokenService/GetJwks",
            token_pb2.TokenServiceGetJwksRequest(),
            token_pb2.TokenServiceGetJwksResponse,
        )
        return response.jwks

    def create_tenant(self, tenant: str, homes: key_pb2.KeyHomes | None) -> Steps[key_pb2.Key]:
        """Make a tenant and its first key, where it shall lie if that is said."""
        response = yield from self.authorised(
            "/vault.v1.KeyService/CreateTenant",
            key_pb2.KeyServiceCreateTenantRequest(
                tenant=tenant, request_id=random.token_urlsafe(16), homes=homes
            ),
            key_pb2.KeyServiceCreateTenantResponse,
        )
        return response.key

    def rotate_key(
        self, tenant: str, purpose: str, *, validate_only: bool, homes: key_pb2.KeyHomes | None
    ) -> Steps[key_pb2.Key]:
        """Make a new version of a tenant's key, or of one of the vault's own, and put it to use."""
        response = yield from self.authorised(
            "/vault.v1.KeyService/Rotate",
            key_pb2.KeyServiceRotateRequest(
                tenant=tenant,
                purpose=KEY_PURPOSES[purpose],
                validate_only=validate_only,
                homes=homes,
                request_id=random.token_urlsafe(16),
            ),
            key_pb2.KeyServiceRotateResponse,
        )
        return response.key

    def key_status(self, tenant: str) -> Steps[key_pb2.KeyServiceGetStatusResponse]:
        """How a tenant's keys stand."""
        return self.authorised(
            "/vault.v1.KeyService/GetStatus",
            key_pb2.KeyServiceGetStatusRequest(tenant=tenant),
            key_pb2.KeyServiceGetStatusResponse,
        )

    def key_uses(self, tenant: str, version: int) -> Steps[list[key_pb2.KeyUse]]:
        """All that a version of a tenant's key wraps."""
        request = key_pb2.KeyServiceListUsesRequest(tenant=tenant, version=version, page_size=_PAGE)
        found: list[key_pb2.KeyUse] = []
        while True:
            page = yield from self.authorised(
                "/vault.v1.KeyService/ListUses", request, key_pb2.KeyServiceListUsesResponse
            )
            found.extend(page.uses)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def retire_key(self, tenant: str, version: int, *, validate_only: bool) -> Steps[key_pb2.Key]:
        """Take a version of a key out of use."""
        response = yield from self.authorised(
            "/vault.v1.KeyService/Retire",
            key_pb2.KeyServiceRetireRequest(tenant=tenant, version=version, validate_only=validate_only),
            key_pb2.KeyServiceRetireResponse,
        )
        return response.key

    def quarantine_key(
        self, tenant: str, version: int, *, refuse_reads: bool, validate_only: bool
    ) -> Steps[key_pb2.KeyServiceQuarantineResponse]:
        """Put a version of a key into quarantine."""
        return self.authorised(
            "/vault.v1.KeyService/Quarantine",
            key_pb2.KeyServiceQuarantineRequest(
                tenant=tenant, version=version, refuse_reads=refuse_reads, validate_only=validate_only
            ),
            key_pb2.KeyServiceQuarantineResponse,
        )

    def restore_key(self, tenant: str, version: int, *, validate_only: bool) -> Steps[key_pb2.Key]:
        """Take one step back with a version of a key."""
        response = yield from self.authorised(
            "/vault.v1.KeyService/Restore",
            key_pb2.KeyServiceRestoreRequest(tenant=tenant, version=version, validate_only=validate_only),
            key_pb2.KeyServiceRestoreResponse,
        )
        return response.key

    def destroy_key(
        self,
        tenant: str,
        version: int,
        *,
        delay_seconds: int | None,
        approval_id: str,
        validate_only: bool,
    ) -> Steps[key_pb2.KeyServiceDestroyResponse]:
        """Schedule a version of a key for destruction."""
        request = key_pb2.KeyServiceDestroyRequest(
            tenant=tenant, version=version, approval_id=approval_id, validate_only=validate_only
        )
        if delay_seconds is not None:
            request.delay.seconds = delay_seconds
        return self.authorised("/vault.v1.KeyService/Destroy", request, key_pb2.KeyServiceDestroyResponse)

    def schedule_key(
        self, tenant: str, schedule: key_pb2.KeySchedule, *, validate_only: bool
    ) -> Steps[key_pb2.KeySchedule]:
        """Set when a key is rotated."""
        response = yield from self.authorised(
            "/vault.v1.KeyService/SetSchedule",
            key_pb2.KeyServiceSetScheduleRequest(
                tenant=tenant, schedule=schedule, validate_only=validate_only
            ),
            key_pb2.KeyServiceSetScheduleResponse,
        )
        return response.schedule

    def list_keys(self, tenant: str) -> Steps[list[key_pb2.Key]]:
        """The versions of a tenant's key, newest first."""
        request = key_pb2.KeyServiceListRequest(tenant=tenant, page_size=_PAGE)
        found: list[key_pb2.Key] = []
        while True:
            page = yield from self.authorised(
                "/vault.v1.KeyService/List", request, key_pb2.KeyServiceListResponse
            )
            found.extend(page.keys)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def describe_key(self, tenant: str, version: int) -> Steps[key_pb2.KeyServiceDescribeResponse]:
        """What is known of a key version."""
        return self.authorised(
            "/vault.v1.KeyService/Describe",
            key_pb2.KeyServiceDescribeRequest(tenant=tenant, version=version),
            key_pb2.KeyServiceDescribeResponse,
        )

    def list_threats(self, *, only_open: bool) -> Steps[list[threat_pb2.Threat]]:
        """Findings of threat detection, newest first."""
        request = threat_pb2.ThreatServiceListRequest(only_open=only_open, page_size=_PAGE)
        found: list[threat_pb2.Threat] = []
        while True:
            page = yield from self.authorised(
                "/vault.v1.ThreatService/List", request, threat_pb2.ThreatServiceListResponse
            )
            found.extend(page.threats)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def explain_threat(self, threat_id: str) -> Steps[threat_pb2.ThreatServiceExplainResponse]:
        """One finding with its evidence."""
        return self.authorised(
            "/vault.v1.ThreatService/Explain",
            threat_pb2.ThreatServiceExplainRequest(threat_id=threat_id),
            threat_pb2.ThreatServiceExplainResponse,
        )

    def release_threat(self, threat_id: str, purpose: str) -> Steps[threat_pb2.Threat]:
        """Close a finding, and thaw what it froze."""
        response = yield from self.authorised(
            "/vault.v1.ThreatService/Release",
            threat_pb2.ThreatServiceReleaseRequest(threat_id=threat_id, purpose=purpose),
            threat_pb2.ThreatServiceReleaseResponse,
        )
        return response.threat

    def blast_radius(
        self, request: threat_pb2.ThreatServiceGetBlastRadiusRequest
    ) -> Steps[threat_pb2.ThreatServiceGetBlastRadiusResponse]:
        """Everything that an identity, a token or a certificate touched."""
        return self.authorised(
            "/vault.v1.ThreatService/GetBlastRadius", request, threat_pb2.ThreatServiceGetBlastRadiusResponse
        )

    def get_policy(self, version: int) -> Steps[policy_pb2.Policy]:
        """A version of the policy; 0 is what is in force."""
        response = yield from self.authorised(
            "/vault.v1.PolicyService/Get",
            policy_pb2.PolicyServiceGetRequest(version=version),
            policy_pb2.PolicyServiceGetResponse,
        )
        return response.policy

    def list_policies(self) -> Steps[list[policy_pb2.Policy]]:
        """The stored versions of the policy, newest first, without their text."""
        request = policy_pb2.PolicyServiceListRequest(page_size=_PAGE)
        found: list[policy_pb2.Policy] = []
        while True:
            page = yield from self.authorised(
                "/vault.v1.PolicyService/List", request, policy_pb2.PolicyServiceListResponse
            )
            found.extend(page.policies)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def validate_policy(self, text: str) -> Steps[policy_pb2.PolicyServiceValidateResponse]:
        """What is wrong with a policy, and how it would be stored."""
        return self.authorised(
            "/vault.v1.PolicyService/Validate",
            policy_pb2.PolicyServiceValidateRequest(text=text),
            policy_pb2.PolicyServiceValidateResponse,
        )

    def apply_policy(
        self, text: str, base_version: int, comment: str, approval_id: str
    ) -> Steps[policy_pb2.Policy]:
        """Put a policy in force."""
        response = yield from self.authorised(
            "/vault.v1.PolicyService/Apply",
            policy_pb2.PolicyServiceApplyRequest(
                text=text,
                base_version=base_version,
                comment=comment,
                approval_id=approval_id,
                request_id=random.token_urlsafe(16),
            ),
            policy_pb2.PolicyServiceApplyResponse,
        )
        return response.policy

    def explain_policy(
        self, identity: str, scope: str, circumstances: policy_pb2.PolicyCircumstances | None
    ) -> Steps[policy_pb2.PolicyServiceExplainResponse]:
        """Whether an identity would be granted a scope, and which rules say so."""
        return self.authorised(
            "/vault.v1.PolicyService/Explain",
            policy_pb2.PolicyServiceExplainRequest(
                identity=identity, scope=scope, circumstances=circumstances
            ),
            policy_pb2.PolicyServiceExplainResponse,
        )

    def list_reachers(
        self, name: str, identities: Sequence[str], circumstances: policy_pb2.PolicyCircumstances | None
    ) -> Steps[policy_pb2.PolicyServiceListReachersResponse]:
        """Who can reach a credential."""
        return self.authorised(
            "/vault.v1.PolicyService/ListReachers",
            policy_pb2.PolicyServiceListReachersRequest(
                name=name, identities=identities, circumstances=circumstances
            ),
            policy_pb2.PolicyServiceListReachersResponse,
        )

    def request_approval(self, operation: approvals.Operation, purpose: str) -> Steps[approval_pb2.Approval]:
        """Ask for an approval of an operation."""
        response = yield from self.authorised(
            "/vault.v1.ApprovalService/Request",
            approval_pb2.ApprovalServiceRequestRequest(
                operation=approval_pb2.Operation(
                    action=operation.action, resource=operation.resource, arguments=operation.arguments
                ),
                purpose=purpose,
                request_id=random.token_urlsafe(16),
            ),
            approval_pb2.ApprovalServiceRequestResponse,
        )
        return response.approval

    def approve(self, approval: approval_pb2.Approval) -> Steps[approval_pb2.Approval]:
        """Sign for exactly what `approval` shows, with the private key of the profile's certificate."""
        shown = approval.operation
        message = approvals.statement(
            approval.approval_id,
            approvals.Operation(shown.action, shown.resource, dict(shown.arguments)),
            approval.requested_by,
            approval.expire_time.ToMicroseconds(),
        )
        response = yield from self.authorised(
            "/vault.v1.ApprovalService/Approve",
            approval_pb2.ApprovalServiceApproveRequest(
                approval_id=approval.approval_id,
                signature=approvals.sign(self.profile.private_key(), message),
            ),
            approval_pb2.ApprovalServiceApproveResponse,
        )
        return response.approval

    def describe_erasure(
        self, tenant: str, subject: str, identity: str
    ) -> Steps[erasure_pb2.ErasureServiceDescribeResponse]:
        """What an erasure would take, and what is to be approved for it."""
        return self.authorised(
            "/vault.v1.ErasureService/Describe",
            erasure_pb2.ErasureServiceDescribeRequest(tenant=tenant, subject=subject, identity=identity),
            erasure_pb2.ErasureServiceDescribeResponse,
        )

    def erase(self, tenant: str, subject: str, identity: str, approval_id: str) -> Steps[str]:
        """Erase; gives the certificate."""
        response = yield from self.authorised(
            "/vault.v1.ErasureService/Erase",
            erasure_pb2.ErasureServiceEraseRequest(
                tenant=tenant, subject=subject, identity=identity, approval_id=approval_id
            ),
            erasure_pb2.ErasureServiceEraseResponse,
        )
        certificate: str = response.certificate
        return certificate

    def identify(self, pseudonyms: Sequence[str]) -> Steps[list[str]]:
        """Whom pseudonyms stand for."""
        response = yield from self.authorised(
            "/vault.v1.AuditService/Identify",
            audit_pb2.AuditServiceIdentifyRequest(pseudonyms=pseudonyms),
            audit_pb2.AuditServiceIdentifyResponse,
        )
        return list(response.identities)

    def get_approval(self, approval_id: str) -> Steps[approval_pb2.Approval]:
        """One approval."""
        response = yield from self.authorised(
            "/vault.v1.ApprovalService/Get",
            approval_pb2.ApprovalServiceGetRequest(approval_id=approval_id),
            approval_pb2.ApprovalServiceGetResponse,
        )
        return response.approval

    def list_approvals(self, *, only_open: bool) -> Steps[list[approval_pb2.Approval]]:
        """The approvals that the caller may see, newest first."""
        request = approval_pb2.ApprovalServiceListRequest(only_open=only_open, page_size=_PAGE)
        found: list[approval_pb2.Approval] = []
        while True:
            page = yield from self.authorised(
                "/vault.v1.ApprovalService/List", request, approval_pb2.ApprovalServiceListResponse
            )
            found.extend(page.approvals)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def start_job(self, request: job_pb2.JobServiceStartRequest) -> Steps[job_pb2.RewrapJob]:
        """Start a job."""
        request.request_id = random.token_urlsafe(16)
        response = yield from self.authorised(
            "/vault.v1.JobService/Start", request, job_pb2.JobServiceStartResponse
        )
        return response.job

    def get_job(self, tenant: str, job_id: str) -> Steps[job_pb2.RewrapJob]:
        """A job."""
        response = yield from self.authorised(
            "/vault.v1.JobService/Get",
            job_pb2.JobServiceGetRequest(tenant=tenant, job_id=job_id),
            job_pb2.JobServiceGetResponse,
        )
        return response.job

    def list_jobs(self, tenant: str) -> Steps[list[job_pb2.RewrapJob]]:
        """A tenant's jobs, newest first."""
        request = job_pb2.JobServiceListRequest(tenant=tenant, page_size=_PAGE)
        found: list[job_pb2.RewrapJob] = []
        while True:
            page = yield from self.authorised(
                "/vault.v1.JobService/List", request, job_pb2.JobServiceListResponse
            )
            found.extend(page.jobs)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def cancel_approval(self, approval_id: str) -> Steps[approval_pb2.Approval]:
        """Take an approval back."""
        response = yield from self.authorised(
            "/vault.v1.ApprovalService/Cancel",
            approval_pb2.ApprovalServiceCancelRequest(approval_id=approval_id),
            approval_pb2.ApprovalServiceCancelResponse,
        )
        return response.approval

    def update_job(self, request: job_pb2.JobServiceUpdateRequest) -> Steps[job_pb2.RewrapJob]:
        """Pause, resume, cancel or throttle a job."""
        response = yield from self.authorised(
            "/vault.v1.JobService/Update", request, job_pb2.JobServiceUpdateResponse
        )
        return response.job

    def audit_records(
        self, request: audit_pb2.AuditServiceListRequest, most: int
    ) -> Steps[list[audit_pb2.AuditRecord]]:
        """Audit records that match, at most so many."""
        found: list[audit_pb2.AuditRecord] = []
        while True:
            request.page_size = min(_PAGE, most - len(found))
            page = yield from self.audit_page(request)
            found.extend(page.records)
            request.page_token = page.next_page_token
            if not page.next_page_token or len(found) >= most:
                return found

    def audit_page(self, request: audit_pb2.AuditServiceListRequest) -> Steps[AuditPage]:
        """One page of audit records."""
        return self.authorised("/vault.v1.AuditService/List", request, audit_pb2.AuditServiceListResponse)

    def compliance_report(
        self, standard: str, days: int, cryptoperiod_days: int
    ) -> Steps[audit_pb2.AuditServiceReportResponse]:
        """A compliance report."""
        request = audit_pb2.AuditServiceReportRequest(
            standard=standard,
            period=Duration(seconds=days * _DAY),
            cryptoperiod=Duration(seconds=cryptoperiod_days * _DAY),
        )
        return self.authorised("/vault.v1.AuditService/Report", request, audit_pb2.AuditServiceReportResponse)

    def audit_sinks(self) -> Steps[audit_pb2.AuditServiceListSinksResponse]:
        """The sinks of the audit log."""
        return self.authorised(
            "/vault.v1.AuditService/ListSinks",
            audit_pb2.AuditServiceListSinksRequest(),
            audit_pb2.AuditServiceListSinksResponse,
        )

    def list_checkpoints(self) -> Steps[list[audit_pb2.Checkpoint]]:
        """Every checkpoint, by size."""
        request = audit_pb2.AuditServiceListCheckpointsRequest(page_size=_PAGE)
        found: list[audit_pb2.Checkpoint] = []
        while True:
            page = yield from self.authorised(
                "/vault.v1.AuditService/ListCheckpoints",
                request,
                audit_pb2.AuditServiceListCheckpointsResponse,
            )
            found.extend(page.checkpoints)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    def inclusion_proof(
        self, sequence: int, size: int
    ) -> Steps[audit_pb2.AuditServiceGetInclusionProofResponse]:
        """The proof that a record is in the log."""
        return self.authorised(
            "/vault.v1.AuditService/GetInclusionProof",
            audit_pb2.AuditServiceGetInclusionProofRequest(sequence=sequence, size=size),
            audit_pb2.AuditServiceGetInclusionProofResponse,
        )

    def accept_audit_loss(
        self, sequence: int, approval_id: str
    ) -> Steps[audit_pb2.AuditServiceAcceptLossResponse]:
        """Accept that a damaged record's content is lost."""
        return self.authorised(
            "/vault.v1.AuditService/AcceptLoss",
            audit_pb2.AuditServiceAcceptLossRequest(sequence=sequence, approval_id=approval_id),
            audit_pb2.AuditServiceAcceptLossResponse,
            repeatable=False,
        )

    def consistency_proof(
        self, old_size: int, size: int
    ) -> Steps[audit_pb2.AuditServiceGetConsistencyProofResponse]:
        """The proof that one checkpoint is the beginning of another."""
        return self.authorised(
            "/vault.v1.AuditService/GetConsistencyProof",
            audit_pb2.AuditServiceGetConsistencyProofRequest(old_size=old_size, size=size),
            audit_pb2.AuditServiceGetConsistencyProofResponse,
        )

    def checkpoint(self) -> Steps[audit_pb2.AuditServiceGetCheckpointResponse]:
        """The newest checkpoint of the audit log."""
        return self.authorised(
            "/vault.v1.AuditService/GetCheckpoint",
            audit_pb2.AuditServiceGetCheckpointRequest(),
            audit_pb2.AuditServiceGetCheckpointResponse,
        )

    def verify_audit(self) -> Steps[audit_pb2.AuditServiceVerifyResponse]:
        """Have the vault verify its whole audit log."""
        return self.authorised(
            "/vault.v1.AuditService/Verify",
            audit_pb2.AuditServiceVerifyRequest(),
            audit_pb2.AuditServiceVerifyResponse,
        )

    def _sealed(self, method: str, request: Callable[[IngestKey], Message], response: type[T]) -> Steps[T]:
        """A call whose request is sealed to the ingest key; sealed anew, once, if the vault forgot that key."""
        for last in (False, True):
            key = yield from self.ingest_key()
            try:
                return (yield from self.authorised(method, request(key), response))
            except StrongroomError as error:
                if last or error.reason != "INGEST_KEY_UNKNOWN":
                    raise
                self._ingest_key = None
        raise AssertionError("unreachable")

    def ingest_key(self) -> Steps[IngestKey]:
        """The vault's ingest key, verified; fetched when it is first needed."""
        if self._ingest_key is None or not self.has_ingest_key:
            response: credential_pb2.CredentialServiceGetIngestKeyResponse = yield Call(
                "/vault.v1.CredentialService/GetIngestKey",
                credential_pb2.CredentialServiceGetIngestKeyRequest(),
                credential_pb2.CredentialServiceGetIngestKeyResponse,
            )
            # Afterwards: so it holds the key that signed, whichever worker did a moment ago.
            jwks = yield from self.jwks()
            self._ingest_key = verify_ingest_key(response.signed_key, jwks)
        return self._ingest_key


class Watching:
    """A watch across lost connections: what to ask for next, and what a failure means for it."""

    METHOD = "/vault.v1.CredentialService/Watch"

    def __init__(self, operations: Operations, prefix: str, cursor: str) -> None:
        self.request = credential_pb2.CredentialServiceWatchRequest(prefix=prefix, cursor=cursor)
        self._operations = operations
        self._failures = 0

    def take(self, answer: credential_pb2.CredentialServiceWatchResponse) -> bool:
        """Remember how far it has come; whether something changed."""
        self._failures = 0
        self.request.cursor = answer.cursor
        return answer.change != credential_pb2.CREDENTIAL_CHANGE_UNSPECIFIED

    def after(self, failure: StrongroomError) -> float:
        """How long to wait before asking again, in seconds. Raises the failure if asking again is no use."""
        if self._operations.renews(failure):
            return 0.0
        never_answered = not self.request.cursor and self._failures >= MAX_TRIES
        if failure.code is not grpc.StatusCode.UNAVAILABLE or never_answered:
            raise failure
        self._failures += 1
        return pause(min(self._failures, MAX_TRIES))


def audit_request(filters: AuditFilters) -> audit_pb2.AuditServiceListRequest:
    """Asks for the records that match."""
    since, until = filters.get("since"), filters.get("until")
    return audit_pb2.AuditServiceListRequest(
        tenant=filters.get("tenant", ""),
        identity=filters.get("identity", ""),
        action=filters.get("action", ""),
        resource=filters.get("resource", ""),
        outcome=_OUTCOMES[filters.get("outcome", "")],
        start_time=None if since is None else _timestamp(since),
        end_time=None if until is None else _timestamp(until),
        network=filters.get("network", ""),
        device_id=filters.get("device_id", ""),
        first_sequence=filters.get("first_sequence", 0),
        newest_first=filters.get("newest_first", False),
        page_size=_PAGE,
    )


def follow_audit(request: audit_pb2.AuditServiceListRequest, page: AuditPage) -> None:
    """Have the request ask for what comes after the page; it waits if there is nothing yet."""
    if page.records:
        request.first_sequence = page.records[-1].sequence + 1
    request.page_token = ""
    request.wait.FromSeconds(_WAIT_SECONDS)


def _timestamp(moment: datetime.datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def standing(name: str) -> str:
    """The name that a standing has in the proto; an empty one is none."""
    return f"STANDING_{(name or 'unspecified').upper().replace('-', '_')}"


def metadata(profile: Profile, token: str) -> tuple[tuple[str, str], ...]:
    """A call's metadata."""
    sent = [("x-request-id", random.token_urlsafe(12))]
    if profile.device_id:
        sent.append(("x-device-id", profile.device_id))
    if token:
        sent.append(("authorization", f"Bearer {token}"))
    return tuple(sent)


def pause(attempt: int) -> float:
    """How long to wait before the next try: exponential, with full jitter. Seconds."""
    return random.SystemRandom().uniform(0, 0.1 * 2**attempt)


def revoke_request(
    token_id: str = "",
    *,
    parent_id: str = "",
    identity: str = "",
    everything: bool = False,
    tenant: str = "",
    issued_before: datetime.datetime | None = None,
) -> token_pb2.TokenServiceRevokeRequest:
    """What to revoke, as the vault is asked for it."""
    request = token_pb2.TokenServiceRevokeRequest(
        token_id=token_id, parent_id=parent_id, identity=identity, all=everything, tenant=tenant
    )
    if issued_before is not None:
        request.issued_before.FromDatetime(issued_before)
    return request
