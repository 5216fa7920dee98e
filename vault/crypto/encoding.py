"""One unambiguous encoding for everything that is hashed, authenticated or bound.

Layout: for the domain and then each part, one type byte, four bytes of length (big-endian), the value:
`s` UTF-8 text, `b` bytes, `i` integer (decimal ASCII), `n` nothing (length 0). Every part says its own type and
length, so two different inputs never encode alike, and an absent part differs from an empty one.
"""

from __future__ import annotations

Part = bytes | str | int | None


def encode(domain: str, *parts: Part) -> bytes:
    """The canonical encoding of parts within a domain. Raises `TypeError` for anything but the types above."""
    pieces = [_text(domain)]
    for part in parts:
        if type(part) is str:
            pieces.append(_text(part))
        elif type(part) is int:
            value = b"%d" % part
            pieces.append(b"i" + len(value).to_bytes(4, "big") + value)
        elif type(part) is bytes:
            pieces.append(b"b" + len(part).to_bytes(4, "big") + part)
        elif part is None:
            pieces.append(b"n\0\0\0\0")
        else:
            raise TypeError(f"cannot encode a {type(part).__name__}")
    return b"".join(pieces)


def _text(text: str) -> bytes:
    value = text.encode()
    size = len(value)
    return (_HEADS[size] if size < _KNOWN else b"s" + size.to_bytes(4, "big")) + value


# Most texts are short, and their heads need not be made each time: a log is verified by the million.
_KNOWN = 256
_HEADS = [b"s" + size.to_bytes(4, "big") for size in range(_KNOWN)]
