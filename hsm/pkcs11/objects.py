"""Objects by handle: searching them, reading and writing their attributes, destroying them.

Not through the binding: its search, when the module fails in the middle of one, raises from a destructor,
where nothing can catch it, and its objects cost a call to the HSM each before they can be looked at.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from hsm.pkcs11 import cryptoki
from hsm.pkcs11.codes import CryptokiError, check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hsm.pkcs11.worker import Worker

CKA_CLASS: Final = 0x000
CKA_TOKEN: Final = 0x001
CKA_PRIVATE: Final = 0x002
CKA_LABEL: Final = 0x003
CKA_VALUE: Final = 0x011
CKA_KEY_TYPE: Final = 0x100
CKA_ID: Final = 0x102
CKA_SENSITIVE: Final = 0x103
CKA_ENCRYPT: Final = 0x104
CKA_DECRYPT: Final = 0x105
CKA_WRAP: Final = 0x106
CKA_UNWRAP: Final = 0x107
CKA_SIGN: Final = 0x108
CKA_DERIVE: Final = 0x10C
CKA_VALUE_LEN: Final = 0x161
CKA_EXTRACTABLE: Final = 0x162
CKA_LOCAL: Final = 0x163
CKA_NEVER_EXTRACTABLE: Final = 0x164
CKA_EC_PARAMS: Final = 0x180
CKA_EC_POINT: Final = 0x181

CKO_PUBLIC_KEY: Final = 2
CKO_PRIVATE_KEY: Final = 3
CKO_SECRET_KEY: Final = 4

CKK_EC: Final = 0x03
CKK_GENERIC_SECRET: Final = 0x10
CKK_AES: Final = 0x1F
CKK_SHA256_HMAC: Final = 0x2B
CKK_EC_EDWARDS: Final = 0x40

_ULONGS: Final = frozenset({CKA_CLASS, CKA_KEY_TYPE, CKA_VALUE_LEN})
_BYTES: Final = frozenset({CKA_LABEL, CKA_ID, CKA_EC_PARAMS, CKA_EC_POINT})
_ROOM: Final = 512  # bytes an attribute; the longest that we read is a point of a curve
_BATCH: Final = 64
# The object has no such attribute, will not show it, or it is longer than any of ours.
_NOT_SHOWN: Final = frozenset({0x011, 0x012, 0x150})

Value = int | bool | bytes


def find(worker: Worker, template: Mapping[int, Value]) -> list[int]:
    """Every object that matches. The search is ended before this returns. Raises `CryptokiError`."""
    rows, _keep = pack(template)
    functions, handle = worker.functions, worker.handle
    check(functions.C_FindObjectsInit(handle, rows, len(template)))
    found: list[int] = []
    batch, count = (ctypes.c_ulong * _BATCH)(), ctypes.c_ulong(1)
    try:
        while count.value:
            check(functions.C_FindObjects(handle, batch, _BATCH, ctypes.byref(count)))
            found += batch[: count.value]
    finally:
        ended = functions.C_FindObjectsFinal(handle)
    check(ended)
    return found


def read(worker: Worker, thing: int, attributes: Sequence[int]) -> dict[int, Any]:
    """Attributes of an object; `None` where the token has none or does not show it.

    Numbers, flags and bytes come as `int`, `bool` and `bytes`. Raises `CryptokiError`.
    """
    rv, values = _read(worker, thing, attributes)
    if rv in _NOT_SHOWN and len(attributes) > 1:
        # Some tokens stop at the first that they do not have.
        return {name: _read(worker, thing, (name,))[1][name] for name in attributes}
    return values


def _read(worker: Worker, thing: int, attributes: Sequence[int]) -> tuple[int, dict[int, Any]]:
    room = ctypes.create_string_buffer(_ROOM * len(attributes))
    base = ctypes.addressof(room)
    rows = (cryptoki.Attribute * len(attributes))(
        *(cryptoki.Attribute(name, base + _ROOM * index, _ROOM) for index, name in enumerate(attributes))
    )
    rv = worker.functions.C_GetAttributeValue(worker.handle, thing, rows, len(attributes))
    if rv and rv not in _NOT_SHOWN:
        raise CryptokiError(rv)
    values: dict[int, Any] = {}
    for index, name in enumerate(attributes):
        size = rows[index].size
        raw = None
        if size <= _ROOM and not (rv and len(attributes) == 1):
            raw = ctypes.string_at(base + _ROOM * index, size)
        values[name] = _unpack(name, raw)
    return rv, values


def write(worker: Worker, thing: int, attribute: int, *, value: Value) -> None:
    """Set one attribute. Raises `CryptokiError`."""
    rows, _keep = pack({attribute: value})
    check(worker.functions.C_SetAttributeValue(worker.handle, thing, rows, 1))


def destroy(worker: Worker, thing: int) -> None:
    """Destroy an object. Raises `CryptokiError`."""
    check(worker.functions.C_DestroyObject(worker.handle, thing))


def pack(template: Mapping[int, Value]) -> tuple[Any, list[Any]]:
    """A template, and the memory that it points to."""
    keep = [ctypes.create_string_buffer(raw, max(len(raw), 1)) for raw in map(_raw, template.values())]
    rows = (cryptoki.Attribute * len(template))(
        *(
            cryptoki.Attribute(name, ctypes.addressof(room), len(_raw(value)))
            for (name, value), room in zip(template.items(), keep, strict=True)
        )
    )
    return rows, keep


def _raw(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return bytes((value,))
    return bytes(ctypes.c_ulong(value))


def _unpack(name: int, raw: bytes | None) -> int | bool | bytes | None:
    if raw is None or name in _BYTES:
        return raw
    if name in _ULONGS:
        return (
            ctypes.c_ulong.from_buffer_copy(raw).value if len(raw) == ctypes.sizeof(ctypes.c_ulong) else None
        )
    return bool(raw[0]) if raw else None
