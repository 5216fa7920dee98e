"""The channel of a session: one key, sealed to the caller once, then one AEAD for each reveal.

AES-256-GCM; the nonce is a 12-byte big-endian counter that never repeats under a session's key.
"""

from __future__ import annotations

import threading

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.crypto.errors import BufferClosed, FormatError, IntegrityError
from vault.crypto.memory import LockedBuffer, allocate

KEY_BYTES = 32
MAX_MESSAGES = 2**32
_TAG = 16


class SessionSealer:
    """The vault's end: seals. `close` wipes the key."""

    def __init__(self, key: LockedBuffer) -> None:
        self._key: LockedBuffer | None = key
        self._counter = 0
        self._lock = threading.Lock()

    def seal(self, aad: bytes, plaintext: memoryview) -> tuple[int, bytes]:
        """The message's counter, and the sealed message. Raises `BufferClosed` after `close`."""
        key = self._key
        if key is None:
            raise BufferClosed("the channel is closed")
        with self._lock:  # two messages under one counter would give the key away
            if self._counter >= MAX_MESSAGES:
                raise IntegrityError("the channel has carried as much as one key may")
            self._counter += 1
            counter = self._counter
        return counter, AESGCM(key.view).encrypt(_nonce(counter), plaintext, aad)

    def close(self) -> bool:
        """Seal no more, and wipe the key. Returns whether it reads back as zeros."""
        key, self._key = self._key, None
        return key is None or key.close()


class SessionOpener:
    """The caller's end: opens, each message once. `close` wipes the key."""

    def __init__(self, key: LockedBuffer) -> None:
        self._key: LockedBuffer | None = key
        self._all_up_to = 0
        self._seen: set[int] = set()  # beyond those
        self._lock = threading.Lock()

    def open(self, counter: int, aad: bytes, sealed: bytes) -> LockedBuffer:
        """Open into locked memory. Raises `IntegrityError` for a message that is altered or repeated."""
        key = self._key
        if key is None:
            raise BufferClosed("the channel is closed")
        if len(sealed) < _TAG or not 0 < counter <= MAX_MESSAGES:
            raise FormatError("not a message of a channel")
        plaintext = allocate(len(sealed) - _TAG)
        try:
            AESGCM(key.view).decrypt_into(_nonce(counter), sealed, aad, plaintext.view)
            self._once(counter)
        except InvalidTag:
            plaintext.close()
            raise IntegrityError("a message does not open") from None
        except IntegrityError:
            plaintext.close()
            raise
        return plaintext

    def _once(self, counter: int) -> None:
        with self._lock:
            if counter <= self._all_up_to or counter in self._seen:
                raise IntegrityError("a message was repeated")
            self._seen.add(counter)
            while self._all_up_to + 1 in self._seen:
                self._all_up_to += 1
                self._seen.remove(self._all_up_to)

    def close(self) -> bool:
        """Open no more, and wipe the key. Returns whether it reads back as zeros."""
        key, self._key = self._key, None
        return key is None or key.close()


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")
