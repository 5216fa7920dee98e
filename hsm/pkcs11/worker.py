"""One session and the memory that it works in.

A session belongs to one thread at a time, so everything here may be used without a lock by whoever has
checked it out. Data keys pass through one page of memory that is locked, kept out of core dumps, and wiped
after each operation; the module is given addresses in it, so that no other copy is made.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING, Final

from hsm import blob as blobs
from hsm.errors import HsmIntegrityError, HsmUnsupported
from hsm.model import IvMode
from hsm.pkcs11 import codes, cryptoki
from hsm.pkcs11.codes import CryptokiError, check

if TYPE_CHECKING:
    from pkcs11.types import Session

    from hsm.model import ReadableBuffer

_PAGE: Final = mmap.PAGESIZE
_SECRET, _SECRET_SIZE = 0, 256  # plaintext; SoftHSM wants room for the ciphertext's length
_OUT, _OUT_SIZE = 256, 512
_IV, _IV_SIZE = 768, 16
_LENGTH = 800
_PARAMS = 832
_MECHANISM = 896
_KEPT, _KEPT_SIZE = 960, blobs.MAX_DEK
_ZEROS: Final = bytes(_SECRET_SIZE)
_ZERO_IV: Final = bytes(_IV_SIZE)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Arena:
    """A page for secrets, parameters and results, with the addresses of its parts."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        # Locking can fail for want of RLIMIT_MEMLOCK; the page is still wiped within microseconds.
        _libc.mlock(base, _PAGE)
        self._page.madvise(mmap.MADV_DONTDUMP)
        view = memoryview(self._page)
        self.secret = view[_SECRET : _SECRET + _SECRET_SIZE]
        self.out = view[_OUT : _OUT + _OUT_SIZE]
        self.iv = view[_IV : _IV + _IV_SIZE]
        self.kept = view[_KEPT : _KEPT + _KEPT_SIZE]
        """For a data key between two operations on it; whoever puts one there wipes it."""
        self.length = ctypes.c_ulong.from_buffer(self._page, _LENGTH)
        self.params = cryptoki.GcmParams.from_buffer(self._page, _PARAMS)
        self.mechanism = cryptoki.Mechanism.from_buffer(self._page, _MECHANISM)
        self.params.iv = base + _IV
        self.params.tag_bits = blobs.GCM_TAG * 8
        self.mechanism.mechanism = cryptoki.CKM_AES_GCM
        self.mechanism.parameter = base + _PARAMS
        self.mechanism.parameter_len = ctypes.sizeof(self.params)
        self.secret_at = base + _SECRET
        self.out_at = base + _OUT
        self.length_at = base + _LENGTH
        self.mechanism_at = base + _MECHANISM

    def wipe(self) -> None:
        """Overwrite the plaintext."""
        self.secret[:] = _ZEROS


