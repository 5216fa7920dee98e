"""A stream in chunks: what was sealed opens in its order and whole; anything else does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.crypto import memory, suites
from vault.crypto.chunks import CHUNK_BYTES, Chunks
from vault.crypto.errors import CryptoError, FormatError


def stream(key: bytes = bytes(range(32)), bound: bytes = b"header", suite: int = 1) -> Chunks:
    buffer = memory.allocate(32)
    buffer.view[:] = key
    with buffer:
        return Chunks(suites.suite(suite), buffer, bound)


def sealed(parts: list[bytes], **how: object) -> list[bytes]:
    chunks = stream(**how)  # type: ignore[arg-type]
    return [chunks.seal(part, last=at == len(parts) - 1) for at, part in enumerate(parts)]


def opened(parts: list[bytes], **how: object) -> list[bytes]:
    chunks = stream(**how)  # type: ignore[arg-type]
    return [chunks.open(part, last=at == len(parts) - 1) for at, part in enumerate(parts)]


@given(parts=st.lists(st.binary(max_size=100), min_size=1, max_size=5), suite=st.sampled_from([1, 2]))
def test_what_was_sealed_opens(parts: list[bytes], suite: int) -> None:
    assert opened(sealed(parts, suite=suite), suite=suite) == parts


@given(data=st.data(), parts=st.lists(st.binary(min_size=1, max_size=8), min_size=2, max_size=5, unique=True))
def test_a_stream_that_was_cut_reordered_lengthened_or_flipped_does_not_open(
    data: st.DataObject, parts: list[bytes]
) -> None:
    whole = sealed(parts)
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, len(whole) - 1).filter(lambda place: place != at))
    flipped = bytearray(whole[at])
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1
    swapped = list(whole)
    swapped[at], swapped[other] = swapped[other], swapped[at]
    for bad in (
        whole[:at] + whole[at + 1 :],
        [*whole[:at], bytes(flipped), *whole[at + 1 :]],
        [*whole[: at + 1], *whole[at:]],
        swapped,
        [*whole[:at], sealed(parts, bound=b"another")[at], *whole[at + 1 :]],
    ):
        with pytest.raises(CryptoError):
            opened(bad)


def test_nothing_follows_the_last_chunk_and_no_chunk_is_too_long() -> None:
    chunks = stream()
    chunks.seal(b"end", last=True)
    with pytest.raises(FormatError):
        chunks.seal(b"more", last=False)
    with pytest.raises(FormatError):
        stream().seal(bytes(CHUNK_BYTES + 1), last=True)
    with pytest.raises(FormatError):
        stream().open(bytes(CHUNK_BYTES + 17), last=True)
