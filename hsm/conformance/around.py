"""Reaching around a backend, into its HSM: what tests need and no caller should have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hsm.uri import scheme_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from hsm import KeyRef, WrapScheme


class Around(Protocol):
    """One HSM, by other ways than the interface. Each method may call `pytest.skip` where it has no way."""

    def steal(self, ref: KeyRef) -> list[str]:
        """Try every way to get a key out, with all that the backend's own log-in may do; what succeeded."""
        ...

    def plant(self, ref: KeyRef, key: bytes, scheme: WrapScheme) -> None:
        """Bring in an AES key of known value, to be used as a KEK of that scheme."""
        ...

    def log_ins(self) -> AbstractContextManager[list[str]]:
        """Collect every attempt to log in that is made meanwhile."""
        ...


def around_uri(uri: str) -> Around | None:
    """The way around a backend that comes with this library; None for one that does not."""
    scheme = scheme_of(uri)
    if scheme == "pkcs11":
        from hsm.conformance.around_pkcs11 import AroundPkcs11  # noqa: PLC0415 - a native library

        return AroundPkcs11(uri)
    if scheme == "transit":
        from hsm.conformance.around_transit import AroundTransit  # noqa: PLC0415

        return AroundTransit(uri)
    return None
