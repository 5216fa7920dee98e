"""From a URI to a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm.uri import UriError, parse_pkcs11, parse_transit, scheme_of

if TYPE_CHECKING:
    from hsm.backend import HsmBackend


def open_backend(
    uri: str, *, sessions: int = 8, wait_seconds: float = 5.0, hang_seconds: float = 10.0
) -> HsmBackend:
    """Open the HSM that a URI names, log in, and see what it can do.

    `sessions` bounds the work under way at once, `wait_seconds` the wait for a free session before
    `HsmBusy`. A call that takes longer than `hang_seconds` costs its thread but not its place in the pool.

    Raises `UriError`; `HsmUnavailable` if the module or the token is not there (the text names the
    path); `HsmAuthFailed` after exactly one attempt to log in.
    """
    scheme = scheme_of(uri)
    if scheme == "pkcs11":
        from hsm.pkcs11.backend import Pkcs11Backend  # noqa: PLC0415 - a native library; only if wanted

        return Pkcs11Backend(
            parse_pkcs11(uri), sessions=sessions, wait_seconds=wait_seconds, hang_seconds=hang_seconds
        )
    if scheme == "transit":
        from hsm.transit import TransitBackend  # noqa: PLC0415

        return TransitBackend(parse_transit(uri), sessions=sessions, wait_seconds=wait_seconds)
    raise UriError(f"no backend for {scheme[:20]!r}: URIs")
