"""Programs that the suite runs in processes of their own: what they do may crash or hang.

python -m hsm.conformance.children threads URI      16 threads, mixed load, keys made meanwhile
python -m hsm.conformance.children memory URI N     N operations; prints the growth in KiB
python -m hsm.conformance.children open URI L I B   unwraps blob B of key L/I; prints the key
python -m hsm.conformance.children fork URI         forks, and prints what the child is told
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
from pathlib import Path
from typing import Final, NoReturn

from hsm import (
    HsmBackend,
    HsmIntegrityError,
    HsmUnavailable,
    KeyAlgorithm,
    KeyRef,
    KeySpec,
    SignatureAlgorithm,
    open_backend,
)

THREADS: Final = 16
ROUNDS: Final = 60
_AAD: Final = b"conformance"


def fresh(backend: HsmBackend, name: str, algorithm: KeyAlgorithm) -> KeyRef:
    """A new key of the suite's."""
    ref = KeyRef(f"conformance/{name}/{secrets.token_hex(4)}", secrets.token_bytes(16))
    backend.create_key(KeySpec(ref, algorithm))
    return ref


def threads(uri: str) -> int:
    """Mixed load on all threads at once; 0 if every answer was right."""
    with open_backend(uri, sessions=THREADS // 2, wait_seconds=60) as backend:
        load = _Load(backend)
        crew = [threading.Thread(target=load.run, args=(number,)) for number in range(THREADS)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        for info in backend.list_keys("conformance/threads/"):
            backend.destroy_key(info.ref, confirm=info.ref.label)
    for fault in sorted(set(load.faults)):
        print(f"{load.faults.count(fault)} x {fault}")  # noqa: T201
    return 1 if load.faults else 0


class _Load:
    def __init__(self, backend: HsmBackend) -> None:
        self.faults: list[str] = []
        self._backend = backend
        self._kek = fresh(backend, "threads", KeyAlgorithm.AES_256)
        self._signer: KeyRef | None = None
        if SignatureAlgorithm.ES256 in backend.capabilities().signatures:
            self._signer = fresh(backend, "threads", KeyAlgorithm.EC_P256)

    def run(self, number: int) -> None:
        try:
            for turn in range(ROUNDS):
                self._round()
                if turn % 20 == number % 20:
                    own = fresh(self._backend, "threads", KeyAlgorithm.AES_256)
                    self._backend.wrap(own, bytes(32), _AAD)
                    self._backend.destroy_key(own, confirm=own.label)
        except Exception as error:  # noqa: BLE001 - each is a finding
            self.faults.append(f"{type(error).__name__}: {error}")

    def _round(self) -> None:
        backend, dek, opened = self._backend, os.urandom(32), bytearray(64)
        blob = backend.wrap(self._kek, dek, _AAD)
        size = backend.unwrap(self._kek, blob, _AAD, memoryview(opened))
        if opened[:size] != dek:
            self.faults.append("a wrong key came back")
        try:
            backend.unwrap(self._kek, blob, b"other", memoryview(opened))
        except HsmIntegrityError:
            pass
        else:
            self.faults.append("another context was accepted")
        if self._signer is not None:
            backend.sign(self._signer, SignatureAlgorithm.ES256, dek)


def memory(uri: str, times: str) -> int:
    """Wrap and unwrap so many times in all, and print by how many KiB the process grew."""
    operations = int(times)
    with open_backend(uri) as backend:
        kek = fresh(backend, "memory", KeyAlgorithm.AES_256)
        opened = memoryview(bytearray(64))

        def use(times: int) -> None:
            for _ in range(times // 2):
                backend.unwrap(kek, backend.wrap(kek, bytes(32), _AAD), _AAD, opened)

        use(min(operations // 10, 5000))  # what is allocated once
        before = _resident_kib()
        use(operations)
        print(_resident_kib() - before)  # noqa: T201
        backend.destroy_key(kek, confirm=kek.label)
    return 0


def open_one(uri: str, label: str, object_id: str, blob: str) -> int:
    """Unwrap in this process what another wrapped, some hundred times."""
    ref = KeyRef(label, bytes.fromhex(object_id))
    with open_backend(uri) as backend:
        opened = memoryview(bytearray(64))
        for _ in range(200):
            size = backend.unwrap(ref, bytes.fromhex(blob), _AAD, opened)
            backend.wrap(ref, opened[:size], _AAD)
        print(opened[:size].hex())  # noqa: T201 - a test key
    return 0


def fork(uri: str) -> int:
    """Use the backend in a forked child, and then in its parent, which must not have been harmed."""
    with open_backend(uri) as backend:
        kek = fresh(backend, "fork", KeyAlgorithm.AES_256)
        child = os.fork()
        if child == 0:
            _tell_of(backend, kek)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        backend.wrap(kek, bytes(32), _AAD)
        backend.destroy_key(kek, confirm=kek.label)
    return code


def _tell_of(backend: HsmBackend, kek: KeyRef) -> NoReturn:
    said = "nothing"
    try:
        backend.wrap(kek, bytes(32), _AAD)
    except HsmUnavailable:
        said = "refused"
    except BaseException as error:  # noqa: BLE001 - whatever it is, the child ends here
        said = type(error).__name__
    print(said, backend.health().reason, flush=True)  # noqa: T201
    os._exit(0)


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    program = {"threads": threads, "memory": memory, "open": open_one, "fork": fork}[sys.argv[1]]
    sys.exit(program(*sys.argv[2:]))  # type: ignore[operator]  # the command line is the suite's own
