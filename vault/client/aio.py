"""The asyncio SDK: `sync.py` with `await`. Tasks may share a client, and a session too."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, Unpack

import grpc

from vault.client.connection import explain
from vault.client.errors import UNREACHABLE, SessionClosedError, StrongroomError, from_rpc
from vault.client.exchange import Exchange
from vault.client.operations import (
    approvals,
    audit,
    calls,
    credentials,
    erasures,
    handovers,
    jobs,
    keys,
    policies,
    sessions,
    threats,
    tokens,
    webhooks,
)
from vault.client.operations.access import Access
from vault.client.operations.calls import MAX_TRIES
from vault.client.operations.credentials import Watching
from vault.client.profile import Shown
from vault.client.stream import SessionState
from vault.v1 import audit_pb2, credential_pb2, job_pb2, key_pb2, session_pb2, threat_pb2

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from vault.client.operations.audit import AuditFilters
    from vault.client.operations.calls import Call, Steps
    from vault.client.profile import Profile
    from vault.client.secrets import Secrets
    from vault.crypto.approvals import Operation
    from vault.v1 import approval_pb2, erasure_pb2, handover_pb2, policy_pb2, token_pb2, webhook_pb2

T = TypeVar("T")

_KEPT = 2


class AsyncClient:
    """A vault's client. `timeout` is how long one call may take, in seconds."""

    def __init__(self, profile: Profile, *, timeout: float = 15.0) -> None:
        self.profile = profile
        self._access = Access(profile)
        self._shown = Shown(profile)
        # The last is in use. The one before is for what still runs on it when the certificate was renewed.
        self._channels = [self._connect()]
        self._timeout = timeout
        # Whether the vault has answered this client: then there is nothing wrong with how it is addressed.
        self._heard = False
        # Many tasks may find the token or the key missing at once: one fetches it, the others wait.
        self._fetching = asyncio.Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client holds a connection: pickle its profile, and make another client of that")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close(None)

    def use_token(self, text: str) -> None:
        """Use this token from now on, instead of issuing one."""
        self._access.use_token(text)

    def session(self, *names: str, purpose: str, ttl_seconds: int | None = None) -> AsyncSession:
        """A session on credentials, to be used in a `async with` block."""
        return AsyncSession(self, SessionState(names, purpose, ttl_seconds))

    async def put(
        self,
        name: str,
        fields: Mapping[str, str | bytes | bytearray | memoryview],
        *,
        kind: str,
        labels: Mapping[str, str] | None = None,
        etag: str = "",
        request_id: str = "",
        subject: str = "",
        rotation_days: int | None = None,
    ) -> credential_pb2.Credential:
        """Seal and store a new version of a credential. `etag="new"` stores only if there is none yet.

        A `request_id` (1 to 64 of `[A-Za-z0-9_-]`) that was used before is refused, as what is sealed differs:
        REQUEST_ID_REUSED then says that it was done. By default each put has one of its own. `subject` says whose data
        it is, by a name of your own, with the first version: then it can be erased together with that person's.
        `rotation_days` (1 to 3650; 0: none; None: as before) says when the next version is due: the vault reminds
        of it.
        """
        await self._fetch_ingest_key()
        return await self._run(
            credentials.put(
                self._access,
                name,
                fields,
                kind,
                labels,
                etag,
                request_id,
                subject=subject,
                rotation_days=rotation_days,
            )
        )

    async def reveal(
        self, *names: str, purpose: str, field_names: Sequence[str] = (), approval_id: str = ""
    ) -> list[Secrets]:
        """Reveal up to 100 credentials in one call. Close each, or use each in a `with` block.

        With `approval_id` it breaks the glass on one.
        """
        return await self._run(sessions.reveal(self._access, names, purpose, field_names, approval_id))

    async def set_standing(
        self,
        name: str,
        standing: str = "",
        *,
        note: str = "",
        expire_time: datetime.datetime | None = None,
        etag: str = "",
    ) -> credential_pb2.Credential:
        """Set a credential's standing (`active`, `expiring`, `update-required`, `suspended`, `revoked`) and expiry.

        An empty standing leaves it as it is; without `expire_time` it does not expire.
        """
        wanted = credentials.standing(standing)
        return await self._run(credentials.set_standing(self._access, name, wanted, note, expire_time, etag))

    async def create_key(
        self,
        name: str,
        *,
        algorithm: str = "ES256",
        labels: Mapping[str, str] | None = None,
        kid: str = "",
        formats: Sequence[str] = (),
        etag: str = "",
        request_id: str = "",
    ) -> credential_pb2.PublicKey:
        """Have a key pair made in the HSM (`ES256` or `EdDSA`), as a credential's new version, to sign on sessions.

        Gives the public half; the private one leaves the HSM never. `kid` is by default its thumbprint; `formats` holds
        it to some of `jws`, `client_assertion`, `http` and `raw`. `etag="new"` makes it only if there is no credential.
        """
        steps = credentials.create_key(self._access, name, algorithm, labels, kid, formats, etag, request_id)
        return await self._run(steps)

    async def public_key(self, name: str, version: int = 0) -> credential_pb2.PublicKey:
        """The public half of a version's key in the HSM, by default of the newest: as PEM and as JWK."""
        return await self._run(credentials.public_key(self._access, name, version))

    async def create_webhook_endpoint(
        self, url: str, events: Sequence[str], *, credential: str
    ) -> webhook_pb2.WebhookEndpoint:
        """Have `url` told of events, signed with a credential of the kind `webhook_endpoint` (docs/webhooks.md)."""
        return await self._run(webhooks.create_webhook_endpoint(self._access, url, events, credential))

    async def list_webhook_endpoints(self) -> list[webhook_pb2.WebhookEndpoint]:
        """The tenant's webhook endpoints, and how each does."""
        return await self._run(webhooks.list_webhook_endpoints(self._access))

    async def delete_webhook_endpoint(self, endpoint_id: str) -> None:
        """Remove a webhook endpoint."""
        await self._run(webhooks.delete_webhook_endpoint(self._access, endpoint_id))

    async def wrap(
        self,
        name: str,
        fields: Mapping[str, str | bytes | bytearray | memoryview],
        *,
        recipient: str,
        ttl_seconds: int = 3600,
    ) -> handover_pb2.HandoverServiceWrapResponse:
        """Wrap a secret that `recipient`, an identity, can open once with the id that this returns."""
        await self._fetch_ingest_key()
        return await self._run(handovers.wrap(self._access, name, fields, recipient, ttl_seconds))

    async def unwrap(self, name: str, handover_id: str) -> Secrets:
        """Open a secret that was wrapped for this client: once. Close it, or use it in a `with` block."""
        return await self._run(handovers.unwrap(self._access, name, handover_id))

    async def get(self, name: str) -> credential_pb2.Credential:
        """A credential's metadata."""
        return await self._run(credentials.get(self._access, name))

    async def list_credentials(
        self, prefix: str = "", *, show_deleted: bool = False
    ) -> list[credential_pb2.Credential]:
        """The metadata of the credentials under a prefix; by default the whole tenant's."""
        return await self._run(credentials.list_credentials(self._access, prefix, show_deleted=show_deleted))

    async def watch(
        self, prefix: str = "", *, cursor: str = ""
    ) -> AsyncGenerator[credential_pb2.CredentialServiceWatchResponse]:
        """Changes of the credentials under a prefix, as they happen, across lost connections, without end.

        Nothing is missed after the first connection; with the `cursor` of an earlier change, nothing since that.
        """
        watching = Watching(self._access, prefix, cursor)
        while True:
            token = await self._drive(self._access.token())
            invoke = self._channel.unary_stream(
                Watching.METHOD,
                request_serializer=credential_pb2.CredentialServiceWatchRequest.SerializeToString,
                response_deserializer=credential_pb2.CredentialServiceWatchResponse.FromString,
            )
            call = invoke(watching.request, metadata=calls.metadata(self.profile, token))
            try:
                async for answer in call:
                    if watching.take(answer):
                        yield answer
            except grpc.RpcError as error:
                await self._pause(from_rpc(error), watching.after)
            finally:
                call.cancel()

    async def list_versions(self, name: str) -> list[credential_pb2.CredentialVersion]:
        """A credential's versions, newest first."""
        return await self._run(credentials.list_versions(self._access, name))

    async def delete(self, name: str, *, etag: str = "") -> credential_pb2.Credential:
        """Delete a credential; it can be undeleted."""
        return await self._run(credentials.delete(self._access, name, etag))

    async def undelete(self, name: str, *, etag: str = "") -> credential_pb2.Credential:
        """Bring a deleted credential back."""
        return await self._run(credentials.undelete(self._access, name, etag))

    async def destroy_version(
        self, name: str, version: int, *, etag: str = ""
    ) -> credential_pb2.CredentialVersion:
        """Destroy a version for ever."""
        return await self._run(credentials.destroy_version(self._access, name, version, etag))

    async def issue_token(
        self,
        scopes: Sequence[str],
        *,
        ttl_seconds: int = 3600,
        purpose: str = "",
        tenant: str = "",
        max_sessions: int = 0,
        narrowable: bool = False,
        approval_id: str = "",
    ) -> token_pb2.TokenServiceIssueResponse:
        """Issue a token, to be handed to `use_token`. The client issues its own without being asked.

        `max_sessions` is how many sessions it may open, a reveal counting as one; 0: no limit. From one that is
        `narrowable` its holder can make weaker ones without the vault (`narrow_token`). `approval_id` is what
        `request_token` gave, once others have signed for the same arguments.
        """
        return await self._drive(
            self._access.issue_token(
                scopes, ttl_seconds, purpose, tenant, max_sessions, narrowable, approval_id
            )
        )

    async def request_token(
        self,
        scopes: Sequence[str],
        *,
        purpose: str,
        ttl_seconds: int = 3600,
        max_sessions: int = 0,
        narrowable: bool = False,
    ) -> approval_pb2.Approval:
        """Ask others to sign for one token with exactly these arguments, for this client's certificate.

        At most 10 scopes of at most 128 characters (`ValueError`). The client's own token must hold
        `token.issue:<tenant>/tokens`.
        """
        return await self._run(
            tokens.request_token(self._access, scopes, ttl_seconds, purpose, max_sessions, narrowable)
        )

    async def exchange_token(
        self,
        scopes: Sequence[str],
        *,
        ttl_seconds: int | None = None,
        certificate_thumbprint: str = "",
        purpose: str = "",
        max_sessions: int = 0,
        narrowable: bool = False,
    ) -> token_pb2.TokenServiceExchangeResponse:
        """A weaker token for the client's own, revoked with it (RFC 8693).

        With the SHA-256 thumbprint of another certificate (base64url) it is for the holder of that one.
        """
        return await self._run(
            tokens.exchange_token(
                self._access, scopes, ttl_seconds, certificate_thumbprint, purpose, max_sessions, narrowable
            )
        )

    async def revoke_token(self, token_id: str, *, tenant: str = "") -> token_pb2.TokenServiceRevokeResponse:
        """Revoke a token by its id, and all that come from it."""
        return await self._run(tokens.revoke(self._access, tokens.revoke_request(token_id, tenant=tenant)))

    async def revoke_tokens(
        self,
        *,
        parent_id: str = "",
        identity: str = "",
        everything: bool = False,
        tenant: str = "",
        issued_before: datetime.datetime | None = None,
    ) -> token_pb2.TokenServiceRevokeResponse:
        """Revoke many tokens: those made from a token, those of an identity, or everything in a tenant.

        `tenant` is the client's own by default; `*` is every tenant.
        """
        request = tokens.revoke_request(
            parent_id=parent_id,
            identity=identity,
            everything=everything,
            tenant=tenant,
            issued_before=issued_before,
        )
        return await self._run(tokens.revoke(self._access, request))

    async def introspect_token(self, text: str) -> token_pb2.TokenServiceIntrospectResponse:
        """What a token is good for."""
        return await self._run(tokens.introspect_token(self._access, text))

    async def jwks(self) -> bytes:
        """The vault's public keys, as a JWK set in JSON."""
        return await self._drive(self._access.jwks())

    async def create_tenant(
        self, tenant: str, *, validate_only: bool = False, homes: key_pb2.KeyHomes | None = None
    ) -> key_pb2.Key:
        """Make a tenant and its first key; `validate_only`: only say what it would be."""
        return await self._run(keys.create_tenant(self._access, tenant, homes, validate_only=validate_only))

    async def rotate_key(
        self,
        tenant: str,
        *,
        purpose: str = "kek",
        validate_only: bool = False,
        homes: key_pb2.KeyHomes | None = None,
    ) -> key_pb2.Key:
        """Make a new version of a tenant's key and put it to use.

        For the tenant `system`, one of the vault's own: `token`, `checkpoint` or `ingest`. `homes` puts it
        somewhere else.
        """
        return await self._run(
            keys.rotate_key(self._access, tenant, purpose, validate_only=validate_only, homes=homes)
        )

    async def key_status(self, tenant: str) -> key_pb2.KeyServiceGetStatusResponse:
        """What depends on each version of a tenant's key, what is due, and which jobs are under way."""
        return await self._run(keys.key_status(self._access, tenant))

    async def key_uses(self, tenant: str, version: int) -> list[key_pb2.KeyUse]:
        """All that a version of a tenant's key wraps, by name."""
        return await self._run(keys.key_uses(self._access, tenant, version))

    async def retire_key(self, tenant: str, version: int, *, validate_only: bool = False) -> key_pb2.Key:
        """Take a version that nothing depends on out of use."""
        return await self._run(keys.retire_key(self._access, tenant, version, validate_only=validate_only))

    async def quarantine_key(
        self, tenant: str, version: int, *, refuse_reads: bool = False, validate_only: bool = False
    ) -> key_pb2.KeyServiceQuarantineResponse:
        """Put a version that may be compromised into quarantine; what it wraps is re-encrypted first of all."""
        return await self._run(
            keys.quarantine_key(
                self._access, tenant, version, refuse_reads=refuse_reads, validate_only=validate_only
            )
        )

    async def restore_key(self, tenant: str, version: int, *, validate_only: bool = False) -> key_pb2.Key:
        """Take one step back: from scheduled destruction to retired, from retired to opening what it wraps."""
        return await self._run(keys.restore_key(self._access, tenant, version, validate_only=validate_only))

    async def destroy_key(
        self,
        tenant: str,
        version: int,
        *,
        approval_id: str = "",
        delay_seconds: int | None = None,
        validate_only: bool = False,
    ) -> key_pb2.KeyServiceDestroyResponse:
        """Schedule a version that nothing depends on for destruction, by default in 7 days."""
        return await self._run(
            keys.destroy_key(
                self._access,
                tenant,
                version,
                delay_seconds=delay_seconds,
                approval_id=approval_id,
                validate_only=validate_only,
            )
        )

    async def schedule_key(
        self,
        tenant: str,
        *,
        purpose: str = "kek",
        every_seconds: int = 0,
        max_wraps: int = 0,
        rewrap: bool = False,
        validate_only: bool = False,
    ) -> key_pb2.KeySchedule:
        """Have the vault rotate a key by itself: by age, by number of wraps; neither: not at all."""
        schedule = key_pb2.KeySchedule(purpose=keys.KEY_PURPOSES[purpose], max_wraps=max_wraps, rewrap=rewrap)
        schedule.every.seconds = every_seconds
        return await self._run(keys.schedule_key(self._access, tenant, schedule, validate_only=validate_only))

    async def list_keys(self, tenant: str) -> list[key_pb2.Key]:
        """The versions of a tenant's key, newest first."""
        return await self._run(keys.list_keys(self._access, tenant))

    async def describe_key(self, tenant: str, version: int = 0) -> key_pb2.KeyServiceDescribeResponse:
        """What is known of a key version; 0 is the active one."""
        return await self._run(keys.describe_key(self._access, tenant, version))

    async def list_threats(self, *, only_open: bool = False) -> list[threat_pb2.Threat]:
        """Findings of threat detection, newest first."""
        return await self._run(threats.list_threats(self._access, only_open=only_open))

    async def explain_threat(self, threat_id: str) -> threat_pb2.ThreatServiceExplainResponse:
        """One finding with its evidence."""
        return await self._run(threats.explain_threat(self._access, threat_id))

    async def release_threat(self, threat_id: str, *, purpose: str) -> threat_pb2.Threat:
        """Close a finding, and thaw what it froze."""
        return await self._run(threats.release_threat(self._access, threat_id, purpose))

    async def blast_radius(
        self, *, identity: str = "", token_id: str = "", certificate: str = ""
    ) -> threat_pb2.ThreatServiceGetBlastRadiusResponse:
        """Everything that an identity, a token (and those made from it) or a certificate touched. Name one."""
        named = {"identity": identity, "token_id": token_id, "certificate": certificate}
        request = threat_pb2.ThreatServiceGetBlastRadiusRequest(**{k: v for k, v in named.items() if v})
        return await self._run(threats.blast_radius(self._access, request))

    async def get_policy(self, version: int = 0) -> policy_pb2.Policy:
        """A version of the policy; 0 is what is in force."""
        return await self._run(policies.get_policy(self._access, version))

    async def list_policies(self) -> list[policy_pb2.Policy]:
        """The stored versions of the policy, newest first, without their text."""
        return await self._run(policies.list_policies(self._access))

    async def validate_policy(self, text: str) -> list[str]:
        """What is wrong with a policy; nothing if it can be put in force."""
        return list((await self._run(policies.validate_policy(self._access, text))).problems)

    async def written_policy(self, text: str) -> str:
        """A valid policy as it would be stored, for who may change it: people by pseudonym. Its SHA-256 is approved."""
        response = await self._run(policies.validate_policy(self._access, text))
        return response.text

    async def apply_policy(
        self, text: str, *, base_version: int, comment: str, approval_id: str
    ) -> policy_pb2.Policy:
        """Put a policy in force, everywhere within a second."""
        return await self._run(policies.apply_policy(self._access, text, base_version, comment, approval_id))

    async def explain_policy(
        self, identity: str, scope: str, circumstances: policy_pb2.PolicyCircumstances | None = None
    ) -> policy_pb2.PolicyServiceExplainResponse:
        """Whether an identity would be granted a scope, and which rules say so."""
        return await self._run(policies.explain_policy(self._access, identity, scope, circumstances))

    async def list_reachers(
        self,
        name: str,
        *,
        identities: Sequence[str] = (),
        circumstances: policy_pb2.PolicyCircumstances | None = None,
    ) -> policy_pb2.PolicyServiceListReachersResponse:
        """Who can reach a credential, by the policy in force."""
        return await self._run(policies.list_reachers(self._access, name, identities, circumstances))

    async def request_approval(
        self, operation: Operation, *, purpose: str, document: str = ""
    ) -> approval_pb2.Approval:
        """Ask for an approval of an operation; for `policy.write` with the policy, which is shown to who approves."""
        return await self._run(approvals.request_approval(self._access, operation, purpose, document))

    async def approve(self, approval: approval_pb2.Approval) -> approval_pb2.Approval:
        """Sign for exactly what `approval` shows, with the private key of the profile's certificate."""
        return await self._run(approvals.approve(self._access, approval))

    async def describe_erasure(
        self, tenant: str = "", subject: str = "", *, identity: str = ""
    ) -> erasure_pb2.ErasureServiceDescribeResponse:
        """What it would take to erase a subject of a tenant, the tenant, or a person who calls, and what to approve."""
        return await self._run(erasures.describe_erasure(self._access, tenant, subject, identity))

    async def erase(
        self, tenant: str = "", subject: str = "", *, identity: str = "", approval_id: str = ""
    ) -> str:
        """Erase a subject of a tenant, the tenant, or a person who calls; gives the certificate.

        What was interrupted is taken up; a person is then named by the pseudonym.
        """
        return await self._run(erasures.erase(self._access, tenant, subject, identity, approval_id))

    async def identify(self, pseudonyms: Sequence[str]) -> list[str]:
        """Whom pseudonyms of people stand for, in order; empty for who was erased. Needs `audit.identify`."""
        return await self._run(audit.identify(self._access, pseudonyms))

    async def get_approval(self, approval_id: str) -> approval_pb2.Approval:
        """One approval."""
        return await self._run(approvals.get_approval(self._access, approval_id))

    async def list_approvals(self, *, only_open: bool = False) -> list[approval_pb2.Approval]:
        """The approvals that the caller may see, newest first."""
        return await self._run(approvals.list_approvals(self._access, only_open=only_open))

    async def cancel_approval(self, approval_id: str) -> approval_pb2.Approval:
        """Take an approval back."""
        return await self._run(approvals.cancel_approval(self._access, approval_id))

    async def start_job(
        self,
        tenant: str,
        kind: str,
        *,
        source_version: int = 0,
        suite: str = "",
        max_per_second: int = 0,
        validate_only: bool = False,
    ) -> job_pb2.RewrapJob:
        """Start a job (`rewrap` or `reencrypt`) on all that a tenant has, or only ask what it would be."""
        request = job_pb2.JobServiceStartRequest(
            tenant=tenant,
            kind=jobs.JOB_KINDS[kind],
            source_version=source_version,
            suite=suite,
            max_per_second=max_per_second,
            validate_only=validate_only,
        )
        return await self._run(jobs.start_job(self._access, request))

    async def get_job(self, tenant: str, job_id: str) -> job_pb2.RewrapJob:
        """A job and how far it is."""
        return await self._run(jobs.get_job(self._access, tenant, job_id))

    async def list_jobs(self, tenant: str) -> list[job_pb2.RewrapJob]:
        """A tenant's jobs, newest first, without their reports."""
        return await self._run(jobs.list_jobs(self._access, tenant))

    async def list_job_failures(self, tenant: str, job_id: str) -> list[job_pb2.JobFailure]:
        """What a job could not do, by name and version: what the `failures_sha256` of its report is over."""
        return await self._run(jobs.list_job_failures(self._access, tenant, job_id))

    async def update_job(
        self,
        tenant: str,
        job_id: str,
        *,
        command: str = "",
        max_per_second: int | None = None,
        validate_only: bool = False,
    ) -> job_pb2.RewrapJob:
        """`pause`, `resume` or `cancel` a job, or let it go faster or slower (0: as fast as it can)."""
        request = job_pb2.JobServiceUpdateRequest(
            tenant=tenant,
            job_id=job_id,
            command=jobs.JOB_COMMANDS[command],
            max_per_second=max_per_second,
            validate_only=validate_only,
        )
        return await self._run(jobs.update_job(self._access, request))

    async def watch_job(self, tenant: str, job_id: str) -> AsyncIterator[job_pb2.RewrapJob]:
        """A job whenever it got on, until it has ended. Survives a vault that restarts."""
        attempt = 0
        while True:
            await self._fetch_token()
            token = await self._drive(self._access.token())
            invoke = self._channel.unary_stream(
                jobs.WATCH_JOB,
                request_serializer=job_pb2.JobServiceWatchRequest.SerializeToString,
                response_deserializer=job_pb2.JobServiceWatchResponse.FromString,
            )
            request = job_pb2.JobServiceWatchRequest(tenant=tenant, job_id=job_id)
            sent = calls.metadata(self._access.profile, token)
            try:
                async for response in invoke(request, metadata=sent):
                    attempt = 0
                    yield response.job
                    if response.job.report:
                        return
            except grpc.aio.AioRpcError as error:
                failure = from_rpc(error)
                if self._access.renews(failure):
                    continue
                if failure.code is not grpc.StatusCode.UNAVAILABLE or attempt >= jobs.MAX_WATCH_TRIES:
                    raise await asyncio.to_thread(explain, self.profile, failure) from None
                await asyncio.sleep(calls.pause(min(attempt, MAX_TRIES)))
                attempt += 1

    async def audit_records(
        self, *, most: int = 1000, **filters: Unpack[AuditFilters]
    ) -> list[audit_pb2.AuditRecord]:
        """Audit records that match every filter given, at most so many, by sequence."""
        request = audit.audit_request(filters)
        return await self._run(audit.audit_records(self._access, request, most))

    async def iter_audit(
        self, *, follow: bool = False, **filters: Unpack[AuditFilters]
    ) -> AsyncIterator[audit_pb2.AuditRecord]:
        """Audit records that match, page by page; with `follow`, new ones too, across lost connections, without end."""
        reading = audit.Reading(filters, follow=follow)
        while True:
            try:
                page = await self.audit_page(reading.request)
            except StrongroomError as failure:
                await asyncio.sleep(reading.after(failure))
                continue
            for record in page.records:
                yield record
            wait = reading.take(page)
            if wait is None:
                return
            await asyncio.sleep(wait)

    async def checkpoint(self) -> audit_pb2.AuditServiceGetCheckpointResponse:
        """The newest checkpoint of the audit log."""
        return await self._run(audit.checkpoint(self._access))

    async def verify_audit(
        self, watch: Callable[[int, int], None] = lambda _records, _total: None
    ) -> audit_pb2.AuditServiceVerifyResponse:
        """Have the vault verify its whole audit log, however long it takes: the client's time-out does not hold for it.

        `watch` is told about once a second how many records were read, and of how many (0: not known yet).
        """
        try:
            return await self._verify_audit(watch)
        except StrongroomError as failure:
            if not self._access.renews(failure):
                raise await asyncio.to_thread(explain, self.profile, failure) from None
        return await self._verify_audit(watch)

    async def _verify_audit(self, watch: Callable[[int, int], None]) -> audit_pb2.AuditServiceVerifyResponse:
        await self._fetch_token()
        token = await self._drive(self._access.token())
        invoke = self._channel.unary_stream(
            audit.WATCH_VERIFY,
            request_serializer=audit_pb2.AuditServiceWatchVerifyRequest.SerializeToString,
            response_deserializer=audit_pb2.AuditServiceWatchVerifyResponse.FromString,
        )
        sent = calls.metadata(self.profile, token)
        try:
            async for told in invoke(audit_pb2.AuditServiceWatchVerifyRequest(), metadata=sent):
                if told.HasField("verdict"):
                    verdict: audit_pb2.AuditServiceVerifyResponse = told.verdict
                    return verdict
                watch(told.records, told.total)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
        raise StrongroomError(grpc.StatusCode.UNAVAILABLE, UNREACHABLE, "the stream ended", {})

    async def audit_page(
        self, request: audit_pb2.AuditServiceListRequest
    ) -> audit_pb2.AuditServiceListResponse:
        """One page of audit records, to read a log of any length."""
        return await self._run(audit.audit_page(self._access, request))

    async def compliance_report(
        self, standard: str, *, days: int = 365, cryptoperiod_days: int = 365
    ) -> audit_pb2.AuditServiceReportResponse:
        """A signed report for assessors; the SDK's own time-out does not hold for it, it may take minutes."""
        return await self._run(audit.compliance_report(self._access, standard, days, cryptoperiod_days))

    async def audit_sinks(self) -> list[audit_pb2.AuditSink]:
        """The sinks that the log also goes to, and how each fares."""
        return list((await self._run(audit.audit_sinks(self._access))).sinks)

    async def list_checkpoints(self) -> list[audit_pb2.Checkpoint]:
        """Every checkpoint of the audit log, by size."""
        return await self._run(audit.list_checkpoints(self._access))

    async def inclusion_proof(
        self, sequence: int, *, size: int = 0
    ) -> audit_pb2.AuditServiceGetInclusionProofResponse:
        """A record, and the proof that the checkpoint of `size` (0: the newest) covers it."""
        return await self._run(audit.inclusion_proof(self._access, sequence, size))

    async def accept_audit_loss(self, sequence: int, approval_id: str) -> audit_pb2.Checkpoint:
        """Accept, with an approval, that a damaged record's content is lost; the checkpoint signed over it."""
        return (await self._run(audit.accept_audit_loss(self._access, sequence, approval_id))).checkpoint

    async def consistency_proof(
        self, old_size: int, *, size: int = 0
    ) -> audit_pb2.AuditServiceGetConsistencyProofResponse:
        """The proof that the checkpoint of `old_size` is the beginning of that of `size` (0: of the newest)."""
        return await self._run(audit.consistency_proof(self._access, old_size, size))

    @property
    def _channel(self) -> grpc.aio.Channel:
        return self._channels[-1]

    def _connect(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(self.profile.server, self._shown.credentials, calls.CHANNEL_OPTIONS)

    async def _renew_connection(self) -> None:
        """Show the certificate that the files hold now, if it is another."""
        if self._shown.renewed():
            self._channels.append(self._connect())
            if len(self._channels) > _KEPT:
                await self._channels.pop(0).close(None)

    async def _pause(self, failure: StrongroomError, after: Callable[[StrongroomError], float]) -> None:
        """Wait as long as `after` says. Raises what it raises."""
        try:
            wait = after(failure)
        except StrongroomError as final:
            raise await asyncio.to_thread(explain, self.profile, final) from None
        await asyncio.sleep(wait)

    async def _fetch_token(self) -> None:
        if not self._access.has_token:
            async with self._fetching:
                await self._drive(self._access.token())

    async def _fetch_ingest_key(self) -> None:
        if not self._access.has_ingest_key:
            async with self._fetching:
                await self._drive(self._access.ingest_key())

    async def _run(self, steps: Steps[T]) -> T:
        """Carry out an operation that needs a token."""
        await self._fetch_token()
        return await self._drive(steps)

    async def _drive(self, steps: Steps[T]) -> T:
        """Carry an operation's calls to the wire until it returns."""
        try:
            call = next(steps)
            while True:
                try:
                    answer = await self._send(call)
                except StrongroomError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _send(self, call: Call) -> object:
        if call.shows_certificate:
            await self._renew_connection()
        invoke = self._channel.unary_unary(
            call.method,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.response.FromString,
        )
        sent = calls.metadata(self._access.profile, call.token)
        for attempt in range(MAX_TRIES):
            try:
                answer = await invoke(call.request, timeout=self._timeout, metadata=sent)
            except grpc.aio.AioRpcError as error:
                failure = from_rpc(error)
                if not call.may_repeat(failure, attempt):
                    raise await asyncio.to_thread(explain, self.profile, failure, heard=self._heard) from None
                await asyncio.sleep(calls.pause(attempt))
            else:
                self._heard = True
                return answer
        raise AssertionError("unreachable")


class AsyncSession:
    """A session on some credentials. Everything it revealed is wiped at the end of the `async with` block."""

    def __init__(self, client: AsyncClient, state: SessionState) -> None:
        self._client = client
        self._state = state
        self._exchange: Exchange | None = None

    @property
    def session_id(self) -> str:
        """The session's id, as in the audit log."""
        return self._state.session_id

    @property
    def opened(self) -> tuple[session_pb2.OpenedCredential, ...]:
        """What the session holds."""
        return self._state.opened

    @property
    def events(self) -> list[session_pb2.SessionServiceOpenResponse]:
        """What the vault told of its own accord so far."""
        return self._state.events

    @property
    def closed(self) -> session_pb2.SessionClosed | None:
        """Why the session ended, and its receipt; None while it is open."""
        return self._state.closed

    async def __aenter__(self) -> Self:
        client = self._client
        opening = sessions.Opening(client._access)  # noqa: SLF001 - a session is a part of its client
        while True:
            await client._fetch_token()  # noqa: SLF001
            token = await client._drive(client._access.token())  # noqa: SLF001
            try:
                await self._open(token)
            except StrongroomError as failure:
                self._leave()
                await client._pause(failure, opening.after)  # noqa: SLF001
            except BaseException:
                self._leave()
                raise
            else:
                return self

    async def _open(self, token: str) -> None:
        client = self._client
        invoke: Any = client._channel.stream_stream(  # noqa: SLF001
            sessions.Opening.METHOD,
            request_serializer=session_pb2.SessionServiceOpenRequest.SerializeToString,
            response_deserializer=session_pb2.SessionServiceOpenResponse.FromString,
        )
        self._exchange = Exchange(invoke(metadata=calls.metadata(client.profile, token)), self._state)
        await self._exchange.ask(self._state.start())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state.wipe()
        try:
            if self._state.closed is None and self._exchange is not None:
                await self._exchange.close()
        finally:
            self._leave()

    async def reveal(self, *field_names: str, name: str = "") -> Secrets:
        """Reveal fields (none: all) of the session's credential, or of the one named."""
        answer = await self._ask(self._state.reveal(field_names, name))
        return self._state.open(answer.reveal)

    async def verify_webhook(
        self,
        scheme: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        field_names: Sequence[str] = ("webhook_secret",),
        name: str = "",
        apply_to: str = "",
        connector: str = "",
    ) -> session_pb2.VerifyWebhookResult:
        """Verify a webhook (`stripe`, `plaid`, `adyen`, ...: docs/uses.md) with a secret that stays in the vault.

        It is genuine only if the result's `verdict` is `WEBHOOK_VERDICT_VALID`. Of `headers` those are sent that the
        scheme reads; all of a request's may be given.
        `apply_to`: a credential whose standing a genuine webhook may set. `connector`: fetches Plaid's public key
        with the credential's client_id and secret, instead of `field_names`.
        """
        answer = await self._ask(
            self._state.verify_webhook(scheme, headers, body, field_names, name, apply_to, connector)
        )
        return answer.verify_webhook

    async def hmac(
        self,
        field_name: str,
        message: bytes,
        *,
        hash_name: str = "sha256",
        raw: bool = False,
        context: str = "",
        name: str = "",
    ) -> bytes:
        """An HMAC, by default with a key derived for this alone; `raw`: with the field's own bytes."""
        answer = await self._ask(
            self._state.hmac(field_name, message, hash_name, raw=raw, context=context, name=name)
        )
        return answer.hmac.mac

    async def verify_hmac(
        self,
        field_name: str,
        message: bytes,
        mac: bytes,
        *,
        hash_name: str = "sha256",
        raw: bool = False,
        context: str = "",
        name: str = "",
    ) -> bool:
        """Whether this is the right HMAC."""
        asked = self._state.verify_hmac(
            field_name, message, mac, hash_name, raw=raw, context=context, name=name
        )
        return (await self._ask(asked)).verify_hmac.valid

    async def totp(self, field_name: str = "totp_seed", *, name: str = "") -> session_pb2.TotpResult:
        """The one-time password of this moment (RFC 6238)."""
        return (await self._ask(self._state.use("totp", name, field_name=field_name))).totp

    async def answer_challenge(
        self, challenge: str, *, field_name: str = "private_key", name: str = ""
    ) -> str:
        """The answer to Braintree's challenge to a webhook endpoint."""
        asked = self._state.use("answer_challenge", name, field_name=field_name, challenge=challenge)
        return (await self._ask(asked)).answer_challenge.response

    async def sign_jws(
        self,
        payload: bytes,
        *,
        header: Mapping[str, object] | None = None,
        unencoded: bool = False,
        field_name: str = "private_key",
        name: str = "",
    ) -> str:
        """A detached JWS over a payload, in compact form; `header`: what stands in it beside `alg` and `kid`."""
        text = json.dumps(header) if header else ""
        jws = {"payload": payload, "header": text, "unencoded": unencoded}
        return (await self._ask(self._state.use("sign", name, field_name=field_name, jws=jws))).sign.compact

    async def client_assertion(
        self, audience: str, *, client_id: str = "", field_name: str = "private_key", name: str = ""
    ) -> str:
        """A `private_key_jwt` for an authorisation server, 60 seconds long."""
        assertion = {"audience": audience, "client_id": client_id}
        asked = self._state.use("sign", name, field_name=field_name, client_assertion=assertion)
        return (await self._ask(asked)).sign.compact

    async def sign_http(
        self,
        method: str,
        target_uri: str,
        headers: Mapping[str, str],
        *,
        components: Sequence[str],
        body: bytes | None = None,
        label: str = "",
        tag: str = "",
        field_name: str = "private_key",
        name: str = "",
    ) -> dict[str, str]:
        """The headers that sign an HTTP request by RFC 9421."""
        http = {
            "method": method, "target_uri": target_uri, "headers": headers, "components": components,
            "label": label, "tag": tag, **({} if body is None else {"body": body}),
        }  # fmt: skip
        asked = self._state.use("sign", name, field_name=field_name, http=http)
        return dict((await self._ask(asked)).sign.headers)

    async def sign_raw(
        self, message: bytes, *, field_name: str = "private_key", name: str = ""
    ) -> session_pb2.SignResult:
        """The signature of any message; ECDSA in DER."""
        asked = self._state.use("sign", name, field_name=field_name, raw={"message": message})
        return (await self._ask(asked)).sign

    async def http_call(
        self,
        connector: str,
        method: str,
        path: str,
        *,
        host: str = "",
        query: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        also: str = "",
        capture: str = "",
        name: str = "",
    ) -> session_pb2.HttpCallResult:
        """An HTTPS request with the credential put in by the vault, as the operator's connector says.

        `also` names a second credential that lends fields; `capture` the one to store what the connector captures.
        """
        pairs = [{"name": key, "value": value} for key, value in query]
        asked = self._state.use(
            "http_call",
            name,
            connector=connector,
            method=method,
            path=path,
            host=host,
            query=pairs,
            headers=headers or {},
            body=body,
            also_name=also,
            capture_name=capture,
        )
        return (await self._ask(asked)).http_call

    async def oauth_refresh(
        self, connector: str, *, client: str, name: str
    ) -> session_pb2.OauthRefreshResult:
        """Refresh an OAuth grant, once for all who ask; the session goes on with its newest version."""
        asked = self._state.use("oauth_refresh", name, client_name=client, connector=connector)
        return (await self._ask(asked)).oauth_refresh

    async def link_token(
        self,
        connector: str,
        *,
        client_user_id: str,
        client_name: str,
        country_codes: Sequence[str],
        language: str = "",
        redirect_uri: str = "",
        also: str = "",
        name: str = "",
    ) -> session_pb2.LinkTokenResult:
        """The token by which a customer mends a credential: Plaid's update mode (docs/uses.md)."""
        asked = self._state.use(
            "link_token",
            name,
            connector=connector,
            also_name=also,
            client_user_id=client_user_id,
            client_name=client_name,
            language=language,
            country_codes=country_codes,
            redirect_uri=redirect_uri,
        )
        return (await self._ask(asked)).link_token

    async def _ask(
        self, message: session_pb2.SessionServiceOpenRequest
    ) -> session_pb2.SessionServiceOpenResponse:
        if self._state.closed is not None:
            raise SessionClosedError(self._state.closed)
        if self._exchange is None:
            raise ValueError("the session is not open: use it in an `async with` block")
        try:
            return await self._exchange.ask(message)
        except StrongroomError as failure:
            raise await asyncio.to_thread(explain, self._client.profile, failure) from None

    def _leave(self) -> None:
        self._state.wipe()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.leave()
