"""A client that sends what it is told to, right or wrong, never tries twice, and shows all that came back."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import queue
import re
import secrets
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import grpc
from google.protobuf import message_factory
from google.rpc import error_details_pb2, status_pb2

from tests.support.postgres import owner_url
from tests.support.vault import ALL_SCOPES
from vault.server.methods import RULES
from vault.v1 import (
    approval_pb2,
    audit_pb2,
    credential_pb2,
    erasure_pb2,
    handover_pb2,
    job_pb2,
    key_pb2,
    policy_pb2,
    session_pb2,
    threat_pb2,
    token_pb2,
    webhook_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from tests.support.vault import VaultSite
    from vault.client import Profile

MODULES = (
    token_pb2,
    credential_pb2,
    session_pb2,
    handover_pb2,
    key_pb2,
    job_pb2,
    audit_pb2,
    approval_pb2,
    policy_pb2,
    erasure_pb2,
    threat_pb2,
    webhook_pb2,
)
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
OPEN = "/vault.v1.SessionService/Open"
UNARY = tuple(sorted(set(METHODS) - {OPEN}))
OWN = "the client's own token"


def scopes_of(tenant: str) -> tuple[str, ...]:
    """Every scope that there is on a tenant."""
    if tenant == "system":
        return (
            "tenant.create:system/tenants/*",
            "tenant.delete:system/tenants/*",
            "audit.read:system/audit",
            "audit.verify:system/audit",
            "audit.identify:system/audit",
            "policy.read:system/policy",
            "policy.write:system/policy",
            "threat.read:system/threats",
            "threat.release:system/threats",
            "database.recover:system/audit",
        )
    return (
        # A token holds 32 at most: one that nothing here asks for is left out.
        *(f"{action}:{tenant}/**" for action in ALL_SCOPES if action != "session.use.sign_http"),
        f"webhook.manage:{tenant}/webhooks",
        f"key.rotate:{tenant}/keys",
        f"key.rewrap:{tenant}/keys",
        f"key.retire:{tenant}/keys",
        f"key.schedule:{tenant}/keys",
        f"key.read:{tenant}/keys",
        f"audit.read:{tenant}/audit",
        f"token.revoke:{tenant}/tokens",
        f"token.introspect:{tenant}/tokens",
        f"approval.read:{tenant}/**",
        f"approval.approve:{tenant}/**",
        f"key.destroy:{tenant}/keys",
    )


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back from one call."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = ""
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    response: Any = None
    request_id: str = ""
    raw: bytes = b""
    """The status's text and all trailing metadata, as they crossed the wire."""

    @property
    def ok(self) -> bool:
        return self.code is grpc.StatusCode.OK

    @property
    def refusal(self) -> tuple[str, str, str]:
        """Code, reason and message: all that a caller can tell two refusals apart by."""
        return self.code.name, self.reason, self.message


def failure(error: Any, request_id: str) -> Answer:
    """The answer that a failed call carries. No `ErrorInfo`: no reason."""
    raw = [(error.details() or "").encode()]
    reason, metadata = "", {}
    for key, value in error.trailing_metadata() or ():
        raw.append(value if isinstance(value, bytes) else value.encode())
        if key == "grpc-status-details-bin":
            answered = status_pb2.Status.FromString(value)
            assert answered.code == error.code().value[0]
            assert answered.message == error.details()
            for detail in answered.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    assert info.domain == "strongroom"
                    reason, metadata = info.reason, dict(info.metadata)
    return Answer(error.code(), reason, error.details() or "", metadata, None, request_id, b"\n".join(raw))


class Wire:
    """One client certificate, one connection, one token."""

    def __init__(self, profile: Profile, tenant: str = "acme", scopes: tuple[str, ...] | None = None) -> None:
        self.profile = profile
        self.tenant = tenant
        self.scopes = scopes_of(tenant) if scopes is None else scopes
        # A connection of its own, which may meet another worker than the next client's; a lost one is soon made anew.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]
        self.channel = grpc.secure_channel(profile.server, profile.channel_credentials(), options)
        self._token = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()

    @property
    def token(self) -> str:
        if not self._token:
            self._token = self.issue().token
        return self._token

    def issue(
        self, *scopes: str, tenant: str = "", seconds: int = 3600
    ) -> token_pb2.TokenServiceIssueResponse:
        request = token_pb2.TokenServiceIssueRequest(
            tenant=tenant or self.tenant, scopes=scopes or self.scopes
        )
        request.ttl.seconds = seconds
        answer = self.call("/vault.v1.TokenService/Issue", request)
        assert answer.ok, answer
        return answer.response  # type: ignore[no-any-return]

    def call(
        self,
        method: str,
        request: Message | bytes | None = None,
        *,
        bearer: str | None = OWN,
        metadata: Iterable[tuple[str, str]] = (),
        timeout: float = 20.0,
        wait_for_ready: bool = True,
        **fields: Any,
    ) -> Answer:
        """Call a method with a message, with fields of one, or with any bytes; of many answers, the first."""
        descriptor = METHODS[method]
        if request is None:
            request = message_factory.GetMessageClass(descriptor.input_type)(**fields)
        payload = request if isinstance(request, bytes) else request.SerializeToString()
        response_class = message_factory.GetMessageClass(descriptor.output_type)
        sent, request_id = self._metadata(method, bearer, metadata)
        options = {"metadata": sent, "timeout": timeout, "wait_for_ready": wait_for_ready}
        try:
            if descriptor.server_streaming:
                answers = self.channel.unary_stream(method, response_deserializer=response_class.FromString)
                running = answers(payload, **options)
                response = next(running)
                running.cancel()
            else:
                invoke = self.channel.unary_unary(method, response_deserializer=response_class.FromString)
                response = invoke(payload, **options)
        except grpc.RpcError as error:
            return failure(error, request_id)
        return Answer(grpc.StatusCode.OK, response=response, request_id=request_id)

    def stream(self, *, bearer: str | None = OWN, timeout: float = 20.0) -> Stream:
        """Open a session's stream; nothing is sent yet."""
        sent, request_id = self._metadata(OPEN, bearer, ())
        return Stream(self.channel, sent, request_id, timeout)

    def _metadata(
        self, method: str, bearer: str | None, more: Iterable[tuple[str, str]]
    ) -> tuple[list[tuple[str, str]], str]:
        request_id = secrets.token_urlsafe(12)
        sent = [("x-request-id", request_id), *more]
        if bearer == OWN:
            bearer = self.token if RULES[method].needs_token else None
        if bearer is not None:
            sent.append(("authorization", f"Bearer {bearer}"))
        return sent, request_id


