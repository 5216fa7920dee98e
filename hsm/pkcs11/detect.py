"""Finding out what a token can do, by doing it with short-lived keys that are never stored.

Lists of mechanisms and their flags are not believed: SoftHSM's flags for GCM are uninitialised memory,
other modules list what then fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Final

from pkcs11.exceptions import PKCS11Error

from hsm.errors import HsmError
from hsm.model import KeyAlgorithm, KeyRef, SignatureAlgorithm
from hsm.pkcs11 import cryptoki, keys
from hsm.pkcs11 import objects as obj
from hsm.pkcs11.codes import CryptokiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm.pkcs11.worker import Worker

_FAILURES: Final = (CryptokiError, PKCS11Error, HsmError)
_AAD: Final = b"strongroom detect"


def throwaway(worker: Worker, algorithm: KeyAlgorithm, *, kwp: bool = False) -> int:
    """A session key that dies with the session at the latest. Raises `PKCS11Error`."""
    ref = KeyRef("strongroom-detect", os.urandom(16))
    return keys.generate(worker.session, ref, algorithm, kwp=kwp, store=False)


def discard(worker: Worker, key: int) -> None:
    """Destroy a throwaway key, and its public half."""
    with contextlib.suppress(CryptokiError):  # they die with their session at the latest
        keys.destroy_all(worker, obj.read(worker, key, (obj.CKA_ID,))[obj.CKA_ID], stored=False)


def signatures(worker: Worker) -> Iterator[SignatureAlgorithm]:
    """The signature algorithms that work."""
    for algorithm in SignatureAlgorithm:
        try:
            key = throwaway(worker, algorithm.key_algorithm)
        except _FAILURES:
            continue
        try:
            sign(worker, key, algorithm, _AAD)
        except _FAILURES:
            continue
        else:
            yield algorithm
        finally:
            discard(worker, key)


def mac(worker: Worker) -> bool:
    """Whether HMAC-SHA256 works."""
    try:
        key = throwaway(worker, KeyAlgorithm.HMAC_SHA256)
    except _FAILURES:
        return False
    try:
        worker.sign(key, cryptoki.CKM_SHA256_HMAC, _AAD, 32)
    except _FAILURES:
        return False
    finally:
        discard(worker, key)
    return True


def random(worker: Worker) -> bool:
    """Whether the token has a generator, that does not repeat itself."""
    try:
        return worker.random(32) != worker.random(32)
    except _FAILURES:
        return False


def sign(worker: Worker, key: int, algorithm: SignatureAlgorithm, message: bytes) -> bytes:
    """Sign; ECDSA by a digest made here, as raw ECDSA is the one form that every module has."""
    if algorithm is SignatureAlgorithm.ES256:
        return worker.sign(key, cryptoki.CKM_ECDSA, hashlib.sha256(message).digest(), 64)
    return worker.sign(key, cryptoki.CKM_EDDSA, message, 64)
