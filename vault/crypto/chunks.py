"""A long stream, encrypted in chunks that open only in their order and only all together.

Each chunk is one AEAD under a key of its own stream, derived from the data key by HKDF-SHA256 over what the stream is
bound to. The nonce is seven zero bytes, the chunk's number in four bytes, and a byte that is 1 for the last chunk
(the STREAM construction: Hoang, Reyhanitabar, Rogaway, Vizár, 2015). So a chunk that is missing, misplaced, added or
of another stream does not open, and a stream that was cut has no last chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vault.crypto.errors import FormatError, IntegrityError
from vault.crypto.memory import LockedBuffer, allocate

if TYPE_CHECKING:
    from vault.crypto.suites import Suite

CHUNK_BYTES = 64 * 1024
_MAX_CHUNKS = 2**32 - 1


class Chunks:
    """One direction of one stream: seals or opens chunk after chunk. `close` wipes the key."""

    def __init__(self, suite: Suite, data_key: LockedBuffer, bound: bytes) -> None:
        self._suite = suite
        self._bound = bound
        self._next = 0
        self.ended = False
        """Whether the last chunk was seen."""
        self._key = allocate(32)
        # The data key is uniformly random: no extract step (RFC 5869, section 3.3).
        HKDFExpand(hashes.SHA256(), 32, b"chunks\0" + bound).derive_into(data_key.view, self._key.view)

    def seal(self, chunk: bytes, *, last: bool) -> bytes:
        """Encrypt the next chunk, of at most `CHUNK_BYTES`. Raises `FormatError`."""
        if len(chunk) > CHUNK_BYTES:
            raise FormatError("a chunk is too long")
        out = bytearray(len(chunk) + self._suite.tag_bytes)
        nonce = self._nonce(last=last)
        self._suite.aead(self._key.view).encrypt_into(nonce, memoryview(chunk), self._bound, memoryview(out))
        return bytes(out)

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        """Decrypt the next chunk. Raises `FormatError`, `IntegrityError`."""
        size = len(sealed) - self._suite.tag_bytes
        if not 0 <= size <= CHUNK_BYTES:
            raise FormatError("a chunk is too short or too long")
        out = bytearray(size)
        try:
            self._suite.aead(self._key.view).decrypt_into(
                self._nonce(last=last), sealed, self._bound, memoryview(out)
            )
        except InvalidTag:
            raise IntegrityError("a chunk does not verify") from None
        return bytes(out)

    def close(self) -> None:
        """Wipe the key."""
        self._key.close()

    def _nonce(self, *, last: bool) -> bytes:
        if self.ended or self._next > _MAX_CHUNKS:
            raise FormatError("nothing follows the last chunk")
        number, self._next, self.ended = self._next, self._next + 1, last
        return number.to_bytes(11, "big") + bytes((last,))
