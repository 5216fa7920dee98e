"""Several bundles in one: for each, 4 bytes of length (big-endian), then the bundle. In locked memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.crypto.errors import FormatError
from vault.crypto.memory import allocate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.crypto.memory import LockedBuffer

_LENGTH = 4


def room(sizes: Sequence[int]) -> tuple[LockedBuffer, list[memoryview]]:
    """A parcel for bundles of these sizes, in order, and the view in which each is yet to be put."""
    parcel = allocate(sum(sizes) + _LENGTH * len(sizes))
    view = parcel.view
    places = []
    at = 0
    for size in sizes:
        start = at + _LENGTH
        view[at:start] = size.to_bytes(_LENGTH, "big")
        at = start + size
        places.append(view[start:at])
    return parcel, places


def join(bundles: Sequence[memoryview]) -> LockedBuffer:
    """The bundles in one locked buffer, in order."""
    parcel, places = room([len(bundle) for bundle in bundles])
    for place, bundle in zip(places, bundles, strict=True):
        place[:] = bundle
    return parcel


def split(view: memoryview) -> list[memoryview]:
    """Views of the bundles in a parcel; nothing is copied. Raises `FormatError`."""
    bundles = []
    at = 0
    while at < len(view):
        end = at + _LENGTH
        length = int.from_bytes(view[at:end], "big")
        if end > len(view) or length > len(view) - end:
            raise FormatError("a parcel is cut short")
        bundles.append(view[end : end + length])
        at = end + length
    return bundles
