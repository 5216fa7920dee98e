"""`vault.v1.AuditService`."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import ipaddress
from typing import TYPE_CHECKING

from vault.core import audit, reading, requests
from vault.core.compliance import MAX_PERIOD
from vault.core.people import DEVICE
from vault.errors import Reason, VaultError, invalid_field
from vault.model import SYSTEM_TENANT, AuditQuery, Outcome
from vault.server import wire
from vault.store import audit as store
from vault.store.reach import ALL_TENANTS, declare, of
from vault.store.rows import canonical_json
from vault.v1 import audit_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from vault.core.audit import AuditLog
    from vault.core.checkpoints import Checkpoints
    from vault.core.compliance import Compliance
    from vault.core.losses import Losses
    from vault.core.people import People
    from vault.core.proofs import Proofs
    from vault.core.sinks import Sinks
    from vault.core.verification import Report
    from vault.model import AuditRecord, Caller, Token
    from vault.server.pages import Pages
    from vault.store.engine import Database

_READ = "audit.read"
_MAX_FILTER = 511
_MAX_STORED = 2**63 - 1
_MAX_WAIT = 30
_YEAR = datetime.timedelta(days=365)
_OUTCOMES = {
    pb.OUTCOME_UNSPECIFIED: None,
    pb.OUTCOME_GRANTED: Outcome.GRANTED,
    pb.OUTCOME_REFUSED: Outcome.REFUSED,
}

# gRPC clients take 4 MiB unless they are told otherwise.
_MAX_ANSWER = 3 * 1024 * 1024
_RECORD_BYTES = 1024


_TELL_SECONDS = 1.0


class AuditService:
    """Shows the log, its head, and whether it is whole."""

    def __init__(
        self,
        database: Database,
        checkpoints: Checkpoints,
        proofs: Proofs,
        losses: Losses,
        sinks: Sinks,
        compliance: Compliance,
        pages: Pages,
        log: AuditLog,
        *,
        people: People,
    ) -> None:
        self._people = people
        self._database = database
        self._checkpoints = checkpoints
        self._proofs = proofs
        self._losses = losses
        self._sinks = sinks
        self._compliance = compliance
        self._pages = pages
        self._log = log

    async def list(self, request: pb.AuditServiceListRequest, caller: Caller) -> pb.AuditServiceListResponse:
        """See the proto."""
        token = requests.require(caller, _READ, f"{requests.token_of(caller).tenant}/audit")
        tenant = _tenant(token, request.tenant)
        query = await self._with_people(caller, _query(request, tenant))
        wait = _wait(request)
        size = requests.page_size(request.page_size)
        told = ("audit.list", repr(query))
        position = self._pages.position(caller, told, request.page_token)
        if position is not None:
            place = int(position)
            query = dataclasses.replace(
                query,
                first=query.first if query.newest_first else place,
                last=place if query.newest_first else None,
            )
        looked = await reading.find(self._database, query, size + 1, wait)
        size = _that_fit(looked.records, size)
        page, beyond = looked.records[:size], looked.records[size:]
        rest = beyond[0].sequence if beyond else looked.rest
        await self._log.record(
            audit.granted(caller, reading.LIST, tenant, after=canonical_json({"count": len(page)}))
        )
        return pb.AuditServiceListResponse(
            records=map(wire.record, page),
            next_page_token="" if rest is None else self._pages.token(caller, told, str(rest)),
        )

    async def _with_people(self, caller: Caller, query: AuditQuery) -> AuditQuery:
        """The query as the log knows people. Raises `SCOPE_DENIED` if a name is asked for that is not to be known."""
        identity = await self._people.sought_by(caller, query.identity)
        person = self._people.known(identity)
        device_id = query.device_id
        if person is not None and device_id and not device_id.startswith(DEVICE):
            device_id = person.device(device_id)
        return dataclasses.replace(query, identity=identity, device_id=device_id)

    async def identify(
        self, request: pb.AuditServiceIdentifyRequest, caller: Caller
    ) -> pb.AuditServiceIdentifyResponse:
        """See the proto."""
        return pb.AuditServiceIdentifyResponse(
            identities=await self._people.identify(caller, tuple(request.pseudonyms))
        )

    async def get_checkpoint(
        self, _request: pb.AuditServiceGetCheckpointRequest, caller: Caller
    ) -> pb.AuditServiceGetCheckpointResponse:
        """See the proto."""
        requests.require(caller, _READ, f"{requests.token_of(caller).tenant}/audit")
        checkpoint = await self._checkpoints.latest(caller)
        return pb.AuditServiceGetCheckpointResponse(
            note=checkpoint.note,
            verifier_key=self._checkpoints.verifier_key,
            verifier_keys=self._checkpoints.verifier_keys,
        )

    async def verify(
        self, _request: pb.AuditServiceVerifyRequest, caller: Caller
    ) -> pb.AuditServiceVerifyResponse:
        """See the proto."""
        requests.require(caller, "audit.verify", f"{SYSTEM_TENANT}/audit")
        return _verdict(await self._checkpoints.verify(caller))

    async def watch_verify(
        self, _request: pb.AuditServiceWatchVerifyRequest, caller: Caller
    ) -> AsyncGenerator[pb.AuditServiceWatchVerifyResponse]:
        """See the proto."""
        requests.require(caller, "audit.verify", f"{SYSTEM_TENANT}/audit")
        read = (0, 0)

        def watch(records: int, total: int) -> None:
            nonlocal read
            read = (records, total)

        verifying = asyncio.create_task(self._checkpoints.verify(caller, watch))
        try:
            while not (await asyncio.wait({verifying}, timeout=_TELL_SECONDS))[0]:
                yield pb.AuditServiceWatchVerifyResponse(records=read[0], total=read[1])
            yield pb.AuditServiceWatchVerifyResponse(verdict=_verdict(verifying.result()))
        finally:
            verifying.cancel()

    async def list_checkpoints(
        self, request: pb.AuditServiceListCheckpointsRequest, caller: Caller
    ) -> pb.AuditServiceListCheckpointsResponse:
        """See the proto."""
        requests.require(caller, _READ, f"{requests.token_of(caller).tenant}/audit")
        size = requests.page_size(request.page_size)
        query = ("audit.list_checkpoints",)
        after = int(self._pages.position(caller, query, request.page_token) or 0)
        async with self._database.read() as connection:
            found = await store.list_checkpoints(connection, after, size + 1)
            page = await store.with_cosignatures(connection, found[:size])
        await self._log.record(
            audit.granted(caller, "audit.list_checkpoints", "", after=canonical_json({"count": len(page)}))
        )
        return pb.AuditServiceListCheckpointsResponse(
            checkpoints=map(wire.checkpoint, page),
            next_page_token=self._pages.token(caller, query, str(page[-1].size)) if len(found) > size else "",
        )

    async def get_inclusion_proof(
        self, request: pb.AuditServiceGetInclusionProofRequest, caller: Caller
    ) -> pb.AuditServiceGetInclusionProofResponse:
        """See the proto."""
        token = requests.require(caller, _READ, f"{requests.token_of(caller).tenant}/audit")
        _stored_number("sequence", request.sequence)
        _stored_number("size", request.size)
        proof = await self._proofs.inclusion(request.sequence, request.size, _tenant(token, ""))
        after = canonical_json({"sequence": request.sequence, "size": proof.checkpoint.size})
        await self._log.record(
            audit.granted(caller, "audit.get_inclusion_proof", proof.record.tenant, after=after)
        )
        return pb.AuditServiceGetInclusionProofResponse(
            record=wire.record(proof.record),
            checkpoint=wire.checkpoint(proof.checkpoint),
            path=proof.path,
            verifier_key=self._checkpoints.verifier_key,
        )

    async def get_consistency_proof(
        self, request: pb.AuditServiceGetConsistencyProofRequest, caller: Caller
    ) -> pb.AuditServiceGetConsistencyProofResponse:
        """See the proto."""
        requests.require(caller, _READ, f"{requests.token_of(caller).tenant}/audit")
        if not request.old_size:
            raise invalid_field("old_size", "is required")
        _stored_number("old_size", request.old_size)
        _stored_number("size", request.size)
        proof = await self._proofs.consistency(request.old_size, request.size)
        after = canonical_json({"old_size": proof.old.size, "size": proof.new.size})
        await self._log.record(audit.granted(caller, "audit.get_consistency_proof", "", after=after))
        return pb.AuditServiceGetConsistencyProofResponse(
            old_checkpoint=wire.checkpoint(proof.old),
            checkpoint=wire.checkpoint(proof.new),
            path=proof.path,
            verifier_key=self._checkpoints.verifier_key,
        )

    async def list_sinks(
        self, _request: pb.AuditServiceListSinksRequest, caller: Caller
    ) -> pb.AuditServiceListSinksResponse:
        """See the proto."""
        requests.require(caller, _READ, f"{SYSTEM_TENANT}/audit")
        found = await self._sinks.states()
        await self._log.record(audit.granted(caller, "audit.list_sinks", ""))
        return pb.AuditServiceListSinksResponse(sinks=[wire.sink(*item) for item in found])

    async def accept_loss(
        self, request: pb.AuditServiceAcceptLossRequest, caller: Caller
    ) -> pb.AuditServiceAcceptLossResponse:
        """See the proto."""
        requests.require(caller, "database.recover", f"{SYSTEM_TENANT}/audit")
        _stored_number("sequence", request.sequence)
        checkpoint = await self._losses.accept(caller, request.sequence, request.approval_id)
        return pb.AuditServiceAcceptLossResponse(checkpoint=wire.checkpoint(checkpoint))

    async def report(
        self, request: pb.AuditServiceReportRequest, caller: Caller
    ) -> pb.AuditServiceReportResponse:
        """See the proto."""
        requests.require(caller, "audit.verify", f"{SYSTEM_TENANT}/audit")
        made = await self._compliance.report(
            caller, request.standard, _period(request, "period"), _period(request, "cryptoperiod")
        )
        return pb.AuditServiceReportResponse(
            report=made.text, note=made.note, verifier_key=self._checkpoints.verifier_key
        )


def _period(request: pb.AuditServiceReportRequest, field: str) -> datetime.timedelta:
    """A span of time of a report; a year if none is given. Raises `FIELD_INVALID`."""
    if not request.HasField(field):
        return _YEAR
    span = wire.span(field, getattr(request, field))
    if not datetime.timedelta(0) < span <= MAX_PERIOD:
        raise invalid_field(field, "above 0, at most ten years")
    return span


def _stored_number(field: str, value: int) -> None:
    """Refuse what no database can hold as a number."""
    if value > _MAX_STORED:
        raise invalid_field(field, f"at most {_MAX_STORED}")


def _query(request: pb.AuditServiceListRequest, tenant: str) -> AuditQuery:
    """What is asked for. Raises `FIELD_INVALID`."""
    for field in ("action", "resource", "identity", "device_id"):
        text = getattr(request, field)
        if len(text) > _MAX_FILTER or not text.isprintable():
            raise invalid_field(field, f"at most {_MAX_FILTER} printable characters")
    if request.outcome not in _OUTCOMES:
        raise invalid_field("outcome", "must be one of the outcomes")
    try:
        network = str(ipaddress.ip_network(request.network, strict=False)) if request.network else ""
    except ValueError:
        raise invalid_field("network", "must be an address or a network in CIDR notation") from None
    return AuditQuery(
        tenant=tenant,
        identity=request.identity,
        action=request.action,
        resource=request.resource,
        outcome=_OUTCOMES[request.outcome],
        device_id=request.device_id,
        network=network,
        start_time=_moment(request, "start_time"),
        end_time=_moment(request, "end_time"),
        first=min(request.first_sequence, _MAX_STORED),
        newest_first=request.newest_first,
    )


def _wait(request: pb.AuditServiceListRequest) -> float:
    """How long to wait for a record, in seconds. Raises `FIELD_INVALID`."""
    wait = wire.span("wait", request.wait).total_seconds()
    if not 0 <= wait <= _MAX_WAIT:
        raise invalid_field("wait", f"0 to {_MAX_WAIT} seconds")
    if wait and request.newest_first:
        raise invalid_field("wait", "not together with newest_first")
    return wait


def _moment(request: pb.AuditServiceListRequest, field: str) -> datetime.datetime | None:
    return wire.moment(field, getattr(request, field)) if request.HasField(field) else None


def _that_fit(records: Sequence[AuditRecord], size: int) -> int:
    """How many of the first `size` records fit into an answer: one of bulk work names hundreds of rows."""
    total = 0
    for count, record in enumerate(records[:size]):
        total += len(record.rows_written) + len(record.before_state) + len(record.after_state) + _RECORD_BYTES
        if total > _MAX_ANSWER and count:
            return count
    return size


def _verdict(report: Report) -> pb.AuditServiceVerifyResponse:
    return pb.AuditServiceVerifyResponse(
        valid=not report.findings,
        records=report.records,
        checkpoints=report.checkpoints,
        root_hash=report.root,
        findings=report.findings,
        accepted=report.accepted,
        first_sequence=report.first,
        anchors=report.anchors,
    )


def _tenant(token: Token, wanted: str) -> str:
    """Whose records: the token's tenant's; operators of the vault may name any, or none for all, and then see them."""
    if token.tenant == SYSTEM_TENANT:
        declare(of(requests.tenant_name(wanted), SYSTEM_TENANT) if wanted else ALL_TENANTS)
        return wanted
    if wanted and wanted != token.tenant:
        raise VaultError(Reason.SCOPE_DENIED, "the token's scopes do not cover this", action=_READ)
    return token.tenant
