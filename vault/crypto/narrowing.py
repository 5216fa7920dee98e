"""Tokens made weaker without the vault: blocks behind a token, chained by signatures (docs/decisions, "Narrowing").

    JWT~seed                            as it was issued
    JWT~block.signature~seed            narrowed once
    JWT~block.signature~block.signature~seed

The token names the public key (Ed25519) of the first seed. Whoever holds a text appends a block, which says what is
left and names the next key, signs all before by the seed, and puts the next seed in its place. The seed that is gone
is what it would take to leave the block out: so a text can be made weaker by anyone, and stronger by none.

Binary parts are base64url without padding. A block is JSON with sorted keys and without spaces: `exp`, `key`, `scope`,
and where they say something `max_sessions` and `x5t#S256`. A signature is over `strongroom-narrow-1`, a zero byte, and
everything before it, the dot left out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from vault.crypto import scopes
from vault.crypto.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BLOCKS = 8
_KEY_BYTES = 32
_CONTEXT = b"strongroom-narrow-1\0"
_REQUIRED = {"exp", "key", "scope"}
_OPTIONAL = {"max_sessions": int, "x5t#S256": str}


@dataclass(frozen=True, slots=True)
class Block:
    """What a block leaves of a token. `max_sessions` 0: no limit of its own; no `thumbprint`: the same certificate."""

    token_id: str
    scopes: tuple[str, ...]
    expire_seconds: int
    max_sessions: int = 0
    thumbprint: str = ""


def new_seed() -> bytes:
    """A new seed: 32 random bytes, an Ed25519 private key."""
    return secrets.token_bytes(_KEY_BYTES)


def public_key(seed: bytes) -> str:
    """The public key of a seed, base64url."""
    return _b64(Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw())


def with_seed(jwt: str, seed: bytes) -> str:
    """A token's text as it is handed out."""
    return f"{jwt}~{_b64(seed)}"


def open_chain(text: str, key: str) -> list[Block]:
    """The blocks behind a token, verified from the key that the token names to the seed at the end.

    What they say is not compared with anything here: that each is weaker than what is before it, the caller must
    check. Raises `FormatError`.
    """
    jwt, *blocks, last = text.split("~")
    if len(blocks) > MAX_BLOCKS:
        raise FormatError("too many blocks")
    prefix = jwt
    opened = []
    for block in blocks:
        payload, _, signature = block.partition(".")
        prefix = f"{prefix}~{payload}"
        try:
            Ed25519PublicKey.from_public_bytes(_unb64(key)).verify(
                _unb64(signature), _CONTEXT + prefix.encode()
            )
        except (InvalidSignature, ValueError):
            raise FormatError("a block is not signed by the one before") from None
        said = _read(_unb64(payload))
        key = said["key"]
        opened.append(
            Block(
                # Not chosen by whoever narrows, and another for every block.
                token_id=_b64(hashlib.sha256(prefix.encode()).digest()[:16]),
                scopes=tuple(said["scope"].split(" ")),
                expire_seconds=said["exp"],
                max_sessions=said.get("max_sessions", 0),
                thumbprint=said.get("x5t#S256", ""),
            )
        )
        prefix = f"{prefix}.{signature}"
    seed = _unb64(last)
    if len(seed) != _KEY_BYTES or not hmac.compare_digest(public_key(seed).encode(), key.encode()):
        raise FormatError("the seed at the end is not of the last key")
    return opened


def narrow(
    text: str,
    wanted: Sequence[str],
    expire_seconds: int | None = None,
    *,
    max_sessions: int = 0,
    thumbprint: str = "",
) -> str:
    """A weaker token from one that can be narrowed; the vault is not asked.

    `expire_seconds` since 1970 is at most that of the token, which is the default. Raises `FormatError` if the text
    cannot be narrowed, and `ScopeError` for a scope that it does not cover.
    """
    before, found, last = text.rpartition("~")
    if not found:
        raise FormatError("this token was not issued to be narrowed")
    granted, ends = effective(text)
    for scope in wanted:
        if not any(scopes.subsumes(scopes.parse(own), scopes.parse(scope)) for own in granted):
            raise scopes.ScopeError("the token does not cover this scope")
    if not wanted:
        raise scopes.ScopeError("a token needs a scope")
    seed = new_seed()
    said: dict[str, Any] = {
        "exp": min(ends, expire_seconds or ends),
        "key": public_key(seed),
        "scope": " ".join(wanted),
    }
    if max_sessions:
        said["max_sessions"] = max_sessions
    if thumbprint:
        said["x5t#S256"] = thumbprint
    signed = f"{before}~{_b64(_json(said))}"
    key = Ed25519PrivateKey.from_private_bytes(_unb64(last))
    return f"{signed}.{_b64(key.sign(_CONTEXT + signed.encode()))}~{_b64(seed)}"


def effective(text: str) -> tuple[tuple[str, ...], int]:
    """The scopes and the end of a token as its last block, or itself, says them. Nothing is verified."""
    parts = text.split("~")
    try:
        payload = parts[-2].partition(".")[0] if len(parts) > 2 else parts[0].split(".")[1]  # noqa: PLR2004 - JWT, seed
        said = json.loads(_unb64(payload))
        return tuple(str(said["scope"]).split(" ")), int(said["exp"])
    except (ValueError, LookupError, TypeError):
        raise FormatError("not a token") from None


def _read(payload: bytes) -> dict[str, Any]:
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        raise FormatError("a block is not JSON") from None
    if not isinstance(said, dict) or not _REQUIRED <= set(said) <= {*_REQUIRED, *_OPTIONAL}:
        raise FormatError("a block does not say what it must")
    if type(said["exp"]) is not int or type(said["key"]) is not str or type(said["scope"]) is not str:
        raise FormatError("a block says something of the wrong type")
    if any(
        type(said[name]) is not kind or not said[name] for name, kind in _OPTIONAL.items() if name in said
    ):
        raise FormatError("a block says something of the wrong type")
    # One spelling for one block: none twice, no space, no other order.
    if _json(said) != payload:
        raise FormatError("a block is spelt in another way")
    return said


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise FormatError("not base64url") from None
    if _b64(data) != text:
        raise FormatError("not base64url")
    return data
