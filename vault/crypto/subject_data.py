"""What is stored of a data subject: a bundle, encrypted once more under the subject's own key, within its envelope.

Layout:

    format           1 byte    2; a bundle, which stands in its place for what concerns no subject, begins with 1
    suite            2 bytes
    subject         16 bytes   the pseudonym
    nonce           12 bytes
    ciphertext       the rest, with the 16-byte tag at its end

The key is derived from the subject's key by HKDF-SHA256 over suite, tenant, credential, version and subject, which is
the associated data too. Rewrapping and re-encrypting an envelope do not touch it, and need not know the subject.
"""

from __future__ import annotations

import base64
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vault.crypto import suites
from vault.crypto.encoding import encode
from vault.crypto.errors import FormatError, IntegrityError
from vault.crypto.memory import LockedBuffer, allocate

FORMAT = 2
_SUBJECT_AT, _NONCE_AT = 3, 19


def seal(
    suite: suites.Suite,
    subject_id: str,
    key: LockedBuffer,
    name: str,
    version: int,
    plaintext: memoryview,
    *,
    nonce: bytes | None = None,
) -> LockedBuffer:
    """Encrypt for one version of a credential. `nonce` is for tests only. Raises `FormatError`."""
    nonce = os.urandom(suite.nonce_bytes) if nonce is None else nonce
    bound = _bound(suite, name, version, subject_id)
    head = bytes((FORMAT,)) + suite.number.to_bytes(2, "big") + _raw(subject_id) + nonce
    out = allocate(len(head) + len(plaintext) + suite.tag_bytes)
    out.view[: len(head)] = head
    with _derive(key, bound) as derived:
        suite.aead(derived.view).encrypt_into(nonce, plaintext, bound, out.view[len(head) :])
    return out


def subject_of(content: memoryview) -> str | None:
    """The pseudonym of the subject that the content of an envelope is of; None if it is of none."""
    if len(content) < _NONCE_AT or content[0] != FORMAT:
        return None
    return base64.urlsafe_b64encode(bytes(content[_SUBJECT_AT:_NONCE_AT])).rstrip(b"=").decode()


def open(content: memoryview, key: LockedBuffer, name: str, version: int) -> LockedBuffer:  # noqa: A001 - the pair of seal
    """Decrypt into locked memory. Raises `FormatError`, `IntegrityError`, `UnknownSuite`."""
    subject_id = subject_of(content)
    if subject_id is None:
        raise FormatError("not the data of a subject")
    suite = suites.suite(int.from_bytes(content[1:_SUBJECT_AT], "big"))
    ciphertext_at = _NONCE_AT + suite.nonce_bytes
    size = len(content) - ciphertext_at - suite.tag_bytes
    if size < 0:
        raise FormatError("the data of a subject is cut short")
    bound = _bound(suite, name, version, subject_id)
    plaintext = allocate(size)
    try:
        with _derive(key, bound) as derived:
            suite.aead(derived.view).decrypt_into(
                bytes(content[_NONCE_AT:ciphertext_at]),
                bytes(content[ciphertext_at:]),
                bound,
                plaintext.view,
            )
    except InvalidTag:
        plaintext.close()
        raise IntegrityError("the data of a subject does not verify") from None
    return plaintext


def _raw(subject_id: str) -> bytes:
    raw = base64.urlsafe_b64decode(subject_id + "==")
    if len(raw) != _NONCE_AT - _SUBJECT_AT:
        raise FormatError("a pseudonym is 16 bytes")
    return raw


def _bound(suite: suites.Suite, name: str, version: int, subject_id: str) -> bytes:
    return encode(
        "strongroom/subject-data/v1", FORMAT, suite.number, name.partition("/")[0], name, version, subject_id
    )


def _derive(key: LockedBuffer, bound: bytes) -> LockedBuffer:
    # The subject's key is uniformly random: no extract step (RFC 5869, section 3.3).
    out = allocate(32)
    HKDFExpand(hashes.SHA256(), 32, b"key\0" + bound).derive_into(key.view, out.view)
    return out
