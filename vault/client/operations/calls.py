"""Calls on the wire: what one is, what goes with it, when it is tried again."""

from __future__ import annotations

import dataclasses
import secrets as random
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from vault.client.errors import StrongroomError
    from vault.client.profile import Profile

T = TypeVar("T")

MAX_TRIES = 6
CHANNEL_OPTIONS = (
    # A client has a connection of its own: a server takes 64 calls and sessions at once on each.
    ("grpc.use_local_subchannel_pool", 1),
    # A session or watch waits without a deadline: a peer that is gone without a word is found out within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # By default a vault that was away for long would be tried every two minutes only.
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
PAGE = 500
_NOT_BEGUN = ("OVERLOADED", "SHUTTING_DOWN", "REVOCATIONS_UNKNOWN", "HSM_UNAVAILABLE")


@dataclasses.dataclass(frozen=True)
class Call:
    """One call on the wire. Safe to repeat, being a read or a write with a request_id, unless it says otherwise."""

    method: str
    request: Message
    response: type[Message]
    token: str = dataclasses.field(default="", repr=False)
    repeatable: bool = True
    shows_certificate: bool = False
    """Whether it is for the certificate that the connection shows, which should be the newest then."""

    def may_repeat(self, failure: StrongroomError, attempt: int) -> bool:
        """Whether to try once more after this failure of try number `attempt`, counted from 0."""
        return (
            failure.code is grpc.StatusCode.UNAVAILABLE
            and attempt < MAX_TRIES - 1
            and (self.repeatable or failure.reason in _NOT_BEGUN)
        )


Steps = Generator[Call, Any, T]


def metadata(profile: Profile, token: str) -> tuple[tuple[str, str], ...]:
    """A call's metadata."""
    sent = [("x-request-id", random.token_urlsafe(12))]
    if profile.device_id:
        sent.append(("x-device-id", profile.device_id))
    if token:
        sent.append(("authorization", f"Bearer {token}"))
    return tuple(sent)


def pause(attempt: int) -> float:
    """How long to wait before the next try: exponential, with full jitter. Seconds."""
    return random.SystemRandom().uniform(0, 0.1 * 2**attempt)
