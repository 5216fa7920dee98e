"""Scopes: `action:resource`. The grammar, and the two questions that can be asked.

A resource is 1 to 8 segments joined by `/`, the first of them the tenant. A segment is `[a-z0-9][a-z0-9_-]{0,62}`, or,
behind the tenant, `*` for one segment of any name, or, as the last, `**` for one or more. Names hold no stars. Nothing
is normalised: a name is what it is, or it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from vault.crypto.errors import CryptoError

ACTIONS = frozenset(
    {
        "token.revoke",
        "token.introspect",
        "token.delegate",
        "credential.write",
        "credential.read",
        "credential.set_standing",
        "credential.delete",
        "credential.destroy",
        "session.reveal",
        "session.use.hmac",
        "session.use.hmac_raw",
        "session.use.verify_hmac",
        "session.use.totp",
        "session.use.verify_webhook",
        "webhook.manage",
        "handover.wrap",
        "handover.unwrap",
        "session.use.answer_challenge",
        "session.use.sign_jws",
        "session.use.client_assertion",
        "session.use.sign_http",
        "session.use.sign_raw",
        "session.use.http_call",
        "session.use.oauth_refresh",
        "session.use.link_token",
        "tenant.create",
        "key.rotate",
        "key.rewrap",
        "key.retire",
        "key.schedule",
        "key.read",
        "audit.read",
        "audit.verify",
        "audit.identify",
        "approval.approve",
        "approval.read",
        "key.destroy",
        "tenant.delete",
        "policy.read",
        "policy.write",
        "threat.read",
        "threat.release",
        "database.recover",
        "session.break_glass",
        "token.issue",
    }
)
MIN_SEGMENTS, MAX_SEGMENTS = 2, 8
_ONE = "*"
_REST = "**"
_MAX_NAME = MAX_SEGMENTS * 64 - 1
_MAX_SCOPE = max(map(len, ACTIONS)) + 1 + _MAX_NAME
_SEGMENT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class ScopeError(CryptoError):
    """A scope is malformed."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A parsed scope."""

    action: str
    segments: tuple[str, ...]

    @property
    def resource(self) -> str:
        """The resource, as it was written."""
        return "/".join(self.segments)

    def __str__(self) -> str:
        return f"{self.action}:{self.resource}"


def parse(text: str) -> Scope:
    """A scope from its text. Raises `ScopeError`."""
    if len(text) > _MAX_SCOPE:
        raise ScopeError("not a scope")
    return _parse(text)


@lru_cache(maxsize=16_384)
def _parse(text: str) -> Scope:
    action, found, resource = text.partition(":")
    segments = tuple(resource.split("/"))
    if not found or action not in ACTIONS or len(segments) > MAX_SEGMENTS:
        raise ScopeError("not a scope")
    if not _SEGMENT.fullmatch(segments[0]):
        raise ScopeError("a scope begins with its tenant")
    for place, segment in enumerate(segments[1:], 2):
        starred = segment == _ONE or (segment == _REST and place == len(segments))
        if not starred and not _SEGMENT.fullmatch(segment):
            raise ScopeError("a segment of a scope is malformed")
    return Scope(action, segments)


def valid_name(name: str) -> bool:
    """Whether this can be a credential's name: 2 to 8 segments, no stars."""
    # The length first: what is remembered must stay small, whatever callers send.
    return len(name) <= _MAX_NAME and _valid_name(name)


@lru_cache(maxsize=16_384)
def _valid_name(name: str) -> bool:
    segments = name.split("/")
    return MIN_SEGMENTS <= len(segments) <= MAX_SEGMENTS and all(map(_SEGMENT.fullmatch, segments))


def covers(scope: Scope, action: str, name: str) -> bool:
    """Whether a scope allows the action on what has this name."""
    return scope.action == action and len(name) <= _MAX_NAME and _contains(scope.segments, name)


@lru_cache(maxsize=16_384)
def _contains(pattern: tuple[str, ...], name: str) -> bool:
    segments = tuple(name.split("/"))
    return (
        len(segments) <= MAX_SEGMENTS
        and all(map(_SEGMENT.fullmatch, segments))
        and _matches(pattern, segments)
    )


def subsumes(parent: Scope, child: Scope) -> bool:
    """Whether everything that the child covers the parent covers too."""
    return parent.action == child.action and _matches(parent.segments, child.segments)


def _matches(pattern: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    """Whether a pattern contains a name, or a narrower pattern."""
    if pattern[-1] == _REST:
        if len(segments) < len(pattern):
            return False
        pattern, segments = pattern[:-1], segments[: len(pattern) - 1]
    elif len(pattern) != len(segments) or segments[-1] == _REST:
        return False
    return all(own in (_ONE, other) for own, other in zip(pattern, segments, strict=True))
