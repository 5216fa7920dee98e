"""What the SDK raises: the vault's refusal, with its stable reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2, status_pb2

from vault.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

_DETAILS = "grpc-status-details-bin"
UNREACHABLE = "UNREACHABLE"


class StrongroomError(Exception):
    """A call failed.

    `code` is gRPC's. `reason` is stable: the vault's (`protos/vault/v1/errors.proto`) or, if none answered, one that
    says why there is no connection (docs/errors.md). `metadata` may name the action, the limit or the field. None of
    them holds a secret, nor does the text, which has all of them.
    """

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, metadata: dict[str, str]) -> None:
        # The message itself begins with the field.
        more = ", ".join(f"{key} {value}" for key, value in sorted(metadata.items()) if key != "field")
        super().__init__(f"{reason}: {message}{f' ({more})' if more else ''}")
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = metadata

    def __reduce__(self) -> tuple[type[StrongroomError], tuple[object, ...]]:
        # By default it would be made anew from its text: an error that does not unpickle breaks a pool of processes.
        return type(self), (self.code, self.reason, self.message, self.metadata)


class SessionClosedError(Exception):
    """The session has ended. `closed` says why, and holds its receipt."""

    def __init__(self, closed: session_pb2.SessionClosed) -> None:
        reason: str = session_pb2.CloseReason.Name(closed.reason)
        super().__init__(
            f"the session has ended: {reason.removeprefix('CLOSE_REASON_').lower().replace('_', ' ')}"
        )
        self.closed = closed

    def __reduce__(self) -> tuple[type[SessionClosedError], tuple[object, ...]]:
        return type(self), (self.closed,)


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
    reason = UNREACHABLE if code is grpc.StatusCode.UNAVAILABLE else code.name
    return StrongroomError(code, reason, error.details() or code.name, {})


def _trailing(error: grpc.RpcError | grpc.aio.AioRpcError) -> Iterable[tuple[str, bytes]]:
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()  # type: ignore[assignment]
    return [(key, value) for key, value in metadata if isinstance(value, bytes)]
