"""Whether a provider's answer shows a secret, in any spelling: as it is, or encoded, or encoded twice.

The answer is decoded (percent, with a plus as it is or as a space, JSON, the escapes of other languages and of mail,
HTML, base64, hex, lists of bytes, UTF-16), each way and each way again. In every form the secret is looked for as it
is, in base64 at each of its three alignments, in base32 at each of its five, in hex, and in UTF-16.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import html
import re
from urllib.parse import unquote_to_bytes

LEAST = 8
"""A shorter secret cannot be told from chance, so a request that injects one is not made."""

_JSON_ESCAPE = re.compile(rb"((?:\\u[0-9a-fA-F]{4})+)|\\([\"\\/bfnrt])")
_SIMPLE = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{11,}")
_HEX = re.compile(rb"[0-9a-fA-F]{16,}")
_ESCAPE = re.compile(
    rb"=\r?\n|(?:=|\\x|%u00|\\u00)([0-9a-fA-F]{2})|\\u\{0{0,4}([0-9a-fA-F]{2})\}|\\([0-3][0-7]{2})"
)
_LISTS = (
    (16, re.compile(rb"(?:(?:0[xX])?[0-9a-fA-F]{2}(?:, ?|[ :;-])){7,}(?:0[xX])?[0-9a-fA-F]{2}")),
    (10, re.compile(rb"(?:[0-9]{1,3}, ?){7,}[0-9]{1,3}")),
)
_LISTED = re.compile(rb"0[xX][0-9a-fA-F]{2}|[0-9a-fA-F]+")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def leaks(answer: bytes, secrets: list[bytes]) -> bool:
    """Whether any of the secrets stands in the answer."""
    patterns = [pattern for secret in secrets for pattern in _patterns(secret)]
    of_any_case = [pattern for secret in secrets for pattern in (binascii.hexlify(secret), *_base32(secret))]
    for form in _forms(answer):
        lowered = form.lower()
        if any(pattern in form for pattern in patterns) or any(text in lowered for text in of_any_case):
            return True
    return False


def _patterns(secret: bytes) -> list[bytes]:
    found = [secret]
    for encoding in ("latin-1", "utf-8"):
        for other in ("utf-16-le", "utf-16-be", "latin-1"):
            with contextlib.suppress(UnicodeError):
                found.append(secret.decode(encoding).encode(other))
    for offset in range(3):
        # The first and last characters of an encoding depend on what stands around the secret: they are left out.
        encoded = base64.b64encode(bytes(offset) + secret)
        start = (0, 2, 3)[offset]
        whole = (offset + len(secret)) * 8 // 6
        core = encoded[start:whole]
        found += [core, core.translate(bytes.maketrans(b"+/", b"-_"))]
    return found


def _base32(secret: bytes) -> list[bytes]:
    """What of its base32 does not depend on what stands around it, for each of the places where it may begin."""
    found = []
    for offset in range(5):
        encoded = base64.b32encode(bytes(offset) + secret).lower()
        found.append(encoded[-(-offset * 8 // 5) : (offset + len(secret)) * 8 // 5])
    return found


def _forms(answer: bytes) -> set[bytes]:
    # Line breaks in the middle of an encoding, as MIME has them.
    forms = {answer, answer.translate(None, b"\r\n")}
    newest = set(forms)
    for _ in range(2):
        newest = {decode(form) for form in newest for decode in _DECODERS} - forms
        forms |= newest
    return forms | {form.translate(None, b"\r\n") for form in forms}


def _percent(data: bytes) -> bytes:
    return unquote_to_bytes(data) if b"%" in data else data


def _form(data: bytes) -> bytes:
    """The same, as forms have it: a plus is a space."""
    return unquote_to_bytes(data.replace(b"+", b" ")) if b"+" in data else data


def _json(data: bytes) -> bytes:
    def plain(match: re.Match[bytes]) -> bytes:
        if match[1]:
            units = bytes.fromhex(match[1].replace(b"\\u", b"").decode())
            return units.decode("utf-16-be", "surrogatepass").encode("utf-8", "surrogatepass")
        return _SIMPLE.get(match[2], match[2])

    return _JSON_ESCAPE.sub(plain, data) if b"\\" in data else data


def _escapes(data: bytes) -> bytes:
    """What other languages, and mail (RFC 2045, 6.7), write for a byte."""

    def plain(match: re.Match[bytes]) -> bytes:
        pair = match[1] or match[2]
        return bytes([int(pair, 16) if pair else int(match[3], 8)]) if pair or match[3] else b""

    return _ESCAPE.sub(plain, data) if b"\\" in data or b"=" in data or b"%u" in data else data


def _lists(data: bytes) -> bytes:
    """Bytes one by one, in hex or in decimals, as programs print them."""
    found = []
    for base, runs in _LISTS:
        for run in runs.finditer(data):
            # With a number that is no byte it is a list of something else.
            with contextlib.suppress(ValueError):
                found.append(bytes(int(part, base) for part in _LISTED.findall(run[0])))
    return b"\n".join(found)


def _html(data: bytes) -> bytes:
    return html.unescape(data.decode("latin-1")).encode("utf-8", "replace") if b"&" in data else data


def _base64(data: bytes) -> bytes:
    """Whatever could be base64, decoded from each of the places where a group of four may begin."""
    runs = [run[0][start:] for run in _BASE64.finditer(data.translate(_URL_SAFE)) for start in range(4)]
    return b"\n".join(binascii.a2b_base64(_whole(run) + b"=" * (-len(_whole(run)) % 4)) for run in runs)


def _whole(run: bytes) -> bytes:
    """A run without a last character that could not be one of base64."""
    return run[:-1] if len(run) % 4 == 1 else run


def _hex(data: bytes) -> bytes:
    runs = [run[0][start:] for run in _HEX.finditer(data) for start in range(2)]
    return b"\n".join(binascii.unhexlify(run[: len(run) // 2 * 2]) for run in runs)


def _narrow(data: bytes) -> bytes:
    """UTF-16, either end first, of what is ASCII."""
    return data.translate(None, b"\0")


_DECODERS = (_percent, _form, _json, _escapes, _html, _base64, _hex, _lists, _narrow)
