"""Certificates that are kept as fields of credentials: what is read of them, by who seals them and by the vault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from vault.crypto.errors import FormatError
from vault.crypto.memory import wipe

if TYPE_CHECKING:
    import datetime


def expire_time(chain: bytes | bytearray | memoryview) -> datetime.datetime:
    """When the first certificate of a chain in PEM ends, UTC. Raises `FormatError` if one is no X.509 (RFC 5280).

    A certificate is no secret, but somebody may have left a private key among them: the copy that is read is wiped.
    """
    pem = bytes(memoryview(chain))  # of `bytes` too: who calls keeps theirs
    try:
        return min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(pem))
    except (ValueError, x509.InvalidVersion):
        raise FormatError("cannot be read as X.509") from None
    finally:
        wipe(pem)
