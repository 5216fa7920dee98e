"""What the SDK raises: the vault's refusal, with its stable reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vault.v1.session_pb2 import SessionClosed

_DETAILS = "grpc-status-details-bin"
_UNREACHABLE = "UNREACHABLE"


class StrongroomError(Exception):
    """A call failed.

    `code` is gRPC's; `reason` is stable (`protos/vault/v1/errors.proto`), or `UNREACHABLE` if no vault
    answered; `metadata` may name the field or the limit. None of them holds a secret.
    """

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, metadata: dict[str, str]) -> None:
        super().__init__(f"{reason}: {message}" if reason else message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = metadata


class SessionClosedError(Exception):
    """The vault ended the session. `closed` says why, and holds its receipt."""

    def __init__(self, closed: SessionClosed) -> None:
        super().__init__("the vault ended the session")
        self.closed = closed


def from_rpc(error: grpc.RpcError | grpc.aio.AioRpcError) -> StrongroomError:
    """The error that a failed call carries."""
    code = error.code()
    for key, value in _trailing(error):
        if key == _DETAILS:
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return StrongroomError(code, info.reason, status.message, dict(info.metadata))
    reason = _UNREACHABLE if code is grpc.StatusCode.UNAVAILABLE else code.name
    return StrongroomError(code, reason, error.details() or code.name, {})


def _trailing(error: grpc.RpcError | grpc.aio.AioRpcError) -> Iterable[tuple[str, bytes]]:
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()  # type: ignore[assignment]
    return [(key, value) for key, value in metadata if isinstance(value, bytes)]
