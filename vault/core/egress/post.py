"""A POST that carries no secret, to wherever an operator's tenant wants to be told things: by the same way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core.egress.calls import Request

if TYPE_CHECKING:
    from pathlib import Path

    from vault.core.egress.calls import Calls

_RESPONSE_BYTES = 65_536
_SECONDS = 10


class HttpsPost:
    """Makes POSTs to public addresses. With a CA for development: to loopback ones, verified by it alone."""

    def __init__(self, calls: Calls, development_ca_file: Path | None) -> None:
        self._calls = calls
        self._ca_file = development_ca_file

    async def __call__(self, host: str, port: int, path: str, headers: dict[str, str], body: bytes) -> int:
        """The answer's status. Raises `DESTINATION_DENIED`, `UPSTREAM_UNREACHABLE`, `UPSTREAM_FAILED`."""
        answer = await self._calls.make(
            Request(
                host=host,
                port=port,
                method="POST",
                path=path,
                query=(),
                headers=headers,
                body=body,
                injections=(),
                captures=(),
                response_bytes=_RESPONSE_BYTES,
                seconds=_SECONDS,
                loopback=self._ca_file is not None,
                ca_file=self._ca_file,
            )
        )
        return answer.status
