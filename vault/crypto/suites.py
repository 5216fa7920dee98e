"""The table of cipher suites. Algorithms are numbers stored with each envelope, never configuration.

To add a suite: one entry here. To put it to use: make it `CURRENT`, and the one before `ACCEPTED`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from vault.crypto.errors import UnknownSuite

if TYPE_CHECKING:
    from collections.abc import Callable


class Aead(Protocol):
    """An AEAD that works in the caller's buffers."""

    def encrypt_into(self, nonce: bytes, data: memoryview, associated_data: bytes, buf: memoryview) -> int:
        """Ciphertext and tag into `buf`."""
        ...

    def decrypt_into(self, nonce: bytes, data: bytes, associated_data: bytes, buf: memoryview) -> int:
        """Plaintext into `buf`. Raises `InvalidTag`."""
        ...


class SuiteStatus(enum.StrEnum):
    """What a suite may be used for.

    Current: for all that is new. Accepted: may seal, and opens. Retired: opens, so that it can be re-encrypted.
    """

    CURRENT = "current"
    ACCEPTED = "accepted"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Suite:
    """A numbered set of algorithms. All derive by HKDF-SHA256 and commit to their key; keys are 32 bytes."""

    number: int
    name: str
    status: SuiteStatus
    aead: Callable[[memoryview], Aead]
    nonce_bytes: int = 12
    tag_bytes: int = 16


_TABLE = (
    Suite(1, "AES-256-GCM-HKDF-SHA256-COMMIT", SuiteStatus.CURRENT, AESGCM),
    Suite(2, "CHACHA20-POLY1305-HKDF-SHA256-COMMIT", SuiteStatus.ACCEPTED, ChaCha20Poly1305),
)
_BY_NUMBER = {entry.number: entry for entry in _TABLE}
_BY_NAME = {entry.name: entry for entry in _TABLE}
(_CURRENT,) = (entry for entry in _TABLE if entry.status is SuiteStatus.CURRENT)


def suite(number: int) -> Suite:
    """The suite of this number. Raises `UnknownSuite`."""
    found = _BY_NUMBER.get(number)
    if found is None:
        raise UnknownSuite("no such suite")
    return found


def by_name(name: str) -> Suite:
    """The suite of this name. Raises `UnknownSuite`."""
    found = _BY_NAME.get(name)
    if found is None:
        raise UnknownSuite("no such suite")
    return found


def current() -> Suite:
    """The suite for what is new."""
    return _CURRENT
