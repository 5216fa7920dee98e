"""The standard health service, which also says why.

Service names: empty for the whole vault, else a part (`vault/core/health.py`). Trailing metadata `x-not-ready` names
every part without which the vault is not ready, with its reason; `x-alarm` every other part that needs somebody.

`Check` answers whoever TLS let in: a load balancer's certificate need not be one that the vault takes for a caller's,
and an answer costs at most a look a second, however many ask. `Watch` stays, so who watches is held to the certificate
profile, for as long as it lasts, and there are only so many.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vault.core.health import PARTS
from vault.errors import Reason, VaultError
from vault.server import status
from vault.server.watch_limits import WatchLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from vault.core.health import Health, Part
    from vault.metrics import Metrics
    from vault.server.edge import Context
    from vault.server.identity import Identities

_WATCH_SECONDS = 1.0
MAX_WATCHES = 1000
MAX_WATCHES_PER_IDENTITY = 64
"""Clients that watch health have one watch on each connection, and all replicas of theirs may be one identity."""
_Status = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """`grpc.health.v1.Health`."""

    def __init__(self, health: Health, identities: Identities, metrics: Metrics) -> None:
        self._health = health
        self._identities = identities
        self._metrics = metrics
        self._limits = WatchLimits(MAX_WATCHES, MAX_WATCHES_PER_IDENTITY)

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
        """The status now and whenever it changes, until the worker stops or the certificate is accepted no more."""
        try:
            certificate = self._identities.accept(context.auth_context())
            with self._limits.hold(certificate.identity):
                async for now in self._changes(request.service):
                    self._identities.recheck(certificate)
                    if now is not None:
                        await context.write(_Status(status=now))
        except VaultError as error:
            if error.reason is Reason.LIMIT_REACHED:
                self._metrics.limit_reached(error.metadata["limit"])
            await context.abort(status.code(error), error.message, status.trailing_metadata(error))

    async def _changes(self, service: str) -> AsyncIterator[int | None]:
        """The status at first and when it changes, and every second nothing: ends when the worker stops."""
        last = None
        while True:
            parts = await self._health.parts()
            known = not service or service in parts
            now = _judge(parts, service).status if known else _Status.SERVICE_UNKNOWN
            yield now if now != last else None
            last = now
            if not parts["server"].ready:
                return
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
