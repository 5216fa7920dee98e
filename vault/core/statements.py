"""What the vault signs for those outside: a note (C2SP) whose text is two lines, what it is and a JSON object."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vault.crypto import notes
from vault.crypto.errors import FormatError
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def text(kind: str, values: Mapping[str, Any]) -> str:
    """The text to be signed. `kind` says what it is, and in which version of its form."""
    return f"{kind}\n{canonical_json(values)}\n"


def verify(kind: str, note: str, keys: Iterable[str]) -> dict[str, Any]:
    """What a note of this kind says, if one of these keys signed it. Raises `FormatError`, `IntegrityError`."""
    return values(kind, notes.verify_note(note, keys))


def values(kind: str, note: str) -> dict[str, Any]:
    """What a note of this kind says; who signed it is not looked at. Raises `FormatError`."""
    said, _, rest = note.partition("\n")
    if said != kind:
        raise FormatError(f"it is no {kind}")
    try:
        found = json.loads(rest.partition("\n")[0])
    except (ValueError, RecursionError):
        raise FormatError(f"it is no well-formed {kind}") from None
    if not isinstance(found, dict):
        raise FormatError(f"it is no well-formed {kind}")
    return found
