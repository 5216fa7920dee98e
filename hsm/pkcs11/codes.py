"""Every CKR a module can answer: its name, the error it becomes, and what may help.

python-pkcs11's exceptions carry no number and 28 codes have no exception of their own, so both roads, its
exceptions and our direct calls, lead through `CryptokiError` and this one table.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from pkcs11.exceptions import MultipleObjectsReturned, NoSuchKey, PKCS11Error

from hsm.errors import (
    HsmAuthFailed,
    HsmBusy,
    HsmError,
    HsmIntegrityError,
    HsmPolicyViolation,
    HsmUnavailable,
    HsmUnsupported,
    KeyAmbiguous,
    KeyNotFound,
    KeyNotPermitted,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class Remedy(enum.Enum):
    """What may make the same call work."""

    NONE = enum.auto()  # nothing: the answer is final
    SESSION = enum.auto()  # another session
    FIND = enum.auto()  # looking the key up again
    LOGIN = enum.auto()  # logging in again
    CONNECT = enum.auto()  # a new session if it works, else initialising the module again
    SUSPECT = enum.auto()  # bad data, or an ill HSM that says so: ask the canary


class Code(NamedTuple):
    """One CKR."""

    name: str
    error: type[HsmError]
    remedy: Remedy


class CryptokiError(Exception):
    """A module's function answered something other than CKR_OK."""

    def __init__(self, rv: int) -> None:
        super().__init__(rv)
        self.rv = rv

    @property
    def code(self) -> Code:
        """The table's row for it; codes that no standard knows, vendors' among them, may be anything."""
        known = CODES.get(self.rv)
        return known or Code(f"CKR_{self.rv:#x}", HsmUnavailable, Remedy.CONNECT)


def check(rv: int) -> None:
    """Raise `CryptokiError` unless the answer was CKR_OK."""
    if rv:
        raise CryptokiError(rv)


def to_error(op: str, failure: CryptokiError) -> HsmError:
    """The family's error for a CKR."""
    code = failure.code
    return code.error(op, MESSAGES[code.error], code_name=code.name)


def as_failure(op: str, error: CryptokiError | PKCS11Error) -> CryptokiError:
    """Give the CKR that an error stands for. Raises `HsmError` if it stands for none."""
    failure = from_binding(op, error) if isinstance(error, PKCS11Error) else error
    if isinstance(failure, HsmError):
        raise failure from None
    return failure


def as_hsm_error(op: str, error: CryptokiError | PKCS11Error) -> HsmError:
    """The family's error for what a driver call raised."""
    failure = from_binding(op, error) if isinstance(error, PKCS11Error) else error
    return to_error(op, failure) if isinstance(failure, CryptokiError) else failure


def orderly(error: BaseException) -> bool:
    """Whether the session is in order after this error; after any other it is not used again."""
    return isinstance(error, ORDERLY) or (
        isinstance(error, CryptokiError) and error.code.error is KeyNotPermitted
    )


def suspicious(failure: CryptokiError) -> bool:
    """Whether it may be the answer to a blob that was tampered with, as well as to trouble of the HSM's own."""
    return failure.rv in _SUSPECT or failure.code.remedy is Remedy.SUSPECT


def from_binding(op: str, error: PKCS11Error) -> CryptokiError | HsmError:
    """What an exception of python-pkcs11 stands for."""
    if isinstance(error, NoSuchKey):
        return KeyNotFound(op, MESSAGES[KeyNotFound])
    if isinstance(error, MultipleObjectsReturned):
        return KeyAmbiguous(op, MESSAGES[KeyAmbiguous])
    name = _ODD_CLASSES.get(type(error).__name__) or _snake(type(error).__name__)
    if (rv := _BY_NAME.get(f"CKR_{name}")) is not None:
        return CryptokiError(rv)
    # No class of its own: the number, or a sentence, is in the text.
    text = str(error)
    if number := re.search(r"0x([0-9a-fA-F]+)", text):
        return CryptokiError(int(number[1], 16))
    for words, rv in _SENTENCES.items():
        if words in text:
            return CryptokiError(rv)
    return HsmUnavailable(op, "the PKCS#11 binding failed", code_name=type(error).__name__)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


MESSAGES: Final[Mapping[type[HsmError], str]] = {
    HsmUnavailable: "the HSM does not work now",
    HsmBusy: "the HSM has no room for another session or operation",
    HsmAuthFailed: "the HSM refused the PIN",
    KeyNotFound: "there is no key of that label and id",
    KeyAmbiguous: "more than one object answers to that label or id",
    KeyNotPermitted: "the HSM does not permit this use of the key",
    HsmIntegrityError: "the wrapped key or its context has been changed",
    HsmUnsupported: "the HSM cannot do this, or refused its parameters",
}

ORDERLY: Final = (HsmIntegrityError, HsmPolicyViolation, KeyAmbiguous, KeyNotFound, KeyNotPermitted)

_U, _B, _A = HsmUnavailable, HsmBusy, HsmAuthFailed
_P, _I, _X = KeyNotPermitted, HsmIntegrityError, HsmUnsupported
_R = Remedy

