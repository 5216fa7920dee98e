"""The layer of a data subject: it opens under the subject's key as the version that it was sealed for, or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.crypto import memory, subject_data, suites
from vault.crypto.errors import CryptoError
from vault.crypto.memory import LockedBuffer

SUBJECT = "AAECAwQFBgcICQoLDA0ODw"


def locked(data: bytes) -> LockedBuffer:
    buffer = memory.allocate(len(data))
    buffer.view[:] = data
    return buffer


def sealed(plaintext: bytes = b"hello", suite: int = 1) -> bytes:
    with (
        locked(bytes(range(32))) as key,
        locked(plaintext) as buffer,
        subject_data.seal(suites.suite(suite), SUBJECT, key, "acme/a", 3, buffer.view) as out,
    ):
        return bytes(out.view)


def opened(content: bytes, key: bytes = bytes(range(32)), name: str = "acme/a", version: int = 3) -> bytes:
    with (
        locked(key) as subject_key,
        subject_data.open(memoryview(content), subject_key, name, version) as out,
    ):
        return bytes(out.view)


@given(plaintext=st.binary(max_size=300), suite=st.sampled_from([1, 2]))
def test_what_was_sealed_opens_and_names_its_subject(plaintext: bytes, suite: int) -> None:
    content = sealed(plaintext, suite)
    assert subject_data.subject_of(memoryview(content)) == SUBJECT
    assert opened(content) == plaintext


@pytest.mark.parametrize(
    "how", [{"key": bytes(32)}, {"name": "acme/b"}, {"name": "globex/a"}, {"version": 2}]
)
def test_it_opens_under_no_other_key_and_as_nothing_else(how: dict[str, object]) -> None:
    with pytest.raises(CryptoError):
        opened(sealed(), **how)  # type: ignore[arg-type]


def test_no_bit_of_it_can_be_changed_and_no_byte_cut() -> None:
    content = sealed()
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1
        with pytest.raises(CryptoError):
            opened(bytes(flipped))
    for size in range(len(content)):
        with pytest.raises(CryptoError):
            opened(content[:size])


def test_a_bundle_is_not_taken_for_it() -> None:
    assert subject_data.subject_of(memoryview(bytes((1, 0, 1)) + bytes(60))) is None
