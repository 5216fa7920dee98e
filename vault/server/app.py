"""The wiring: every part of a worker, made once, in order, and handed what it needs. No globals."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import logging
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from vault.config import read_secret_file, seconds
from vault.core import approvals, policy, suspicions, upkeep
from vault.core.activity import ActivityWatch
from vault.core.approvals import Approvals, ApprovalSettings
from vault.core.compliance import Compliance
from vault.core.credential_keys import CredentialKeys
from vault.core.credentials import Credentials
from vault.core.egress import connectors
from vault.core.egress.calls import Calls
from vault.core.egress.post import HttpsPost
from vault.core.envelopes import Envelopes
from vault.core.erasures import Erasures
from vault.core.follower import Follower
from vault.core.handovers import Handovers
from vault.core.health import Health
from vault.core.ingest import IngestKeys
from vault.core.jobs import Jobs
from vault.core.lanes import Lanes
from vault.core.lifecycle import Lifecycle
from vault.core.losses import Losses
from vault.core.outgoing import Outgoing
from vault.core.people import People
from vault.core.policies import Policies
from vault.core.proofs import Proofs
from vault.core.rates import Rates
from vault.core.rewrap import Rewrap
from vault.core.schedules import Schedules
from vault.core.session import SessionSettings
from vault.core.sessions import Sessions
from vault.core.signing import SigningKeys
from vault.core.sinks import Sinks
from vault.core.standing import Standings
from vault.core.subjects import Subjects
from vault.core.suspicions import Thresholds
from vault.core.threats import Threats, ThreatSettings
from vault.core.tokens import Tokens, TokenSettings
from vault.core.uses.material import Surroundings
from vault.core.uses.outside import Outside
from vault.core.uses.webhook_keys import WebhookKeys
from vault.core.watches import Watches
from vault.crypto import memory
from vault.errors import Reason, StartError, VaultError
from vault.model import SYSTEM_TENANT, KeyPurpose
from vault.server.approvals import ApprovalService
from vault.server.audit import AuditService
from vault.server.checkpointing import archiving, checkpointing
from vault.server.credentials import CredentialService
from vault.server.edge import Edge
from vault.server.erasures import ErasureService
from vault.server.foundation import Foundation, record_hsms
from vault.server.handovers import HandoverService
from vault.server.health import HealthService
from vault.server.identity import Identities
from vault.server.jobs import JobService
from vault.server.keys import KeyService
from vault.server.measures import Measures
from vault.server.pages import Pages
from vault.server.policies import PolicyService
from vault.server.sessions import SessionService
from vault.server.threats import ThreatService
from vault.server.tls import TlsFiles
from vault.server.tokens import TokenService
from vault.server.webhooks import WebhookService
from vault.sinks.open import outlets
from vault.store.reach import NOBODY, declared
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
    from collections.abc import Coroutine

    from vault.config import Config
    from vault.model import Caller

log = logging.getLogger("strongroom.app")

OPTIONS = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", 256 * 1024),
    ("grpc.max_send_message_length", 8 * 1024 * 1024),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.server_handshake_timeout_ms", 3_000),
    ("grpc.max_connection_age_ms", 600_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.enable_channelz", 0),
)


class App:
    """A worker: made by `start`, ended by `stop`."""

    def __init__(self, config: Config, base: Foundation) -> None:
        self._config = config
        self._base = base
        self._background: list[asyncio.Task[None]] = []
        clock, database, hsm, log_, keyring = base.clock, base.database, base.hsm, base.log, base.keyring
        self._sinks = Sinks(outlets(config.audit.sinks), database, log_, clock)
        self._follower = Follower(database, clock)
        self._follower.listen(keyring.forget)
        self._follower.listen(hsm.forget)
        self._signing_keys = SigningKeys(keyring, hsm, clock)
        self._follower.listen(self._signing_keys.notice)
        self._subjects = Subjects(database, hsm, log_, keyring)
        self._people = People(
            config.identity.personal, config.identity.trust_domains, database, log_, keyring, self._subjects
        )
        self._follower.listen(self._people.notice)
        self._approvals = Approvals(_approval_settings(config), database, log_, self._people, clock)
        self._policies = Policies(
            policy.load(config.policy.files),
            database,
            hsm,
            keyring,
            log_,
            self._approvals,
            self._people,
            clock,
            ignore_stored=config.policy.ignore_stored,
        )
        self._follower.listen(self._policies.notice)
        self._tokens = Tokens(
            TokenSettings(
                issuer=config.tokens.issuer,
                audience=config.tokens.audience,
                default_life=seconds(config.tokens.default_life_seconds),
                max_life=seconds(config.tokens.max_life_seconds),
            ),
            database,
            self._signing_keys,
            log_,
            self._follower,
            self._policies,
            self._approvals,
            clock,
            people=self._people,
        )
        self._threats = Threats(
            _threat_settings(config),
            database,
            log_,
            self._tokens,
            self._people,
            clock,
            base.metrics.threat_found,
        )
        self._follower.listen(self._threats.notice)
        self._ingest = IngestKeys(
            config.tokens.issuer, database, hsm, keyring, log_, self._signing_keys, clock
        )
        envelopes = Envelopes(hsm, keyring, self._subjects)
        self._credentials = Credentials(
            database, log_, keyring, self._subjects, self._ingest, envelopes, base.load
        )
        self._credential_keys = CredentialKeys(
            database,
            hsm,
            log_,
            keyring,
            self._credentials,
            config.hsm.deployment,
            clock,
            most=config.hsm.max_credential_keys_per_tenant,
        )
        self._standings = Standings(database, log_, clock)
        self._outside = Outside(
            Calls(),
            connectors.load(config.connectors.folder),
            self._credentials,
            self._standings,
            log_,
            WebhookKeys(),
        )
        self._sessions = Sessions(
            SessionSettings(
                max_life=seconds(config.sessions.max_life_seconds),
                idle=seconds(config.sessions.idle_seconds),
                max_per_worker=config.sessions.max_per_worker,
                max_per_tenant=config.sessions.max_per_tenant,
                max_per_identity=config.sessions.max_per_identity,
                max_bytes_per_tenant=config.sessions.max_bytes_per_tenant,
            ),
            self._credentials,
            envelopes,
            log_,
            self._follower,
            self._approvals,
            base.load,
            clock,
            surroundings=Surroundings(now=clock.now, reach=self._outside, sign=self._credential_keys.sign),
        )
        self._watches = Watches(database, log_, self._follower, clock)
        self._handovers = Handovers(database, log_, keyring, self._ingest, envelopes, self._people, clock)
        self._outgoing = Outgoing(
            database,
            log_,
            self._credentials,
            envelopes,
            # Of their own: tenants' endpoints that are slow to answer hold up nobody's requests to providers.
            HttpsPost(Calls(), config.webhooks.development_ca_file),
            clock,
        )
        checkpointing_ = checkpointing(base, config)
        _, paths, self._anchors, self._checkpoints = checkpointing_
        self._checkpoints.heed(self._follower)
        self._archiving = archiving(base, config, checkpointing_)
        self._proofs = Proofs(database, self._checkpoints, paths)
        self._policies.listen(self._sessions.regrant)
        self._erasures = Erasures(
            database,
            hsm,
            log_,
            keyring,
            self._subjects,
            envelopes,
            self._checkpoints,
            self._approvals,
            credential_keys=self._credential_keys,
            people=self._people,
            tokens=self._tokens,
        )
        self._jobs = Jobs(database, log_, keyring, clock)
        self._lanes = Lanes(
            database, log_, keyring, Rewrap(hsm, keyring), self._checkpoints, self._jobs, base.load, clock
        )
        self._follower.listen(self._lanes.notice)
        self._lifecycle = Lifecycle(database, hsm, log_, keyring, self._jobs, self._approvals, clock)
        self._schedules = Schedules(database, hsm, log_, keyring, self._jobs, self._lifecycle, clock)
        self._health = Health(
            hsm, database, log_, self._follower, self._checkpoints, self._anchors, self._sinks, clock
        )
        self._tls = TlsFiles(config.tls, clock)
        self._identities = Identities(config.identity.trust_domains, lambda: self._tls.trust, clock)
        self._edge = Edge(
            self._identities,
            self._tokens,
            self._policies,
            self._threats,
            Rates(
                database, clock, per_identity=config.rates.per_identity, per_tenant=config.rates.per_tenant
            ),
            log_,
            base.load,
            base.metrics,
            people=self._people,
            max_calls=config.server.max_concurrent_calls,
        )
        # A connection that has come of age takes no new call, and lives on for as long as a session on it may.
        grace = ("grpc.max_connection_age_grace_ms", (config.sessions.max_life_seconds + 30) * 1000)
        self._server = grpc.aio.server(options=(*OPTIONS, grace), compression=grpc.Compression.NoCompression)

    async def start(self) -> None:
        """Learn keys and revocations, then listen. Raises `StartError`."""
        pages = Pages(await self._page_key())
        await record_hsms(self._base)
        await self._signing_keys.start()
        await self._subjects.start()
        await self._sinks.start()
        self._base.log.require(self._sinks)
        await self._follower.start()
        await self._people.start()
        await self._policies.start()
        await self._threats.start()
        await self._checkpoints.start()
        for descriptor, service in (
            (token_pb2.DESCRIPTOR, TokenService(self._tokens, self._signing_keys, self._base.log)),
            (
                credential_pb2.DESCRIPTOR,
                CredentialService(
                    self._credentials,
                    self._credential_keys,
                    self._watches,
                    self._standings,
                    self._ingest,
                    pages,
                ),
            ),
            (session_pb2.DESCRIPTOR, SessionService(self._sessions, self._base.metrics)),
            (handover_pb2.DESCRIPTOR, HandoverService(self._handovers)),
            (
                key_pb2.DESCRIPTOR,
                KeyService(self._base.keyring, self._lifecycle, self._schedules, pages, self._base.log),
            ),
            (threat_pb2.DESCRIPTOR, ThreatService(self._threats, pages)),
            (webhook_pb2.DESCRIPTOR, WebhookService(self._outgoing)),
            (policy_pb2.DESCRIPTOR, PolicyService(self._policies, pages, self._base.clock)),
            (erasure_pb2.DESCRIPTOR, ErasureService(self._erasures)),
            (approval_pb2.DESCRIPTOR, ApprovalService(self._approvals, pages, self._base.clock)),
            (job_pb2.DESCRIPTOR, JobService(self._jobs, pages)),
            (
                audit_pb2.DESCRIPTOR,
                AuditService(
                    self._base.database,
                    self._checkpoints,
                    self._proofs,
                    Losses(self._base.database, self._base.log, self._checkpoints, self._approvals),
                    self._sinks,
                    Compliance(
                        self._base.database, self._checkpoints, self._sinks, self._base.log, self._base.clock
                    ),
                    pages,
                    self._base.log,
                    people=self._people,
                ),
            ),
        ):
            (name,) = descriptor.services_by_name
            self._server.add_generic_rpc_handlers(
                (self._edge.handler(descriptor.services_by_name[name], service),)
            )
        health = HealthService(self._health, self._identities, self._base.metrics)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        if self._config.server.reflection:
            self._enable_reflection()
        self._server.add_generic_rpc_handlers((self._edge.unknown(),))
        try:
            self._server.add_secure_port(self._config.server.listen, self._tls.credentials())
        except RuntimeError:
            raise StartError(f"server.listen: cannot listen on {self._config.server.listen}") from None
        # What gRPC starts from here on may see nothing, until the edge has seen a token.
        with declared(NOBODY):
            await self._server.start()
        for work in (
            self._follower.run(),
            self._policies.run(),
            self._people.run(),
            self._threats.run(),
            self._base.hsm.run(self._base.capabilities.admit),
            self._sessions.run(),
            self._tls.run(lambda: self._sessions.end_where(self._refused)),
            self._handovers.run(),
            self._standings.run(),
            ActivityWatch(self._base.database).run(),
            self._credential_keys.run(),
            self._outgoing.run(),
            self._checkpoints.run(
                seconds=self._config.audit.checkpoint_seconds, records=self._config.audit.checkpoint_records
            ),
            self._lanes.run(),
            self._sinks.run(),
            self._schedules.run(),
            upkeep.run(self._base.database, self._base.clock),
            *((self._archiving.run(),) if self._archiving else ()),
        ):
            self._background.append(asyncio.create_task(_forever(work)))
        if self._config.metrics.listen:
            self._background.append(asyncio.create_task(_forever(self._measures().run())))
        # What lives since the start is never garbage: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()

    async def stop(self) -> None:
        """Take on nothing new, end the sessions, let calls in flight finish, wipe."""
        self._health.stop()
        self._edge.stop()
        self._sessions.stop()
        await self._server.stop(self._config.server.drain_seconds)
        await self._outside.drain()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._base.log.drain()
        with contextlib.suppress(VaultError):
            await self._checkpoints.sign()
        await self._anchors.close()

    def _measures(self) -> Measures:
        return Measures(
            self._base.metrics,
            self._base.database,
            self._health,
            self._base.load,
            self._sessions,
            self._anchors,
            self._sinks,
            self._tls,
            tenants=self._config.metrics.tenants,
        )

    def _refused(self, caller: Caller) -> bool:
        """Whether a caller's certificate is not accepted any more."""
        try:
            self._identities.recheck(caller.certificate)
        except VaultError:
            return True
        return False

    async def _page_key(self) -> memory.LockedBuffer:
        try:
            key = await self._base.keyring.active(SYSTEM_TENANT, KeyPurpose.PAGE)
        except VaultError as error:
            if error.reason is Reason.TENANT_NOT_FOUND:
                raise StartError(
                    "keys: the vault has no keys of its own yet: run `strongroom keys init`"
                ) from None
            raise StartError(f"database: {error.message}") from None
        return memory.absorb(await self._base.hsm.mac(key, b"strongroom/page/v1"))

    def _enable_reflection(self) -> None:
        from grpc_reflection.v1alpha import reflection  # noqa: PLC0415 - only where it is asked for

        names = [
            descriptor.full_name
            for module in (
                token_pb2,
                credential_pb2,
                session_pb2,
                erasure_pb2,
                handover_pb2,
                webhook_pb2,
                key_pb2,
                job_pb2,
                audit_pb2,
                approval_pb2,
                policy_pb2,
                threat_pb2,
            )
            for descriptor in module.DESCRIPTOR.services_by_name.values()
        ]
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)