class Stream:
    """A session's stream, message by message."""

    def __init__(
        self, channel: grpc.Channel, sent: list[tuple[str, str]], request_id: str, timeout: float
    ) -> None:
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.request_id = request_id
        invoke = channel.stream_stream(
            OPEN, response_deserializer=session_pb2.SessionServiceOpenResponse.FromString
        )
        self._call: Any = invoke(iter(self._outbox.get, None), metadata=sent, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.half_close()
        self._call.cancel()

    def send(self, message: Message | bytes | None = None, **fields: Any) -> None:
        if message is None:
            message = session_pb2.SessionServiceOpenRequest(**fields)
        self._outbox.put(message if isinstance(message, bytes) else message.SerializeToString())

    def half_close(self) -> None:
        self._outbox.put(None)

    def read(self) -> Any:
        """The next message, or the answer that ended the stream."""
        try:
            for message in self._call:
                return message
        except grpc.RpcError as error:
            return failure(error, self.request_id)
        return Answer(grpc.StatusCode.OK, request_id=self.request_id)

    def ask(self, message: Message | bytes | None = None, **fields: Any) -> Any:
        self.send(message, **fields)
        return self.read()


class Books:
    """The vault's database, looked at behind its back."""

    def __init__(self, site: VaultSite) -> None:
        self._runner: asyncio.Runner | None = None
        if site.database_url.startswith("sqlite"):
            file = site.folder / site.database_url.removeprefix("sqlite:///")
            self._sqlite = sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)
            self._sqlite.row_factory = sqlite3.Row
        else:
            self._runner = asyncio.Runner()
            self._postgres: Any = self._runner.run(asyncpg.connect(owner_url(site.database_url)))

    def close(self) -> None:
        if self._runner is None:
            self._sqlite.close()
        else:
            self._runner.run(self._postgres.close())
            self._runner.close()

    def rows(self, statement: str) -> list[dict[str, Any]]:
        if self._runner is None:
            return [dict(row) for row in self._sqlite.execute(statement)]
        return [dict(row) for row in self._runner.run(self._postgres.fetch(statement))]

    def records(self, request_id: str) -> list[dict[str, Any]]:
        """The audit records of one call."""
        return self.rows(f"SELECT * FROM audit_records WHERE request_id = '{request_id}' ORDER BY sequence")

    def state(self) -> str:
        """A digest of everything that a call could change; the audit log apart."""
        tables = (
            "approvals",
            "policies",
            "tenants",
            "keys",
            "credentials",
            "credential_versions",
            "handovers",
            "requests",
            "revocations",
            "jobs",
            "job_ranges",
        )
        digest = hashlib.sha256()
        for table in tables:
            for row in sorted(repr(sorted(row.items())) for row in self.rows(f"SELECT * FROM {table}")):
                digest.update(f"{table} {row}\n".encode())
        return digest.hexdigest()


def _documented() -> dict[str, grpc.StatusCode]:
    text = (Path(__file__).parents[2] / "protos/vault/v1/errors.proto").read_text()
    found = re.findall(r"// \((\w+)\)(?: [^\n]*\n\s*(?://[^\n]*\n\s*)*)ERROR_REASON_(\w+) =", text)
    return {reason: grpc.StatusCode[code] for code, reason in found}


DOCUMENTED = _documented()
"""The canonical code of each reason, as `protos/vault/v1/errors.proto` says it."""


def until(what: Callable[[], Any], seconds: float = 30.0, step: float = 0.02) -> Any:
    """What `what` gives, as soon as it is true.

    After so many seconds nobody believes in it any more: far longer than it takes on a busy machine. How soon something
    has to be so is for the caller to measure.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(step)
    raise AssertionError("it did not happen in time")
