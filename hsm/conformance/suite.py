"""The tests. Import them all into a module in which the fixture `uri` names a backend."""

# Tests are named by sentences and compare with the numbers that they mean.
# ruff: noqa: PLR2004, D103

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from hsm import (
    HsmBackend,
    HsmIntegrityError,
    HsmPolicyViolation,
    HsmUnavailable,
    HsmUnsupported,
    KeyAlgorithm,
    KeyAmbiguous,
    KeyNotFound,
    KeyNotPermitted,
    KeyRef,
    KeySpec,
    KeyState,
    SignatureAlgorithm,
    UnwrapItem,
    WrapItem,
    open_backend,
)
from hsm.conformance import children
from hsm.usage import REFUSE_AT

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


def unwrapped(backend: HsmBackend, ref: KeyRef, blob: bytes, aad: bytes = AAD) -> bytes:
    buffer = bytearray(64)
    size = backend.unwrap(ref, blob, aad, memoryview(buffer))
    assert not any(buffer[size:])
    return bytes(buffer[:size])


def refused(backend: HsmBackend, ref: KeyRef, blob: bytes, aad: bytes = AAD) -> None:
    buffer = bytearray(b"\xa5" * 64)
    with pytest.raises(HsmIntegrityError):
        backend.unwrap(ref, blob, aad, memoryview(buffer))
    assert buffer == b"\xa5" * 64, "a refused unwrap wrote into the buffer"


