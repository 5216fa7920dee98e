"""What the rules found, and what somebody touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.client.operations.access import collect
from vault.v1 import threat_pb2

if TYPE_CHECKING:
    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps


def list_threats(access: Access, *, only_open: bool) -> Steps[list[threat_pb2.Threat]]:
    """Findings of threat detection, newest first."""
    request = threat_pb2.ThreatServiceListRequest(only_open=only_open)
    return collect(
        access, "/vault.v1.ThreatService/List", request, threat_pb2.ThreatServiceListResponse, "threats"
    )


def explain_threat(access: Access, threat_id: str) -> Steps[threat_pb2.ThreatServiceExplainResponse]:
    """One finding with its evidence."""
    return access.authorised(
        "/vault.v1.ThreatService/Explain",
        threat_pb2.ThreatServiceExplainRequest(threat_id=threat_id),
        threat_pb2.ThreatServiceExplainResponse,
    )


def release_threat(access: Access, threat_id: str, purpose: str) -> Steps[threat_pb2.Threat]:
    """Close a finding, and thaw what it froze."""
    response = yield from access.authorised(
        "/vault.v1.ThreatService/Release",
        threat_pb2.ThreatServiceReleaseRequest(threat_id=threat_id, purpose=purpose),
        threat_pb2.ThreatServiceReleaseResponse,
    )
    return response.threat


def blast_radius(
    access: Access, request: threat_pb2.ThreatServiceGetBlastRadiusRequest
) -> Steps[threat_pb2.ThreatServiceGetBlastRadiusResponse]:
    """Everything that an identity, a token or a certificate touched."""
    return access.authorised(
        "/vault.v1.ThreatService/GetBlastRadius", request, threat_pb2.ThreatServiceGetBlastRadiusResponse
    )
