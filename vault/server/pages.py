"""Page tokens: opaque, authenticated, good only for the caller, method and query they were made for."""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING

from vault.crypto.encoding import encode
from vault.errors import Reason, VaultError

if TYPE_CHECKING:
    from vault.crypto.memory import LockedBuffer
    from vault.model import Caller

_MAC_BYTES = 16
_MAX_CHARS = 1024


class Pages:
    """Makes and reads page tokens, under a key that the HSM derives for this vault."""

    def __init__(self, key: LockedBuffer) -> None:
        self._key = key

    def token(self, caller: Caller, query: tuple[str, ...], position: str) -> str:
        """The token for the page that begins behind `position`."""
        mac = self._mac(caller, query, position)
        return base64.urlsafe_b64encode(mac + position.encode()).rstrip(b"=").decode()

    def position(self, caller: Caller, query: tuple[str, ...], token: str) -> str | None:
        """Where the page begins; None for the first. Raises `PAGE_TOKEN_INVALID`."""
        if not token:
            return None
        try:
            if len(token) > _MAX_CHARS:
                raise _invalid()
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            position = raw[_MAC_BYTES:].decode()
        except ValueError:
            raise _invalid() from None
        if not hmac.compare_digest(raw[:_MAC_BYTES], self._mac(caller, query, position)):
            raise _invalid()
        return position

    def _mac(self, caller: Caller, query: tuple[str, ...], position: str) -> bytes:
        tenant = caller.token.tenant if caller.token else ""
        message = encode("strongroom/page/v1", caller.identity, tenant, *query, position)
        return hmac.digest(self._key.view, message, "sha256")[:_MAC_BYTES]


def _invalid() -> VaultError:
    return VaultError(Reason.PAGE_TOKEN_INVALID, "not a page token of this caller and query")