def run_child(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hsm.conformance.children", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603


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


# -- the life of a key --------------------------------------------------------------------------------


def test_a_new_kek_is_what_policy_demands(backend: HsmBackend) -> None:
    ref = KeyRef("conformance/new", secrets.token_bytes(16))
    info = backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    assert (info.ref, info.algorithm, info.state) == (ref, KeyAlgorithm.AES_256, KeyState.ACTIVE)
    assert info.extractable is False
    assert info.sensitive is not False
    assert info.local is not False
    assert backend.key_info(ref) == info
    assert info in backend.list_keys("conformance/new")
    assert info not in backend.list_keys("conformance/newer")


def test_rotation_keeps_the_old_and_rewrap_moves_it(backend: HsmBackend, kek: KeyRef) -> None:
    new = children.fresh(backend, "kek2", KeyAlgorithm.AES_256)
    blob = backend.wrap(kek, DEK, AAD)
    moved = backend.rewrap(kek, blob, AAD, new, b"new context")
    assert unwrapped(backend, new, moved, b"new context") == DEK
    refused(backend, new, moved, AAD)
    assert unwrapped(backend, kek, blob) == DEK


def test_a_retired_kek_opens_but_no_longer_wraps(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    backend.set_key_state(kek, KeyState.DECRYPT_ONLY)
    assert backend.key_info(kek).state is KeyState.DECRYPT_ONLY
    assert unwrapped(backend, kek, blob) == DEK
    with pytest.raises(KeyNotPermitted):
        backend.wrap(kek, DEK, AAD)
    refused(backend, kek, blob, b"other")
    backend.set_key_state(kek, KeyState.ACTIVE)
    assert unwrapped(backend, kek, backend.wrap(kek, DEK, AAD)) == DEK


def test_a_disabled_kek_does_nothing_and_can_be_enabled(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    backend.set_key_state(kek, KeyState.DISABLED)
    assert backend.key_info(kek).state is KeyState.DISABLED
    with pytest.raises(KeyNotPermitted):
        backend.wrap(kek, DEK, AAD)
    with pytest.raises(KeyNotPermitted):
        backend.unwrap(kek, blob, AAD, memoryview(bytearray(64)))
    backend.set_key_state(kek, KeyState.ACTIVE)
    assert unwrapped(backend, kek, blob) == DEK


def test_a_destroyed_key_is_gone_with_all_that_it_wrapped(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    with pytest.raises(ValueError, match="confirmed"):
        backend.destroy_key(kek, confirm="something else")
    assert unwrapped(backend, kek, blob) == DEK
    backend.destroy_key(kek, confirm=kek.label)
    for use in (
        lambda: backend.unwrap(kek, blob, AAD, memoryview(bytearray(64))),
        lambda: backend.wrap(kek, DEK, AAD),
        lambda: backend.key_info(kek),
        lambda: backend.destroy_key(kek, confirm=kek.label),
        lambda: backend.set_key_state(kek, KeyState.ACTIVE),
    ):
        with pytest.raises(KeyNotFound):
            use()
    assert not [info for info in backend.list_keys("conformance/") if info.ref == kek]


def test_a_label_or_an_id_that_is_taken_is_refused(backend: HsmBackend, kek: KeyRef) -> None:
    for clash in (kek, KeyRef(kek.label, os.urandom(16)), KeyRef("conformance/clash", kek.object_id)):
        with pytest.raises(KeyAmbiguous):
            backend.create_key(KeySpec(clash, KeyAlgorithm.AES_256))
    assert unwrapped(backend, kek, backend.wrap(kek, DEK, AAD)) == DEK


def test_label_and_id_must_both_match(backend: HsmBackend, kek: KeyRef) -> None:
    backend.wrap(kek, DEK, AAD)
    for near in (KeyRef(kek.label, os.urandom(16)), KeyRef("conformance/near", kek.object_id)):
        with pytest.raises(KeyNotFound):
            backend.wrap(near, DEK, AAD)
        with pytest.raises(KeyNotFound):
            backend.key_info(near)


def test_orphans_are_found(backend: HsmBackend, kek: KeyRef) -> None:
    orphan = children.fresh(backend, "orphan", KeyAlgorithm.AES_256)
    assert [info.ref for info in backend.orphans([kek], "conformance/")] == [orphan]
    with pytest.raises(ValueError, match="prefix"):
        backend.orphans([], "")


def test_a_worn_out_key_refuses_to_wrap_and_still_opens(backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    if kek not in backend.usage():
        pytest.skip("this backend does not count")
    assert backend.usage()[kek] == 1
    backend.note_usage(kek, REFUSE_AT - 2)
    backend.wrap(kek, DEK, AAD)
    with pytest.raises(HsmPolicyViolation):
        backend.wrap(kek, DEK, AAD)
    assert unwrapped(backend, kek, blob) == DEK


# -- signatures, MACs, randomness ---------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", list(SignatureAlgorithm))
def test_signatures_verify_elsewhere(backend: HsmBackend, algorithm: SignatureAlgorithm) -> None:
    if algorithm not in backend.capabilities().signatures:
        pytest.skip(f"no {algorithm} here")
    ref = children.fresh(backend, "sign", algorithm.key_algorithm)
    assert backend.key_info(ref).algorithm is algorithm.key_algorithm
    public = serialization.load_der_public_key(backend.public_key(ref))
    for message in (b"", b"m", secrets.token_bytes(5000)):
        signature = backend.sign(ref, algorithm, message)
        assert len(signature) == 64
        _verify(public, signature, message)
        with pytest.raises(InvalidSignature):
            _verify(public, signature, message + b"!")
    with pytest.raises(KeyNotFound):
        backend.wrap(ref, DEK, AAD)
    backend.set_key_state(ref, KeyState.DISABLED)
    with pytest.raises(KeyNotPermitted):
        backend.sign(ref, algorithm, b"m")
    with pytest.raises(HsmUnsupported):
        backend.set_key_state(ref, KeyState.DECRYPT_ONLY)
    backend.destroy_key(ref, confirm=ref.label)
    with pytest.raises(KeyNotFound):
        backend.public_key(ref)


def _verify(public: object, signature: bytes, message: bytes) -> None:
    if isinstance(public, ec.EllipticCurvePublicKey):
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        public.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    else:
        assert isinstance(public, ed25519.Ed25519PublicKey)
        public.verify(signature, message)


def test_a_key_signs_by_its_own_algorithm_only(backend: HsmBackend) -> None:
    if SignatureAlgorithm.ES256 not in backend.capabilities().signatures:
        pytest.skip("no ES256 here")
    ref = children.fresh(backend, "sign", KeyAlgorithm.EC_P256)
    with pytest.raises((KeyNotFound, KeyNotPermitted, HsmUnsupported)):
        backend.sign(ref, SignatureAlgorithm.EDDSA, b"m")


def test_macs_are_by_key_and_data(backend: HsmBackend) -> None:
    if not backend.capabilities().mac:
        pytest.skip("no MAC here")
    first, second = (children.fresh(backend, "mac", KeyAlgorithm.HMAC_SHA256) for _ in range(2))
    macs = {
        backend.mac(first, b"a"),
        backend.mac(first, b"b"),
        backend.mac(second, b"a"),
        backend.mac(first, b""),
    }
    assert len(macs) == 4
    assert {len(mac) for mac in macs} == {32}
    assert backend.mac(first, b"a") in macs


def test_random_bytes_do_not_repeat(backend: HsmBackend) -> None:
    assert [len(backend.random(size)) for size in (1, 32, 65536)] == [1, 32, 65536]
    assert len({backend.random(16) for _ in range(500)}) == 500
    for size in (0, 65537):
        with pytest.raises(ValueError, match="random"):
            backend.random(size)


# -- threads, processes, time -------------------------------------------------------------------------


def test_sixteen_threads_of_mixed_load(uri: str) -> None:
    done = run_child("threads", uri)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


def test_four_spawned_processes_share_the_keys(uri: str, backend: HsmBackend, kek: KeyRef) -> None:
    blob = backend.wrap(kek, DEK, AAD)
    arguments = ["open", uri, kek.label, kek.object_id.hex(), blob.hex()]
    command = [sys.executable, "-m", "hsm.conformance.children", *arguments]
    crew = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]  # noqa: S603
    answers = [process.communicate(timeout=120)[0].strip() for process in crew]
    assert [process.returncode for process in crew] == [0] * 4
    assert answers == [DEK.hex()] * 4


def test_memory_stays_flat(uri: str, operations: int, leak_of_the_module: int) -> None:
    done = run_child("memory", uri, str(operations))
    assert done.returncode == 0, done.stderr[-2000:]
    allowed = 1024 + operations * leak_of_the_module // 1024
    assert int(done.stdout) < allowed, f"grew by {done.stdout.strip()} KiB"
