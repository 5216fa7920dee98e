"""AES key wrap with padding (RFC 5649), for tokens that have no GCM with AAD.

KWP takes no AAD, so the context is bound by wrapping the key and a digest of it as one value (`hsm.blob`)
and comparing the digest after unwrapping; KWP's own check covers both. It goes by `C_Encrypt` where the token allows
that, else by making a short-lived secret object of the value, wrapping the object, and destroying it. The
value lies in the worker's locked page; the object never leaves the session.
"""

from __future__ import annotations

import ctypes
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hsm import blob as blobs
from hsm.errors import HsmIntegrityError, HsmUnsupported
from hsm.pkcs11 import codes, cryptoki
from hsm.pkcs11 import objects as obj
from hsm.pkcs11.codes import CryptokiError, check

if TYPE_CHECKING:
    from hsm.model import ReadableBuffer
    from hsm.pkcs11.worker import Worker

CKM_AES_KEY_WRAP_PAD: Final = 0x210A  # RFC 5649 here, PKCS#7 there: told apart by the length of the result
CKM_AES_KEY_WRAP_KWP: Final = 0x210B


@dataclass(frozen=True, slots=True)
class KwpRoute:
    """How KWP works on a token: by which mechanism, and whether through `C_Encrypt` or an object."""

    mechanism: int
    by_object: bool


ROUTES: Final = tuple(
    KwpRoute(mechanism, by_object)
    for by_object in (False, True)
    for mechanism in (CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD)
)


class _Template:
    """A template of short-lived secret objects, with the memory that it points to."""

    def __init__(self, value: tuple[int, int] | None = None) -> None:
        self._numbers = (ctypes.c_ulong * 2)(obj.CKO_SECRET_KEY, obj.CKK_GENERIC_SECRET)
        self._flags = (ctypes.c_ubyte * 2)(0, 1)
        number, flag = ctypes.addressof(self._numbers), ctypes.addressof(self._flags)
        width = ctypes.sizeof(ctypes.c_ulong)
        rows = [
            (obj.CKA_CLASS, number, width),
            (obj.CKA_KEY_TYPE, number + width, width),
            (obj.CKA_TOKEN, flag, 1),
            (obj.CKA_PRIVATE, flag + 1, 1),
            (obj.CKA_SENSITIVE, flag, 1),
            (obj.CKA_EXTRACTABLE, flag + 1, 1),
        ]
        if value is not None:
            rows.append((obj.CKA_VALUE, *value))
        self.count = len(rows)
        self.rows = (cryptoki.Attribute * self.count)(*(cryptoki.Attribute(*row) for row in rows))


def wrap(worker: Worker, route: KwpRoute, key: int, *, dek: ReadableBuffer, aad: bytes) -> bytes:
    """Wrap and return the blob. Raises `CryptokiError`, `HsmUnsupported`."""
    arena, functions = worker.arena, worker.functions
    start = blobs.kwp_padded(len(dek))
    size = start + blobs.DIGEST
    mechanism = cryptoki.Mechanism(route.mechanism, None, 0)
    arena.length.value = len(arena.out)
    try:
        arena.secret[: len(dek)] = dek
        arena.secret[start:size] = blobs.kwp_digest(len(dek), aad)
        if route.by_object:
            _wrap_object(worker, key, mechanism, size)
        else:
            check(functions.C_EncryptInit(worker.handle, ctypes.byref(mechanism), key))
            check(functions.C_Encrypt(worker.handle, arena.secret_at, size, arena.out_at, arena.length_at))
    finally:
        arena.wipe()
    produced = arena.length.value
    if produced != size + blobs.KWP_OVERHEAD:
        raise HsmUnsupported("wrap", "this HSM's key wrap is not RFC 5649")
    return blobs.header(blobs.KWP) + bytes((len(dek),)) + arena.out[:produced].tobytes()


def unwrap(
    worker: Worker, route: KwpRoute, key: int, *, wrapped: blobs.Wrapped, aad: bytes, into: memoryview
) -> int:
    """Unwrap into the caller's buffer. Raises `CryptokiError`, `HsmIntegrityError`."""
    arena, functions, body = worker.arena, worker.functions, wrapped.body
    mechanism = cryptoki.Mechanism(route.mechanism, None, 0)
    arena.length.value = len(arena.secret)
    try:
        if route.by_object:
            total = _unwrap_object(worker, key, mechanism, body)
        else:
            check(functions.C_DecryptInit(worker.handle, ctypes.byref(mechanism), key))
            check(functions.C_Decrypt(worker.handle, body, len(body), arena.secret_at, arena.length_at))
            total = arena.length.value
        size, start = wrapped.dek_size, blobs.kwp_padded(wrapped.dek_size)
        if total != start + blobs.DIGEST or not hmac.compare_digest(
            arena.secret[start:total], blobs.kwp_digest(size, aad)
        ):
            raise HsmIntegrityError("unwrap", codes.MESSAGES[HsmIntegrityError])
        into[:size] = arena.secret[:size]
    finally:
        arena.wipe()
    return size


def raw_length(worker: Worker, route: KwpRoute, key: int) -> int:
    """How long 32 wrapped bytes are, which tells what the mechanism means. Raises `CryptokiError`."""
    arena, functions = worker.arena, worker.functions
    mechanism = cryptoki.Mechanism(route.mechanism, None, 0)
    arena.length.value = len(arena.out)
    if route.by_object:
        _wrap_object(worker, key, mechanism, 32)
    else:
        check(functions.C_EncryptInit(worker.handle, ctypes.byref(mechanism), key))
        check(functions.C_Encrypt(worker.handle, arena.secret_at, 32, arena.out_at, arena.length_at))
    return int(arena.length.value)


def _wrap_object(worker: Worker, key: int, mechanism: cryptoki.Mechanism, size: int) -> None:
    arena, functions = worker.arena, worker.functions
    template = _Template((arena.secret_at, size))
    thing = ctypes.c_ulong()
    check(functions.C_CreateObject(worker.handle, template.rows, template.count, ctypes.byref(thing)))
    rv = functions.C_WrapKey(
        worker.handle, ctypes.byref(mechanism), key, thing.value, arena.out_at, arena.length_at
    )
    _finish(worker, thing.value, rv)


def _unwrap_object(worker: Worker, key: int, mechanism: cryptoki.Mechanism, body: bytes) -> int:
    arena, functions = worker.arena, worker.functions
    template = _Template()
    thing = ctypes.c_ulong()
    check(
        functions.C_UnwrapKey(
            worker.handle,
            ctypes.byref(mechanism),
            key,
            body,
            len(body),
            template.rows,
            template.count,
            ctypes.byref(thing),
        )
    )
    value = cryptoki.Attribute(obj.CKA_VALUE, arena.secret_at, len(arena.secret))
    rv = functions.C_GetAttributeValue(worker.handle, thing.value, ctypes.byref(value), 1)
    _finish(worker, thing.value, rv)
    return int(value.size)


def _finish(worker: Worker, thing: int, rv: int) -> None:
    """Destroy a short-lived object, whatever happened before; report the first failure."""
    destroyed = worker.functions.C_DestroyObject(worker.handle, thing)
    if rv or destroyed:
        raise CryptokiError(rv or destroyed)
