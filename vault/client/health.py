"""Asking a vault whether it is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vault.client.connection import explain
from vault.client.errors import from_rpc

if TYPE_CHECKING:
    from vault.client.profile import Profile


class Readiness(NamedTuple):
    """Whether a vault is ready; why not, if not; and what needs somebody's attention though it is."""

    ready: bool
    reasons: str
    alarms: str


def look(profile: Profile, part: str = "", *, timeout: float = 5.0) -> Readiness:
    """The readiness of the vault, or of one part of it. Raises `StrongroomError`."""
    with grpc.secure_channel(profile.server, profile.channel_credentials()) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            response, call = stub.Check.with_call(
                health_pb2.HealthCheckRequest(service=part), timeout=timeout
            )
        except grpc.RpcError as error:
            raise explain(profile, from_rpc(error)) from None
    told = dict(call.trailing_metadata() or ())
    ready = response.status == health_pb2.HealthCheckResponse.SERVING
    return Readiness(ready, str(told.get("x-not-ready", "")), str(told.get("x-alarm", "")))


def check(profile: Profile, part: str = "", *, timeout: float = 5.0) -> tuple[bool, str]:
    """Whether the vault (or one part of it) is ready, and if not, why. Raises `StrongroomError`."""
    return look(profile, part, timeout=timeout)[:2]
