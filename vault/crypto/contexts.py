"""What each sealed message is bound to: the HPKE info or AEAD associated data, one function a message.

Vault and client call the same functions; `docs/formats.md` says the same for other languages. A message
opens only in the very context that it was sealed for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vault.crypto.encoding import encode

if TYPE_CHECKING:
    from collections.abc import Sequence


class Opened(Protocol):
    """What the contexts need to know of an opened credential."""

    @property
    def name(self) -> str:
        """The credential's name."""
        ...

    @property
    def version(self) -> int:
        """The version."""
        ...

    @property
    def field_names(self) -> Sequence[str]:
        """The names of the fields, sorted."""
        ...


def put_info(name: str, kind: str, ingest_key_id: str) -> bytes:
    """HPKE info of `Put.sealed`: opens only as this credential of this kind."""
    return encode("strongroom/put/v1", name, kind, ingest_key_id)


def wrap_info(name: str, recipient: str, ingest_key_id: str) -> bytes:
    """HPKE info of `Wrap.sealed`: opens only as this hand-over to this recipient."""
    return encode("strongroom/wrap/v1", name, recipient, ingest_key_id)


def unwrap_info(handover_id: str, name: str, field_names: Sequence[str]) -> bytes:
    """HPKE info of `UnwrapResponse.sealed`."""
    return encode("strongroom/unwrap/v1", handover_id, name, len(field_names), *field_names)


def session_key_info(session_id: str) -> bytes:
    """HPKE info of `SessionOpened.sealed_session_key`."""
    return encode("strongroom/session-key/v1", session_id)


def stream_reveal_aad(session_id: str, opened: Opened) -> bytes:
    """Associated data of `RevealResult.sealed`."""
    return encode("strongroom/stream-reveal/v1", session_id, *_parts(opened))


def reveal_info(session_id: str, opened: Sequence[Opened]) -> bytes:
    """HPKE info of `RevealResponse.sealed`: every credential, version and field in it, in order."""
    parts = [part for item in opened for part in _parts(item)]
    return encode("strongroom/reveal/v1", session_id, len(opened), *parts)


def _parts(opened: Opened) -> list[str | int]:
    return [opened.name, opened.version, len(opened.field_names), *opened.field_names]
