"""Proofs as text that anybody can keep and verify, in forms of C2SP.

That a record is in the log: `tlog-proof`, with the record itself, as an export has it, in the `extra` line. That one
checkpoint is the beginning of another: the body that `tlog-witness` gives to a witness.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.core.export import parse, record_line, record_of
from vault.crypto import merkle, notes
from vault.crypto.errors import FormatError
from vault.store.ledger import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_INCLUSION = "c2sp.org/tlog-proof@v1"


class Proven(NamedTuple):
    """What a proof proves: that the tree of `head` holds a record, or begins with the tree of `old_size`."""

    head: notes.CheckpointHead
    signers: tuple[str, ...]
    record: dict[str, Any] | None = None
    old_size: int | None = None


def inclusion_text(row: Mapping[str, Any], path: Sequence[bytes], note: str) -> str:
    """The proof that a record is in a checkpoint's tree."""
    extra = base64.b64encode(record_line(row).encode()).decode()
    return f"{_INCLUSION}\nextra {extra}\nindex {row['sequence']}\n{_hashes(path)}\n{note}"


def consistency_text(old_size: int, path: Sequence[bytes], note: str) -> str:
    """The proof that the tree of `old_size` is the beginning of a checkpoint's."""
    return f"old {old_size}\n{_hashes(path)}\n{note}"


def verify_text(text: str, keys: Iterable[str], *, old_note: str = "") -> Proven:
    """What a proof proves, by the public keys of checkpoints. A proof of consistency needs the older checkpoint too.

    Raises `FormatError`, `IntegrityError`.
    """
    keys = tuple(keys)
    top, found, note = text.partition("\n\n")
    if not found:
        raise FormatError("not a proof")
    verified = notes.verify_signatures(note, keys)
    head = notes.checkpoint_head(verified.body)
    first, *lines = top.split("\n")
    if first == _INCLUSION:
        record = _verify_inclusion(lines, head)
        return Proven(head, verified.signers, record=record)
    word, _, number = first.partition(" ")
    if word != "old":
        raise FormatError("neither a proof of inclusion nor one of consistency")
    if not old_note:
        raise FormatError("a proof of consistency is held against the older checkpoint")
    old = notes.verify_checkpoint(old_note, keys)
    if (old.origin, old.size) != (head.origin, _number(number)):
        raise FormatError("the older checkpoint is not the one that the proof is of")
    merkle.verify_consistency(old.size, old.root, head.size, head.root, _parse_hashes(lines))
    return Proven(head, verified.signers, old_size=old.size)


def _verify_inclusion(lines: list[str], head: notes.CheckpointHead) -> dict[str, Any]:
    if len(lines) < 2 or not lines[0].startswith("extra ") or not lines[1].startswith("index "):  # noqa: PLR2004
        raise FormatError("not a proof with its record")
    try:
        text = base64.b64decode(lines[0].removeprefix("extra "), validate=True).decode()
    except ValueError:
        raise FormatError("not a record") from None
    item = parse(1, text)
    if not isinstance(item.get("record"), dict):
        raise FormatError("not a record")
    record = record_of(1, item["record"])
    index = _number(lines[1].removeprefix("index "))
    if record["sequence"] != index:
        raise FormatError("the record is not the one that the proof is of")
    merkle.verify_inclusion(leaf_hash(record), index, head.size, _parse_hashes(lines[2:]), head.root)
    return record


def _hashes(path: Sequence[bytes]) -> str:
    return "".join(base64.b64encode(part).decode() + "\n" for part in path)


def _parse_hashes(lines: Sequence[str]) -> list[bytes]:
    try:
        hashes = [base64.b64decode(line, validate=True) for line in lines]
    except ValueError:
        raise FormatError("not a proof") from None
    if any(len(part) != merkle.HASH_BYTES for part in hashes):
        raise FormatError("not a proof")
    return hashes


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):  # noqa: PLR2004 - digits of 64 bits
        raise FormatError("not a number")
    return int(text)
