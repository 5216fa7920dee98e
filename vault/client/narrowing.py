"""Making a token weaker without calling the vault."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vault.crypto import narrowing
from vault.crypto.errors import CryptoError

if TYPE_CHECKING:
    from collections.abc import Sequence


def narrow_token(
    text: str,
    scopes: Sequence[str],
    *,
    ttl_seconds: int | None = None,
    certificate_thumbprint: str = "",
    max_sessions: int = 0,
) -> str:
    """A weaker token from one that was issued `narrowable`; it is revoked with it, and the other cannot be got from it.

    Scopes and life are within those of the token. With the SHA-256 thumbprint of another certificate (base64url) it is
    for the holder of that one, if the token has the scope `token.delegate`. Raises `ValueError`.
    """
    try:
        _, ends = narrowing.effective(text)
        expire = ends if ttl_seconds is None else int(time.time()) + ttl_seconds
        if ttl_seconds is not None and (ttl_seconds < 1 or expire > ends):
            raise ValueError("it cannot live longer than the token it is made from")
        return narrowing.narrow(
            text, scopes, expire, max_sessions=max_sessions, thumbprint=certificate_thumbprint
        )
    except CryptoError as error:
        raise ValueError(str(error)) from None
