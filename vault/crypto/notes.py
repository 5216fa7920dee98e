r"""Signed notes and checkpoints, in the forms of C2SP, which witnesses read.

(`signed-note`, `tlog-checkpoint`, `tlog-cosignature`.) A note is a text, an empty line, and signature lines
`— NAME BASE64(key id || signature)`. A checkpoint's text is three lines: origin, size, root in base64. A verifier key
is `NAME+HEXID+BASE64(type || public key)`; the id: the first four bytes of SHA-256 over `NAME\n`, type and key. Types:

- 0x01: Ed25519, the raw key; signs the text.
- 0x02: ECDSA, the DER of the SubjectPublicKeyInfo (P-256, P-384 or P-521), its id from SHA-256 over that DER alone;
  signs the text.
- 0x04: Ed25519 cosignature, and 0x06: ML-DSA-44 cosignature (FIPS 204), the raw key; the signature is eight bytes of
  POSIX time, then one over time and checkpoint.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from vault.crypto.errors import FormatError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable

_ED25519 = b"\x01"
_ECDSA = b"\x02"
_ED25519_COSIGNATURE = b"\x04"
_ML_DSA_COSIGNATURE = b"\x06"
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
_ML_DSA_KEY = 1312
_TIME_BYTES = 8
_SUBTREE_LABEL = b"subtree/v1\n\0"

_PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | mldsa.MLDSA44PublicKey


class CheckpointHead(NamedTuple):
    """What a checkpoint says."""

    origin: str
    size: int
    root: bytes


class _Verifier(NamedTuple):
    name: str
    key_id: bytes
    key: _PublicKey
    cosigns: bool = False


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


def cosigner_key(name: str, key: ed25519.Ed25519PublicKey | mldsa.MLDSA44PublicKey) -> str:
    """The verifier key of a key that makes timed cosignatures. Raises `FormatError`."""
    if not _valid_name(name):
        raise FormatError("a key's name has neither spaces nor +")
    kind = _ED25519_COSIGNATURE if isinstance(key, ed25519.Ed25519PublicKey) else _ML_DSA_COSIGNATURE
    typed = kind + key.public_bytes_raw()
    return f"{name}+{_key_id(name, typed).hex()}+{base64.b64encode(typed).decode()}"


def is_post_quantum(verifier: str) -> bool:
    """Whether the signatures of this key withstand a break of elliptic curves. Raises `FormatError`."""
    return isinstance(_parse_verifier(verifier).key, mldsa.MLDSA44PublicKey)


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
    return f"{body}\n{_line(signer, signature)}"


def cosigned_message(verifier: str, body: str, seconds: int) -> bytes:
    """What a cosigner signs: the checkpoint's text or head, and the POSIX time. Raises `FormatError`."""
    return _cosigned(_parse_verifier(verifier), body, seconds)


def cosignature_line(verifier: str, seconds: int, signature: bytes) -> str:
    """The signature line of a cosignature, to be put at the end of a note. Raises `FormatError`."""
    return _line(_parse_verifier(verifier), seconds.to_bytes(_TIME_BYTES, "big") + signature)


class UnknownSignerError(IntegrityError):
    """No key that is known signed the note."""


class Verified(NamedTuple):
    """A note's text, and those of the known keys that signed it."""

    body: str
    signers: tuple[str, ...]


def verify_signatures(note: str, verifiers: Iterable[str]) -> Verified:
    """The note's text and who signed it, at least one known key.

    Raises `FormatError`, `UnknownSignerError`, `IntegrityError`.
    """
    text, found, signatures = note.rpartition("\n\n")
    if not found or not signatures.endswith("\n") or _has_controls(note):
        raise FormatError("not a signed note")
    lines = signatures.split("\n")[:-1]
    if len(lines) > _MAX_SIGNATURES:
        raise FormatError("a note has signatures too many")
    body = text + "\n"
    keys = {verifier: _parse_verifier(verifier) for verifier in verifiers}
    signers: dict[str, None] = {}
    for line in lines:
        name, raw = _parse_line(line)
        for verifier, key in keys.items():
            if (key.name, key.key_id) == (name, raw[:_ID_BYTES]):
                # A bad signature by a known key spoils the note, even beside a good one.
                _verify(key, raw[_ID_BYTES:], body)
                signers[verifier] = None
    if not signers:
        raise UnknownSignerError("no known key signed the note")
    return Verified(body, tuple(signers))


