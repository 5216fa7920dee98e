"""A session's side of the stream, without IO: the messages to send, and what to make of those received."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from vault.client.errors import SessionClosedError, StrongroomError
from vault.client.sealing import Recipient, Reveals
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vault.client.secrets import Secrets

T = TypeVar("T")

SCHEMES = {
    "stripe": pb.WEBHOOK_SCHEME_STRIPE,
    "standard-webhooks": pb.WEBHOOK_SCHEME_STANDARD_WEBHOOKS,
    "plaid": pb.WEBHOOK_SCHEME_PLAID,
    "braintree": pb.WEBHOOK_SCHEME_BRAINTREE,
    "adyen": pb.WEBHOOK_SCHEME_ADYEN,
    "adyen-platform": pb.WEBHOOK_SCHEME_ADYEN_PLATFORM,
    "gocardless": pb.WEBHOOK_SCHEME_GOCARDLESS,
}
_HEADERS = {
    "stripe": {"stripe-signature"},
    "standard-webhooks": {"webhook-id", "webhook-timestamp", "webhook-signature"},
    "plaid": {"plaid-verification"},
    "braintree": set[str](),
    "adyen": set[str](),
    "adyen-platform": {"hmacsignature"},
    "gocardless": {"webhook-signature"},
}
"""What a scheme reads of a request's headers. The others, cookies among them, are none of the vault's business."""
HASHES = {"sha256": pb.MAC_HASH_SHA256, "sha384": pb.MAC_HASH_SHA384, "sha512": pb.MAC_HASH_SHA512}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class SessionState:
    """What a session's client knows: its key, its credentials, what it revealed."""

    def __init__(self, names: Sequence[str], purpose: str, ttl_seconds: int | None) -> None:
        if not names:
            raise ValueError("a session needs at least one credential")
        self._names = tuple(names)
        self._purpose = purpose
        self._ttl_seconds = ttl_seconds
        self._recipient = Recipient()
        self._reveals: Reveals | None = None
        self._revealed: list[Secrets] = []
        self._operation_ids = itertools.count(1)
        self.session_id = ""
        self.opened: tuple[pb.OpenedCredential, ...] = ()
        self.events: list[pb.SessionServiceOpenResponse] = []
        self.closed: pb.SessionClosed | None = None

    def start(self) -> pb.SessionServiceOpenRequest:
        """The first message."""
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=name) for name in self._names],
            purpose=self._purpose,
            recipient_key=self._recipient.public_bytes,
            hpke_suite=self._recipient.hpke_suite,
            ttl=Duration(seconds=self._ttl_seconds) if self._ttl_seconds else None,
        )
        return pb.SessionServiceOpenRequest(start=start)

    def reveal(self, field_names: Sequence[str], name: str) -> pb.SessionServiceOpenRequest:
        """Asks to reveal fields."""
        operation = pb.RevealOperation(name=self._name(name), field_names=field_names)
        return pb.SessionServiceOpenRequest(operation_id=self._next(), reveal=operation)

    def verify_webhook(
        self,
        scheme: str,
        headers: Mapping[str, str],
        body: bytes,
        field_names: Sequence[str],
        name: str,
        apply_to: str,
        connector: str,
    ) -> pb.SessionServiceOpenRequest:
        """Asks to verify a webhook."""
        number = _choice("scheme", scheme, SCHEMES)
        return self.use(
            "verify_webhook",
            name,
            field_names=() if connector else field_names,
            scheme=number,
            headers={key: value for key, value in headers.items() if key.lower() in _HEADERS[scheme]},
            body=body,
            apply_to=apply_to,
            connector=connector,
        )

    def hmac(
        self, field_name: str, message: bytes, hash_name: str, *, raw: bool, context: str, name: str
    ) -> pb.SessionServiceOpenRequest:
        """Asks for an HMAC."""
        number = _choice("hash", hash_name, HASHES)
        return self.use(
            "hmac", name, field_name=field_name, message=message, hash=number, raw=raw, context=context
        )

    def verify_hmac(
        self,
        field_name: str,
        message: bytes,
        mac: bytes,
        hash_name: str,
        *,
        raw: bool,
        context: str,
        name: str,
    ) -> pb.SessionServiceOpenRequest:
        """Asks whether an HMAC is right."""
        number = _choice("hash", hash_name, HASHES)
        return self.use(
            "verify_hmac",
            name,
            field_name=field_name,
            message=message,
            hash=number,
            raw=raw,
            context=context,
            mac=mac,
        )

    def use(self, kind: str, name: str, **fields: object) -> pb.SessionServiceOpenRequest:
        """Asks for a use, by the name of its operation in the proto."""
        asked: Any = {kind: {"name": self._name(name), **fields}}
        return pb.SessionServiceOpenRequest(operation_id=self._next(), **asked)

    def take(self, message: pb.SessionServiceOpenResponse, operation_id: int) -> bool:
        """Take a message in; True if it answers the operation. Raises its error, or `SessionClosedError`."""
        kind = message.WhichOneof("message")
        if kind == "opened":
            self.session_id = message.opened.session_id
            self.opened = tuple(message.opened.credentials)
            self._reveals = Reveals(self.session_id, self._recipient.open_session_key(message.opened))
            return True
        if kind == "closed":
            self.closed = message.closed
            raise SessionClosedError(message.closed)
        if message.operation_id != operation_id or not operation_id:
            self.events.append(message)
            return False
        if kind == "error":
            error = message.error
            raise StrongroomError(_CODES[error.code], error.reason, error.message, dict(error.metadata))
        return True

    def open(self, result: pb.RevealResult) -> Secrets:
        """Open a reveal's result; wiped at the latest when the session ends."""
        if self._reveals is None:
            raise ValueError("the session is not open")
        secrets = self._reveals.open(result)
        self._revealed.append(secrets)
        return secrets

    def wipe(self) -> None:
        """Wipe everything that the session revealed, and its key."""
        for secrets in self._revealed:
            secrets.close()
        if self._reveals is not None:
            self._reveals.close()
            self._reveals = None

    def _name(self, name: str) -> str:
        if name:
            return name
        if len(self._names) > 1:
            raise ValueError("the session holds several credentials: say which, by name=")
        return self._names[0]

    def _next(self) -> int:
        return next(self._operation_ids)


def _choice(what: str, text: str, choices: Mapping[str, T]) -> T:
    if text not in choices:
        raise ValueError(f"the {what} must be one of {', '.join(choices)}")
    return choices[text]
