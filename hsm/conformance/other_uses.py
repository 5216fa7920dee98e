"""The suite on signatures, MACs and randomness; on threads, processes and time."""

# Tests are named by sentences and compare with the numbers that they mean.
# ruff: noqa: PLR2004, D103

from __future__ import annotations

import secrets
import subprocess
import sys

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from hsm import (
    HsmBackend,
    HsmUnsupported,
    KeyAlgorithm,
    KeyNotFound,
    KeyNotPermitted,
    KeyRef,
    KeyState,
    SignatureAlgorithm,
)
from hsm.conformance import children
from hsm.conformance.support import AAD, DEK, run_child

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
