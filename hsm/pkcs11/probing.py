"""What `hsm.probe` asks of a PKCS#11 module, each part in a process of its own, as it may crash or hang."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from pkcs11.exceptions import PKCS11Error

from hsm import blob as blobs
from hsm.errors import HsmError
from hsm.model import IvMode, KeyAlgorithm, KeyRef, KeySpec, KeyState, WrapScheme
from hsm.pkcs11 import detect, keys, kwp, objects, sealing, steal
from hsm.pkcs11.codes import CryptokiError, check

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm.pkcs11.backend import Pkcs11Backend
    from hsm.pkcs11.worker import Worker

_FAILURES: Final = (CryptokiError, PKCS11Error, HsmError)
_THREADS: Final = 8
_SECONDS: Final = 2.0
_AAD: Final = b"strongroom probe"


def token(backend: Pkcs11Backend) -> dict[str, Any]:
    """What the token does when it is tried."""
    return backend.with_session(_token) | {"key": _stored_key(backend)}


def _token(worker: Worker) -> dict[str, Any]:
    return {
        "gcm": [str(mode) for mode in IvMode if sealing.works(worker, sealing.GcmSealer(mode))],
        "gcm length query": _length_of_gcm(worker),
        "key wrap": {_name(route): _meaning(worker, route) for route in kwp.ROUTES},
        "short tags": _takes_short_tags(worker),
        "bad tag": _answer_to_a_bad_tag(worker),
        "theft": _thefts(worker),
    }


def _length_of_gcm(worker: Worker) -> str:
    """What it says when it is asked how long the ciphertext will be (PKCS#11 v2.40, 5.2) before it makes one.

    Most programs ask, so a module that cannot answer has no GCM for them. This library does not ask.
    """
    arena = worker.arena
    try:
        key = _gcm_key(worker)
        worker.gcm_encrypt(key, bytes(32), _AAD, IvMode.HOST)
        check(worker.functions.C_EncryptInit(worker.handle, arena.mechanism_at, key))
        check(worker.functions.C_Encrypt(worker.handle, arena.secret_at, 32, None, arena.length_at))
        size = arena.length.value
        check(worker.functions.C_Encrypt(worker.handle, arena.secret_at, 32, arena.out_at, arena.length_at))
    except CryptokiError as error:
        return error.code.name
    except (PKCS11Error, HsmError) as error:
        return type(error).__name__
    return "answered" if size >= arena.length.value else f"{size} bytes, and made {arena.length.value}"


def _name(route: kwp.KwpRoute) -> str:
    mechanism = "AES_KEY_WRAP_KWP" if route.mechanism == kwp.CKM_AES_KEY_WRAP_KWP else "AES_KEY_WRAP_PAD"
    return f"{mechanism} by {'C_WrapKey' if route.by_object else 'C_Encrypt'}"


def _meaning(worker: Worker, route: kwp.KwpRoute) -> str:
    """RFC 5649, or PKCS#7 padding and then RFC 3394, which some modules call by the same name."""
    try:
        key = detect.throwaway(worker, KeyAlgorithm.AES_256, kwp=route.by_object)
    except _FAILURES:
        return "no key"
    try:
        size = kwp.raw_length(worker, route, key)
    except CryptokiError as error:
        return error.code.name
    finally:
        detect.discard(worker, key)
    return {40: "RFC 5649", 48: "PKCS#7"}.get(size, f"{size} bytes")


def _gcm_key(worker: Worker) -> int:
    return detect.throwaway(worker, KeyAlgorithm.AES_256)


def _takes_short_tags(worker: Worker) -> bool:
    """Whether the module would use a tag of 32 bits if asked; this library never asks."""
    params = worker.arena.params
    try:
        key = _gcm_key(worker)
        params.tag_bits = 32
        worker.gcm_encrypt(key, bytes(32), _AAD, IvMode.HOST)
    except CryptokiError:
        return False
    except (PKCS11Error, HsmError):
        return isinstance(params.tag_bits, int) and worker.arena.length.value == 32 + 4
    finally:
        params.tag_bits = blobs.GCM_TAG * 8
    return True


def _answer_to_a_bad_tag(worker: Worker) -> str:
    try:
        key = _gcm_key(worker)
        blob = bytearray(worker.gcm_encrypt(key, bytes(32), _AAD, IvMode.HOST))
        blob[-1] ^= 1
        worker.gcm_decrypt(key, blobs.parse(bytes(blob)), _AAD, memoryview(bytearray(64)))
    except CryptokiError as error:
        return error.code.name
    except (PKCS11Error, HsmError) as error:
        return type(error).__name__
    return "accepted"


def _thefts(worker: Worker) -> dict[str, list[str] | str]:
    """The ways in which each kind of key can be stolen."""
    found: dict[str, list[str] | str] = {}
    for algorithm in KeyAlgorithm:
        ref = KeyRef("strongroom-probe", os.urandom(16))
        try:
            keys.generate(worker.session, ref, algorithm, kwp=False, store=False)
            found[algorithm] = steal.attempts_on(worker.session, ref)
        except _FAILURES as error:
            found[algorithm] = f"not tried: {type(error).__name__}"
    return found


def _stored_key(backend: Pkcs11Backend) -> dict[str, Any]:
    """The life of one key on the token, which is destroyed again."""
    ref = KeyRef(f"strongroom-probe/{os.urandom(4).hex()}", os.urandom(16))
    said: dict[str, Any] = {}
    try:
        info = backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
    except HsmError as error:
        return {"created": str(error)}
    try:
        said |= {"created": "yes", "local": info.local, "never extractable": info.never_extractable}
        said["retired"] = _refuses(backend, ref, KeyState.DECRYPT_ONLY)
        said["disabled"] = _refuses(backend, ref, KeyState.DISABLED)
    finally:
        backend.destroy_key(ref, confirm=ref.label)
    return said


def _refuses(backend: Pkcs11Backend, ref: KeyRef, state: KeyState) -> str:
    if backend.capabilities().wrap is WrapScheme.NONE:
        return "not tried"
    try:
        backend.set_key_state(ref, state)
    except HsmError as error:
        return str(error)
    try:
        backend.wrap(ref, bytes(32), _AAD)
    except HsmError as error:
        return "enforced" if type(error).__name__ == "KeyNotPermitted" else str(error)
    return "not enforced"


def threads(backend: Pkcs11Backend) -> dict[str, Any]:
    """Sessions of their own, threads at once, for some seconds; a crash is seen by the parent."""
    end = time.monotonic() + _SECONDS
    wrong: list[str] = []
    done = [0] * _THREADS

    def load(number: int) -> None:
        try:
            backend.with_session(lambda worker: use(worker, number))
        except _FAILURES as error:
            wrong.append(str(error))

    def use(worker: Worker, number: int) -> None:
        key = _gcm_key(worker)
        opened = bytearray(64)
        while time.monotonic() < end:
            dek = worker.random(32)
            blob = worker.gcm_encrypt(key, dek, _AAD, IvMode.HOST)
            size = worker.gcm_decrypt(key, blobs.parse(blob), _AAD, memoryview(opened))
            if opened[:size] != dek:
                wrong.append("a wrong key came back")
            done[number] += 1

    crew = [threading.Thread(target=load, args=(number,)) for number in range(_THREADS)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return {"rounds": sum(done), "wrong": sorted(set(wrong))[:5]}


def fork(backend: Pkcs11Backend) -> dict[str, Any]:
    """What a forked child could do with its parent's session, were it not refused by this library."""

    def work(worker: Worker) -> dict[str, Any]:
        key = objects.find(worker, {})[:1]
        child = os.fork()
        if child == 0:
            code = 2
            try:
                worker.random(8)
                code = 0 if worker.state() == 3 or key else 1  # noqa: PLR2004 - CKS_RW_USER_FUNCTIONS
            except CryptokiError:
                code = 1
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return {"child": {0: "inherits the log-in", 1: "is refused"}.get(code, f"ends with {code}")}

    return backend.with_session(work)


def speed(backend: Pkcs11Backend) -> dict[str, Any]:
    """Operations per second, one thread, of what works."""

    def measure(worker: Worker) -> dict[str, float]:
        found: dict[str, float] = {"random 32": _rate(lambda: worker.random(32))}
        found["GCM wrap"] = found["GCM unwrap"] = 0.0
        key = _gcm_key(worker)
        blob = blobs.parse(worker.gcm_encrypt(key, bytes(32), _AAD, IvMode.HOST))
        into = memoryview(bytearray(64))
        found["GCM wrap"] = _rate(lambda: worker.gcm_encrypt(key, bytes(32), _AAD, IvMode.HOST))
        found["GCM unwrap"] = _rate(lambda: worker.gcm_decrypt(key, blob, _AAD, into))
        for algorithm in detect.signatures(worker):
            signer = detect.throwaway(worker, algorithm.key_algorithm)
            found[str(algorithm)] = _rate(_signing(worker, signer, algorithm))
        return found

    return dict(backend.with_session(measure))


def _signing(worker: Worker, key: int, algorithm: Any) -> Callable[[], object]:
    return lambda: detect.sign(worker, key, algorithm, b"strongroom probe")


def _rate(work: Callable[[], object], seconds: float = 0.2) -> float:
    started = time.perf_counter()
    count = 0
    while (took := time.perf_counter() - started) < seconds:
        work()
        count += 1
    return round(count / took, 1)


PARTS: Final = {"token": token, "threads": threads, "fork": fork, "speed": speed}
