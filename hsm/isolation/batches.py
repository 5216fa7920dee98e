"""A batch to be rewrapped, as it crosses the socket: in columns, each key once, as a batch may have hundreds of items.

    keys | the place of each item's old key | of its new key | blobs | old contexts | new contexts

Byte strings of a column are joined, beside their sizes. An answer is such a column, with an error in the place of a
size where there is no blob. Nothing in it is a secret.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from hsm.errors import HsmError
from hsm.model import RewrapItem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm.model import Kek


def pack(items: Sequence[RewrapItem]) -> list[Any]:
    """A batch in columns."""
    places: dict[int, int] = {}
    keks: list[Kek] = []
    for item in items:
        for kek in (item.old, item.new):
            if id(kek) not in places:
                places[id(kek)] = len(keks)
                keks.append(kek)
    return [
        keks,
        [places[id(item.old)] for item in items],
        [places[id(item.new)] for item in items],
        _join([item.blob for item in items]),
        _join([item.old_aad for item in items]),
        _join([item.new_aad for item in items]),
    ]


def unpack(columns: Sequence[Any]) -> list[RewrapItem]:
    """The batch again. Raises `ValueError`, `TypeError` for what `pack` did not make."""
    keks, olds, news, blobs, old_aads, new_aads = columns
    return [
        RewrapItem(keks[old], blob, old_aad, keks[new], new_aad)
        for old, blob, old_aad, new, new_aad in zip(
            olds, _cut(blobs), _cut(old_aads), news, _cut(new_aads), strict=True
        )
    ]


def pack_answers(answers: Sequence[bytes | HsmError]) -> list[Any]:
    """Blobs and errors as one column."""
    sizes = [answer if isinstance(answer, HsmError) else len(answer) for answer in answers]
    return [sizes, b"".join(answer for answer in answers if isinstance(answer, bytes))]


def unpack_answers(column: Sequence[Any], count: int) -> list[bytes | HsmError]:
    """Blobs and errors again. Raises `ValueError`, `TypeError` for what is not a column of so many answers."""
    sizes, joined = column
    if len(sizes) != count:
        raise ValueError("not an answer for each")
    blobs = iter(_cut([[size for size in sizes if not isinstance(size, HsmError)], joined]))
    return [size if isinstance(size, HsmError) else next(blobs) for size in sizes]


def _join(values: Sequence[bytes]) -> list[Any]:
    return [list(map(len, values)), b"".join(values)]


def _cut(column: Sequence[Any]) -> list[bytes]:
    sizes, joined = column
    whole = bytes(joined)
    ends = list(accumulate(sizes))
    if any(size < 0 for size in sizes) or (ends[-1] if ends else 0) != len(whole):
        raise ValueError("sizes that do not fit")
    return [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]
