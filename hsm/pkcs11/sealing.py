"""The two ways in which a token wraps data keys, behind one shape."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Protocol

from pkcs11.exceptions import PKCS11Error

from hsm import blob as blobs
from hsm.errors import HsmError
from hsm.model import IvMode, KeyAlgorithm, WrapScheme
from hsm.pkcs11 import detect, kwp
from hsm.pkcs11.codes import CryptokiError

if TYPE_CHECKING:
    from hsm.model import ReadableBuffer
    from hsm.pkcs11.worker import Worker

_FAILURES: Final = (CryptokiError, PKCS11Error, HsmError)
_AAD: Final = b"strongroom detect"


class Sealer(Protocol):
    """Wraps and unwraps on a checked-out session by object handle. Raises `CryptokiError`, `HsmError`."""

    scheme: WrapScheme
    iv_mode: IvMode | None
    wrapping_keys: bool  # KEKs get WRAP and UNWRAP, instead of ENCRYPT and DECRYPT
    opens: frozenset[int]  # the blob schemes that `unwrap` takes

    def wrap(self, worker: Worker, key: int, dek: ReadableBuffer, aad: bytes) -> bytes:
        """Return the blob."""

    def unwrap(self, worker: Worker, key: int, wrapped: blobs.Wrapped, aad: bytes, into: memoryview) -> int:
        """Write the data key into the buffer and return its length."""


class GcmSealer:
    """AES-GCM with AAD, the usual way."""

    scheme = WrapScheme.AES_GCM
    wrapping_keys = False
    opens = frozenset(blobs.IV_SIZES)

    def __init__(self, iv_mode: IvMode) -> None:
        self.iv_mode: IvMode | None = iv_mode
        self._mode = iv_mode

    def wrap(self, worker: Worker, key: int, dek: ReadableBuffer, aad: bytes) -> bytes:
        """See `Sealer`."""
        return worker.gcm_encrypt(key, dek, aad, self._mode)

    def unwrap(self, worker: Worker, key: int, wrapped: blobs.Wrapped, aad: bytes, into: memoryview) -> int:
        """See `Sealer`."""
        return worker.gcm_decrypt(key, wrapped, aad, into)


class KwpSealer:
    """AES-KWP with the context bound, where there is no GCM."""

    scheme = WrapScheme.AES_KWP
    iv_mode: IvMode | None = None
    opens = frozenset({blobs.KWP})

    def __init__(self, route: kwp.KwpRoute) -> None:
        self._route = route
        self.wrapping_keys = route.by_object

    def wrap(self, worker: Worker, key: int, dek: ReadableBuffer, aad: bytes) -> bytes:
        """See `Sealer`."""
        return kwp.wrap(worker, self._route, key, dek=dek, aad=aad)

    def unwrap(self, worker: Worker, key: int, wrapped: blobs.Wrapped, aad: bytes, into: memoryview) -> int:
        """See `Sealer`."""
        return kwp.unwrap(worker, self._route, key, wrapped=wrapped, aad=aad, into=into)


def choose(worker: Worker, scheme: WrapScheme | None, iv_mode: IvMode | None) -> Sealer | None:
    """The way that works on this token, found by trying; `None` if none does.

    A scheme or IV mode that is given is the only one tried.
    """
    candidates: list[Sealer] = []
    if scheme in (None, WrapScheme.AES_GCM):
        candidates += [GcmSealer(mode) for mode in ((iv_mode,) if iv_mode else IvMode)]
    if scheme in (None, WrapScheme.AES_KWP) and iv_mode is None:
        candidates += [KwpSealer(route) for route in kwp.ROUTES]
    return next((sealer for sealer in candidates if works(worker, sealer)), None)


def works(worker: Worker, sealer: Sealer) -> bool:
    """Whether a round trip with a throwaway key succeeds, and one with another AAD does not."""
    try:
        key = detect.throwaway(worker, KeyAlgorithm.AES_256, kwp=sealer.wrapping_keys)
    except _FAILURES:
        return False
    dek, opened = os.urandom(32), bytearray(blobs.MAX_DEK)
    into = memoryview(opened)
    try:
        wrapped = blobs.parse(sealer.wrap(worker, key, dek, _AAD))
        if sealer.unwrap(worker, key, wrapped, _AAD, into) != len(dek) or opened[: len(dek)] != dek:
            return False
    except _FAILURES:
        return False
    else:
        try:
            sealer.unwrap(worker, key, wrapped, _AAD + b"?", into)
        except _FAILURES:
            return True
        return False  # it does not look at the AAD
    finally:
        detect.discard(worker, key)
