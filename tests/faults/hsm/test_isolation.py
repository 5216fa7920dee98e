"""A library in a process of its own: it dies, it hangs, its parent dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hsm import HsmAuthFailed, HsmUnavailable, KeyAlgorithm, KeyNotFound, KeyRef, KeySpec, open_backend
from hsm.isolation import wire
from tests.faults.hsm.test_matrix import AAD, DEK
from tests.faults.hsm.test_recovery import in_threads, recovers, until

pytestmark = pytest.mark.alone


@pytest.fixture
def backend(shim, uri):
    with open_backend(uri + "&x-isolation=process", sessions=4, wait_seconds=1, hang_seconds=0.5) as opened:
        yield opened
        shim.reset()
        for info in opened.list_keys("faults/"):
            opened.destroy_key(info.ref, confirm=info.ref.label)


@pytest.fixture
def opens(backend):
    ref = KeyRef("faults/isolated", os.urandom(16))
    backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    blob = backend.wrap(ref, DEK, AAD)

    def opens():
        into = bytearray(64)
        size = backend.unwrap(ref, blob, AAD, memoryview(into))
        assert into[:size] == DEK

    return opens


def test_the_library_is_not_in_this_process(backend, opens):
    from hsm.pkcs11.module import _modules

    assert not [module for module in _modules.values() if module.users]


def test_a_death_costs_no_call_that_may_be_repeated(backend, opens):
    for _ in range(3):
        os.kill(backend._child.process.pid, signal.SIGKILL)
        opens()
    assert backend.restarts == 3
    os.kill(backend._child.process.pid, signal.SIGSEGV)
    assert in_threads(8, opens) == []
    assert backend.restarts == 4
    assert backend.health(deep=True).ok


def test_a_creation_is_not_repeated_by_a_death(shim, backend, opens):
    ref = KeyRef("faults/once", os.urandom(16))
    shim.hang("C_GenerateKey")
    failed = []

    def create():
        try:
            backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
        except HsmUnavailable as error:
            failed.append(error)

    thread = threading.Thread(target=create)
    thread.start()
    until(lambda: shim.hanging == 1)
    os.kill(backend._child.process.pid, signal.SIGKILL)
    thread.join(5)
    shim.heal()
    assert len(failed) == 1
    with pytest.raises(KeyNotFound):
        backend.key_info(ref)


def test_a_call_that_hangs_ends_at_its_deadline_and_the_next_works(shim, backend, opens):
    shim.hang("C_Decrypt")
    started = time.monotonic()
    with pytest.raises(HsmUnavailable, match="in time"):
        opens()
    assert time.monotonic() - started < 2
    shim.heal()
    recovers(opens)
    assert backend.restarts == 1


def test_a_pin_that_is_refused_after_a_restart_is_tried_once(shim, backend, opens):
    before = shim.calls("C_Login")
    shim.fail("C_Login", 0xA0, times=100)
    os.kill(backend._child.process.pid, signal.SIGKILL)
    for _ in range(4):
        with pytest.raises(HsmAuthFailed):
            opens()
    assert shim.calls("C_Login") - before == 1
    assert backend.health().reason == "auth failed"
    backend._auth_failed, backend._not_before = None, 0.0


def test_a_library_that_cannot_be_opened_again_is_tried_with_pauses(shim, backend, opens):
    shim.fail("C_Initialize", 0x30, times=10_000)
    os.kill(backend._child.process.pid, signal.SIGKILL)
    before = shim.calls("C_Initialize")
    for _ in range(50):
        with pytest.raises(HsmUnavailable):
            opens()
    assert shim.calls("C_Initialize") - before < 10
    shim.heal()
    recovers(opens, seconds=5)


def test_the_child_ends_with_its_parent(shim, uri):
    program = (
        "import sys, os, time\n"
        "from hsm import open_backend\n"
        "backend = open_backend(sys.argv[1])\n"
        "print(backend._child.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, uri + "&x-isolation=process"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    until(lambda: not _runs(child))


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 8,
        b"\0\0\0\x02\0\0\0\0{]",
        b'\0\0\0\x10\0\0\0\x02{"b":[0, 999999]}',
        b'\0\0\0\x15\0\0\0\0{"c":["Popen",["ls"]]}'[:8] + b'{"c":["Popen",["ls"]]}',
        b"\0\0\0",
        b'\0\0\0\x0f\0\0\0\0{"b":[-1,1]}   ',
    ],
)
def test_a_child_that_speaks_nonsense_is_not_believed(data):
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    theirs.close()
    with pytest.raises(wire.WireError):
        wire.receive(ours)
    ours.close()
