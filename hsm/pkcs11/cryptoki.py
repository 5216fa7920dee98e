"""The few functions of Cryptoki (PKCS#11 v2.40) that are called directly, through ctypes.

python-pkcs11 does tokens, sessions and key creation. Called directly are: `C_Initialize`, because
python-pkcs11 promises the module that there are no threads; `C_Login`, so that the PIN is never an
immutable string; search and attributes, because a search that fails in python-pkcs11 raises from a
destructor; and the operations of the hot path, so that a data key goes straight from and into memory that
we wipe, without the length query that python-pkcs11 puts before each operation.

ctypes releases the GIL in every call. Names are those of the standard.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

OK: Final = 0
CKU_USER: Final = 1
CKF_OS_LOCKING_OK: Final = 2
CKS_RW_USER: Final = 3
UNAVAILABLE: Final = ctypes.c_ulong(-1).value

CKM_AES_KEY_GEN: Final = 0x1080
CKM_AES_GCM: Final = 0x1087
CKM_ECDSA: Final = 0x1041
CKM_EDDSA: Final = 0x1057
CKM_SHA256_HMAC: Final = 0x251

_ULONG = ctypes.c_ulong
_POINTER = ctypes.c_void_p

# Place in CK_FUNCTION_LIST, and the types of the arguments.
_FUNCTIONS: Final = {
    "C_Initialize": (0, (_POINTER,)),
    "C_Finalize": (1, (_POINTER,)),
    "C_GetTokenInfo": (6, (_ULONG, _POINTER)),
    "C_GetSessionInfo": (15, (_ULONG, _POINTER)),
    "C_CloseSession": (13, (_ULONG,)),
    "C_Login": (18, (_ULONG, _ULONG, _POINTER, _ULONG)),
    "C_SetAttributeValue": (25, (_ULONG, _ULONG, _POINTER, _ULONG)),
    "C_FindObjectsInit": (26, (_ULONG, _POINTER, _ULONG)),
    "C_FindObjects": (27, (_ULONG, _POINTER, _ULONG, _POINTER)),
    "C_FindObjectsFinal": (28, (_ULONG,)),
    "C_EncryptInit": (29, (_ULONG, _POINTER, _ULONG)),
    "C_Encrypt": (30, (_ULONG, _POINTER, _ULONG, _POINTER, _POINTER)),
    "C_DecryptInit": (33, (_ULONG, _POINTER, _ULONG)),
    "C_Decrypt": (34, (_ULONG, _POINTER, _ULONG, _POINTER, _POINTER)),
    "C_SignInit": (42, (_ULONG, _POINTER, _ULONG)),
    "C_Sign": (43, (_ULONG, _POINTER, _ULONG, _POINTER, _POINTER)),
    "C_CreateObject": (20, (_ULONG, _POINTER, _ULONG, _POINTER)),
    "C_DestroyObject": (22, (_ULONG, _ULONG)),
    "C_GetAttributeValue": (24, (_ULONG, _ULONG, _POINTER, _ULONG)),
    "C_GenerateKey": (58, (_ULONG, _POINTER, _POINTER, _ULONG, _POINTER)),
    "C_WrapKey": (60, (_ULONG, _POINTER, _ULONG, _ULONG, _POINTER, _POINTER)),
    "C_UnwrapKey": (61, (_ULONG, _POINTER, _ULONG, _POINTER, _ULONG, _POINTER, _ULONG, _POINTER)),
    "C_GenerateRandom": (64, (_ULONG, _POINTER, _ULONG)),
}


class CkVersion(ctypes.Structure):
    """CK_VERSION."""

    _fields_ = (("major", ctypes.c_ubyte), ("minor", ctypes.c_ubyte))


class InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = (
        ("create_mutex", _POINTER),
        ("destroy_mutex", _POINTER),
        ("lock_mutex", _POINTER),
        ("unlock_mutex", _POINTER),
        ("flags", _ULONG),
        ("reserved", ctypes.c_char_p),
    )


class SessionInfo(ctypes.Structure):
    """CK_SESSION_INFO."""

    _fields_ = (("slot", _ULONG), ("state", _ULONG), ("flags", _ULONG), ("device_error", _ULONG))


class TokenInfo(ctypes.Structure):
    """CK_TOKEN_INFO."""

    _fields_ = (
        ("label", ctypes.c_char * 32),
        ("manufacturer", ctypes.c_char * 32),
        ("model", ctypes.c_char * 16),
        ("serial", ctypes.c_char * 16),
        ("flags", _ULONG),
        ("max_session_count", _ULONG),
        ("session_count", _ULONG),
        ("max_rw_session_count", _ULONG),
        ("rw_session_count", _ULONG),
        ("max_pin_len", _ULONG),
        ("min_pin_len", _ULONG),
        ("total_public_memory", _ULONG),
        ("free_public_memory", _ULONG),
        ("total_private_memory", _ULONG),
        ("free_private_memory", _ULONG),
        ("hardware_version", CkVersion),
        ("firmware_version", CkVersion),
        ("utc_time", ctypes.c_char * 16),
    )


class Mechanism(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (("mechanism", _ULONG), ("parameter", _POINTER), ("parameter_len", _ULONG))


class Attribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (("type", _ULONG), ("value", _POINTER), ("size", _ULONG))


class GcmParams(ctypes.Structure):
    """CK_GCM_PARAMS of v2.40 errata 1, with `ulIvBits`."""

    _fields_ = (
        ("iv", _POINTER),
        ("iv_len", _ULONG),
        ("iv_bits", _ULONG),
        ("aad", ctypes.c_char_p),
        ("aad_len", _ULONG),
        ("tag_bits", _ULONG),
    )


class Functions:
    """A module's functions; each returns a CKR and never raises."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)  # the same mapping that python-pkcs11 has opened
        table = _POINTER()
        get = library.C_GetFunctionList
        get.argtypes = (_POINTER,)
        get.restype = _ULONG
        get(ctypes.byref(table))
        if not table.value:
            raise OSError("the module has no function list")
        # CK_FUNCTION_LIST is a CK_VERSION, padded to a pointer's size, and then only pointers.
        pointers = ctypes.cast(table.value + ctypes.sizeof(_POINTER), ctypes.POINTER(_POINTER))
        for name, (place, types) in _FUNCTIONS.items():
            address = pointers[place]
            prototype = ctypes.CFUNCTYPE(_ULONG, *types)
            setattr(self, name, prototype(address) if address else _missing)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., int]: ...


def _missing(*_: object) -> int:
    return 0x54  # CKR_FUNCTION_NOT_SUPPORTED
