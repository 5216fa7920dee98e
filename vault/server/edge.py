"""The edge: every call passes here, in this order, and only here do errors become statuses.

1. the client certificate, against the profile; and what may be written of whom it names;
2. take it on, unless the worker is full, stopping, or the caller's deadline has passed;
3. the token, unless the method needs none; from here on the call sees its tenant's rows, and no others;
4. the service;
5. a refusal: its record first, then the status. What is not a `VaultError` is a defect: the caller gets
   `INTERNAL` and an id, the server's log the place; neither gets the exception's text.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import re
import secrets
import time
import traceback
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from vault.core.tokens import MAX_TOKEN_CHARS
from vault.crypto import scopes
from vault.crypto.errors import LockedMemoryExhausted
from vault.errors import Reason, VaultError, invalid_field
from vault.metrics import CANCELLED, OK
from vault.model import AuditDraft, Caller, Origin, Outcome
from vault.server import status
from vault.server.methods import RULES, UNKNOWN, Rule
from vault.server.redaction import may_record
from vault.server.watch_limits import WatchLimits
from vault.store.reach import NOBODY, declare, of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    from vault.core.audit import AuditLog
    from vault.core.batch import Load
    from vault.core.people import People
    from vault.core.policies import Policies
    from vault.core.rates import Rates
    from vault.core.threats import Threats
    from vault.core.tokens import Tokens
    from vault.metrics import Metrics
    from vault.server.identity import Identities

log = logging.getLogger("strongroom.edge")

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DEVICE_ID = re.compile(r"[ -~]{1,128}")
_TENANT_OR_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}|[A-Za-z0-9_-]{22}")
_BEARER = "bearer "
_LOOK_SECONDS = 0.5
MAX_WATCHES = 1000
MAX_WATCHES_PER_IDENTITY = 16

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


class Edge:
    """Lets calls in to the services."""

    def __init__(
        self,
        identities: Identities,
        tokens: Tokens,
        policies: Policies,
        threats: Threats,
        rates: Rates,
        audit_log: AuditLog,
        load: Load,
        metrics: Metrics,
        *,
        people: People,
        max_calls: int,
    ) -> None:
        self._identities = identities
        self._tokens = tokens
        self._policies = policies
        self._threats = threats
        self._people = people
        self._rates = rates
        self._log = audit_log
        self._max_calls = max_calls
        self._load = load
        self._metrics = metrics
        self._watches = WatchLimits(MAX_WATCHES, MAX_WATCHES_PER_IDENTITY)
        self._stopping = False

    def stop(self) -> None:
        """Take on no further call."""
        self._stopping = True

    def handler(self, descriptor: ServiceDescriptor, service: object) -> grpc.GenericRpcHandler[Any, Any]:
        """What gRPC needs to serve a service: for each method `Xy` of the descriptor, `service.xy`.

        Raises `LookupError` if a method has no rule or the service has no such method.
        """
        return grpc.method_handlers_generic_handler(
            descriptor.full_name,
            {method.name: self._method(descriptor, method, service) for method in descriptor.methods},
        )

    def unknown(self) -> grpc.GenericRpcHandler[Any, Any]:
        """What gRPC needs to refuse, and record, the calls of methods that there are not. To be added last."""

        async def refuse(_context: Context, _caller: Caller) -> None:
            raise VaultError(Reason.METHOD_UNKNOWN, "the vault has no such method")

        return _Unknown(self._stream(UNKNOWN, refuse))

    def _method(
        self, descriptor: ServiceDescriptor, method: MethodDescriptor, service: object
    ) -> grpc.RpcMethodHandler[Any, Any]:
        rule = RULES[f"/{descriptor.full_name}/{method.name}"]
        implementation = getattr(service, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.name).lower())
        request_class = message_factory.GetMessageClass(method.input_type)
        response_class = message_factory.GetMessageClass(method.output_type)
        if method.client_streaming and method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(rule, implementation),
                request_deserializer=_parser(request_class),
                response_serializer=response_class.SerializeToString,
            )
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._answers(rule, implementation),
                request_deserializer=_parser(request_class),
                response_serializer=response_class.SerializeToString,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(rule, implementation),
            request_deserializer=_parser(request_class),
            response_serializer=response_class.SerializeToString,
        )

    def _unary(
        self, rule: Rule, implementation: Callable[[Any, Caller], Awaitable[Message]]
    ) -> Callable[[Any, Context], Awaitable[Message]]:
        async def call(request: Message | None, context: Context) -> Message:
            with self._load.call(), self._visit(rule) as visit:
                try:
                    caller = await self._admit(rule, context, visit)
                    answer = await implementation(well_formed(request), caller)
                except Exception as error:  # noqa: BLE001 - the last resort: nothing unforeseen reaches the wire
                    failure = await self._refuse(rule, visit, error, _resource(rule, request))
                else:
                    visit.reason = OK
                    return answer
            await context.abort(status.code(failure), failure.message, status.trailing_metadata(failure))
            raise AssertionError("abort does not return")

        return call

    def _answers(
        self, rule: Rule, implementation: Callable[[Any, Caller], AsyncGenerator[Message]]
    ) -> Callable[[Any, Context], Awaitable[None]]:
        """One request, and as many answers as come, until the caller or the implementation ends it."""

        async def call(request: Message | None, context: Context) -> None:
            with self._visit(rule, lasts=True) as visit:
                try:
                    caller = await self._admit(rule, context, visit)
                    with self._watches.hold(caller.identity):
                        async with (
                            self._while_good(caller),
                            contextlib.aclosing(implementation(well_formed(request), caller)) as answers,
                        ):
                            async for answer in answers:
                                self._recheck(caller)
                                await context.write(answer)
                except Exception as error:  # noqa: BLE001
                    failure = await self._refuse(rule, visit, error, _resource(rule, request))
                else:
                    visit.reason = OK
                    return
            await context.abort(status.code(failure), failure.message, status.trailing_metadata(failure))

        return call

    def _stream(
        self, rule: Rule, implementation: Callable[[Context, Caller], Awaitable[None]]
    ) -> Callable[[Any, Context], Awaitable[None]]:
        async def call(_requests: object, context: Context) -> None:
            with self._visit(rule, lasts=True) as visit:
                try:
                    await implementation(context, await self._admit(rule, context, visit))
                except Exception as error:  # noqa: BLE001
                    failure = await self._refuse(rule, visit, error, "")
                else:
                    visit.reason = OK
                    return
            await context.abort(status.code(failure), failure.message, status.trailing_metadata(failure))

        return call

    def _visit(self, rule: Rule, *, lasts: bool = False) -> _Visit:
        return _Visit(self._metrics, rule.action, lasts)

    async def _admit(self, rule: Rule, context: Context, visit: _Visit) -> Caller:
        # Whatever this task was started in: nobody's rows, until it is known whose the caller may see.
        declare(NOBODY)
        metadata = {
            key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)
        }
        observed = visit.origin = Origin(_address(context.peer()), "", _request_id(metadata))
        certificate = self._identities.accept(context.auth_context())
        if self._people.is_personal(certificate.identity):
            visit.origin = Origin("", "", observed.request_id)
        person = await self._people.person(certificate.identity)
        visit.identity = certificate.identity if person is None else person.pseudonym
        visit.origin = observed if person is None else person.written(observed)
        for identity in (certificate.identity, visit.identity):
            self._threats.refuse_frozen(identity)
        self._refuse_if_stopping()
        if self._load.in_flight > self._max_calls:
            raise VaultError(Reason.OVERLOADED, "as many calls as the server takes are in flight")
        remaining = context.time_remaining()
        if remaining is not None and remaining <= 0:  # type: ignore[redundant-expr]  # the stubs forget None
            raise VaultError(Reason.DEADLINE_EXCEEDED, "the deadline has passed")
        observed = Origin(observed.ip_address, _device_id(metadata), observed.request_id)
        if person is None:
            visit.origin = observed
        else:
            visit.origin = person.written(observed)
        await self._rates.spend("identity", visit.identity)
        token = None
        if rule.needs_token:
            token = await self._tokens.verify(_bearer(metadata), certificate, visit.identity)
            declare(of(token.tenant))
            self._policies.refuse_outdated(token, observed)
            await self._rates.spend("tenant", token.tenant)
        if person is None:
            caller = Caller(certificate, observed, token)
        else:
            caller = Caller(certificate, visit.origin, token, person.pseudonym, observed)
        visit.caller = caller
        return caller

    @contextlib.asynccontextmanager
    async def _while_good(self, caller: Caller) -> AsyncGenerator[None]:
        """A block that ends when the caller is no longer let in, whatever it waits for. Raises as `_recheck`."""
        wrong: list[VaultError] = []

        async def look() -> None:
            while not wrong:
                await asyncio.sleep(_LOOK_SECONDS)
                try:
                    self._recheck(caller)
                except VaultError as error:
                    wrong.append(error)
                    limit.reschedule(asyncio.get_running_loop().time())

        try:
            async with asyncio.timeout(None) as limit:
                looking = asyncio.create_task(look())
                try:
                    yield
                finally:
                    looking.cancel()
        except TimeoutError:
            if wrong:
                raise wrong[0] from None
            raise

    def _recheck(self, caller: Caller) -> None:
        """What lasts is looked at again and again."""
        self._refuse_if_stopping()
        self._identities.recheck(caller.certificate)
        if caller.token is not None:
            self._tokens.recheck(caller.token, caller.identity)
            self._policies.refuse_outdated(caller.token, caller.observed)

    def _refuse_if_stopping(self) -> None:
        if self._stopping:
            raise VaultError(Reason.SHUTTING_DOWN, "the server is stopping")

    async def _refuse(self, rule: Rule, visit: _Visit, error: Exception, resource: str) -> VaultError:
        """What to answer; the record of the refusal is durable when this returns."""
        failure = as_vault_error(error)
        visit.reason = failure.reason.value
        if failure.reason is Reason.LIMIT_REACHED:
            self._metrics.limit_reached(failure.metadata.get("limit", "other"))
        token = visit.caller.token if visit.caller else None
        draft = AuditDraft(
            tenant=token.tenant if token else "",
            identity=visit.identity,
            action=rule.action,
            resource=resource,
            outcome=Outcome.REFUSED,
            origin=visit.origin,
            reason=failure.reason.value,
            token_id=token.issued_id if token else "",
        )
        try:
            await self._log.record(draft)
        except VaultError as unavailable:
            visit.reason = unavailable.reason.value
            return unavailable
        return failure


class _Unknown(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Takes every call that nobody else has taken."""

    def __init__(self, call: Callable[[Any, Context], Awaitable[None]]) -> None:
        self._handler = grpc.stream_stream_rpc_method_handler(call)

    def service(self, _handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Whatever the method is called."""
        return self._handler


class _Visit:
    """A call from its beginning to its end, which is counted; and what is known of its caller and may be written."""

    __slots__ = ("_action", "_began", "_lasts", "_metrics", "caller", "identity", "origin", "reason")

    def __init__(self, metrics: Metrics, action: str, lasts: bool) -> None:
        self.origin = _UNSEEN
        self.identity = ""
        self.caller: Caller | None = None
        self.reason = CANCELLED
        self._metrics, self._action, self._lasts = metrics, action, lasts
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        seconds = None if self._lasts else time.perf_counter() - self._began
        self._metrics.call_ended(self._action, self.reason, seconds)


_UNSEEN = Origin()


def as_vault_error(error: Exception) -> VaultError:
    """The error that a caller is told. A defect is logged by the places it passed, never by its text."""
    if isinstance(error, VaultError):
        return error
    if isinstance(error, LockedMemoryExhausted):
        return VaultError(Reason.LIMIT_REACHED, "the worker's locked memory is in use", limit="locked_memory")
    error_id = secrets.token_hex(8)
    frames = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    log.error("defect", extra={"error_id": error_id, "error": type(error).__name__, "frames": frames})
    return VaultError(Reason.INTERNAL, "a defect of the vault; its log tells more", error_id=error_id)


def _bearer(metadata: Mapping[str, str]) -> str:
    value = metadata.get("authorization", "")
    if not value:
        raise VaultError(Reason.TOKEN_MISSING, "send a token as `authorization: Bearer TOKEN`")
    if value[: len(_BEARER)].lower() != _BEARER or len(value) > MAX_TOKEN_CHARS + len(_BEARER):
        raise VaultError(Reason.TOKEN_INVALID, "the token is not one of this vault's")
    return value[len(_BEARER) :]


def _request_id(metadata: Mapping[str, str]) -> str:
    sent = metadata.get("x-request-id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else secrets.token_urlsafe(12)


def _device_id(metadata: Mapping[str, str]) -> str:
    sent = metadata.get("x-device-id", "")
    if sent and not _DEVICE_ID.fullmatch(sent):
        raise invalid_field("x-device-id", "at most 128 printable ASCII characters")
    return sent


@functools.lru_cache(maxsize=4096)
def _address(peer: str) -> str:
    """The caller's address from gRPC's `ipv4:1.2.3.4:5` or `ipv6:%5B::1%5D:5`; empty if it has none."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def well_formed(request: T | None) -> T:
    """The request, if it could be parsed. Raises `FIELD_INVALID`."""
    if request is None:
        raise invalid_field("request", "is not a well-formed message")
    return request


def _parser(message_class: type[Message]) -> Callable[[bytes], Message | None]:
    """Parse a request, or give None: what gRPC says of an exception here is INTERNAL, and it is the caller's fault."""

    def parse(data: bytes) -> Message | None:
        try:
            return message_class.FromString(data)
        except DecodeError:
            return None

    return parse


def _resource(rule: Rule, request: Message | None) -> str:
    """What a refused call was about, if that may be recorded and is well-formed: nothing else reaches the log."""
    if request is None or not may_record(request.DESCRIPTOR.name, rule.resource):
        return ""
    value = getattr(request, rule.resource)
    if not isinstance(value, str):
        value = value[0].name if value else ""
    return value if scopes.valid_name(value) or _TENANT_OR_ID.fullmatch(value) else ""
