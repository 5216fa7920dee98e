"""One unambiguous encoding for everything that is hashed, authenticated or bound.

Layout: for the domain and then each part, one type byte, four bytes of length (big-endian), the value:
`s` UTF-8 text, `b` bytes, `i` integer (decimal ASCII), `n` nothing (length 0). Every part says its own type and
length, so two different inputs never encode alike, and an absent part differs from an empty one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Part = bytes | str | int | None


def encode(domain: str, *parts: Part) -> bytes:
    """The canonical encoding of parts within a domain. Raises `TypeError` for anything but the types above."""
    return append(b"", domain, *parts)


def append(encoded: bytes, *parts: Part) -> bytes:
    """An encoding continued: `append(encode(domain, a), b)` is `encode(domain, a, b)`.

    For many encodings that begin or end alike. Raises `TypeError` as `encode`.
    """
    pieces = [encoded]
    add = pieces.append
    for part in parts:
        if type(part) is str:
            value, heads = part.encode(), _TEXT
        elif type(part) is int:
            value, heads = b"%d" % part, _INTEGER
        elif type(part) is bytes:
            value, heads = part, _BYTES
        elif part is None:
            add(b"n\0\0\0\0")
            continue
        else:
            raise TypeError(f"cannot encode a {type(part).__name__}")
        size = len(value)
        add(heads[size] if size < _KNOWN else heads[0][:1] + size.to_bytes(4, "big"))
        add(value)
    return b"".join(pieces)


def append_texts(encoded: bytes, texts: Sequence[str]) -> bytes:
    """The same as `append`, for texts: at half its price if all are ASCII and short, as in most records of the log."""
    try:
        joined = "".join([_SHORT_TEXT[len(text)] + text for text in texts])
    except (IndexError, TypeError):
        return append(encoded, *texts)
    # Where each character is a byte, so are those of the heads.
    return encoded + joined.encode() if joined.isascii() else append(encoded, *texts)


# Most parts are short, and their heads need not be made each time: a log is verified by the million.
_KNOWN = 1024
_TEXT, _INTEGER, _BYTES = (
    [kind + size.to_bytes(4, "big") for size in range(_KNOWN)] for kind in (b"s", b"i", b"b")
)
_SHORT_TEXT = [f"s\0\0\0{chr(size)}" for size in range(128)]
