"""Making a person or a tenant unreadable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.v1 import erasure_pb2

if TYPE_CHECKING:
    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps


def describe_erasure(
    access: Access, tenant: str, subject: str, identity: str
) -> Steps[erasure_pb2.ErasureServiceDescribeResponse]:
    """What an erasure would take, and what is to be approved for it."""
    return access.authorised(
        "/vault.v1.ErasureService/Describe",
        erasure_pb2.ErasureServiceDescribeRequest(tenant=tenant, subject=subject, identity=identity),
        erasure_pb2.ErasureServiceDescribeResponse,
    )


def erase(access: Access, tenant: str, subject: str, identity: str, approval_id: str) -> Steps[str]:
    """Erase; gives the certificate."""
    response = yield from access.authorised(
        "/vault.v1.ErasureService/Erase",
        erasure_pb2.ErasureServiceEraseRequest(
            tenant=tenant, subject=subject, identity=identity, approval_id=approval_id
        ),
        erasure_pb2.ErasureServiceEraseResponse,
    )
    certificate: str = response.certificate
    return certificate
