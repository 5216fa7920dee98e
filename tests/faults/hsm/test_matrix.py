"""Every operation, with every kind of fault, at every one of the module's calls that it makes.

Whatever happens, an operation answers rightly or raises the error that its table row says, leaves no
session behind, and the next call works.
"""

from __future__ import annotations

import contextlib
import hashlib
import os

import pytest

from hsm import (
    HsmAuthFailed,
    HsmBusy,
    HsmError,
    HsmUnavailable,
    HsmUnsupported,
    KeyAlgorithm,
    KeyNotFound,
    KeyRef,
    KeySpec,
    KeyState,
    RewrapItem,
    SignatureAlgorithm,
    UnwrapItem,
    WrapItem,
)
from tests.faults.hsm.shim import EVERY

AAD, DEK = b"faults", hashlib.sha256(b"dek").digest()

# One code of each remedy, and what an operation that may be repeated does after meeting it once.
HEALED, FAULTS = (
    None,
    {
        "DEVICE_ERROR": (0x30, None),
        "DEVICE_REMOVED": (0x32, None),
        "TOKEN_NOT_PRESENT": (0xE0, None),
        "GENERAL_ERROR": (0x05, None),
        "FUNCTION_FAILED": (0x06, None),
        "SESSION_HANDLE_INVALID": (0xB3, None),
        "SESSION_CLOSED": (0xB0, None),
        "OPERATION_ACTIVE": (0x90, None),
        "OPERATION_NOT_INITIALIZED": (0x91, None),
        "OBJECT_HANDLE_INVALID": (0x82, None),
        "KEY_HANDLE_INVALID": (0x60, None),
        "USER_NOT_LOGGED_IN": (0x101, None),
        "VENDOR": (0x80000123, None),
        "HOST_MEMORY": (0x02, HsmBusy),
        "DEVICE_MEMORY": (0x31, HsmBusy),
        "SESSION_COUNT": (0xB1, HsmBusy),
        "MECHANISM_INVALID": (0x70, HsmUnsupported),
        "ARGUMENTS_BAD": (0x07, HsmUnsupported),
    },
)


class Bench:
    """Keys and blobs made before anything fails, and the operations on them with a check of each answer."""

    def __init__(self, backend):
        self.backend = backend
        self.kek, self.signer, self.mac_key = (
            KeyRef(f"faults/{name}", os.urandom(16)) for name in ("k", "s", "m")
        )
        backend.create_key(KeySpec(self.kek, KeyAlgorithm.AES_256))
        backend.create_key(KeySpec(self.signer, KeyAlgorithm.EC_P256))
        backend.create_key(KeySpec(self.mac_key, KeyAlgorithm.HMAC_SHA256))
        self.blob = backend.wrap(self.kek, DEK, AAD)
        self.mac = backend.mac(self.mac_key, b"data")
        self.public = backend.public_key(self.signer)
        self.info = backend.key_info(self.kek)
        self.keys = backend.list_keys("faults/")

    def unwrap(self, blob=None):
        into = bytearray(64)
        size = self.backend.unwrap(self.kek, blob or self.blob, AAD, memoryview(into))
        assert into[:size] == DEK

    def wrap(self):
        self.unwrap_later = self.backend.wrap(self.kek, DEK, AAD)

    def wrap_many(self):
        results = self.backend.wrap_many([WrapItem(self.kek, DEK, AAD)] * 3)
        for result in results:
            if isinstance(result, HsmError):
                raise result
        self.unwrap_later = results[-1]

    def unwrap_many(self):
        buffers = [bytearray(64) for _ in range(3)]
        items = [UnwrapItem(self.kek, self.blob, AAD, memoryview(buffer)) for buffer in buffers]
        for result, buffer in zip(self.backend.unwrap_many(items), buffers, strict=True):
            if isinstance(result, HsmError):
                raise result
            assert buffer[:result] == DEK

    def rewrap_many(self):
        items = [RewrapItem(self.kek, self.blob, AAD, self.kek, AAD)] * 3
        for result in self.backend.rewrap_many(items):
            if isinstance(result, HsmError):
                raise result
            self.unwrap(result)

    def sign(self):
        assert len(self.backend.sign(self.signer, SignatureAlgorithm.ES256, b"m")) == 64

    def do_mac(self):
        assert self.backend.mac(self.mac_key, b"data") == self.mac

    def random(self):
        assert len(self.backend.random(32)) == 32

    def public_key(self):
        assert self.backend.public_key(self.signer) == self.public

    def key_info(self):
        assert self.backend.key_info(self.kek) == self.info

    def list_keys(self):
        assert self.backend.list_keys("faults/") == self.keys


REPEATABLE = [
    "wrap",
    "unwrap",
    "wrap_many",
    "unwrap_many",
    "rewrap_many",
    "sign",
    "do_mac",
    "random",
    "public_key",
    "key_info",
    "list_keys",
]


@pytest.fixture
def bench(backend):
    return Bench(backend)


def calls_of(shim, operation):
    before = shim.calls()
    operation()
    return shim.calls() - before


