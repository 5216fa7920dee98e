"""What an HSM was found to be, as a record to be kept, and in what it is no longer that."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hsm.backend import HsmBackend
    from hsm.model import Capabilities


class Weight(enum.Enum):
    """What a difference between a record and an HSM means to who relies on it."""

    CHANGE = "any change"
    """It is not the HSM that it was: what was wrapped may not open, or be made otherwise from now on."""
    LOSS = "a loss"
    """What worked and does not work now; what works now and did not is worth a word."""
    WORD = "a word"
    NOTHING = "nothing"


WEIGHTS: Final[Mapping[str, Weight]] = {
    "name": Weight.CHANGE,  # with the token's serial: another token has other keys, or copies of them
    "model": Weight.CHANGE,  # manufacturer and model
    "wrap": Weight.CHANGE,
    "iv_mode": Weight.CHANGE,
    "signatures": Weight.LOSS,
    "mac": Weight.LOSS,
    "random": Weight.LOSS,
    "wrapped_keys": Weight.LOSS,
    "firmware": Weight.WORD,  # makers mend things; what it broke shows in the other rows
    "max_sessions": Weight.NOTHING,  # it is configured
    "notes": Weight.NOTHING,
}
"""Each part of a record, and which difference in it matters."""


class Drift(NamedTuple):
    """In what an HSM is not what was recorded, in words: what matters, and what is worth a word."""

    grave: tuple[str, ...]
    slight: tuple[str, ...]


def as_record(capabilities: Capabilities) -> dict[str, Any]:
    """Capabilities as plain data, to be stored and compared with later ones."""
    record = dataclasses.asdict(capabilities)
    record["signatures"] = sorted(capabilities.signatures)
    record["notes"] = list(capabilities.notes)
    return record


def record_of(backend: HsmBackend) -> dict[str, Any]:
    """What a backend is and can do, as plain data: its capabilities and its name. Raises `HsmError`."""
    return {"name": backend.name, **as_record(backend.capabilities())}


def drift(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Drift:
    """Hold an HSM's record against an earlier one. What the earlier one does not speak of has not changed."""
    grave: list[str] = []
    slight: list[str] = []
    for part, weight in WEIGHTS.items():
        if part not in recorded or part not in now:
            continue
        was, is_ = recorded[part], now[part]
        if weight is Weight.LOSS:
            grave += [f"{one}: no longer works" for one in _less(part, was, is_)]
            slight += [f"{one}: works now" for one in _less(part, is_, was)]
        elif was != is_ and weight is not Weight.NOTHING:
            change = f"{part}: was {was or 'unknown'}, is {is_ or 'unknown'}"
            (grave if weight is Weight.CHANGE else slight).append(change)
    return Drift(tuple(grave), tuple(slight))


def _less(part: str, more: Iterable[str] | bool, less: Iterable[str] | bool) -> list[str]:
    """What the first has and the second has not."""
    if isinstance(more, bool) or isinstance(less, bool):
        return [part] if more and not less else []
    return sorted(set(more) - set(less))
