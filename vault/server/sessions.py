"""`vault.v1.SessionService`: the stream, and the session of one call."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import grpc

from vault.core.session import Changed, CloseReason, Expiring, Receipt, Revoked, Session
from vault.core.sessions import Selector
from vault.errors import Reason, VaultError, invalid_field
from vault.metrics import CANCELLED, OK
from vault.server import status, wire
from vault.server.edge import as_vault_error, well_formed
from vault.server.uses import OPERATIONS
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from vault.core.sessions import Sessions
    from vault.metrics import Metrics
    from vault.model import Caller
    from vault.server.edge import Context

EOF = grpc.aio.EOF  # type: ignore[attr-defined]  # missing from the stubs
_MAX_OPERATIONS = 16
_START_SECONDS = 10.0
_WRITE_SECONDS = 10.0
_CANCEL_SECONDS = 0.1

_CLOSE_REASONS = {
    CloseReason.CLOSED_BY_CALLER: pb.CLOSE_REASON_CLOSED_BY_CALLER,
    CloseReason.DISCONNECTED: pb.CLOSE_REASON_DISCONNECTED,
    CloseReason.IDLE: pb.CLOSE_REASON_IDLE,
    CloseReason.EXPIRED: pb.CLOSE_REASON_EXPIRED,
    CloseReason.TOKEN_ENDED: pb.CLOSE_REASON_TOKEN_ENDED,
    CloseReason.CREDENTIAL_GONE: pb.CLOSE_REASON_CREDENTIAL_GONE,
    CloseReason.SERVER_STOPPING: pb.CLOSE_REASON_SERVER_STOPPING,
    CloseReason.FAILED: pb.CLOSE_REASON_FAILED,
    CloseReason.REVOCATIONS_UNKNOWN: pb.CLOSE_REASON_REVOCATIONS_UNKNOWN,
    CloseReason.POLICY_CHANGED: pb.CLOSE_REASON_POLICY_CHANGED,
    CloseReason.TOKEN_REVOKED: pb.CLOSE_REASON_TOKEN_REVOKED,
    CloseReason.CERTIFICATE_REVOKED: pb.CLOSE_REASON_CERTIFICATE_REVOKED,
}


class SessionService:
    """Serves sessions."""

    def __init__(self, sessions: Sessions, metrics: Metrics) -> None:
        self._sessions = sessions
        self._metrics = metrics

    async def reveal(
        self, request: pb.SessionServiceRevealRequest, caller: Caller
    ) -> pb.SessionServiceRevealResponse:
        """See the proto."""
        revealed = await self._sessions.reveal(
            caller,
            _selectors(request.credentials),
            request.purpose,
            request.recipient_key,
            request.hpke_suite,
            request.approval_id,
        )
        return pb.SessionServiceRevealResponse(
            session_id=revealed.session_id,
            credentials=map(wire.opened, revealed.opened),
            sealed=revealed.sealed,
        )

    async def open(self, context: Context, caller: Caller) -> None:
        """See the proto."""
        first = await _first(context)
        start = first.start
        session, sealed_key = await self._sessions.open(
            caller,
            _selectors(start.credentials),
            start.purpose,
            start.recipient_key,
            start.hpke_suite,
            wire.span("ttl", start.ttl) if start.HasField("ttl") else None,
        )
        greeting = pb.SessionServiceOpenResponse(
            operation_id=first.operation_id,
            opened=pb.SessionOpened(
                session_id=session.session_id,
                sealed_session_key=sealed_key,
                credentials=map(wire.opened, session.opened),
                expire_time=wire.timestamp(session.expire_time),
            ),
        )
        stream = _Stream(context, session, self._metrics, greeting)
        try:
            await stream.run()
        except asyncio.CancelledError:
            session.end(CloseReason.DISCONNECTED)
            raise
        finally:
            # In a task of its own: what cancels this handler must not cancel the wiping and its record.
            closing = asyncio.ensure_future(self._sessions.close(session))
            receipt = await asyncio.shield(closing)
        await stream.farewell(receipt)


class _Stream:
    """One open stream: reads operations, runs them side by side, writes answers and events."""

    def __init__(
        self, context: Context, session: Session, metrics: Metrics, greeting: pb.SessionServiceOpenResponse
    ) -> None:
        self._greeting: pb.SessionServiceOpenResponse | None = greeting
        """The first message, until it is written."""
        self._context = context
        self._metrics = metrics
        self._session = session
        self._writing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._write_began: float | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._room = asyncio.Semaphore(_MAX_OPERATIONS)
        self._operations: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the session ends, whatever ends it, and whether or not the caller takes the greeting."""
        if self._session.ended.done():
            return
        tasks = [self._spawn(self._read()), self._spawn(self._tell())]
        try:
            waiting: list[asyncio.Future[Any]] = [self._session.ended, *tasks]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        except VaultError:
            self._session.end(CloseReason.FAILED)
            raise
        finally:
            self._session.end(CloseReason.DISCONNECTED)
            running = [*tasks, *self._operations]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if self._watch is not None:
                self._watch.cancel()

    async def farewell(self, receipt: Receipt) -> None:
        """Tell the caller, if still there, that the session ended and was wiped, and what was revoked."""
        duration = pb.SessionClosed(
            reason=_CLOSE_REASONS[receipt.reason],
            reveals=receipt.reveals,
            uses=receipt.uses,
            buffers=receipt.buffers,
            buffers_wiped=receipt.buffers_wiped,
        )
        duration.duration.FromTimedelta(receipt.duration)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._greet()
                if self._session.revoked is not None:
                    await self._write(_event(self._session.revoked))
                await self._write(pb.SessionServiceOpenResponse(closed=duration))

    async def _read(self) -> None:
        await self._greet()
        while True:
            message = await self._context.read()
            if message is EOF:
                # The caller has no more to say, or is gone: then gRPC cancels this call in a moment.
                await asyncio.sleep(_CANCEL_SECONDS)
                self._session.end(CloseReason.CLOSED_BY_CALLER)
                return
            kind = well_formed(message).WhichOneof("message")
            if kind == "close":
                self._session.end(CloseReason.CLOSED_BY_CALLER)
                return
            # A caller that asks faster than it is answered waits here.
            await self._room.acquire()
            operation = self._spawn(self._operate(message, kind))
            self._operations.add(operation)
            operation.add_done_callback(self._done)

    def _done(self, operation: asyncio.Task[None]) -> None:
        self._operations.discard(operation)
        self._room.release()
        if not operation.cancelled() and operation.exception() is not None:
            # Its answer could not be written: the caller does not read. Nothing piles up for it.
            self._session.end(CloseReason.FAILED)

    async def _operate(self, message: pb.SessionServiceOpenRequest, kind: str | None) -> None:
        began, reason = time.perf_counter(), CANCELLED
        try:
            answer = await self._perform(message, kind)
            reason = OK
        except Exception as error:  # noqa: BLE001 - an operation's failure never ends the session
            refusal = await self._refused(error, message, kind)
            answer = pb.SessionServiceOpenResponse(operation_id=message.operation_id, error=refusal)
            reason = refusal.reason
        finally:
            self._metrics.operation_ended(kind or "none", reason, time.perf_counter() - began)
        await self._write_watched(answer)

    async def _perform(
        self, message: pb.SessionServiceOpenRequest, kind: str | None
    ) -> pb.SessionServiceOpenResponse:
        number = message.operation_id
        if not number:
            raise invalid_field("operation_id", "is required")
        if kind == "reveal":
            return await self._reveal(number, message.reveal)
        if kind in OPERATIONS:
            asked = getattr(message, kind)
            operation = OPERATIONS[kind]
            result = await self._session.use(asked.name, operation.request(asked), operation.also(asked))
            answer = pb.SessionServiceOpenResponse(operation_id=number)
            getattr(answer, kind).CopyFrom(operation.result(result))
            return answer
        raise VaultError(Reason.SESSION_PROTOCOL, "an operation is due here")

    async def _reveal(self, number: int, operation: pb.RevealOperation) -> pb.SessionServiceOpenResponse:
        revealed = await self._session.reveal(operation.name, tuple(operation.field_names))
        answer = pb.SessionServiceOpenResponse(operation_id=number)
        result, opened = answer.reveal, revealed.opened
        # Field by field: to make a message from arguments takes twice as long.
        result.counter = revealed.counter
        result.sealed = revealed.sealed
        result.name = opened.name
        result.version = opened.version
        result.field_names.extend(opened.field_names)
        return answer

    async def _refused(
        self, error: Exception, message: pb.SessionServiceOpenRequest, kind: str | None
    ) -> pb.OperationError:
        failure = as_vault_error(error)
        name = getattr(message, kind).name if kind == "reveal" or kind in OPERATIONS else ""
        action = f"session.use.{kind}" if kind in OPERATIONS else f"session.{kind}" if kind else "session"
        try:
            await self._session.record_refusal(action, name, failure.reason)
        except VaultError as unavailable:
            failure = unavailable
        return pb.OperationError(
            code=status.code(failure).value[0],
            reason=failure.reason.value,
            message=failure.message,
            metadata=failure.metadata,
        )

    async def _greet(self) -> None:
        if self._greeting is not None:
            await self._write_watched(self._greeting)
            self._greeting = None

    async def _tell(self) -> None:
        while True:
            await self._write_watched(_event(await self._session.events.get()))

    async def _write(self, answer: pb.SessionServiceOpenResponse) -> None:
        async with self._writing:
            await self._context.write(answer)

    async def _write_watched(self, answer: pb.SessionServiceOpenResponse) -> None:
        """Write while the session lasts: a time-out for each answer would cost as much as the answer."""
        async with self._writing:
            self._write_began = self._loop.time()
            if self._watch is None:
                self._watch = self._loop.call_later(_WRITE_SECONDS, self._look_at_write)
            await self._context.write(answer)
            self._write_began = None

    def _look_at_write(self) -> None:
        """End the session of a caller that does not take what it asked for. One timer serves many writes."""
        self._watch = None
        if self._write_began is None:
            return
        due = self._write_began + _WRITE_SECONDS
        if due <= self._loop.time():
            self._session.end(CloseReason.FAILED)
        else:
            self._watch = self._loop.call_at(due, self._look_at_write)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return self._loop.create_task(work)


def _event(event: Expiring | Changed | Revoked) -> pb.SessionServiceOpenResponse:
    answer = pb.SessionServiceOpenResponse()
    match event:
        case Expiring():
            answer.expiring.expire_time.FromDatetime(event.expire_time)
        case Changed():
            answer.credential_changed.name = event.name
            answer.credential_changed.latest_version = event.latest_version
        case Revoked():
            answer.revoked.reason = _CLOSE_REASONS[event.reason]
            answer.revoked.name = event.name
    return answer


async def _first(context: Context) -> pb.SessionServiceOpenRequest:
    try:
        async with asyncio.timeout(_START_SECONDS):
            first = await context.read()
    except TimeoutError:
        raise VaultError(Reason.SESSION_PROTOCOL, "no Start came in time") from None
    if first is EOF or well_formed(first).WhichOneof("message") != "start":
        raise VaultError(Reason.SESSION_PROTOCOL, "the first message must be Start")
    message: pb.SessionServiceOpenRequest = first
    return message


def _selectors(values: Iterable[pb.CredentialSelector]) -> tuple[Selector, ...]:
    return tuple(Selector(item.name, item.version, tuple(item.field_names)) for item in values)
