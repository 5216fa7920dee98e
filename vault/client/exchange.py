"""The stream of an asyncio session: its operations go out whole, and each is answered by the number it carries.

So tasks can share a session, and one that is cancelled or runs out of time while it waits leaves the others alone: gRPC
itself would end the whole call.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc

from vault.client.errors import UNREACHABLE, SessionClosedError, StrongroomError, from_rpc
from vault.v1 import session_pb2

if TYPE_CHECKING:
    from vault.client.stream import SessionState

_EOF = grpc.aio.EOF  # type: ignore[attr-defined]  # missing from the stubs


class Exchange:
    """One call of gRPC's, and who waits for what on it. To be made in the event loop that it belongs to."""

    def __init__(self, call: Any, state: SessionState) -> None:
        self._call = call
        self._state = state
        self._writing = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[session_pb2.SessionServiceOpenResponse]] = {}
        self._failure: Exception | None = None
        self._reading = asyncio.create_task(self._read())

    async def ask(
        self, message: session_pb2.SessionServiceOpenRequest
    ) -> session_pb2.SessionServiceOpenResponse:
        """The answer to an operation. Raises its error, or why the stream has ended."""
        if self._failure is not None:
            raise self._failure
        answer = asyncio.get_running_loop().create_future()
        self._waiting[message.operation_id] = answer
        try:
            await asyncio.shield(self._write(message))
            answered: session_pb2.SessionServiceOpenResponse = await answer
        finally:
            del self._waiting[message.operation_id]
        self._state.take(answered, message.operation_id)
        return answered

    async def close(self) -> None:
        """Close the session, and wait for its receipt."""
        await self._write(session_pb2.SessionServiceOpenRequest(close=session_pb2.SessionClose()))
        await self._reading

    def leave(self) -> None:
        """End the call, whatever state it is in, and what still waits for it."""
        self._reading.cancel()
        self._fail(StrongroomError(grpc.StatusCode.CANCELLED, "CANCELLED", "the session was left", {}))
        self._call.cancel()

    async def _write(self, message: session_pb2.SessionServiceOpenRequest) -> None:
        # Of a stream that has ended, who reads it tells.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            async with self._writing:
                await self._call.write(message)

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not _EOF:
                self._dispatch(message)
            # The stream has ended: what follows raises why, if the vault said so.
            await self._call.initial_metadata()
            if await self._call.code() is not grpc.StatusCode.OK:
                await self._call
            failure = StrongroomError(grpc.StatusCode.UNAVAILABLE, UNREACHABLE, "the stream ended", {})
        except grpc.aio.AioRpcError as error:
            failure = from_rpc(error)
        except SessionClosedError as closed:
            self._fail(closed)
            return
        self._fail(failure)

    def _dispatch(self, message: session_pb2.SessionServiceOpenResponse) -> None:
        # What answers no operation has the number 0; so has the opening, which is asked for first.
        if message.operation_id or message.WhichOneof("message") == "opened":
            waiting = self._waiting.get(message.operation_id)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        else:
            self._state.take(message, 0)

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(failure)
