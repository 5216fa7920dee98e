"""Revealed secrets, in locked memory until they are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from vault.crypto import bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from vault.crypto.memory import LockedBuffer


class Secrets:
    """The fields of one credential, wiped by `close` or at the end of a `with` block.

    `secrets["api_key"]` is a view of locked memory: use it where bytes are taken, and do not keep it.
    """

    def __init__(self, name: str, version: int, buffer: LockedBuffer) -> None:
        self.name = name
        self.version = version
        self._buffer = buffer

    def __getitem__(self, field_name: str) -> memoryview:
        """A view of the field's value. Raises `KeyError`."""
        try:
            return bundle.field_view(self._buffer.view, field_name)
        except bundle.UnknownField:
            raise KeyError(field_name) from None

    def __iter__(self) -> Iterator[str]:
        """The names of the fields."""
        return iter(bundle.field_names(self._buffer.view))

    def text(self, field_name: str) -> str:
        """A copy of the field as text, in ordinary memory, which nobody can wipe: prefer the view."""
        return str(self[field_name], "utf-8")

    def close(self) -> None:
        """Wipe."""
        self._buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Secrets {self.name} version {self.version}{' (wiped)' if self._buffer.closed else ''}>"