CODES: Final[Mapping[int, Code]] = {
    number: Code(f"CKR_{name}", error, remedy)
    for number, name, error, remedy in (
        (0x001, "CANCEL", _U, _R.SESSION),
        (0x002, "HOST_MEMORY", _B, _R.NONE),
        (0x003, "SLOT_ID_INVALID", _U, _R.CONNECT),
        # SoftHSM 2.6 says GENERAL_ERROR for a bad tag as well as for real trouble.
        (0x005, "GENERAL_ERROR", _U, _R.CONNECT),
        (0x006, "FUNCTION_FAILED", _U, _R.CONNECT),
        (0x007, "ARGUMENTS_BAD", _X, _R.NONE),
        (0x008, "NO_EVENT", _X, _R.NONE),
        (0x009, "NEED_TO_CREATE_THREADS", _X, _R.NONE),
        (0x00A, "CANT_LOCK", _X, _R.NONE),
        (0x010, "ATTRIBUTE_READ_ONLY", _P, _R.NONE),
        (0x011, "ATTRIBUTE_SENSITIVE", _P, _R.NONE),
        (0x012, "ATTRIBUTE_TYPE_INVALID", _X, _R.NONE),
        (0x013, "ATTRIBUTE_VALUE_INVALID", _X, _R.NONE),
        (0x01B, "ACTION_PROHIBITED", _P, _R.NONE),
        (0x020, "DATA_INVALID", _X, _R.NONE),
        (0x021, "DATA_LEN_RANGE", _X, _R.NONE),
        (0x030, "DEVICE_ERROR", _U, _R.CONNECT),
        (0x031, "DEVICE_MEMORY", _B, _R.NONE),
        (0x032, "DEVICE_REMOVED", _U, _R.CONNECT),
        (0x040, "ENCRYPTED_DATA_INVALID", _I, _R.SUSPECT),
        (0x041, "ENCRYPTED_DATA_LEN_RANGE", _I, _R.SUSPECT),
        (0x042, "AEAD_DECRYPT_FAILED", _I, _R.SUSPECT),
        (0x050, "FUNCTION_CANCELED", _U, _R.SESSION),
        (0x051, "FUNCTION_NOT_PARALLEL", _U, _R.SESSION),
        (0x054, "FUNCTION_NOT_SUPPORTED", _X, _R.NONE),
        # Not KeyNotFound: only a search can say that a key is not there.
        (0x060, "KEY_HANDLE_INVALID", _U, _R.FIND),
        (0x062, "KEY_SIZE_RANGE", _X, _R.NONE),
        (0x063, "KEY_TYPE_INCONSISTENT", _P, _R.NONE),
        (0x064, "KEY_NOT_NEEDED", _X, _R.NONE),
        (0x065, "KEY_CHANGED", _X, _R.NONE),
        (0x066, "KEY_NEEDED", _X, _R.NONE),
        (0x067, "KEY_INDIGESTIBLE", _P, _R.NONE),
        (0x068, "KEY_FUNCTION_NOT_PERMITTED", _P, _R.NONE),
        (0x069, "KEY_NOT_WRAPPABLE", _P, _R.NONE),
        (0x06A, "KEY_UNEXTRACTABLE", _P, _R.NONE),
        (0x070, "MECHANISM_INVALID", _X, _R.NONE),
        (0x071, "MECHANISM_PARAM_INVALID", _X, _R.NONE),
        (0x082, "OBJECT_HANDLE_INVALID", _U, _R.FIND),
        (0x090, "OPERATION_ACTIVE", _U, _R.SESSION),
        (0x091, "OPERATION_NOT_INITIALIZED", _U, _R.SESSION),
        (0x0A0, "PIN_INCORRECT", _A, _R.NONE),
        (0x0A1, "PIN_INVALID", _A, _R.NONE),
        (0x0A2, "PIN_LEN_RANGE", _A, _R.NONE),
        (0x0A3, "PIN_EXPIRED", _A, _R.NONE),
        (0x0A4, "PIN_LOCKED", _A, _R.NONE),
        (0x0B0, "SESSION_CLOSED", _U, _R.SESSION),
        (0x0B1, "SESSION_COUNT", _B, _R.NONE),
        (0x0B3, "SESSION_HANDLE_INVALID", _U, _R.SESSION),
        (0x0B4, "SESSION_PARALLEL_NOT_SUPPORTED", _X, _R.NONE),
        (0x0B5, "SESSION_READ_ONLY", _P, _R.NONE),
        (0x0B6, "SESSION_EXISTS", _X, _R.NONE),
        (0x0B7, "SESSION_READ_ONLY_EXISTS", _X, _R.NONE),
        (0x0B8, "SESSION_READ_WRITE_SO_EXISTS", _X, _R.NONE),
        (0x0C0, "SIGNATURE_INVALID", _I, _R.NONE),
        (0x0C1, "SIGNATURE_LEN_RANGE", _I, _R.NONE),
        (0x0D0, "TEMPLATE_INCOMPLETE", _X, _R.NONE),
        (0x0D1, "TEMPLATE_INCONSISTENT", _X, _R.NONE),
        (0x0E0, "TOKEN_NOT_PRESENT", _U, _R.CONNECT),
        (0x0E1, "TOKEN_NOT_RECOGNIZED", _U, _R.CONNECT),
        (0x0E2, "TOKEN_WRITE_PROTECTED", _P, _R.NONE),
        (0x0F0, "UNWRAPPING_KEY_HANDLE_INVALID", _U, _R.FIND),
        (0x0F1, "UNWRAPPING_KEY_SIZE_RANGE", _X, _R.NONE),
        (0x0F2, "UNWRAPPING_KEY_TYPE_INCONSISTENT", _P, _R.NONE),
        (0x100, "USER_ALREADY_LOGGED_IN", _A, _R.NONE),
        (0x101, "USER_NOT_LOGGED_IN", _U, _R.LOGIN),
        (0x102, "USER_PIN_NOT_INITIALIZED", _A, _R.NONE),
        (0x103, "USER_TYPE_INVALID", _A, _R.NONE),
        (0x104, "USER_ANOTHER_ALREADY_LOGGED_IN", _A, _R.NONE),
        (0x105, "USER_TOO_MANY_TYPES", _A, _R.NONE),
        (0x110, "WRAPPED_KEY_INVALID", _I, _R.SUSPECT),
        (0x112, "WRAPPED_KEY_LEN_RANGE", _I, _R.SUSPECT),
        (0x113, "WRAPPING_KEY_HANDLE_INVALID", _U, _R.FIND),
        (0x114, "WRAPPING_KEY_SIZE_RANGE", _X, _R.NONE),
        (0x115, "WRAPPING_KEY_TYPE_INCONSISTENT", _P, _R.NONE),
        (0x120, "RANDOM_SEED_NOT_SUPPORTED", _X, _R.NONE),
        (0x121, "RANDOM_NO_RNG", _X, _R.NONE),
        (0x130, "DOMAIN_PARAMS_INVALID", _X, _R.NONE),
        (0x140, "CURVE_NOT_SUPPORTED", _X, _R.NONE),
        (0x150, "BUFFER_TOO_SMALL", _X, _R.NONE),
        (0x160, "SAVED_STATE_INVALID", _X, _R.NONE),
        (0x170, "INFORMATION_SENSITIVE", _P, _R.NONE),
        (0x180, "STATE_UNSAVEABLE", _X, _R.NONE),
        (0x190, "CRYPTOKI_NOT_INITIALIZED", _U, _R.CONNECT),
        (0x191, "CRYPTOKI_ALREADY_INITIALIZED", _U, _R.NONE),
        (0x1A0, "MUTEX_BAD", _U, _R.CONNECT),
        (0x1A1, "MUTEX_NOT_LOCKED", _U, _R.CONNECT),
        (0x1B0, "NEW_PIN_MODE", _A, _R.NONE),
        (0x1B1, "NEXT_OTP", _A, _R.NONE),
        (0x1B5, "EXCEEDED_MAX_ITERATIONS", _X, _R.NONE),
        (0x1B6, "FIPS_SELF_TEST_FAILED", _U, _R.CONNECT),
        (0x1B7, "LIBRARY_LOAD_FAILED", _U, _R.CONNECT),
        (0x1B8, "PIN_TOO_WEAK", _A, _R.NONE),
        (0x1B9, "PUBLIC_KEY_INVALID", _X, _R.NONE),
        (0x200, "FUNCTION_REJECTED", _P, _R.NONE),
        (0x201, "TOKEN_RESOURCE_EXCEEDED", _B, _R.NONE),
        (0x202, "OPERATION_CANCEL_FAILED", _U, _R.SESSION),
        (0x203, "KEY_EXHAUSTED", _P, _R.NONE),
    )
}

