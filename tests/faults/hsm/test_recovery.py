"""Faults that last: what callers see meanwhile, and that all is well by itself afterwards."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from hsm import (
    HsmAuthFailed,
    HsmBusy,
    HsmError,
    HsmIntegrityError,
    HsmUnavailable,
    KeyAlgorithm,
    KeyRef,
    KeySpec,
    open_backend,
)
from hsm.model import IvMode, WrapScheme
from tests.faults.hsm.test_matrix import AAD, DEK, Bench, assert_whole

pytestmark = pytest.mark.alone


@pytest.fixture
def bench(backend):
    return Bench(backend)


def recovers(work, seconds=2.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except HsmError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_a_module_that_only_initialising_heals_is_initialised(shim, backend, bench):
    before = shim.initializations
    shim.dead = 1
    bench.unwrap()
    assert shim.initializations == before + 1
    assert_whole(shim, backend)


def test_a_token_that_is_taken_out_and_put_back(shim, backend, bench):
    shim.removed = 1
    with pytest.raises(HsmUnavailable) as caught:
        bench.unwrap()
    assert caught.value.retry_safe
    assert not backend.health().ok
    assert not backend.health(deep=True).ok
    started = time.monotonic()
    for _ in range(20):
        with pytest.raises(HsmUnavailable):
            bench.unwrap()
    assert time.monotonic() - started < 1.0, "calls do not queue up behind a lost token"
    shim.removed = 0
    recovers(bench.unwrap)
    assert backend.health().ok
    assert_whole(shim, backend)


def test_health_alone_brings_a_token_back(shim, backend, bench):
    shim.removed = 1
    with pytest.raises(HsmUnavailable):
        bench.unwrap()
    shim.removed = 0
    recovers(lambda: backend.health().ok or (_ for _ in ()).throw(HsmUnavailable("x", "x")))
    bench.unwrap()


def test_a_login_that_is_lost_is_made_again_by_one_thread(shim, backend, bench):
    before = shim.calls("C_Login")
    shim.logged_out = 1
    assert backend.health().reason == "login lost"
    results = in_threads(8, bench.unwrap)
    assert results == []
    assert shim.calls("C_Login") - before == 1
    assert_whole(shim, backend)


def test_all_sessions_lost_at_once_costs_no_operation(shim, backend, bench):
    in_threads(4, bench.unwrap)
    shim.lose_sessions = 1
    assert in_threads(8, bench.unwrap) == []
    assert_whole(shim, backend)


def test_one_reconnect_for_all_threads(shim, backend, bench):
    before = shim.initializations
    shim.dead = 1
    assert in_threads(8, bench.unwrap) == []
    assert shim.initializations == before + 1


def test_backends_that_share_a_module_survive_each_others_reconnects(shim, uri, backend, bench):
    with open_backend(uri, sessions=2) as other:
        other_bench = Bench.__new__(Bench)
        other_bench.__dict__.update(bench.__dict__, backend=other)
        for _ in range(5):
            assert in_threads(4, other_bench.unwrap) == []
            assert in_threads(4, bench.unwrap) == []
            shim.dead = 1
            bench.unwrap()
            outcome = []
            crew = [
                threading.Thread(target=lambda b=b, outcome=outcome: outcome.extend(in_threads(4, b.unwrap)))
                for b in (bench, other_bench)
            ]
            for thread in crew:
                thread.start()
            for thread in crew:
                thread.join()
            assert outcome == []
    assert_whole(shim, backend)


def test_a_pin_that_cannot_be_read_on_reconnect_is_read_later(shim, uri, backend, bench):
    pin = Path(uri.rsplit("pin-source=file:", 1)[1])
    away = pin.with_name("away")
    before = shim.calls("C_Login")
    pin.rename(away)
    try:
        shim.dead = 1
        for _ in range(3):
            with pytest.raises((HsmAuthFailed, HsmUnavailable)):
                bench.unwrap()
        assert shim.calls("C_Login") == before
        assert not backend.health().ok
    finally:
        away.rename(pin)
    recovers(bench.unwrap)
    assert_whole(shim, backend)


def test_health_asked_all_the_time_does_not_disturb_reconnects(shim, backend, bench):
    stop, answers = threading.Event(), []

    def ask():
        while not stop.is_set():
            answers.append(backend.health().reason)

    crew = [threading.Thread(target=ask) for _ in range(2)]
    for thread in crew:
        thread.start()
    for _ in range(20):
        shim.dead = 1
        bench.unwrap()
    stop.set()
    for thread in crew:
        thread.join()
    assert "ok" in answers
    assert_whole(shim, backend)


def test_closing_while_a_call_hangs_leaves_the_module_up_for_the_next(shim, uri):
    shim.hang("C_GenerateRandom")
    backend = open_backend(uri, sessions=1, wait_seconds=0.1, hang_seconds=0.1)
    stuck = threading.Thread(target=in_one, args=(lambda: backend.random(8),))
    stuck.start()
    until(lambda: shim.hanging == 1)
    time.sleep(0.15)
    assert backend.health().reason == "hung"
    backend.close()
    shim.heal()
    stuck.join(5)
    with open_backend(uri) as again:
        assert len(again.random(8)) == 8


def test_a_bad_blob_does_not_make_the_module_be_initialised_again(shim, backend, bench):
    """Else whoever can write to the database could keep the HSM busy with reconnecting."""
    before = shim.initializations, shim.calls("C_OpenSession")
    bad = bench.blob[:-1] + bytes([bench.blob[-1] ^ 1])
    for _ in range(50):
        with pytest.raises(HsmIntegrityError):
            bench.unwrap(bad)
    assert (shim.initializations, shim.calls("C_OpenSession")) == before


def test_an_ill_hsm_is_not_taken_for_a_bad_blob(shim, backend, bench):
    shim.fail("C_Decrypt", 0x05, times=1000)
    for _ in range(3):
        with pytest.raises(HsmUnavailable):
            bench.unwrap()
    shim.reset()
    recovers(bench.unwrap)
    assert_whole(shim, backend)


@pytest.mark.parametrize("rv", [0x40, 0x42, 0x05, 0x06])
def test_a_passing_fault_on_a_good_blob_is_not_an_integrity_error(shim, bench, rv):
    shim.fail("C_Decrypt", rv)
    bench.unwrap()


def test_a_call_that_hangs_costs_its_thread_and_nothing_else(shim, backend, bench):
    shim.hang("C_Decrypt")
    stuck = threading.Thread(target=lambda: outcome.append(in_one(bench.unwrap)))
    outcome = []
    stuck.start()
    until(lambda: shim.hanging == 1)
    assert backend.health().ok
    bench.sign()
    time.sleep(0.4)  # beyond hang_seconds
    assert backend.health().reason == "hung"
    for _ in range(6):
        bench.sign()
    shim.heal()
    stuck.join(5)
    assert outcome == [None], "a call that ends late still has its answer"
    assert backend.health().ok
    assert_whole(shim, backend)


def test_when_every_session_hangs_callers_are_told(shim, backend, bench):
    shim.hang("C_Decrypt")
    crew = [threading.Thread(target=in_one, args=(bench.unwrap,)) for _ in range(8)]
    for thread in crew:
        thread.start()
    until(lambda: shim.hanging >= 4)
    time.sleep(0.5)
    with pytest.raises((HsmUnavailable, HsmBusy)):
        bench.sign()
        bench.sign()
        time.sleep(0.4)
        bench.sign()
    assert backend.health().reason == "hung"
    shim.heal()
    for thread in crew:
        thread.join(5)
    recovers(bench.unwrap)
    assert_whole(shim, backend)


def test_a_full_pool_is_busy_after_the_wait(shim, uri):
    with open_backend(uri, sessions=1, wait_seconds=0.1, hang_seconds=30) as backend:
        shim.hang("C_GenerateRandom")
        stuck = threading.Thread(target=in_one, args=(lambda: backend.random(8),))
        stuck.start()
        until(lambda: shim.hanging == 1)
        started = time.monotonic()
        with pytest.raises(HsmBusy) as caught:
            backend.random(8)
        assert caught.value.retry_safe
        assert 0.05 < time.monotonic() - started < 1.0
        shim.heal()
        stuck.join(5)
        assert len(backend.random(8)) == 8


@pytest.mark.parametrize("mode", [IvMode.HSM, IvMode.APPENDED])
def test_ivs_that_the_hsm_makes(shim, uri, mode):
    shim.iv_mode = 1 if mode is IvMode.HSM else 2
    with open_backend(uri) as backend:
        assert backend.capabilities().iv_mode is mode
        assert backend.capabilities().wrap is WrapScheme.AES_GCM
        ref = KeyRef("faults/iv", os.urandom(16))
        backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
        blobs = [backend.wrap(ref, DEK, AAD) for _ in range(50)]
        assert len({blob[2:14] for blob in blobs}) == 50
        assert {blob[1] for blob in blobs} == {1 if mode is IvMode.HSM else 2}
        for blob in blobs:
            into = bytearray(32)
            assert backend.unwrap(ref, blob, AAD, memoryview(into)) == 32
            assert into == DEK
            with pytest.raises(HsmIntegrityError):
                backend.unwrap(ref, blob, AAD + b"?", memoryview(into))
        # An HSM that changes its ways while in use must not make an IV that nobody chose.
        shim.iv_mode = 0
        with pytest.raises(HsmError):
            backend.wrap(ref, DEK, AAD)
        shim.iv_mode = 1 if mode is IvMode.HSM else 2
        backend.destroy_key(ref, confirm=ref.label)


@pytest.mark.parametrize(
    "faults", [1000, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
def test_a_thousand_faults_in_a_steady_load(shim, uri, faults):
    """No wrong answer, no leaked session, and whole within two seconds of the last fault."""
    codes = [0x30, 0x05, 0xB3, 0x90, 0x101, 0x82, 0x60, 0x06, 0x91, 0x80000001]
    injected, wrong, refused, done = 0, [], 0, 0
    with open_backend(uri, sessions=4, wait_seconds=5) as backend:
        bench = Bench(backend)
        stop = threading.Event()
        lock = threading.Lock()

        def load():
            nonlocal refused, done
            while not stop.is_set():
                try:
                    bench.unwrap(backend.wrap(bench.kek, DEK, AAD))
                    bench.unwrap()
                    bench.do_mac()
                except HsmError as error:
                    if not error.retry_safe:
                        wrong.append(repr(error))
                    with lock:
                        refused += 1
                except Exception as error:
                    wrong.append(repr(error))
                with lock:
                    done += 1

        crew = [threading.Thread(target=load) for _ in range(4)]
        for thread in crew:
            thread.start()
        rng = random.Random(7)
        while injected < faults and not wrong:
            shim.fail("*", rng.choice(codes), skip=rng.randrange(30))
            deadline = time.monotonic() + 2
            while shim.pending() and time.monotonic() < deadline:
                time.sleep(0.0005)
            injected += 1
        shim.reset()
        stop.set()
        for thread in crew:
            thread.join(10)
        recovers(bench.unwrap)
        assert wrong == []
        assert_whole(shim, backend)
        for info in backend.list_keys("faults/"):
            backend.destroy_key(info.ref, confirm=info.ref.label)
    print(f"{injected} faults, {done} rounds, {refused} refused")


def in_one(work):
    try:
        work()
    except Exception as error:
        return error
    return None


def in_threads(count, work, times=5):
    """Run on threads at once; what was raised."""
    raised = []

    def run():
        for _ in range(times):
            error = in_one(work)
            if error is not None:
                raised.append(error)

    crew = [threading.Thread(target=run) for _ in range(count)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return raised


def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)
