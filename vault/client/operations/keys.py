"""Keys of tenants and of the vault."""

from __future__ import annotations

import secrets as random
from typing import TYPE_CHECKING

from vault.client.operations.access import collect
from vault.v1 import key_pb2

if TYPE_CHECKING:
    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps

KEY_PURPOSES = {
    "kek": key_pb2.KEY_PURPOSE_KEK,
    "token": key_pb2.KEY_PURPOSE_TOKEN,
    "checkpoint": key_pb2.KEY_PURPOSE_CHECKPOINT,
    "ingest": key_pb2.KEY_PURPOSE_INGEST,
}


def create_tenant(
    access: Access, tenant: str, homes: key_pb2.KeyHomes | None, *, validate_only: bool
) -> Steps[key_pb2.Key]:
    """Make a tenant and its first key, where it shall lie if that is said."""
    response = yield from access.authorised(
        "/vault.v1.KeyService/CreateTenant",
        key_pb2.KeyServiceCreateTenantRequest(
            tenant=tenant, request_id=random.token_urlsafe(16), homes=homes, validate_only=validate_only
        ),
        key_pb2.KeyServiceCreateTenantResponse,
    )
    return response.key


def rotate_key(
    access: Access, tenant: str, purpose: str, *, validate_only: bool, homes: key_pb2.KeyHomes | None
) -> Steps[key_pb2.Key]:
    """Make a new version of a tenant's key, or of one of the vault's own, and put it to use."""
    response = yield from access.authorised(
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


def key_status(access: Access, tenant: str) -> Steps[key_pb2.KeyServiceGetStatusResponse]:
    """How a tenant's keys stand."""
    return access.authorised(
        "/vault.v1.KeyService/GetStatus",
        key_pb2.KeyServiceGetStatusRequest(tenant=tenant),
        key_pb2.KeyServiceGetStatusResponse,
    )


def key_uses(access: Access, tenant: str, version: int) -> Steps[list[key_pb2.KeyUse]]:
    """All that a version of a tenant's key wraps."""
    request = key_pb2.KeyServiceListUsesRequest(tenant=tenant, version=version)
    return collect(
        access, "/vault.v1.KeyService/ListUses", request, key_pb2.KeyServiceListUsesResponse, "uses"
    )


def retire_key(access: Access, tenant: str, version: int, *, validate_only: bool) -> Steps[key_pb2.Key]:
    """Take a version of a key out of use."""
    response = yield from access.authorised(
        "/vault.v1.KeyService/Retire",
        key_pb2.KeyServiceRetireRequest(tenant=tenant, version=version, validate_only=validate_only),
        key_pb2.KeyServiceRetireResponse,
    )
    return response.key


def quarantine_key(
    access: Access, tenant: str, version: int, *, refuse_reads: bool, validate_only: bool
) -> Steps[key_pb2.KeyServiceQuarantineResponse]:
    """Put a version of a key into quarantine."""
    return access.authorised(
        "/vault.v1.KeyService/Quarantine",
        key_pb2.KeyServiceQuarantineRequest(
            tenant=tenant, version=version, refuse_reads=refuse_reads, validate_only=validate_only
        ),
        key_pb2.KeyServiceQuarantineResponse,
    )


def restore_key(access: Access, tenant: str, version: int, *, validate_only: bool) -> Steps[key_pb2.Key]:
    """Take one step back with a version of a key."""
    response = yield from access.authorised(
        "/vault.v1.KeyService/Restore",
        key_pb2.KeyServiceRestoreRequest(tenant=tenant, version=version, validate_only=validate_only),
        key_pb2.KeyServiceRestoreResponse,
    )
    return response.key


def destroy_key(
    access: Access,
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
    return access.authorised("/vault.v1.KeyService/Destroy", request, key_pb2.KeyServiceDestroyResponse)


def schedule_key(
    access: Access, tenant: str, schedule: key_pb2.KeySchedule, *, validate_only: bool
) -> Steps[key_pb2.KeySchedule]:
    """Set when a key is rotated."""
    response = yield from access.authorised(
        "/vault.v1.KeyService/SetSchedule",
        key_pb2.KeyServiceSetScheduleRequest(tenant=tenant, schedule=schedule, validate_only=validate_only),
        key_pb2.KeyServiceSetScheduleResponse,
    )
    return response.schedule


def list_keys(access: Access, tenant: str) -> Steps[list[key_pb2.Key]]:
    """The versions of a tenant's key, newest first."""
    request = key_pb2.KeyServiceListRequest(tenant=tenant)
    return collect(access, "/vault.v1.KeyService/List", request, key_pb2.KeyServiceListResponse, "keys")


def describe_key(access: Access, tenant: str, version: int) -> Steps[key_pb2.KeyServiceDescribeResponse]:
    """What is known of a key version."""
    return access.authorised(
        "/vault.v1.KeyService/Describe",
        key_pb2.KeyServiceDescribeRequest(tenant=tenant, version=version),
        key_pb2.KeyServiceDescribeResponse,
    )
