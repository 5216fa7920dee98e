"""Finding out what a token can do, by doing it with short-lived keys that are never stored.

Lists of mechanisms and their flags are not believed: SoftHSM's flags for GCM are uninitialised memory,
other modules list what then fails.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

from pkcs11 import Attribute
from pkcs11.exceptions import PKCS11Error

from hsm.errors import HsmError
from hsm.model import KeyAlgorithm, KeyRef, SignatureAlgorithm
from hsm.pkcs11 import cryptoki, keys
from hsm.pkcs11.codes import CryptokiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkcs11.types import Object

    from hsm.pkcs11.worker import Worker

_FAILURES: Final = (CryptokiError, PKCS11Error, HsmError)
_AAD: Final = b"strongroom detect"


def throwaway(worker: Worker, algorithm: KeyAlgorithm, *, kwp: bool = False) -> Object:
    """A session key that dies with the session at the latest. Raises `PKCS11Error`."""
    ref = KeyRef("strongroom-detect", os.urandom(16))
    return keys.generate(worker.session, ref, algorithm, kwp=kwp, store=False)


def signatures(worker: Worker) -> Iterator[SignatureAlgorithm]:
    """The signature algorithms that work."""
    for algorithm in SignatureAlgorithm:
        try:
            key = throwaway(worker, algorithm.key_algorithm)
        except _FAILURES:
            continue
        try:
            sign(worker, keys.handle_of(key), algorithm, _AAD)
        except _FAILURES:
            continue
        else:
            yield algorithm
        finally:
            _destroy_pair(worker, key)


def mac(worker: Worker) -> bool:
    """Whether HMAC-SHA256 works."""
    try:
        key = throwaway(worker, KeyAlgorithm.HMAC_SHA256)
    except _FAILURES:
        return False
    try:
        worker.sign(keys.handle_of(key), cryptoki.CKM_SHA256_HMAC, _AAD, 32)
    except _FAILURES:
        return False
    finally:
        key.destroy()
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


def _destroy_pair(worker: Worker, private: Object) -> None:
    for thing in keys.find(worker.session, {Attribute.ID: private[Attribute.ID], Attribute.TOKEN: False}):
        thing.destroy()
