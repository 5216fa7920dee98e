r"""Signed notes and checkpoints, in the forms of C2SP (`signed-note`, `tlog-checkpoint`), which witnesses read.

A note is a text, an empty line, and signature lines `— NAME BASE64(key id || signature)`. A checkpoint's text is three
lines: origin, size, root in base64. A verifier key is `NAME+HEXID+BASE64(type || public key)`; the id is the first
four bytes of SHA-256 over `NAME\n`, type and key. Type 0x01 is Ed25519 with the raw key, type 0x02 is ECDSA with the
DER of the SubjectPublicKeyInfo (P-256, P-384 or P-521) and its id from SHA-256 over that DER alone.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
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
_RAW_ED25519 = 64
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_MAX_SIGNATURES = 100
_MAX_DIGITS = 20  # of a 64-bit number
_ROOT_BYTES = 32
_HEAD_LINES = 3
_ED25519_KEY = 32


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
    if not _valid_name(name):
        raise FormatError("a key's name has neither spaces nor +")
    key = _load(spki)
    typed = _ED25519 + key.public_bytes_raw() if isinstance(key, ed25519.Ed25519PublicKey) else _ECDSA + spki
    return f"{name}+{_key_id(name, typed).hex()}+{base64.b64encode(typed).decode()}"


def sign_with(body: str, verifier: str, signature: bytes) -> str:
    """A note of a text and a signature over it: Ed25519, or ECDSA with SHA-256 as raw `r || s`.

    The text is lines, each with its end. Raises `FormatError`.
    """
    if not body.endswith("\n") or _has_controls(body):
        raise FormatError("a note's text is lines, without control characters")
    signer = _parse_verifier(verifier)
    if isinstance(signer.key, ec.EllipticCurvePublicKey):
        if len(signature) != _RAW_ECDSA:
            raise FormatError("not a raw signature by P-256")
        signature = encode_dss_signature(
            int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        )
    elif len(signature) != _RAW_ED25519:
        raise FormatError("not a signature by Ed25519")
    return f"{body}\n{_DASH} {signer.name} {base64.b64encode(signer.key_id + signature).decode()}\n"


def verify_note(note: str, verifiers: Iterable[str]) -> str:
    """The note's text, if one of these keys signed it. Raises `FormatError`, `IntegrityError`."""
    text, found, signatures = note.rpartition("\n\n")
    if not found or not signatures.endswith("\n") or _has_controls(note):
        raise FormatError("not a signed note")
    lines = signatures.split("\n")[:-1]
    if len(lines) > _MAX_SIGNATURES:
        raise FormatError("a note has signatures too many")
    body = text + "\n"
    keys = [_parse_verifier(verifier) for verifier in verifiers]
    verified = False
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        raw = _base64(encoded)
        if dash != _DASH or not _valid_name(name) or len(raw) <= _ID_BYTES:
            raise FormatError("not a signed note")
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
    lines = verify_note(note, verifiers).split("\n")[:-1]
    # What follows the three lines is opaque, but no line may be empty.
    if len(lines) < _HEAD_LINES or not all(lines) or not _canonical_number(lines[1]):
        raise FormatError("not a checkpoint")
    root = _base64(lines[2])
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
    typed = _base64(encoded)
    if not _valid_name(name) or hex_id != _key_id(name, typed).hex():
        raise FormatError("not a verifier key")
    if typed[:1] == _ED25519 and len(typed) == 1 + _ED25519_KEY:
        return _Verifier(name, bytes.fromhex(hex_id), ed25519.Ed25519PublicKey.from_public_bytes(typed[1:]))
    key = _load(typed[1:])
    if typed[:1] != _ECDSA or not isinstance(key, ec.EllipticCurvePublicKey):
        raise FormatError("not a verifier key")
    return _Verifier(name, bytes.fromhex(hex_id), key)


def _load(spki: bytes) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("not a public key") from None
    if isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    ):
        return key
    raise FormatError("neither an Ed25519 nor an ECDSA key")


def _key_id(name: str, typed: bytes) -> bytes:
    if typed[:1] == _ECDSA:
        return hashlib.sha256(typed[1:]).digest()[:_ID_BYTES]
    return hashlib.sha256(name.encode() + b"\n" + typed).digest()[:_ID_BYTES]


def _canonical_number(text: str) -> bool:
    digits = len(text) <= _MAX_DIGITS and text.isascii() and text.isdigit()
    return digits and (text == "0" or text[0] != "0")


def _valid_name(name: str) -> bool:
    return bool(name) and not any(character.isspace() or character == "+" for character in name)


def _has_controls(text: str) -> bool:
    """Whether there is a control character but the line's end, or half of a surrogate pair."""
    return any(
        (character < " " and character != "\n") or "\ud800" <= character <= "\udfff" for character in text
    )


def _base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise FormatError("not base64") from None
    if base64.b64encode(data).decode() != text:
        raise FormatError("not the one base64 form of these bytes")
    return data
