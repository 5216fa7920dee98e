"""What a use is given of a credential, and what it gives back."""

from __future__ import annotations

import dataclasses
import functools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.crypto import bundle, kinds
from vault.errors import Reason, VaultError, invalid_field
from vault.model import Standing

if TYPE_CHECKING:
    import datetime
    from collections.abc import Awaitable, Callable, Mapping

    from vault.core.uses.outside import Outside
    from vault.model import Caller

MAX_MESSAGE = 65_536
Told = str | int | tuple[str, ...]
"""What the log may be told of a use."""


@dataclasses.dataclass(frozen=True)
class Material:
    """A credential of a session, open in locked memory."""

    name: str
    version: int
    kind: str
    field_names: tuple[str, ...]
    view: memoryview = dataclasses.field(repr=False)
    standing: Standing = Standing.ACTIVE
    caller: Caller = dataclasses.field(kw_only=True)
    companion: Material | None = None
    """A second credential of the session, which lends the fields that this one does not have."""

    def field(self, name: str, use: str) -> memoryview:
        """A view of a field, for one use. Raises `UNKNOWN_FIELD`, `SECRET_UNSUITABLE` if its kind is not for that."""
        view = self._view(name)
        if not kinds.allows(self.kind, name, use):
            raise unsuitable("a field of this name and kind is not for this use")
        return view

    def public_text(self, name: str, default: str = "") -> str:
        """A copy of a field that is no secret, such as a public key's name. Raises `SECRET_UNSUITABLE`."""
        if name not in self.field_names:
            return default
        try:
            return str(self._view(name), "utf-8")
        except UnicodeDecodeError:
            raise unsuitable("a field that should be text is not") from None

    def _view(self, name: str) -> memoryview:
        place = self._places.get(name)
        if place is None:
            raise unknown_field()
        return self.view[place]

    @functools.cached_property
    def _places(self) -> dict[str, slice]:
        return bundle.places(self.view)


class Done(NamedTuple):
    """What a use answers, and what its audit record says of it."""

    result: Any
    field_names: tuple[str, ...] = ()
    after: Mapping[str, Told] = MappingProxyType({})
    renewed: bool = False
    """Whether the session is to go on with the credential's newest version."""


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a use may ask for beside its credential."""

    now: Callable[[], datetime.datetime]
    checked_keys: set[bytes] = dataclasses.field(default_factory=set)
    """Digests of private keys that were found sound by this worker."""
    reach: Outside | None = None
    sign: Callable[[str, str, bytes], Awaitable[bytes]] | None = None
    """Signs in the HSM: by the key that a field refers to, with a JOSE algorithm, a message."""

    def outside(self) -> Outside:
        """The way to providers."""
        if self.reach is None:
            raise RuntimeError("these surroundings have no way out")
        return self.reach


def unknown_field() -> VaultError:
    """The error for a field that the bundle does not have."""
    return VaultError(Reason.UNKNOWN_FIELD, "the credential has no such field")


def unsuitable(text: str) -> VaultError:
    """The error for a field that does not hold what the use needs."""
    return VaultError(Reason.SECRET_UNSUITABLE, text)


def message(field: str, value: bytes, *, least: int = 0) -> bytes:
    """A message of a size that the vault works on. Raises `FIELD_INVALID`."""
    if not least <= len(value) <= MAX_MESSAGE:
        raise invalid_field(field, f"{least} to {MAX_MESSAGE} bytes")
    return value
