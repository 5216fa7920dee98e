"""What the tests of the suite share: its fixtures and helpers."""

# Tests are named by sentences and compare with the numbers that they mean.
# ruff: noqa: D103

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hsm import (
    HsmBackend,
    HsmIntegrityError,
    Kek,
    KeyAlgorithm,
    KeyRef,
    open_backend,
)
from hsm.conformance import children
from hsm.conformance.around import Around, around_uri

if TYPE_CHECKING:
    from collections.abc import Iterator

AAD = b"conformance"
DEK = bytes(range(32))


@pytest.fixture
def leak_of_the_module() -> int:
    """Bytes that the HSM's own library is known to leak in each operation; to be overridden where it does."""
    return 0


@pytest.fixture
def operations() -> int:
    """How many operations memory is watched over; to be overridden where each goes over a network."""
    return 100_000


@pytest.fixture
def around(uri: str) -> Around:
    """The HSM by other ways than the interface; to be overridden for a backend that is not of this library."""
    found = around_uri(uri)
    if found is None:
        pytest.skip("the fixture `around` is not overridden for this kind of backend")
    return found


@pytest.fixture
def backend(uri: str) -> Iterator[HsmBackend]:
    """The backend under test; what keys a test leaves behind are destroyed."""
    with open_backend(uri, sessions=4) as opened:
        yield opened
        for info in opened.list_keys("conformance/"):
            opened.destroy_key(info.ref, confirm=info.ref.label)


@pytest.fixture
def kek(backend: HsmBackend) -> KeyRef:
    """A new key-encryption key."""
    return children.fresh(backend, "kek", KeyAlgorithm.AES_256)


def unwrapped(backend: HsmBackend, ref: Kek, blob: bytes, aad: bytes = AAD) -> bytes:
    buffer = bytearray(64)
    size = backend.unwrap(ref, blob, aad, memoryview(buffer))
    assert not any(buffer[size:])
    return bytes(buffer[:size])


def refused(backend: HsmBackend, ref: Kek, blob: bytes, aad: bytes = AAD) -> None:
    buffer = bytearray(b"\xa5" * 64)
    with pytest.raises(HsmIntegrityError):
        backend.unwrap(ref, blob, aad, memoryview(buffer))
    assert buffer == b"\xa5" * 64, "a refused unwrap wrote into the buffer"


def run_child(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hsm.conformance.children", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603
