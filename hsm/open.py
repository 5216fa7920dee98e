"""From a URI to a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm.uri import UriError, parse_pkcs11, parse_transit, scheme_of

if TYPE_CHECKING:
    from hsm.backend import HsmBackend
    from hsm.uri import Pkcs11Uri


def open_backend(
    uri: str,
    *,
    sessions: int = 8,
    wait_seconds: float = 5.0,
    hang_seconds: float = 10.0,
    cached_keys: int = 256,
) -> HsmBackend:
    """Open the HSM that a URI names, log in, and see what it can do.

    `sessions` bounds the work under way at once, `wait_seconds` the wait for a free session before
    `HsmBusy`. A call that takes longer than `hang_seconds` costs its thread but not its place in the pool.
    `cached_keys` bounds the wrapped keys that are in the HSM at once.

    Raises `UriError`; `HsmUnavailable` if the module or the token is not there (the text names the
    path); `HsmAuthFailed` after exactly one attempt to log in.
    """
    scheme = scheme_of(uri)
    if scheme == "pkcs11":
        parsed = parse_pkcs11(uri)
        if parsed.isolated:
            from hsm.isolation.backend import IsolatedBackend  # noqa: PLC0415

            return IsolatedBackend(
                uri,
                sessions=sessions,
                wait_seconds=wait_seconds,
                hang_seconds=hang_seconds,
                cached_keys=cached_keys,
                source=parsed.pin_source,
            )
        return open_pkcs11(
            parsed,
            sessions=sessions,
            wait_seconds=wait_seconds,
            hang_seconds=hang_seconds,
            cached_keys=cached_keys,
        )
    if scheme == "transit":
        from hsm.transit import TransitBackend  # noqa: PLC0415

        return TransitBackend(parse_transit(uri), sessions=sessions, wait_seconds=wait_seconds)
    raise UriError(f"no backend for {scheme[:20]!r}: URIs")


def open_pkcs11(
    parsed: Pkcs11Uri, *, sessions: int, wait_seconds: float, hang_seconds: float, cached_keys: int
) -> HsmBackend:
    """Open a token in this very process, whatever its URI says of isolation."""
    from hsm.pkcs11.backend import Pkcs11Backend  # noqa: PLC0415 - a native library; only if wanted

    return Pkcs11Backend(
        parsed,
        sessions=sessions,
        wait_seconds=wait_seconds,
        hang_seconds=hang_seconds,
        cached_keys=cached_keys,
    )
