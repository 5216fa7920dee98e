"""Time-based one-time passwords (RFC 6238) from a seed that stays in the vault.

The credential's field holds the seed in base32, as providers show it. `totp_digits` (6 to 8), `totp_period` (seconds)
and `totp_algorithm` (`SHA1`, `SHA256`, `SHA512`), if the credential has them, say how; the defaults are RFC 6238's.
"""

from __future__ import annotations

import dataclasses
import hmac
from typing import TYPE_CHECKING, NamedTuple

from vault.core.uses.material import Done, unsuitable
from vault.crypto import kinds, memory

if TYPE_CHECKING:
    from vault.core.uses.material import Material, Surroundings

_HASHES = {"SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}
_BASE32 = {code: place for place, code in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")} | {
    code: place for place, code in enumerate(b"abcdefghijklmnopqrstuvwxyz")
}
_SPACING = b" -="
_BYTE = 8
_LEAST_SEED = 10
_MOST_SEED = 256


@dataclasses.dataclass(frozen=True)
class Totp:
    """Ask for the code of this moment."""

    field_name: str


class Code(NamedTuple):
    """A code, and for how many more seconds it is the current one."""

    code: str
    seconds_left: int


async def make(material: Material, request: Totp, surroundings: Surroundings) -> Done:
    """The code of this moment."""
    digits, period, algorithm = _settings(material)
    now = int(surroundings.now().timestamp())
    with _seed(material.field(request.field_name, kinds.TOTP)) as seed:
        code = at(seed.view, now // period, digits, algorithm)
    return Done(Code(code, period - now % period), (request.field_name,))


def at(seed: memoryview, counter: int, digits: int, algorithm: str) -> str:
    """The code of one counter (RFC 4226, 5.3)."""
    mac = hmac.digest(seed, counter.to_bytes(8, "big"), _HASHES[algorithm])
    offset = mac[-1] & 0x0F
    number = int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**digits).zfill(digits)


def _settings(material: Material) -> tuple[int, int, str]:
    digits = material.public_text("totp_digits", "6")
    period = material.public_text("totp_period", "30")
    algorithm = material.public_text("totp_algorithm", "SHA1")
    if digits not in ("6", "7", "8") or period not in ("15", "30", "60") or algorithm not in _HASHES:
        raise unsuitable(
            "totp_digits: 6 to 8; totp_period: 15, 30 or 60; totp_algorithm: SHA1, SHA256 or SHA512"
        )
    return int(digits), int(period), algorithm


def _seed(text: memoryview) -> memory.LockedBuffer:
    """The seed's bytes. Decoded here, five bits at a time: the library's way leaves copies behind."""
    if len(text) > _MOST_SEED:
        raise unsuitable("the field is not a base32 seed")
    seed = memory.allocate(len(text))
    bits = held = size = 0
    for character in text:
        if character in _SPACING:
            continue
        value = _BASE32.get(character)
        if value is None:
            seed.close()
            raise unsuitable("the field is not a base32 seed")
        bits, held = (bits << 5 | value) & 0xFFF, held + 5
        if held >= _BYTE:
            held -= _BYTE
            seed.view[size] = bits >> held & 0xFF
            size += 1
    with seed:
        if size < _LEAST_SEED:
            raise unsuitable(f"a seed has at least {_LEAST_SEED} bytes")
        exact = memory.allocate(size)
        exact.view[:] = seed.view[:size]
    return exact
