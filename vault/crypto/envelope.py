"""The envelope: one credential version, encrypted under a data key (DEK) of its own.

Layout, integers big-endian:

    format version   1 byte    1
    suite            2 bytes
    KEK version      4 bytes
    wrapped DEK      2 bytes of length, then the HSM's blob
    nonce           12 bytes
    commitment      32 bytes
    ciphertext       the rest, with the 16-byte tag at its end

Two layers bind it to its row. The DEK is wrapped in the HSM with associated data that names format, suite, tenant,
credential, version, and the KEK and its version. The content key and the commitment are derived from the DEK by
HKDF-SHA256 over format, suite, tenant, credential and version. The KEK's version is bound by the wrapping alone, so a
rewrap (same DEK, newer KEK) replaces the head of the envelope and touches nothing else. What an edit meets:

    format, suite          another derivation: the commitment does not hold
    KEK version            the context that the row gives says another; and the HSM unwraps by another key and AAD
    wrapped DEK            the HSM does not unwrap it; a DEK of another row derives another commitment
    nonce, ciphertext      the tag does not hold
    commitment             it is compared first, in constant time

An older envelope of the same version, from before a rewrap, opens for as long as its KEK exists: it holds the same
secret. That a row was put back is for the audit log to show, not for the envelope.

AES-GCM and ChaCha20-Poly1305 do not commit to their key: without the commitment, one ciphertext could be made to open
under two keys (the AWS Encryption SDK derives one the same way).
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vault.crypto import suites
from vault.crypto.encoding import append, encode
from vault.crypto.errors import FormatError, IntegrityError, UnknownSuite
from vault.crypto.memory import LockedBuffer, absorb, allocate

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = 1
DEK_BYTES = 32
KEY_BYTES = 32
COMMITMENT_BYTES = 32
_HEAD = 7
_MAX_WRAPPED = 1024
_MAX_KEK_VERSION = 2**32 - 1
_SHA256 = hashes.SHA256()


@dataclass(frozen=True, slots=True)
class EnvelopeContext:
    """The row that an envelope belongs to, and the key that wraps its data key."""

    tenant: str
    credential: str
    version: int
    kek_name: str
    kek_version: int


class Envelope(NamedTuple):
    """A parsed envelope."""

    suite: int
    kek_version: int
    wrapped_dek: bytes
    nonce: bytes
    commitment: bytes
    ciphertext: bytes

    def __repr__(self) -> str:
        return f"Envelope(suite={self.suite}, kek_version={self.kek_version})"


class Head(NamedTuple):
    """What a rewrap looks at and replaces."""

    suite: int
    kek_version: int
    wrapped_dek: bytes


class Binding(NamedTuple):
    """What an envelope is bound to: its wrapped DEK by the HSM, its content by the DEK."""

    dek: bytes
    content: bytes


def new_dek() -> LockedBuffer:
    """A new data key: 256 bits from the kernel, in locked memory."""
    return absorb(os.urandom(DEK_BYTES))


def dek_places(view: memoryview) -> list[memoryview]:
    """The place of each data key in a buffer of several, one behind the other."""
    return [view[at : at + DEK_BYTES] for at in range(0, len(view), DEK_BYTES)]


def wrap_aad(suite: suites.Suite, context: EnvelopeContext) -> bytes:
    """What the HSM binds the wrapped DEK to."""
    bind = wrap_aads(suite, context.tenant, context.kek_name, context.kek_version)
    return bind(place(context.credential, context.version))


def place(credential: str, version: int) -> bytes:
    """The part of what an envelope is bound to that no key and no suite changes."""
    return append(b"", credential, version)


def wrap_aads(suite: suites.Suite, tenant: str, kek_name: str, kek_version: int) -> Callable[[bytes], bytes]:
    """`wrap_aad` for many places of a tenant under one key: what they share is encoded once."""
    head = encode("strongroom/dek/v1", FORMAT, suite.number, tenant)
    tail = append(b"", kek_name, kek_version)
    return lambda place: b"".join((head, place, tail))


def bindings(
    suite: suites.Suite, tenant: str, kek_name: str, kek_version: int
) -> Callable[[str, int], Binding]:
    """What the envelopes of many credentials and versions of a tenant under one key are bound to.

    What they share is encoded once.
    """
    bind_dek = wrap_aads(suite, tenant, kek_name, kek_version)
    content_head = _content_head(suite, tenant)

    def bind(credential: str, version: int) -> Binding:
        where = place(credential, version)
        return Binding(bind_dek(where), content_head + where)

    return bind


def seal(
    suite: suites.Suite,
    context: EnvelopeContext,
    dek: LockedBuffer,
    wrapped_dek: bytes,
    plaintext: memoryview,
    *,
    nonce: bytes | None = None,
) -> bytes:
    """Encrypt under a fresh DEK that the HSM has wrapped. `nonce` is for test vectors only.

    Raises `UnknownSuite` if the suite is retired, `FormatError` for what does not fit the layout.
    """
    if suite.status is suites.SuiteStatus.RETIRED:
        raise UnknownSuite("a retired suite seals nothing new")
    head = _head(suite.number, context.kek_version, wrapped_dek)
    nonce = os.urandom(suite.nonce_bytes) if nonce is None else nonce
    if len(nonce) != suite.nonce_bytes:
        raise FormatError("a nonce of this length does not fit the suite")
    bound = _bound(suite, context)
    commitment = _commitment(dek.view, bound)
    with allocate(KEY_BYTES) as key:
        _derive_content_key(dek.view, bound, key.view)
        ciphertext = bytearray(len(plaintext) + suite.tag_bytes)
        suite.aead(key.view).encrypt_into(nonce, plaintext, bound, memoryview(ciphertext))
    return b"".join((head, nonce, commitment, ciphertext))


def parse_head(blob: bytes) -> Head:
    """Take the head off an envelope that is whole. Raises `FormatError`, `UnknownSuite`."""
    if len(blob) < _HEAD + 2 or blob[0] != FORMAT:
        raise FormatError("not an envelope of a known format")
    suite = suites.suite(int.from_bytes(blob[1:3], "big"))
    length = int.from_bytes(blob[_HEAD : _HEAD + 2], "big")
    nonce_at = _HEAD + 2 + length
    if not 0 < length <= _MAX_WRAPPED or len(blob) < (
        nonce_at + suite.nonce_bytes + COMMITMENT_BYTES + suite.tag_bytes
    ):
        raise FormatError("an envelope is cut short")
    return Head(suite.number, int.from_bytes(blob[3:_HEAD], "big"), blob[_HEAD + 2 : nonce_at])


def parse(blob: bytes) -> Envelope:
    """Take an envelope apart. Raises `FormatError`, `UnknownSuite`."""
    number, kek_version, wrapped_dek = parse_head(blob)
    nonce_at = _HEAD + 2 + len(wrapped_dek)
    commitment_at = nonce_at + suites.suite(number).nonce_bytes
    ciphertext_at = commitment_at + COMMITMENT_BYTES
    return Envelope(
        number,
        kek_version,
        wrapped_dek,
        blob[nonce_at:commitment_at],
        blob[commitment_at:ciphertext_at],
        blob[ciphertext_at:],
    )


def open(envelope: Envelope, context: EnvelopeContext, dek: LockedBuffer) -> LockedBuffer:  # noqa: A001 - the pair of seal
    """Decrypt into locked memory. Raises `IntegrityError`; nothing is decrypted unless the commitment holds."""
    suite = suites.suite(envelope.suite)
    if envelope.kek_version != context.kek_version:
        raise IntegrityError("an envelope does not verify")
    plaintext = allocate(plaintext_bytes(envelope))
    try:
        with allocate(KEY_BYTES) as key:
            open_into(envelope, _bound(suite, context), dek.view, key.view, plaintext.view)
    except BaseException:
        plaintext.close()
        raise
    return plaintext


def plaintext_bytes(envelope: Envelope) -> int:
    """How long what is in it is."""
    return len(envelope.ciphertext) - suites.suite(envelope.suite).tag_bytes


def open_into(
    envelope: Envelope, bound: bytes, dek: memoryview, key: memoryview, plaintext: memoryview
) -> None:
    """Decrypt into a view of exactly `plaintext_bytes`: the step of `open` that is done for each of many.

    `bound` is the `Binding` of its content. `key` takes the content key, 32 bytes, and may be used again. All three
    views are of locked memory, the caller's to wipe, also when this raises: `FormatError`, `IntegrityError`; nothing
    is decrypted unless the commitment holds.
    """
    if not hmac.compare_digest(_commitment(dek, bound), envelope.commitment):
        raise IntegrityError("an envelope does not verify")
    _derive_content_key(dek, bound, key)
    try:
        suites.suite(envelope.suite).aead(key).decrypt_into(
            envelope.nonce, envelope.ciphertext, bound, plaintext
        )
    except InvalidTag:
        raise IntegrityError("an envelope does not verify") from None


def replace_wrapped_dek(blob: bytes, kek_version: int, wrapped_dek: bytes) -> bytes:
    """The same envelope under another KEK version. Raises `FormatError`."""
    return replace_head(blob, parse_head(blob), kek_version, wrapped_dek)


def replace_head(blob: bytes, head: Head, kek_version: int, wrapped_dek: bytes) -> bytes:
    """`replace_wrapped_dek` for an envelope whose head is known. Raises `FormatError`."""
    return _head(head.suite, kek_version, wrapped_dek) + blob[_HEAD + 2 + len(head.wrapped_dek) :]


def _head(suite: int, kek_version: int, wrapped_dek: bytes) -> bytes:
    if not 0 < len(wrapped_dek) <= _MAX_WRAPPED:
        raise FormatError("a wrapped DEK of this length does not fit")
    if not 0 <= kek_version <= _MAX_KEK_VERSION:
        raise FormatError("a KEK version has 32 bits")
    return b"".join(
        (
            bytes((FORMAT,)),
            suite.to_bytes(2, "big"),
            kek_version.to_bytes(4, "big"),
            len(wrapped_dek).to_bytes(2, "big"),
            wrapped_dek,
        )
    )


def _bound(suite: suites.Suite, context: EnvelopeContext) -> bytes:
    return _content_head(suite, context.tenant) + place(context.credential, context.version)


def _content_head(suite: suites.Suite, tenant: str) -> bytes:
    return encode("strongroom/envelope/v1", FORMAT, suite.number, tenant)


def _derive_content_key(dek: memoryview, bound: bytes, into: memoryview) -> None:
    # The DEK is uniformly random, so HKDF's extract step has nothing to do (RFC 5869, section 3.3).
    HKDFExpand(_SHA256, KEY_BYTES, b"key\0" + bound).derive_into(dek, into)


def _commitment(dek: memoryview, bound: bytes) -> bytes:
    """What the envelope says of its DEK for everybody to read: so it need not lie in locked memory.

    As long as the hash, HKDF-Expand is a single HMAC (RFC 5869, section 2.3).
    """
    if len(dek) != DEK_BYTES:
        raise FormatError("a data key has 32 bytes")
    return hmac.digest(dek, b"commitment\0" + bound + b"\x01", "sha256")
