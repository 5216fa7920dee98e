"""Tokens beside the client's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from vault.client.operations.approvals import request_approval
from vault.crypto import approvals
from vault.v1 import approval_pb2, token_pb2

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from vault.client.operations.access import Access
    from vault.client.operations.calls import Steps


def request_token(
    access: Access,
    scopes: Sequence[str],
    ttl_seconds: int,
    purpose: str,
    max_sessions: int,
    narrowable: bool,
) -> Steps[approval_pb2.Approval]:
    """Ask for the approval of one token for the profile's certificate."""
    operation = approvals.issue_token(
        access.profile.tenant,
        scopes,
        access.profile.thumbprint(),
        ttl_seconds=ttl_seconds,
        purpose=purpose,
        max_sessions=max_sessions,
        narrowable=narrowable,
    )
    return request_approval(access, operation, purpose)


def exchange_token(
    access: Access,
    scopes: Sequence[str],
    ttl_seconds: int | None,
    certificate_thumbprint: str,
    purpose: str,
    max_sessions: int,
    narrowable: bool,
) -> Steps[token_pb2.TokenServiceExchangeResponse]:
    """A weaker token for the client's own."""
    return access.authorised(
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
    access: Access, request: token_pb2.TokenServiceRevokeRequest
) -> Steps[token_pb2.TokenServiceRevokeResponse]:
    """Revoke tokens."""
    return access.authorised("/vault.v1.TokenService/Revoke", request, token_pb2.TokenServiceRevokeResponse)


def introspect_token(access: Access, text: str) -> Steps[token_pb2.TokenServiceIntrospectResponse]:
    """What a token is good for."""
    return access.authorised(
        "/vault.v1.TokenService/Introspect",
        token_pb2.TokenServiceIntrospectRequest(token=text),
        token_pb2.TokenServiceIntrospectResponse,
    )


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
