"""`vault.v1.ErasureService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core.erasures import Whom
from vault.v1 import erasure_pb2 as pb

if TYPE_CHECKING:
    from vault.core.erasures import Erasures
    from vault.model import Caller


class ErasureService:
    """Erases tenants, data subjects, and people who call."""

    def __init__(self, erasures: Erasures) -> None:
        self._erasures = erasures

    async def describe(
        self, request: pb.ErasureServiceDescribeRequest, caller: Caller
    ) -> pb.ErasureServiceDescribeResponse:
        """See the proto."""
        found = await self._erasures.describe(caller, _whom(request))
        return pb.ErasureServiceDescribeResponse(
            action=found.operation.action,
            resource=found.operation.resource,
            arguments=dict(found.operation.arguments),
            credentials=found.credentials,
            versions=found.versions,
        )

    async def erase(
        self, request: pb.ErasureServiceEraseRequest, caller: Caller
    ) -> pb.ErasureServiceEraseResponse:
        """See the proto."""
        done = await self._erasures.erase(caller, _whom(request), request.approval_id)
        return pb.ErasureServiceEraseResponse(certificate=done.certificate)


def _whom(request: pb.ErasureServiceDescribeRequest | pb.ErasureServiceEraseRequest) -> Whom:
    return Whom(request.tenant, request.subject, request.identity)
