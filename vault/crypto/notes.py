r"""Signed notes and checkpoints, in the forms of C2SP (`signed-note`, `tlog-checkpoint`), which witnesses read.

A note is a text, an empty line, and signature lines `— NAME BASE64(key id || signature)`. A checkpoint's text is three
lines: origin, size, root in base64. A verifier key is `NAME+HEXID+BASE64(type || public key)`; the id is the first
four bytes of SHA-256 over `NAME\n`, type and key. Type 0x01 is Ed25519 with the raw key, type 0x02 is ECDSA with the
DER of the SubjectPublicKeyInfo and its id from SHA-256 over that DER alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from vault.crypto.errors import FormatError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable

_ED25519 = b"\x01"
_ECDSA = b"\x02"
_DASH = "\u2014"
_ID_BYTES = 4
_RAW_ECDSA = 64
_ROOT_BYTES = 32


class CheckpointHead(NamedTuple):
    """What a checkpoint says."""

    origin: str
    size: int
    root: bytes


class _Verifier(NamedTuple):
    name: str
    key_id: bytes
    key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


def checkpoint_body(origin: str, size: int, root: bytes) -> str:
    """The text of a checkpoint, which is what is signed."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def verifier_key(name: str, spki: bytes) -> str:
    """The verifier key of a public key given as SubjectPublicKeyInfo (DER). Raises `FormatError`."""
    if not name or any(character.isspace() or character == "+" for character in name):
        raise FormatError("a key's name has neither spaces nor +")
    key = serialization.load_der_public_key(spki)
    if isinstance(key, ed25519.Ed25519PublicKey):
        typed = _ED25519 + key.public_bytes_raw()
    elif isinstance(key, ec.EllipticCurvePublicKey):
        typed = _ECDSA + spki
    else:
        raise FormatError("neither an Ed25519 nor an ECDSA key")
    return f"{name}+{_key_id(name, typed).hex()}+{base64.b64encode(typed).decode()}"


def sign_with(body: str, verifier: str, signature: bytes) -> str:
    """A note of a text and a signature over it: Ed25519, or ECDSA with SHA-256 as raw `r || s`."""
    signer = _parse_verifier(verifier)
    if isinstance(signer.key, ec.EllipticCurvePublicKey):
        if len(signature) != _RAW_ECDSA:
            raise FormatError("not a raw signature by P-256")
        signature = encode_dss_signature(
            int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        )
    return f"{body}\n{_DASH} {signer.name} {base64.b64encode(signer.key_id + signature).decode()}\n"


def verify_note(note: str, verifiers: Iterable[str]) -> str:
    """The note's text, if one of these keys signed it. Raises `FormatError`, `IntegrityError`."""
    text, found, signatures = note.rpartition("\n\n")
    if not found or not signatures.endswith("\n"):
        raise FormatError("not a signed note")
    body = text + "\n"
    keys = [_parse_verifier(verifier) for verifier in verifiers]
    verified = False
    for line in signatures.splitlines():
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != _DASH or not name:
            raise FormatError("not a signed note")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise FormatError("not a signed note") from None
        for key in keys:
            if (key.name, key.key_id) == (name, raw[:_ID_BYTES]):
                # A bad signature by a known key spoils the note, even beside a good one.
                _verify(key, raw[_ID_BYTES:], body.encode())
                verified = True
    if not verified:
        raise IntegrityError("no known key signed the note")
    return body


def verify_checkpoint(note: str, verifiers: Iterable[str]) -> CheckpointHead:
    """What a checkpoint says, if one of these keys signed it. Raises `FormatError`, `IntegrityError`."""
    lines = verify_note(note, verifiers).split("\n")
    if len(lines) < 4 or not lines[0] or not _canonical_number(lines[1]):  # noqa: PLR2004 - three lines and the end
        raise FormatError("not a checkpoint")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except binascii.Error:
        raise FormatError("not a checkpoint") from None
    if len(root) != _ROOT_BYTES:
        raise FormatError("not a checkpoint")
    return CheckpointHead(lines[0], int(lines[1]), root)


def _verify(verifier: _Verifier, signature: bytes, message: bytes) -> None:
    try:
        if isinstance(verifier.key, ed25519.Ed25519PublicKey):
            verifier.key.verify(signature, message)
        else:
            verifier.key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise IntegrityError("a signature does not verify") from None


def _parse_verifier(text: str) -> _Verifier:
    name, _, rest = text.partition("+")
    hex_id, _, encoded = rest.partition("+")
    try:
        typed = base64.b64decode(encoded, validate=True)
        key_id = bytes.fromhex(hex_id)
        if typed[:1] == _ED25519:
            key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey = (
                ed25519.Ed25519PublicKey.from_public_bytes(typed[1:])
            )
        elif typed[:1] == _ECDSA:
            loaded = serialization.load_der_public_key(typed[1:])
            if not isinstance(loaded, ec.EllipticCurvePublicKey):
                raise FormatError("not a verifier key")
            key = loaded
        else:
            raise FormatError("not a verifier key")
    except ValueError:
        raise FormatError("not a verifier key") from None
    if not name or key_id != _key_id(name, typed):
        raise FormatError("not a verifier key")
    return _Verifier(name, key_id, key)


def _key_id(name: str, typed: bytes) -> bytes:
    if typed[:1] == _ECDSA:
        return hashlib.sha256(typed[1:]).digest()[:_ID_BYTES]
    return hashlib.sha256(name.encode() + b"\n" + typed).digest()[:_ID_BYTES]


def _canonical_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")