def assert_whole(shim, backend):
    """Nothing has leaked, and everything works."""
    assert backend.health(deep=True).ok
    assert shim.active == 0
    assert shim.open_sessions == backend._pool.open_sessions, "a session leaked"
    assert backend._module.gate.active == 0


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", REPEATABLE)
def test_an_operation_that_may_be_repeated(shim, backend, bench, operation, fault):
    rv, expected = FAULTS[fault]
    run = getattr(bench, operation)
    for cold in (False, True):
        run()
        if cold:
            backend._pool.close_idle()
        total = calls_of(shim, run)
        step = 1 if total <= 12 else total // 12
        for place in range(0, total, step):
            if cold:
                backend._pool.close_idle()
            shim.fail(EVERY, rv, skip=place)
            try:
                run()
            except HsmError as error:
                # Only the one that stands for the fault, or, where looking up met it, that the key is not there.
                assert expected is not None, f"{fault} at call {place} of {total}: {error}"
                assert isinstance(error, expected), f"{fault} at call {place} of {total}: {error}"
            shim.reset()
            assert_whole(shim, backend)
    run()
    if hasattr(bench, "unwrap_later"):
        bench.unwrap(bench.unwrap_later)


@pytest.mark.parametrize(
    "fault", ["DEVICE_ERROR", "GENERAL_ERROR", "SESSION_HANDLE_INVALID", "USER_NOT_LOGGED_IN", "HOST_MEMORY"]
)
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.AES_256, KeyAlgorithm.EC_P256])
def test_creation_makes_one_key_or_a_findable_one_or_none(shim, backend, fault, algorithm):
    rv = FAULTS[fault][0]
    total = calls_of(
        shim, lambda: backend.create_key(KeySpec(KeyRef("faults/first", os.urandom(16)), algorithm))
    )
    for place in range(0, total, max(1, total // 15)):
        ref = KeyRef("faults/new", os.urandom(16))
        shim.fail(EVERY, rv, skip=place)
        try:
            backend.create_key(KeySpec(ref, algorithm))
            made = True
        except HsmError:
            made = False
        shim.reset()
        assert_whole(shim, backend)
        there = [info.ref for info in backend.list_keys("faults/new")]
        assert there == [ref] if made else there in ([], [ref])
        if there:
            backend.destroy_key(ref, confirm=ref.label)
        with pytest.raises(KeyNotFound):
            backend.key_info(ref)


@pytest.mark.parametrize("fault", ["DEVICE_ERROR", "SESSION_HANDLE_INVALID", "USER_NOT_LOGGED_IN"])
def test_destruction_says_the_truth(shim, backend, fault):
    def make():
        ref = KeyRef("faults/gone", os.urandom(16))
        backend.create_key(KeySpec(ref, KeyAlgorithm.EC_P256))
        return ref

    ref = make()
    total = calls_of(shim, lambda: backend.destroy_key(ref, confirm=ref.label))
    for place in range(total):
        ref = make()
        shim.fail(EVERY, FAULTS[fault][0], skip=place)
        try:
            backend.destroy_key(ref, confirm=ref.label)
        except HsmError:
            shim.reset()
            with contextlib.suppress(KeyNotFound):
                backend.destroy_key(ref, confirm=ref.label)
        shim.reset()
        assert_whole(shim, backend)
        assert backend.list_keys("faults/gone") == []


@pytest.mark.parametrize("fault", ["DEVICE_ERROR", "SESSION_HANDLE_INVALID", "USER_NOT_LOGGED_IN"])
def test_a_state_that_was_not_set_can_be_set_again(shim, backend, kek, fault):
    total = calls_of(shim, lambda: backend.set_key_state(kek, KeyState.DISABLED))
    for place in range(total):
        backend.set_key_state(kek, KeyState.ACTIVE)
        shim.fail(EVERY, FAULTS[fault][0], skip=place)
        try:
            backend.set_key_state(kek, KeyState.DISABLED)
        except HsmError:
            shim.reset()
            backend.set_key_state(kek, KeyState.DISABLED)
        shim.reset()
        assert_whole(shim, backend)
        assert backend.key_info(kek).state is KeyState.DISABLED


@pytest.mark.parametrize("rv", [0xA0, 0xA4, 0x102])
def test_a_pin_refused_on_reconnect_is_tried_once_and_never_again(shim, backend, bench, rv):
    shim.dead = 1
    shim.fail("C_Login", rv, times=100)
    before = shim.calls("C_Login")
    for _ in range(5):
        with pytest.raises(HsmAuthFailed):
            bench.unwrap()
    assert shim.calls("C_Login") - before == 1
    assert backend.health().reason == "auth failed"
    shim.reset()
    with pytest.raises(HsmAuthFailed):
        bench.unwrap()
    # For the fixture's cleaning up; a person would open a new backend.
    backend._pool.auth_failed = None
    backend._recovery.heal("test", backend._module.epoch)


def test_a_session_limit_that_the_token_kept_to_itself_shrinks_the_pool(shim, backend, bench):
    backend._pool.close_idle()
    shim.session_limit = 3  # the anchor and two
    bench.unwrap()
    workers = [backend._pool.acquire("test") for _ in range(2)]
    with pytest.raises((HsmBusy, HsmUnavailable)):
        bench.unwrap()
    assert backend._pool.limit == 2
    for worker in workers:
        backend._pool.release(worker)
    bench.unwrap()
