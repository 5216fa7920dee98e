"""A bundle: the fields of one credential version, as plaintext, in locked memory.

Layout, integers big-endian: version byte 1; 2 bytes number of fields; for each field, sorted by name: 1 byte length of
the name, the name (`[a-z][a-z0-9_]{0,62}`), 4 bytes length of the value, the value. At most 64 fields, 64 KiB in all.
The value of a field is never made into an object of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vault.crypto.errors import CryptoError, FormatError
from vault.crypto.memory import allocate as allocate_locked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vault.crypto.memory import LockedBuffer

VERSION = 1
MAX_FIELDS = 64
MAX_BYTES = 64 * 1024
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_HEADER = 3


class UnknownField(CryptoError):  # noqa: N818 - reads as what it says
    """The bundle has no field of this name."""


def pack_into(
    fields: Mapping[str, bytes | bytearray | memoryview], allocate: Callable[[int], LockedBuffer]
) -> LockedBuffer:
    """A bundle of these fields. Raises `FormatError` for names, numbers or sizes beyond the limits."""
    if len(fields) > MAX_FIELDS:
        raise FormatError(f"at most {MAX_FIELDS} fields")
    if not all(map(_NAME.fullmatch, fields)):
        raise FormatError("a field's name must be [a-z][a-z0-9_]{0,62}")
    named = sorted((name.encode(), value) for name, value in fields.items())
    size = _HEADER + sum(5 + len(name) + len(value) for name, value in named)
    if size > MAX_BYTES:
        raise FormatError(f"at most {MAX_BYTES} bytes in all")
    buffer = allocate(size)
    view = buffer.view
    view[0] = VERSION
    view[1:3] = len(named).to_bytes(2, "big")
    at = _HEADER
    for name, value in named:
        view[at] = len(name)
        view[at + 1 : at + 1 + len(name)] = name
        at += 1 + len(name)
        view[at : at + 4] = len(value).to_bytes(4, "big")
        view[at + 4 : at + 4 + len(value)] = value
        at += 4 + len(value)
    return buffer


def field_names(view: memoryview) -> tuple[str, ...]:
    """The names of a bundle's fields, sorted. Raises `FormatError` if it is not a bundle."""
    return tuple(places(view))


def fields(view: memoryview) -> dict[str, memoryview]:
    """Views of every field's value, by name, sorted; nothing is copied. Raises `FormatError` if it is not a bundle."""
    return {name: view[place] for name, place in places(view).items()}


def field_view(view: memoryview, name: str) -> memoryview:
    """A view of a field's value; nothing is copied. Raises `UnknownField`, `FormatError`."""
    try:
        return view[places(view)[name]]
    except KeyError:
        raise UnknownField("the bundle has no such field") from None


def select(view: memoryview, names: Sequence[str]) -> LockedBuffer:
    """A bundle of some of the fields, in a locked buffer of its own. Raises `UnknownField`, `FormatError`."""
    found = places(view)
    try:
        chosen = {name: view[found[name]] for name in names}
    except KeyError:
        raise UnknownField("the bundle has no such field") from None
    return pack_into(chosen, allocate_locked)


def places(view: memoryview) -> dict[str, slice]:
    """Where every field's value lies, by name, sorted. Raises `FormatError` if it is not a bundle."""
    size = len(view)
    if not _HEADER <= size <= MAX_BYTES or view[0] != VERSION:
        raise FormatError("not a bundle")
    count = int.from_bytes(view[1:3], "big")
    if count > MAX_FIELDS:
        raise FormatError("not a bundle")
    found: dict[str, slice] = {}
    at, previous = _HEADER, ""
    for _ in range(count):
        if at >= size:
            raise FormatError("a bundle is cut short")
        start = at + 1 + view[at]
        # A name is not secret; a value is.
        name = str(view[at + 1 : start], "latin-1")
        at = start + 4
        if at > size:
            raise FormatError("a bundle is cut short")
        length = int.from_bytes(view[start:at], "big")
        if length > size - at:
            raise FormatError("a bundle is cut short")
        if name <= previous or not _NAME.fullmatch(name):
            raise FormatError("a bundle's names are malformed, repeated or not sorted")
        found[name] = slice(at, at + length)
        at, previous = at + length, name
    if at != size:
        raise FormatError("a bundle has bytes too many")
    return found
