"""What a token says: the claims of its JWT (RFC 9068, RFC 8705), and the blocks that narrow it.

Whoever reads a token accepts exactly what is written here for it, and nothing that merely means the same.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import TYPE_CHECKING, Any

from vault.clock import UTC
from vault.core import requests
from vault.core.revocations import MAX_TOKEN_LIFE
from vault.core.signing import invalid_token
from vault.crypto import narrowing, scopes
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError, invalid_field
from vault.model import Ancestor, Token
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from vault.crypto.scopes import Scope

MAX_SCOPES = 32
MAX_SCOPE_CHARS = 256
MAX_SESSIONS = 1_000_000
MAX_DEPTH = 8
"""How many tokens a token may come from, one by one."""


def claims(token: Token, issuer: str, audience: str) -> dict[str, Any]:
    """The claims of a token's JWT."""
    said = {
        "iss": issuer,
        "sub": token.identity,
        "client_id": token.identity,
        "aud": audience,
        "iat": int(token.issue_time.timestamp()),
        "exp": int(token.expire_time.timestamp()),
        "jti": token.token_id,
        "tenant": token.tenant,
        "policy": token.policy,
        "scope": " ".join(str(scope) for scope in token.scopes),
        "cnf": {"x5t#S256": token.thumbprint},
    }
    if token.max_sessions:
        said["max_sessions"] = token.max_sessions
    if token.narrowing_key:
        said["narrowing_key"] = token.narrowing_key
    if token.ancestors:
        said["ancestors"] = [
            [a.token_id, int(a.issue_time.timestamp()), a.max_sessions] for a in token.ancestors
        ]
    return said


def parse(payload: bytes, issuer: str, audience: str) -> Token:
    """The token that the vault wrote as these claims. Raises `TOKEN_INVALID`."""
    try:
        said = json.loads(payload)
        token = Token(
            token_id=requests.token_id(said["jti"]),
            identity=said["sub"],
            tenant=said["tenant"],
            scopes=parse_scopes(said["tenant"], tuple(said["scope"].split(" "))),
            thumbprint=said["cnf"]["x5t#S256"],
            issue_time=datetime.datetime.fromtimestamp(said["iat"], UTC),
            expire_time=datetime.datetime.fromtimestamp(said["exp"], UTC),
            max_sessions=_count(said.get("max_sessions", 0)),
            narrowing_key=str(said.get("narrowing_key", "")),
            ancestors=tuple(
                Ancestor(
                    requests.token_id(token_id),
                    datetime.datetime.fromtimestamp(issued, UTC),
                    _count(most),
                )
                for token_id, issued, most in said.get("ancestors", ())
            ),
            policy=said["policy"],
        )
        texts = (token.identity, token.tenant, token.thumbprint, token.policy)
        same = (
            all(isinstance(text, str) for text in texts)
            and canonical_json(claims(token, issuer, audience)).encode() == payload
        )
    except (
        VaultError,
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        OverflowError,
        RecursionError,
    ):
        raise invalid_token() from None
    # No claim more, none twice, none of another type: exactly what this code writes for such a token.
    if not same or not datetime.timedelta(0) < token.expire_time - token.issue_time <= MAX_TOKEN_LIFE:
        raise invalid_token()
    return token


def narrow(token: Token, text: str) -> Token:
    """A token as the blocks behind its JWT leave it. Raises `TOKEN_INVALID`."""
    try:
        for block in narrowing.open_chain(text, token.narrowing_key):
            token = _narrowed(token, block)
    except (CryptoError, VaultError, ValueError, OverflowError, OSError):
        raise invalid_token() from None
    return token


def parse_scopes(tenant: str, wanted: tuple[str, ...]) -> tuple[Scope, ...]:
    """The scopes of a token in this tenant. Raises `FIELD_INVALID`."""
    if not 0 < len(wanted) <= MAX_SCOPES or len(set(wanted)) != len(wanted):
        raise invalid_field("scopes", f"1 to {MAX_SCOPES}, each at most once")
    try:
        parsed = tuple(scopes.parse(text) if len(text) <= MAX_SCOPE_CHARS else _too_long() for text in wanted)
    except scopes.ScopeError:
        raise invalid_field(
            "scopes", "each must be action:tenant/segment/..., with * or ** for segments"
        ) from None
    if any(scope.resource.partition("/")[0] != tenant for scope in parsed):
        raise invalid_field("scopes", "each must lie in the token's tenant")
    return parsed


def weaker_scopes(parent: Token, wanted: tuple[str, ...]) -> tuple[Scope, ...]:
    """Scopes, each within one of the parent's. Raises `FIELD_INVALID`, `SCOPE_DENIED`."""
    granted = parse_scopes(parent.tenant, wanted)
    for scope in granted:
        if not any(scopes.subsumes(own, scope) for own in parent.scopes):
            raise VaultError(Reason.SCOPE_DENIED, "the token's scopes do not cover this", action=scope.action)
    return granted


def ancestry(parent: Token) -> tuple[Ancestor, ...]:
    """What a child of this token comes from. Raises `LIMIT_REACHED`."""
    if len(parent.ancestors) >= MAX_DEPTH:
        raise VaultError(
            Reason.LIMIT_REACHED, f"made from a token {MAX_DEPTH} times already", limit="token_depth"
        )
    return (*parent.ancestors, Ancestor(parent.token_id, parent.issue_time, parent.max_sessions))


def _narrowed(parent: Token, block: narrowing.Block) -> Token:
    """A token as a block leaves it: held to what the vault itself holds an exchange to. Raises `VaultError`."""
    expire_time = datetime.datetime.fromtimestamp(block.expire_seconds, UTC)
    if expire_time > parent.expire_time:
        raise invalid_token()
    if block.thumbprint and block.thumbprint != parent.thumbprint:
        requests.thumbprint(block.thumbprint)
        if not any(scopes.covers(own, "token.delegate", f"{parent.tenant}/tokens") for own in parent.scopes):
            raise invalid_token()
    return dataclasses.replace(
        parent,
        token_id=block.token_id,
        scopes=weaker_scopes(parent, block.scopes),
        thumbprint=block.thumbprint or parent.thumbprint,
        expire_time=expire_time,
        max_sessions=_count(block.max_sessions),
        ancestors=ancestry(parent),
        narrowed=parent.narrowed + 1,
    )


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SESSIONS:
        raise ValueError("not a number of sessions")
    return value


def _too_long() -> Scope:
    raise invalid_field("scopes", f"at most {MAX_SCOPE_CHARS} characters each")
