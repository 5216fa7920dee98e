"""The standard health service, which also says why.

Service names: empty for the whole vault, else a part (`vault/core/health.py`). Trailing metadata `x-not-ready` names
every part without which the vault is not ready, with its reason; `x-alarm` every other part that needs somebody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vault.core.health import PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vault.core.health import Health, Part
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
        parts = await self._health.parts()
        if request.service and request.service not in parts:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service or part")
        verdict = _judge(parts, request.service)
        told = {"x-not-ready": verdict.reasons, "x-alarm": verdict.alarms}
        context.set_trailing_metadata(tuple((key, text) for key, text in told.items() if text))
        return _Status(status=verdict.status)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """The status now and whenever it changes."""
        last = None
        while True:
            parts = await self._health.parts()
            known = not request.service or request.service in parts
            now = _judge(parts, request.service).status if known else _Status.SERVICE_UNKNOWN
            if now != last:
                last = now
                await context.write(_Status(status=now))
            await asyncio.sleep(_WATCH_SECONDS)


class _Verdict(NamedTuple):
    status: int
    reasons: str
    alarms: str


def _judge(parts: Mapping[str, Part], service: str) -> _Verdict:
    bad = {name: part for name, part in parts.items() if service in ("", name) and not part.ready}
    needed = [f"{name}: {part.reason}" for name, part in bad.items() if service or name in PARTS]
    alarms = [f"{name}: {part.reason}" for name, part in bad.items() if not service and name not in PARTS]
    status = _Status.NOT_SERVING if needed else _Status.SERVING
    return _Verdict(status, _ascii("; ".join(needed)), _ascii("; ".join(alarms)))


def _ascii(text: str) -> str:
    """What metadata may hold."""
    return text.encode("ascii", "replace").decode()