GENERAL_ERROR: Final = 0x005
FUNCTION_NOT_PERMITTED: Final = 0x068
BUFFER_TOO_SMALL: Final = 0x150
TOKEN_NOT_PRESENT: Final = 0x0E0
ALREADY_LOGGED_IN: Final = 0x100
NOT_LOGGED_IN: Final = 0x101
ALREADY_INITIALIZED: Final = 0x191
NOT_INITIALIZED: Final = 0x190

_SUSPECT: Final = frozenset({GENERAL_ERROR, 0x006, 0x020, 0x021})
_BY_NAME: Final = {code.name: number for number, code in CODES.items()}
_ODD_CLASSES: Final = {
    "AnotherUserAlreadyLoggedIn": "USER_ANOTHER_ALREADY_LOGGED_IN",
    "FunctionCancelled": "FUNCTION_CANCELED",
    "RandomNoRNG": "RANDOM_NO_RNG",
    "SessionReadWriteSOExists": "SESSION_READ_WRITE_SO_EXISTS",
    "SlotIDInvalid": "SLOT_ID_INVALID",
    "TokenNotRecognised": "TOKEN_NOT_RECOGNIZED",
}
_SENTENCES: Final = {
    "(not initialized)": NOT_INITIALIZED,
    "(already initialized)": ALREADY_INITIALIZED,
    "Buffer was too small": BUFFER_TOO_SMALL,
    "Parallel not supported": 0x0B4,
    "User type invalid": 0x103,
}
