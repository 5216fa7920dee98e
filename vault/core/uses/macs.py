"""HMAC with a key that stays in the vault: made, and verified in constant time (RFC 2104, FIPS 198-1).

Two forms. A *separated* MAC is made with a key derived from the field for this purpose alone (HKDF, RFC 5869), so
whoever may ask for it cannot have a provider's signature made, whatever the message. A *raw* MAC is made with the
field's own bytes: that is the power to sign as the holder of the secret, and has a scope of its own.
"""

from __future__ import annotations

import dataclasses
import enum
import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vault.core.uses.material import Done, message, unsuitable
from vault.crypto import kinds, memory
from vault.crypto.encoding import encode
from vault.errors import invalid_field

if TYPE_CHECKING:
    from vault.core.uses.material import Material, Surroundings, Told

_LEAST_KEY = 16
_MAX_CONTEXT = 128


class MacHash(enum.StrEnum):
    """The hash of an HMAC."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


_HASHES: dict[MacHash, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    MacHash.SHA256: hashes.SHA256(),
    MacHash.SHA384: hashes.SHA384(),
    MacHash.SHA512: hashes.SHA512(),
}


@dataclasses.dataclass(frozen=True)
class Hmac:
    """Ask for a separated MAC. Other contexts give other keys."""

    field_name: str
    message: bytes
    hash: MacHash
    context: str = ""


@dataclasses.dataclass(frozen=True)
class RawHmac:
    """Ask for a MAC with the field's own bytes as the key."""

    field_name: str
    message: bytes
    hash: MacHash


@dataclasses.dataclass(frozen=True)
class VerifyHmac:
    """Ask whether a MAC is right."""

    request: Hmac | RawHmac
    mac: bytes


async def make(material: Material, request: Hmac | RawHmac, _surroundings: Surroundings) -> Done:
    """Make a MAC."""
    return Done(_mac(material, request), (request.field_name,), _said(request))


async def verify(material: Material, request: VerifyHmac, _surroundings: Surroundings) -> Done:
    """Whether the MAC is the right one, whole: a shortened MAC never is."""
    valid = hmac.compare_digest(_mac(material, request.request), request.mac)
    asked = request.request
    return Done(valid, (asked.field_name,), {**_said(asked), "valid": valid})


def _said(request: Hmac | RawHmac) -> dict[str, Told]:
    return {"hash": request.hash.value, "form": "raw" if isinstance(request, RawHmac) else "separated"}


def _mac(material: Material, request: Hmac | RawHmac) -> bytes:
    data = message("message", request.message)
    if isinstance(request, Hmac) and len(request.context) > _MAX_CONTEXT:
        raise invalid_field("context", f"at most {_MAX_CONTEXT} characters")
    key = material.field(request.field_name, kinds.HMAC)
    if len(key) < _LEAST_KEY:
        raise unsuitable(f"an HMAC key has at least {_LEAST_KEY} bytes")
    if isinstance(request, RawHmac):
        return hmac.digest(key, data, request.hash.value)
    algorithm = _HASHES[request.hash]
    info = encode("strongroom/hmac/v1", request.hash.value, request.context)
    with memory.allocate(algorithm.digest_size) as derived:
        HKDF(algorithm, algorithm.digest_size, salt=None, info=info).derive_into(key, derived.view)
        return hmac.digest(derived.view, data, request.hash.value)
