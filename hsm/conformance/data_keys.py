"""The suite on backends themselves, and on wrapping data keys."""

# Tests are named by sentences and compare with the numbers that they mean.
# ruff: noqa: PLR2004, D103

from __future__ import annotations

import secrets

import pytest

from hsm import (
    HsmBackend,
    HsmIntegrityError,
    HsmUnavailable,
    KeyAlgorithm,
    KeyNotFound,
    KeyRef,
    RewrapItem,
    UnwrapItem,
    WrapItem,
    open_backend,
)
from hsm.conformance import children
from hsm.conformance.support import AAD, DEK, refused, unwrapped

# -- what it says of itself ---------------------------------------------------------------------------


def test_it_has_a_name_and_is_healthy(backend: HsmBackend) -> None:
    scheme, _, rest = backend.name.partition(":")
    assert scheme
    assert rest
    assert backend.health().ok
    assert backend.health(deep=True).reason == "ok"


def test_capabilities_stay_the_same(backend: HsmBackend, uri: str) -> None:
    assert backend.capabilities() == backend.capabilities()
    with open_backend(uri, sessions=4) as again:
        assert again.capabilities() == backend.capabilities()
        assert again.name == backend.name


def test_after_close_all_is_refused(uri: str) -> None:
    backend = open_backend(uri)
    backend.close()
    backend.close()
    assert backend.health().reason == "closed"
    with pytest.raises(HsmUnavailable):
        backend.list_keys()


# -- data keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 17, 24, 31, 32, 33, 48, 63, 64])
def test_data_keys_of_every_size_come_back(backend: HsmBackend, kek: KeyRef, size: int) -> None:
    dek = secrets.token_bytes(size)
    assert unwrapped(backend, kek, backend.wrap(kek, dek, AAD)) == dek


@pytest.mark.parametrize("size", [1, 15, 16, 17, 255, 2048])
def test_contexts_of_every_size_are_bound(backend: HsmBackend, kek: KeyRef, size: int) -> None:
    aad = secrets.token_bytes(size)
    blob = backend.wrap(kek, DEK, aad)
    assert unwrapped(backend, kek, blob, aad) == DEK
    refused(backend, kek, blob, aad[:-1] + bytes([aad[-1] ^ 1]))
    refused(backend, kek, blob, (aad + b"\0")[-2048:])


def test_a_data_key_is_taken_from_any_buffer(backend: HsmBackend, kek: KeyRef) -> None:
    for dek in (DEK, bytearray(DEK), memoryview(DEK), memoryview(bytearray(DEK))):
        assert unwrapped(backend, kek, backend.wrap(kek, dek, AAD)) == DEK


def test_a_buffer_of_exactly_the_keys_length_is_enough(backend: HsmBackend, kek: KeyRef) -> None:
    buffer = bytearray(32)
    assert backend.unwrap(kek, backend.wrap(kek, DEK, AAD), AAD, memoryview(buffer)) == 32
    assert buffer == DEK


def test_no_two_blobs_are_alike(backend: HsmBackend, kek: KeyRef) -> None:
    if backend.capabilities().wrap == "aes-kwp":
        pytest.skip("KWP is deterministic; data keys are random")
    assert len({backend.wrap(kek, DEK, AAD) for _ in range(1000)}) == 1000


