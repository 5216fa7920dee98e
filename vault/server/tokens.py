"""`vault.v1.TokenService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core import audit
from vault.server import wire
from vault.v1 import token_pb2 as pb

if TYPE_CHECKING:
    from vault.core.audit import AuditLog
    from vault.core.tokens import Tokens
    from vault.model import Caller


class TokenService:
    """Issues, revokes and explains tokens."""

    def __init__(self, tokens: Tokens, log: AuditLog) -> None:
        self._tokens = tokens
        self._log = log

    async def issue(
        self, request: pb.TokenServiceIssueRequest, caller: Caller
    ) -> pb.TokenServiceIssueResponse:
        """See the proto."""
        life = wire.span("ttl", request.ttl) if request.HasField("ttl") else None
        issued = await self._tokens.issue(
            caller, request.tenant, tuple(request.scopes), life, request.purpose
        )
        return pb.TokenServiceIssueResponse(
            token=issued.text,
            token_id=issued.token.token_id,
            expire_time=wire.timestamp(issued.token.expire_time),
            scopes=[str(scope) for scope in issued.token.scopes],
        )

    async def revoke(
        self, request: pb.TokenServiceRevokeRequest, caller: Caller
    ) -> pb.TokenServiceRevokeResponse:
        """See the proto."""
        moment = await self._tokens.revoke(caller, request.token_id)
        return pb.TokenServiceRevokeResponse(revoke_time=wire.timestamp(moment))

    async def introspect(
        self, request: pb.TokenServiceIntrospectRequest, caller: Caller
    ) -> pb.TokenServiceIntrospectResponse:
        """See the proto."""
        token = await self._tokens.introspect(caller, request.token)
        if token is None:
            return pb.TokenServiceIntrospectResponse(active=False)
        return pb.TokenServiceIntrospectResponse(
            active=True,
            token_id=token.token_id,
            identity=token.identity,
            tenant=token.tenant,
            scopes=[str(scope) for scope in token.scopes],
            issue_time=wire.timestamp(token.issue_time),
            expire_time=wire.timestamp(token.expire_time),
        )

    async def get_jwks(
        self, _request: pb.TokenServiceGetJwksRequest, caller: Caller
    ) -> pb.TokenServiceGetJwksResponse:
        """See the proto."""
        await self._log.record(audit.granted(caller, "token.get_jwks", ""))
        return pb.TokenServiceGetJwksResponse(jwks=self._tokens.jwks())
