"""One data key wrapped in several places, as one blob: what a mirrored key's wrapped data key is. Pure functions.

    byte 0      2; an HSM's own blob begins with another number (`hsm.blob`)
    byte 1      how many copies, 2 to 4
    copies      each 2 bytes of length, big endian, then the HSM's blob

The copies stand in the order of the key's homes. A copy is bound to the row by the HSM, each on its own; a
wrapped data key in one place only is the HSM's blob as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vault.crypto.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

SEVERAL: Final = 2
_MOST: Final = 4


def join(blobs: Sequence[bytes]) -> bytes:
    """The copies as one blob. Raises `FormatError`."""
    if len(blobs) == 1:
        return blobs[0]
    if not 1 < len(blobs) <= _MOST:
        raise FormatError("a data key lies in one to four places")
    return b"".join((bytes((SEVERAL, len(blobs))), *(len(blob).to_bytes(2, "big") + blob for blob in blobs)))


def split(blob: bytes) -> tuple[bytes, ...]:
    """The copies in a blob. Raises `FormatError`."""
    if blob[:1] != bytes((SEVERAL,)):
        return (blob,)
    copies = []
    place = 2
    while place < len(blob):
        start = place + 2
        place = start + int.from_bytes(blob[place:start], "big")
        copies.append(blob[start:place])
    if place != len(blob) or not 1 < len(copies) <= _MOST or len(copies) != blob[1] or not all(copies):
        raise FormatError("copies of a wrapped key are cut short")
    return tuple(copies)
