"""A transport for `httpx`, so that a provider's own SDK runs through the vault and never holds the secret.

    with client.session("acme/stripe/live", purpose="payouts") as session:
        http = httpx.Client(transport=VaultTransport(session, "stripe"))
        http.get("https://api.stripe.com/v1/balance")

What the SDK puts where the secret belongs (a key it insists on having) is replaced in the vault by the real one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from vault.client.aio import AsyncSession
    from vault.client.sync import Session
    from vault.v1 import session_pb2

# They frame the message, which the vault does anew, or tell of the connection.
_LEFT_OUT = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "authorization"}
)


class VaultTransport(httpx.BaseTransport):
    """Carries the requests of an `httpx.Client` through a session."""

    def __init__(
        self, session: Session, connector: str, *, name: str = "", also: str = "", capture: str = ""
    ) -> None:
        self._session = session
        self._connector = connector
        self._name, self._also, self._capture = name, also, capture

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Make one request. Raises `StrongroomError`."""
        result = self._session.http_call(
            self._connector,
            request.method,
            request.url.path,
            host=request.url.host,
            query=request.url.params.multi_items(),
            headers=_headers(request),
            body=request.read(),
            also=self._also,
            capture=self._capture,
            name=self._name,
        )
        return _response(result)


class AsyncVaultTransport(httpx.AsyncBaseTransport):
    """Carries the requests of an `httpx.AsyncClient` through a session."""

    def __init__(
        self, session: AsyncSession, connector: str, *, name: str = "", also: str = "", capture: str = ""
    ) -> None:
        self._session = session
        self._connector = connector
        self._name, self._also, self._capture = name, also, capture

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Make one request. Raises `StrongroomError`."""
        result = await self._session.http_call(
            self._connector,
            request.method,
            request.url.path,
            host=request.url.host,
            query=request.url.params.multi_items(),
            headers=_headers(request),
            body=await request.aread(),
            also=self._also,
            capture=self._capture,
            name=self._name,
        )
        return _response(result)


def _headers(request: httpx.Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower() not in _LEFT_OUT}


def _response(result: session_pb2.HttpCallResult) -> httpx.Response:
    return httpx.Response(result.status, headers=dict(result.headers), content=result.body)
