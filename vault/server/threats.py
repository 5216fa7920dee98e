"""`vault.v1.ThreatService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core import requests
from vault.core.threats import MAX_TOUCHES, explanation
from vault.model import ThreatState
from vault.server import wire
from vault.v1 import threat_pb2 as pb

if TYPE_CHECKING:
    from vault.core.threats import Threats
    from vault.model import Caller, Threat
    from vault.server.pages import Pages

_STATES = {
    ThreatState.OPEN: pb.THREAT_STATE_OPEN,
    ThreatState.FROZEN: pb.THREAT_STATE_FROZEN,
    ThreatState.RELEASED: pb.THREAT_STATE_RELEASED,
}
_LAST = 2**62


class ThreatService:
    """Serves findings."""

    def __init__(self, threats: Threats, pages: Pages) -> None:
        self._threats = threats
        self._pages = pages

    async def list(
        self, request: pb.ThreatServiceListRequest, caller: Caller
    ) -> pb.ThreatServiceListResponse:
        """See the proto."""
        size = requests.page_size(request.page_size)
        query = ("threat.list", str(request.only_open))
        before = int(self._pages.position(caller, query, request.page_token) or _LAST)
        found = await self._threats.list_threats(
            caller, only_open=request.only_open, before=before, limit=size + 1
        )
        page = found[:size]
        more = len(found) > size
        return pb.ThreatServiceListResponse(
            threats=map(_wire, page),
            next_page_token=self._pages.token(caller, query, str(page[-1].sequence)) if more else "",
        )

    async def explain(
        self, request: pb.ThreatServiceExplainRequest, caller: Caller
    ) -> pb.ThreatServiceExplainResponse:
        """See the proto."""
        found = await self._threats.explain(caller, request.threat_id)
        return pb.ThreatServiceExplainResponse(threat=_wire(found), explanation=explanation(found))

    async def release(
        self, request: pb.ThreatServiceReleaseRequest, caller: Caller
    ) -> pb.ThreatServiceReleaseResponse:
        """See the proto."""
        found = await self._threats.release(caller, request.threat_id, request.purpose)
        return pb.ThreatServiceReleaseResponse(threat=_wire(found))

    async def get_blast_radius(
        self, request: pb.ThreatServiceGetBlastRadiusRequest, caller: Caller
    ) -> pb.ThreatServiceGetBlastRadiusResponse:
        """See the proto."""
        found = await self._threats.blast_radius(
            caller, identity=request.identity, token_id=request.token_id, certificate=request.certificate
        )
        return pb.ThreatServiceGetBlastRadiusResponse(
            touches=[
                pb.Touch(
                    resource=row[0],
                    action=row[1],
                    granted=bool(row[2]),
                    count=row[3],
                    first_time=wire.timestamp(row[4]),
                    last_time=wire.timestamp(row[5]),
                )
                for row in found[:MAX_TOUCHES]
            ],
            truncated=len(found) > MAX_TOUCHES,
        )


def _wire(value: Threat) -> pb.Threat:
    return pb.Threat(
        threat_id=value.threat_id,
        rule=value.rule,
        tenant=value.tenant,
        identity=value.identity,
        state=_STATES[value.state],
        evidence=value.evidence,
        sequence=value.sequence,
        create_time=wire.timestamp(value.create_time),
    )