class Worker:
    """A logged-in session to be used by one thread at a time, and what it has looked up.

    `keys` caches object handles by (kind of key, object id), with the label, which must match as well.
    `since` is when it was checked out, in seconds of the monotonic clock; `lost` is set by whoever gives
    up waiting for it, `stale` when handles must be looked up again.
    """

    __slots__ = ("arena", "epoch", "functions", "handle", "keys", "lost", "session", "since", "stale")

    def __init__(self, session: Session, functions: cryptoki.Functions, epoch: int) -> None:
        self.session = session
        self.handle: int = session.handle  # type: ignore[attr-defined]  # the binding's stubs leave it out
        self.functions = functions
        self.epoch = epoch
        self.arena = Arena()
        self.keys: dict[tuple[str, bytes], tuple[str, int]] = {}
        self.since = 0.0
        self.lost = False
        self.stale = False

    def gcm_encrypt(self, key: int, dek: ReadableBuffer, aad: bytes, mode: IvMode) -> bytes:
        """Wrap by AES-GCM and return the blob. Raises `CryptokiError`, `HsmIntegrityError`."""
        arena, functions, size = self.arena, self.functions, len(dek)
        params = arena.params
        iv = os.urandom(12) if mode is IvMode.HOST else _ZERO_IV[:12]
        bound = blobs.bind(blobs.GCM_16 if mode is IvMode.APPENDED else blobs.GCM_12, aad)
        params.aad, params.aad_len = bound, len(bound)
        params.iv_len, params.iv_bits = 12, 96
        arena.iv[:12] = iv
        arena.length.value = _OUT_SIZE
        try:
            arena.secret[:size] = dek
            rv = functions.C_EncryptInit(self.handle, arena.mechanism_at, key)
            if rv == 0:
                rv = functions.C_Encrypt(self.handle, arena.secret_at, size, arena.out_at, arena.length_at)
        finally:
            arena.secret[:] = _ZEROS
        if rv:
            raise CryptokiError(rv)
        produced = arena.length.value
        used = arena.iv[:12].tobytes()
        if mode is IvMode.APPENDED:
            if produced == size + blobs.GCM_TAG + 16:
                sealed = arena.out[: produced - 16].tobytes()
                return blobs.header(blobs.GCM_16) + arena.out[produced - 16 : produced].tobytes() + sealed
        elif produced == size + blobs.GCM_TAG and (used == iv) is (mode is IvMode.HOST):
            return blobs.header(blobs.GCM_12) + used + arena.out[:produced].tobytes()
        # The module did not do what was probed: an IV that nobody chose could be an IV used twice.
        raise HsmUnsupported("wrap", "the HSM did not encrypt as it was found to")

    def gcm_decrypt(self, key: int, wrapped: blobs.Wrapped, aad: bytes, into: memoryview) -> int:
        """Unwrap by AES-GCM. Raises `CryptokiError`, `HsmIntegrityError`."""
        arena, functions, size = self.arena, self.functions, wrapped.dek_size
        params = arena.params
        bound = blobs.bind(wrapped.scheme, aad)
        params.aad, params.aad_len = bound, len(bound)
        iv = wrapped.iv
        params.iv_len, params.iv_bits = len(iv), len(iv) * 8
        arena.iv[: len(iv)] = iv
        arena.length.value = _SECRET_SIZE
        try:
            rv = functions.C_DecryptInit(self.handle, arena.mechanism_at, key)
            if rv == 0:
                rv = functions.C_Decrypt(
                    self.handle, wrapped.body, len(wrapped.body), arena.secret_at, arena.length_at
                )
            if rv:
                raise CryptokiError(rv)
            if arena.length.value != size:
                raise HsmIntegrityError("unwrap", "the HSM returned a key of another length")
            into[:size] = arena.secret[:size]
        finally:
            arena.secret[:] = _ZEROS
        return size

    def sign(self, key: int, mechanism: int, data: bytes, size: int) -> bytes:
        """Sign or MAC, giving exactly `size` bytes. Raises `CryptokiError`, `HsmIntegrityError`."""
        chosen = cryptoki.Mechanism(mechanism, None, 0)
        arena = self.arena
        check(self.functions.C_SignInit(self.handle, ctypes.byref(chosen), key))
        arena.length.value = _OUT_SIZE
        check(self.functions.C_Sign(self.handle, data, len(data), arena.out_at, arena.length_at))
        if arena.length.value != size:
            raise HsmIntegrityError("sign", "the HSM made a signature of another length")
        return arena.out[:size].tobytes()

    def random(self, size: int) -> bytes:
        """Bytes of the HSM's generator. Raises `CryptokiError`."""
        buffer = ctypes.create_string_buffer(size)
        check(self.functions.C_GenerateRandom(self.handle, buffer, size))
        return buffer.raw

    def state(self) -> int:
        """The session's CKS state. Raises `CryptokiError`."""
        info = cryptoki.SessionInfo()
        check(self.functions.C_GetSessionInfo(self.handle, ctypes.byref(info)))
        return int(info.state)

    def require_login(self) -> None:
        """Raise `CryptokiError` unless the session shares a user's log-in."""
        if self.state() != cryptoki.CKS_RW_USER:
            raise CryptokiError(codes.NOT_LOGGED_IN)
