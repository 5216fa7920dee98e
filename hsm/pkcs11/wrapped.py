"""KEKs that lie outside of the HSM, wrapped under a root key in it: how they are made, loaded and moved.

    byte 0      format version, 1
    byte 1      mechanism: 1 AES_KEY_WRAP (RFC 3394), 2 AES_KEY_WRAP_KWP, 3 AES_KEY_WRAP_PAD (RFC 5649 or PKCS#7)
    2 bytes     length of the proof, big endian
    proof       a blob (`hsm.blob`) of 32 zero bytes, wrapped by the KEK itself, bound to label and id
    rest        the KEK, wrapped under the root key

A key wrap takes no AAD, so the proof says whose key it is: an edit that hands one tenant the key of another
is found when the key is loaded, before it is used.

A key that is to be wrapped must be extractable at that moment. So it is made, or unwrapped from an older
root, as a sensitive and extractable session object, wrapped under the root at once, and destroyed; what is
used is another copy, unwrapped as not extractable. There is no call here that wraps under anything but a root.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Final, TypeVar

from pkcs11.exceptions import PKCS11Error

from hsm import blob as blobs
from hsm.errors import HsmError, HsmIntegrityError, HsmPolicyViolation, HsmUnsupported
from hsm.model import KeyAlgorithm, KeyRef
from hsm.pkcs11 import codes, cryptoki, detect, sealing
from hsm.pkcs11 import objects as obj
from hsm.pkcs11.codes import CryptokiError, check

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm.pkcs11.sealing import Sealer
    from hsm.pkcs11.worker import Worker

FORMAT: Final = 1
_MECHANISMS: Final = {1: 0x2109, 2: 0x210B, 3: 0x210A}
_HEAD: Final = 4
_PROVEN: Final = bytes(32)
_FAILURES: Final = (CryptokiError, PKCS11Error, HsmError)
T = TypeVar("T")


def proof_context(ref: KeyRef) -> bytes:
    """What a key's proof is bound to; unambiguous, as the id has a fixed length."""
    return b"strongroom-kek-1" + ref.object_id + ref.label.encode("ascii")


def create(worker: Worker, root: int, ref: KeyRef, sealer: Sealer) -> bytes:
    """Make a key and return its blob. Raises `CryptokiError`, `HsmUnsupported`, `HsmPolicyViolation`."""
    fresh = _generate(worker, sealer)
    try:
        return _blob(worker, root, fresh, ref, sealer)
    finally:
        obj.destroy(worker, fresh)


def rewrap(worker: Worker, blob: bytes, old: int, new: int, ref: KeyRef, sealer: Sealer) -> bytes:
    """The blob of the same key under another root. Raises as `create`, and `HsmIntegrityError`."""
    passing = unwrap(worker, blob, old, ref, sealer, extractable=True)
    try:
        prove(worker, passing, blob, ref, sealer)
        return _blob(worker, new, passing, ref, sealer)
    finally:
        obj.destroy(worker, passing)


def unwrap(
    worker: Worker, blob: bytes, root: int, ref: KeyRef, sealer: Sealer, *, extractable: bool = False
) -> int:
    """Make a session object of a blob and return its handle. It is not to be used before `prove`.

    Raises `CryptokiError`, `HsmIntegrityError`.
    """
    mechanism_number, _, body = _parse(blob)
    mechanism = cryptoki.Mechanism(mechanism_number, None, 0)
    template = {**_template(sealer, extractable=extractable), obj.CKA_ID: ref.object_id}
    rows, _keep = obj.pack(template)
    handle = ctypes.c_ulong()

    def call() -> None:
        check(
            worker.functions.C_UnwrapKey(
                worker.handle,
                ctypes.byref(mechanism),
                root,
                body,
                len(body),
                rows,
                len(template),
                ctypes.byref(handle),
            )
        )

    _judged(worker, sealer, call)
    return handle.value


def prove(worker: Worker, key: int, blob: bytes, ref: KeyRef, sealer: Sealer) -> None:
    """Check that a loaded key is the one that was made for this name. Raises `HsmIntegrityError`, `CryptokiError`."""
    _, proof, _ = _parse(blob)
    opened = bytearray(blobs.MAX_DEK)
    parsed, context = blobs.parse(proof), proof_context(ref)
    size = _judged(worker, sealer, lambda: sealer.unwrap(worker, key, parsed, context, memoryview(opened)))
    if opened[:size] != _PROVEN:
        raise HsmIntegrityError("unwrap", "a wrapped key is not the one of this name")


