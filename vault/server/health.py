"""The standard health service, which also says why.

Service names: empty for the whole vault, else a part of `vault.core.health.PARTS`. Trailing metadata
`x-not-ready` names every part that is not ready, with its reason.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vault.core.health import PARTS

if TYPE_CHECKING:
    from vault.core.health import Health
    from vault.server.edge import Context

_WATCH_SECONDS = 1.0
_Status = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """`grpc.health.v1.Health`."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def Check(  # noqa: N802 - the name is the protocol's
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Whether the vault, or one part of it, is ready."""
        if request.service and request.service not in PARTS:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service or part")
        ready, reason = await self._look(request.service)
        if reason:
            context.set_trailing_metadata((("x-not-ready", reason),))
        return _Status(status=_Status.SERVING if ready else _Status.NOT_SERVING)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """The status now and whenever it changes."""
        last = None
        while True:
            known = not request.service or request.service in PARTS
            ready, _ = await self._look(request.service) if known else (False, "")
            now = _Status.SERVICE_UNKNOWN if not known else _Status.SERVING if ready else _Status.NOT_SERVING
            if now != last:
                last = now
                await context.write(_Status(status=now))
            await asyncio.sleep(_WATCH_SECONDS)

    async def _look(self, service: str) -> tuple[bool, str]:
        parts = await self._health.parts()
        wanted = {name: part for name, part in parts.items() if service in ("", name)}
        reasons = [f"{name}: {part.reason}" for name, part in wanted.items() if not part.ready]
        return not reasons, "; ".join(reasons)
