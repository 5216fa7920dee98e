"""The channel of a session: one key, sealed to the caller once, then one AEAD for each reveal.

AES-256-GCM; the nonce is a 12-byte big-endian counter that never repeats under a session's key.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.crypto.errors import BufferClosed, FormatError, IntegrityError
from vault.crypto.memory import LockedBuffer, allocate

KEY_BYTES = 32
MAX_MESSAGES = 2**32
_TAG = 16


class SessionSealer:
    """The vault's end: seals. The key stays the caller's to close."""

    def __init__(self, key: LockedBuffer) -> None:
        self._key: LockedBuffer | None = key
        self._counter = 0

    def seal(self, aad: bytes, plaintext: memoryview) -> tuple[int, bytes]:
        """The message's counter, and the sealed message. Raises `BufferClosed` after `close`."""
        if self._key is None:
            raise BufferClosed("the channel is closed")
        if self._counter >= MAX_MESSAGES:
            raise IntegrityError("the channel has carried as much as one key may")
        self._counter += 1
        sealed = AESGCM(self._key.view).encrypt(_nonce(self._counter), plaintext, aad)
        return self._counter, sealed

    def close(self) -> None:
        """Seal no more."""
        self._key = None


class SessionOpener:
    """The caller's end: opens, each message once."""

    def __init__(self, key: LockedBuffer) -> None:
        self._key: LockedBuffer | None = key
        self._seen: set[int] = set()

    def open(self, counter: int, aad: bytes, sealed: bytes) -> LockedBuffer:
        """Open into locked memory. Raises `IntegrityError` for a message that is altered or repeated."""
        if self._key is None:
            raise BufferClosed("the channel is closed")
        if len(sealed) < _TAG or not 0 < counter <= MAX_MESSAGES:
            raise FormatError("not a message of a channel")
        if counter in self._seen:
            raise IntegrityError("a message was repeated")
        plaintext = allocate(len(sealed) - _TAG)
        try:
            AESGCM(self._key.view).decrypt_into(_nonce(counter), sealed, aad, plaintext.view)
        except InvalidTag:
            plaintext.close()
            raise IntegrityError("a message does not open") from None
        self._seen.add(counter)
        return plaintext

    def close(self) -> None:
        """Open no more."""
        self._key = None


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")