def _approval_settings(config: Config) -> ApprovalSettings:
    section = config.approvals
    return ApprovalSettings(
        {
            approvals.DESTROY_KEY: section.destroy_key,
            approvals.DELETE_TENANT: section.delete_tenant,
            approvals.CHANGE_POLICY: section.change_policy,
            approvals.RECOVER_DATABASE: section.recover_database,
            approvals.BREAK_GLASS: section.break_glass,
            approvals.ISSUE_TOKEN: section.issue_token,
        },
        seconds(section.life_seconds),
    )


def _threat_settings(config: Config) -> ThreatSettings:
    section = config.threats
    for rules in section.freeze.values():
        if unknown := set(rules) - set(suspicions.RULES):
            raise StartError(f"threats.freeze: there is no rule {min(unknown)}")
    secret = b""
    if section.webhook_secret_file is not None:
        text = read_secret_file(section.webhook_secret_file, "threats.webhook_secret_file")
        try:
            secret = base64.b64decode(text.strip().removeprefix("whsec_"), validate=True)
        except ValueError:
            raise StartError("threats.webhook_secret_file: must hold whsec_ and base64") from None
    thresholds = Thresholds(section.denied_per_minute, section.reveals_per_minute, section.reveal_factor)
    return ThreatSettings(thresholds, section.freeze, section.webhook_url, secret)


async def _forever(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception as error:
        # Fail closed: without it the follower's view grows old, and tokens are refused.
        log.critical("a background task ended", extra={"error": type(error).__name__})
        raise