def test_a_flipped_bit_anywhere_is_refused_and_harms_nothing_else(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    for place in range(len(blob)):
        bad = bytearray(blob)
        bad[place] ^= 1 << (place % 8)
        refused(backend, kek, bytes(bad))
    assert unwrapped(backend, kek, blob) == DEK
    assert backend.health(deep=True).ok


def test_a_blob_of_another_length_is_refused(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    for bad in (
        b"",
        blob[:1],
        blob[:2],
        blob[:-1],
        blob[:-16],
        blob[:20],
        blob + b"\0",
        blob + blob,
        bytes(9000),
    ):
        refused(backend, kek, bad)


def test_another_keys_blob_is_refused(backend: HsmBackend, kek: KeyRef) -> None:
    other = children.fresh(backend, "other", KeyAlgorithm.AES_256)
    refused(backend, other, backend.wrap(kek, DEK, AAD))


@pytest.mark.parametrize("size", [0, 15, 65])
def test_data_keys_of_other_sizes_are_a_callers_bug(backend: HsmBackend, kek: KeyRef, size: int) -> None:
    with pytest.raises(ValueError, match="data key"):
        backend.wrap(kek, bytes(size), AAD)


def test_an_empty_context_is_a_callers_bug(backend: HsmBackend, kek: KeyRef) -> None:
    with pytest.raises(ValueError, match="aad"):
        backend.wrap(kek, DEK, b"")
    with pytest.raises(ValueError, match="aad"):
        backend.unwrap(kek, b"x", b"", memoryview(bytearray(64)))


def test_a_buffer_that_will_not_do_is_a_callers_bug(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    with pytest.raises(ValueError, match="shorter"):
        backend.unwrap(kek, blob, AAD, memoryview(bytearray(31)))
    with pytest.raises(ValueError, match="writable"):
        backend.unwrap(kek, blob, AAD, memoryview(bytes(64)))


def test_batches_answer_item_by_item(backend: HsmBackend, kek: KeyRef) -> None:
    missing = KeyRef("conformance/none", secrets.token_bytes(16))
    blobs = backend.wrap_many([WrapItem(kek, DEK, AAD), WrapItem(missing, DEK, AAD), WrapItem(kek, DEK, AAD)])
    assert isinstance(blobs[1], KeyNotFound)
    good = blobs[0]
    assert isinstance(good, bytes)
    buffers = [memoryview(bytearray(64)) for _ in range(4)]
    items = [
        UnwrapItem(kek, good, AAD, buffers[0]),
        UnwrapItem(kek, good, b"other", buffers[1]),
        UnwrapItem(missing, good, AAD, buffers[2]),
        UnwrapItem(kek, good, AAD, buffers[3]),
    ]
    sizes = backend.unwrap_many(items)
    assert (sizes[0], sizes[3]) == (32, 32)
    assert isinstance(sizes[1], HsmIntegrityError)
    assert isinstance(sizes[2], KeyNotFound)
    assert bytes(buffers[3][:32]) == DEK
    assert backend.wrap_many([]) == []
    assert backend.unwrap_many([]) == []


def test_a_batch_is_rewrapped_item_by_item(backend: HsmBackend, kek: KeyRef) -> None:
    new = children.fresh(backend, "newer", KeyAlgorithm.AES_256)
    missing = KeyRef("conformance/none", secrets.token_bytes(16))
    deks = [secrets.token_bytes(size) for size in (16, 32, 64)]
    blobs = [backend.wrap(kek, dek, AAD) for dek in deks]
    items = [RewrapItem(kek, blob, AAD, new, b"new context") for blob in blobs]
    bad = [
        RewrapItem(kek, blobs[0], b"other", new, b"new context"),
        RewrapItem(kek, blobs[0], AAD, missing, b"new context"),
        RewrapItem(missing, blobs[0], AAD, new, b"new context"),
        RewrapItem(kek, blobs[0][:-1], AAD, new, b"new context"),
    ]
    answers = backend.rewrap_many([items[0], *bad, *items[1:]])
    assert [type(answer) for answer in answers[1:5]] == [
        HsmIntegrityError,
        KeyNotFound,
        KeyNotFound,
        HsmIntegrityError,
    ]
    for dek, moved in zip(deks, (answers[0], *answers[5:]), strict=True):
        assert isinstance(moved, bytes)
        assert unwrapped(backend, new, moved, b"new context") == dek
        refused(backend, kek, moved, b"new context")
        refused(backend, new, moved)
    assert backend.rewrap_many([]) == []
    with pytest.raises(ValueError, match="aad"):
        backend.rewrap_many([RewrapItem(kek, blobs[0], AAD, new, b"")])
