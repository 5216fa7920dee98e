"""The audit log: records, checkpoints, proofs, reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from vault.client.operations.access import collect
from vault.client.operations.calls import MAX_TRIES, PAGE, pause
from vault.v1 import audit_pb2

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from vault.client.errors import StrongroomError
    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps

_DAY = 86_400
_WAIT_SECONDS = 10
_FOLLOW_SECONDS = 0.5
"""How long to leave the log alone between two looks: each look makes a record of its own."""
_OUTCOMES = {
    "": audit_pb2.OUTCOME_UNSPECIFIED,
    "granted": audit_pb2.OUTCOME_GRANTED,
    "refused": audit_pb2.OUTCOME_REFUSED,
}


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


def audit_records(
    access: Access, request: audit_pb2.AuditServiceListRequest, most: int
) -> Steps[list[audit_pb2.AuditRecord]]:
    """Audit records that match, at most so many."""
    found: list[audit_pb2.AuditRecord] = []
    while True:
        request.page_size = min(PAGE, most - len(found))
        page = yield from audit_page(access, request)
        found.extend(page.records)
        request.page_token = page.next_page_token
        if not page.next_page_token or len(found) >= most:
            return found


def audit_page(access: Access, request: audit_pb2.AuditServiceListRequest) -> Steps[AuditPage]:
    """One page of audit records."""
    return access.authorised("/vault.v1.AuditService/List", request, audit_pb2.AuditServiceListResponse)


def compliance_report(
    access: Access, standard: str, days: int, cryptoperiod_days: int
) -> Steps[audit_pb2.AuditServiceReportResponse]:
    """A compliance report."""
    request = audit_pb2.AuditServiceReportRequest(
        standard=standard,
        period=Duration(seconds=days * _DAY),
        cryptoperiod=Duration(seconds=cryptoperiod_days * _DAY),
    )
    return access.authorised("/vault.v1.AuditService/Report", request, audit_pb2.AuditServiceReportResponse)


def audit_sinks(access: Access) -> Steps[audit_pb2.AuditServiceListSinksResponse]:
    """The sinks of the audit log."""
    return access.authorised(
        "/vault.v1.AuditService/ListSinks",
        audit_pb2.AuditServiceListSinksRequest(),
        audit_pb2.AuditServiceListSinksResponse,
    )


def list_checkpoints(access: Access) -> Steps[list[audit_pb2.Checkpoint]]:
    """Every checkpoint, by size."""
    request = audit_pb2.AuditServiceListCheckpointsRequest()
    return collect(
        access,
        "/vault.v1.AuditService/ListCheckpoints",
        request,
        audit_pb2.AuditServiceListCheckpointsResponse,
        "checkpoints",
    )


def inclusion_proof(
    access: Access, sequence: int, size: int
) -> Steps[audit_pb2.AuditServiceGetInclusionProofResponse]:
    """The proof that a record is in the log."""
    return access.authorised(
        "/vault.v1.AuditService/GetInclusionProof",
        audit_pb2.AuditServiceGetInclusionProofRequest(sequence=sequence, size=size),
        audit_pb2.AuditServiceGetInclusionProofResponse,
    )


def accept_audit_loss(
    access: Access, sequence: int, approval_id: str
) -> Steps[audit_pb2.AuditServiceAcceptLossResponse]:
    """Accept that a damaged record's content is lost."""
    return access.authorised(
        "/vault.v1.AuditService/AcceptLoss",
        audit_pb2.AuditServiceAcceptLossRequest(sequence=sequence, approval_id=approval_id),
        audit_pb2.AuditServiceAcceptLossResponse,
        repeatable=False,
    )


def consistency_proof(
    access: Access, old_size: int, size: int
) -> Steps[audit_pb2.AuditServiceGetConsistencyProofResponse]:
    """The proof that one checkpoint is the beginning of another."""
    return access.authorised(
        "/vault.v1.AuditService/GetConsistencyProof",
        audit_pb2.AuditServiceGetConsistencyProofRequest(old_size=old_size, size=size),
        audit_pb2.AuditServiceGetConsistencyProofResponse,
    )


def checkpoint(access: Access) -> Steps[audit_pb2.AuditServiceGetCheckpointResponse]:
    """The newest checkpoint of the audit log."""
    return access.authorised(
        "/vault.v1.AuditService/GetCheckpoint",
        audit_pb2.AuditServiceGetCheckpointRequest(),
        audit_pb2.AuditServiceGetCheckpointResponse,
    )


def identify(access: Access, pseudonyms: Sequence[str]) -> Steps[list[str]]:
    """Whom pseudonyms stand for."""
    response = yield from access.authorised(
        "/vault.v1.AuditService/Identify",
        audit_pb2.AuditServiceIdentifyRequest(pseudonyms=pseudonyms),
        audit_pb2.AuditServiceIdentifyResponse,
    )
    return list(response.identities)


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
        page_size=PAGE,
    )


WATCH_VERIFY = "/vault.v1.AuditService/WatchVerify"


class Reading:
    """A log that is read page by page, and if wished followed: what to ask for next, and when."""

    def __init__(self, filters: AuditFilters, *, follow: bool) -> None:
        self.request = audit_request(filters)
        self._follow = follow
        self._answered = False
        self._failures = 0

    def take(self, page: AuditPage) -> float | None:
        """Go on after a page: how long to wait before the next, in seconds; None if there is none."""
        self._answered, self._failures = True, 0
        self.request.page_token = page.next_page_token
        if page.next_page_token:
            return 0.0
        if not self._follow:
            return None
        if page.records:
            self.request.first_sequence = page.records[-1].sequence + 1
        self.request.wait.FromSeconds(_WAIT_SECONDS)
        return _FOLLOW_SECONDS

    def after(self, failure: StrongroomError) -> float:
        """How long to wait before asking again, in seconds: who follows does so across lost connections, without end.

        Raises the failure if asking again is no use.
        """
        following = self._follow and self._answered
        if not following or failure.code is not grpc.StatusCode.UNAVAILABLE:
            raise failure
        self._failures += 1
        return pause(min(self._failures, MAX_TRIES))


def _timestamp(moment: datetime.datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
