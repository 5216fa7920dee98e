"""`vault.v1.TokenService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core import audit
from vault.core.revocations import Kind
from vault.core.tokens import Target, Wish
from vault.errors import invalid_field
from vault.server import wire
from vault.v1 import token_pb2 as pb

if TYPE_CHECKING:
    from vault.core.audit import AuditLog
    from vault.core.signing import SigningKeys
    from vault.core.tokens import Tokens
    from vault.model import Caller


class TokenService:
    """Issues, revokes and explains tokens."""

    def __init__(self, tokens: Tokens, keys: SigningKeys, log: AuditLog) -> None:
        self._tokens = tokens
        self._keys = keys
        self._log = log

    async def issue(
        self, request: pb.TokenServiceIssueRequest, caller: Caller
    ) -> pb.TokenServiceIssueResponse:
        """See the proto."""
        wish = _wish(request, approval_id=request.approval_id)
        issued = await self._tokens.issue(caller, request.tenant, wish)
        return pb.TokenServiceIssueResponse(
            token=issued.text,
            token_id=issued.token.token_id,
            expire_time=wire.timestamp(issued.token.expire_time),
            scopes=[str(scope) for scope in issued.token.scopes],
        )

    async def exchange(
        self, request: pb.TokenServiceExchangeRequest, caller: Caller
    ) -> pb.TokenServiceExchangeResponse:
        """See the proto."""
        wish = _wish(request, thumbprint=request.certificate_thumbprint)
        issued = await self._tokens.exchange(caller, wish)
        return pb.TokenServiceExchangeResponse(
            token=issued.text,
            token_id=issued.token.token_id,
            expire_time=wire.timestamp(issued.token.expire_time),
            scopes=[str(scope) for scope in issued.token.scopes],
            parent_id=issued.token.parent_id,
            root_id=issued.token.root_id,
        )

    async def revoke(
        self, request: pb.TokenServiceRevokeRequest, caller: Caller
    ) -> pb.TokenServiceRevokeResponse:
        """See the proto."""
        moment = await self._tokens.revoke(caller, _target(request))
        return pb.TokenServiceRevokeResponse(revoke_time=wire.timestamp(moment))

    async def introspect(
        self, request: pb.TokenServiceIntrospectRequest, caller: Caller
    ) -> pb.TokenServiceIntrospectResponse:
        """See the proto."""
        found = await self._tokens.introspect(caller, request.token)
        if found is None:
            return pb.TokenServiceIntrospectResponse(active=False)
        token, sessions_left = found
        return pb.TokenServiceIntrospectResponse(
            active=True,
            token_id=token.token_id,
            identity=token.identity,
            tenant=token.tenant,
            scopes=[str(scope) for scope in token.scopes],
            issue_time=wire.timestamp(token.issue_time),
            expire_time=wire.timestamp(token.expire_time),
            parent_id=token.parent_id,
            root_id=token.root_id,
            certificate_thumbprint=token.thumbprint,
            sessions_left=sessions_left,
        )

    async def get_jwks(
        self, _request: pb.TokenServiceGetJwksRequest, caller: Caller
    ) -> pb.TokenServiceGetJwksResponse:
        """See the proto."""
        await self._log.record(audit.granted(caller, "token.get_jwks", ""))
        return pb.TokenServiceGetJwksResponse(jwks=await self._keys.jwks())


def _wish(
    request: pb.TokenServiceIssueRequest | pb.TokenServiceExchangeRequest,
    *,
    approval_id: str = "",
    thumbprint: str = "",
) -> Wish:
    return Wish(
        scopes=tuple(request.scopes),
        life=wire.span("ttl", request.ttl) if request.HasField("ttl") else None,
        purpose=request.purpose,
        max_sessions=request.max_sessions,
        narrowable=request.narrowable,
        approval_id=approval_id,
        thumbprint=thumbprint,
    )


def _target(request: pb.TokenServiceRevokeRequest) -> Target:
    named = {
        Kind.TOKEN: request.token_id,
        Kind.CHILDREN: request.parent_id,
        Kind.IDENTITY: request.identity,
    }
    chosen = [kind for kind, subject in named.items() if subject] + [Kind.ALL] * request.all
    if len(chosen) != 1:
        raise invalid_field(
            "token_id", "exactly one of token_id, parent_id, identity and all says what to revoke"
        )
    (kind,) = chosen
    until = wire.moment("issued_before", request.issued_before) if request.HasField("issued_before") else None
    if until and kind is Kind.TOKEN:
        raise invalid_field("issued_before", "is not for a single token")
    return Target(kind, named.get(kind, ""), request.tenant, until)