def works(worker: Worker, sealer: Sealer) -> bool:
    """Whether a key can lie outside, wrapped under a root key, and be used again."""
    try:
        root = detect.throwaway(worker, KeyAlgorithm.AES_256_ROOT)
    except _FAILURES:
        return False
    ref = KeyRef("strongroom-detect", os.urandom(16))
    try:
        blob = create(worker, root, ref, sealer)
        key = unwrap(worker, blob, root, ref, sealer)
        try:
            prove(worker, key, blob, ref, sealer)
        finally:
            obj.destroy(worker, key)
    except _FAILURES:
        return False
    finally:
        detect.discard(worker, root)
    return True


def _judged(worker: Worker, sealer: Sealer, call: Callable[[], T]) -> T:
    """Tell a bad blob from an ill HSM, as some modules answer GENERAL_ERROR to both."""
    for _ in range(2):
        try:
            return call()
        except CryptokiError as error:
            if not codes.suspicious(error):
                raise
            name = error.code.name
    if sealing.works(worker, sealer):
        raise HsmIntegrityError("unwrap", codes.MESSAGES[HsmIntegrityError], code_name=name)
    raise CryptokiError(codes.GENERAL_ERROR)


def _blob(worker: Worker, root: int, extractable: int, ref: KeyRef, sealer: Sealer) -> bytes:
    number, body = _wrap(worker, root, extractable)
    head = bytes((FORMAT, number))
    # The copy that will be used from now on: if it cannot be had, there is no blob either.
    key = unwrap(worker, head + bytes(2) + body, root, ref, sealer)
    try:
        said = obj.read(worker, key, (obj.CKA_SENSITIVE, obj.CKA_EXTRACTABLE))
        if said[obj.CKA_SENSITIVE] is not True or said[obj.CKA_EXTRACTABLE] is not False:
            raise HsmPolicyViolation("create_wrapped_key", "the HSM unwraps keys as extractable")
        proof = sealer.wrap(worker, key, _PROVEN, proof_context(ref))
    finally:
        obj.destroy(worker, key)
    return head + len(proof).to_bytes(2, "big") + proof + body


def _wrap(worker: Worker, root: int, key: int) -> tuple[int, bytes]:
    refusal: CryptokiError | None = None
    for number, mechanism_number in _MECHANISMS.items():
        mechanism = cryptoki.Mechanism(mechanism_number, None, 0)
        arena = worker.arena
        arena.length.value = len(arena.out)
        rv = worker.functions.C_WrapKey(
            worker.handle, ctypes.byref(mechanism), root, key, arena.out_at, arena.length_at
        )
        if rv == cryptoki.OK:
            return number, arena.out[: arena.length.value].tobytes()
        refusal = CryptokiError(rv)
        if refusal.code.error is not HsmUnsupported:
            break
    assert refusal is not None
    raise refusal


def _generate(worker: Worker, sealer: Sealer) -> int:
    template = {**_template(sealer, extractable=True), obj.CKA_VALUE_LEN: 32}
    rows, _keep = obj.pack(template)
    mechanism = cryptoki.Mechanism(cryptoki.CKM_AES_KEY_GEN, None, 0)
    handle = ctypes.c_ulong()
    check(
        worker.functions.C_GenerateKey(
            worker.handle, ctypes.byref(mechanism), rows, len(template), ctypes.byref(handle)
        )
    )
    return handle.value


def _template(sealer: Sealer, *, extractable: bool) -> dict[int, obj.Value]:
    crypts, wraps = not sealer.wrapping_keys, sealer.wrapping_keys
    return {
        obj.CKA_CLASS: obj.CKO_SECRET_KEY,
        obj.CKA_KEY_TYPE: obj.CKK_AES,
        obj.CKA_TOKEN: False,
        obj.CKA_PRIVATE: True,
        obj.CKA_SENSITIVE: True,
        obj.CKA_EXTRACTABLE: extractable,
        obj.CKA_ENCRYPT: crypts,
        obj.CKA_DECRYPT: crypts,
        obj.CKA_WRAP: wraps,
        obj.CKA_UNWRAP: wraps,
    }


def _parse(blob: bytes) -> tuple[int, bytes, bytes]:
    if len(blob) > _HEAD and blob[0] == FORMAT and blob[1] in _MECHANISMS:
        start = _HEAD + int.from_bytes(blob[2:_HEAD], "big")
        if start < len(blob):
            return _MECHANISMS[blob[1]], blob[_HEAD:start], blob[start:]
    raise HsmIntegrityError("unwrap", codes.MESSAGES[HsmIntegrityError])
