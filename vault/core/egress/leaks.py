"""Whether a provider's answer shows a secret, in any spelling: as it is, or encoded, or encoded twice.

The answer is decoded (percent, JSON, HTML), each way and each way again, and in every form the secret is looked for as
it is, in base64 at each of its three alignments, in hex, and in UTF-16.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from urllib.parse import unquote_to_bytes

LEAST = 8
"""A shorter secret cannot be told from chance, so a request that injects one is not made."""

_JSON_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|([\"\\/bfnrt]))")
_SIMPLE = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def leaks(answer: bytes, secrets: list[bytes]) -> bool:
    """Whether any of the secrets stands in the answer."""
    patterns = [pattern for secret in secrets for pattern in _patterns(secret)]
    hexes = [binascii.hexlify(secret) for secret in secrets]
    for form in _forms(answer):
        lowered = form.lower()
        if any(pattern in form for pattern in patterns) or any(text in lowered for text in hexes):
            return True
    return False


def _patterns(secret: bytes) -> list[bytes]:
    found = [secret]
    for text in (secret.decode("latin-1"),):
        found += [text.encode("utf-16-le"), text.encode("utf-16-be")]
    for offset in range(3):
        # The first and last characters of an encoding depend on what stands around the secret: they are left out.
        encoded = base64.b64encode(bytes(offset) + secret)
        start = (0, 2, 3)[offset]
        whole = (offset + len(secret)) * 8 // 6
        core = encoded[start:whole]
        found += [core, core.translate(bytes.maketrans(b"+/", b"-_"))]
    return found


def _forms(answer: bytes) -> set[bytes]:
    forms = {answer}
    for _ in range(2):
        forms |= {decode(form) for form in forms for decode in (_percent, _json, _html)}
    # Line breaks in the middle of an encoding, as MIME has them.
    forms |= {form.translate(None, b"\r\n") for form in forms}
    return forms


def _percent(data: bytes) -> bytes:
    return unquote_to_bytes(data.replace(b"+", b" ")) if b"%" in data else data


def _json(data: bytes) -> bytes:
    def plain(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return chr(int(match[1], 16)).encode("utf-8", "surrogatepass")
        return _SIMPLE.get(match[2], match[2])

    return _JSON_ESCAPE.sub(plain, data) if b"\\" in data else data


def _html(data: bytes) -> bytes:
    return html.unescape(data.decode("latin-1")).encode("utf-8", "replace") if b"&" in data else data