def verify_note(note: str, verifiers: Iterable[str]) -> str:
    """The note's text, if one of these keys signed it. Raises `FormatError`, `IntegrityError`."""
    return verify_signatures(note, verifiers).body


def verify_checkpoint(note: str, verifiers: Iterable[str]) -> CheckpointHead:
    """What a checkpoint says, if one of these keys signed it. Raises `FormatError`, `IntegrityError`."""
    return checkpoint_head(verify_note(note, verifiers))


def checkpoint_head(body: str) -> CheckpointHead:
    """What a checkpoint's text says. Raises `FormatError`."""
    lines = body.split("\n")[:-1]
    # What follows the three lines is opaque, but no line may be empty.
    if len(lines) < _HEAD_LINES or not all(lines) or not _canonical_number(lines[1]):
        raise FormatError("not a checkpoint")
    root = _base64(lines[2])
    if len(root) != _ROOT_BYTES:
        raise FormatError("not a checkpoint")
    return CheckpointHead(lines[0], int(lines[1]), root)


def _parse_line(line: str) -> tuple[str, bytes]:
    """A signature line's key name, and key id with signature."""
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    raw = _base64(encoded)
    if dash != _DASH or not _valid_name(name) or len(raw) <= _ID_BYTES:
        raise FormatError("not a signed note")
    return name, raw


def _line(signer: _Verifier, signature: bytes) -> str:
    return f"{_DASH} {signer.name} {base64.b64encode(signer.key_id + signature).decode()}\n"


def _verify(verifier: _Verifier, signature: bytes, body: str) -> None:
    message = body.encode()
    if verifier.cosigns:
        seconds = int.from_bytes(signature[:_TIME_BYTES], "big")
        message, signature = _cosigned(verifier, body, seconds), signature[_TIME_BYTES:]
    try:
        if isinstance(verifier.key, ec.EllipticCurvePublicKey):
            verifier.key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            verifier.key.verify(signature, message)
    except InvalidSignature:
        raise IntegrityError("a signature does not verify") from None


def _cosigned(cosigner: _Verifier, body: str, seconds: int) -> bytes:
    if not 0 < seconds < 1 << 63:
        raise FormatError("a cosignature has a time")
    if isinstance(cosigner.key, ed25519.Ed25519PublicKey):
        return f"cosignature/v1\ntime {seconds}\n{body}".encode()
    head = checkpoint_head(body)
    name, origin = cosigner.name.encode(), head.origin.encode()
    if max(len(name), len(origin)) > 0xFF:  # noqa: PLR2004 - what one byte of length can say
        raise FormatError("a name is too long")
    return b"".join(
        (
            _SUBTREE_LABEL,
            bytes((len(name),)),
            name,
            seconds.to_bytes(8, "big"),
            bytes((len(origin),)),
            origin,
            bytes(8),
            head.size.to_bytes(8, "big"),
            head.root,
        )
    )


def _parse_verifier(text: str) -> _Verifier:
    name, _, rest = text.partition("+")
    hex_id, _, encoded = rest.partition("+")
    typed = _base64(encoded)
    kind, raw = typed[:1], typed[1:]
    if not _valid_name(name) or hex_id != _key_id(name, typed).hex():
        raise FormatError("not a verifier key")
    key_id = bytes.fromhex(hex_id)
    if kind in (_ED25519, _ED25519_COSIGNATURE) and len(raw) == _ED25519_KEY:
        edwards = ed25519.Ed25519PublicKey.from_public_bytes(raw)
        return _Verifier(name, key_id, edwards, cosigns=kind == _ED25519_COSIGNATURE)
    if kind == _ML_DSA_COSIGNATURE and len(raw) == _ML_DSA_KEY:
        return _Verifier(name, key_id, mldsa.MLDSA44PublicKey.from_public_bytes(raw), cosigns=True)
    if kind != _ECDSA:
        raise FormatError("not a verifier key")
    key = _load(raw)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise FormatError("not a verifier key")
    return _Verifier(name, key_id, key)


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
