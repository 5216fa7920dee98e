"""The judgement on a log, from nothing but its records, its checkpoints and public keys.

The same for the vault's own database, for an export on somebody else's disk, and for what a checkpoint is about to
cover. No IO: whoever reads hands over what was read, in the order of the log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vault.crypto import merkle, notes
from vault.crypto.errors import CryptoError
from vault.store.ledger import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_FINDINGS = 100

INTRODUCE = "audit.introduce_key"
"""The action of the record by which the log itself introduces the next key that signs its checkpoints."""

ACCEPT_LOSS = "audit.accept_loss"
"""The action of the record by which people accept that an earlier record's content is lost."""

_UNKNOWN = "no known key made it; to verify by one key, give the log's first, which vouches for the later"


@dataclass
class Report:
    """What a verification of the log found. No findings: it is whole."""

    first: int = 0
    """The record that the verification began with: what lies before it is archived, and was not looked at."""
    records: int = 0
    checkpoints: int = 0
    anchors: int = 0
    """How many checkpoints that are kept elsewhere the log was held against."""
    size: int = 0
    root: bytes = b""
    signed_size: int = 0
    """How many records, from the first on, the newest verified checkpoint covers."""
    findings: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    """Records whose content is lost, and who accepted that. No findings, and never silent."""
    unlisted: int = 0
    """Findings beyond the first hundred."""

    def find(self, text: str) -> None:
        """Note a finding; the first hundred are enough."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(text)
        else:
            self.unlisted += 1


def computed_leaf(row: Mapping[str, Any]) -> bytes:
    """The leaf hash that a record's content has; empty if it holds what no record can hold."""
    try:
        return leaf_hash(row)
    except (TypeError, ValueError):
        return b""


def stored_leaf(row: Mapping[str, Any]) -> bytes:
    """The leaf hash that a record is stored with; empty if that is no hash."""
    stored = row["leaf_hash"]
    return stored if isinstance(stored, bytes) and len(stored) == merkle.HASH_BYTES else b""


class Verification:
    """Takes a log in its order and judges it.

    What holds when it finds nothing:

    - the records are numbered without gap from where the log begins, each once, and each hashes to its own leaf;
    - every checkpoint is signed by a key that is known: one of those given at the beginning, or one that a record
      introduced which an earlier verified checkpoint, or this very one, covers by a known key's signature;
    - once an ML-DSA key was introduced, every later checkpoint carries a signature of an ML-DSA key too;
    - the records before each checkpoint, and before each anchored head, make exactly the tree that it says;
    - the records altogether make the tree that the head of the log says.
    """

    def __init__(
        self,
        origin: str,
        keys: Iterable[str],
        report: Report,
        *,
        start: merkle.Frontier = merkle.EMPTY,
        learned: Sequence[str] = (),
    ) -> None:
        """`start`: the tree of what comes before; `learned`: the keys that were introduced there. Both are believed."""
        self.report = report
        report.first = start.size
        self.frontier = start
        self._origin = origin
        self._keys = list(dict.fromkeys(keys))
        self._only_quantum = bool(self._keys) and all(map(notes.is_post_quantum, self._keys))
        self._keys += [key for key in learned if key not in self._keys]
        self.learned = list(learned)
        """The keys that the log has introduced so far."""
        self._quantum_from = start.size if any(map(notes.is_post_quantum, learned)) else None
        self._introduced: list[tuple[int, str]] = []
        self._altered: dict[int, bytes] = {}
        self._next = start.size
        self._signed = start.size
        self._expected: list[tuple[int, bytes, str]] = []

    def expect(self, name: str, head: notes.CheckpointHead) -> None:
        """Hold the log to a head that was anchored elsewhere, unless it lies before where this begins."""
        if head.size < self.frontier.size:
            return
        self.report.anchors += 1
        self._expected.append((head.size, head.root, name))
        self._expected.sort()
        self._meet_expected()

    @property
    def next(self) -> int:
        """The sequence of the record that comes next."""
        return self._next

    def anchor(self, name: str, note: str) -> None:
        """Hold the log to an anchored checkpoint, whose signature must be by a key given at the beginning."""
        try:
            self.expect(name, notes.verify_checkpoint(note, self._keys))
        except CryptoError:
            self.report.find(f"{name}: its signature does not verify")

    def take(self, rows: Sequence[Mapping[str, Any]]) -> list[merkle.Node]:
        """Take in records; gives the nodes of the stored levels that they complete."""
        hashes = [self._check_record(row) for row in rows]
        nodes: list[merkle.Node] = []
        while hashes:
            # Not beyond the next anchored head, which may lie between two checkpoints of the database.
            ahead = self._expected[0][0] - self.frontier.size if self._expected else len(hashes)
            self.frontier, made = self.frontier.grow(hashes[:ahead])
            nodes += made
            hashes = hashes[ahead:]
            self._meet_expected()
        self.report.records += len(rows)
        return nodes

    def checkpoint(self, size: int, note: str, frontier: bytes, root: bytes | None = None) -> None:
        """Take in a checkpoint, after the records that it covers."""
        name = f"checkpoint {size}"
        # If only ML-DSA is believed, what was signed before it cannot be judged by signature; a later tree covers it.
        silent = self._only_quantum and self.report.checkpoints == 0
        try:
            verified = notes.verify_signatures(note, [*self._keys, *(key for _, key in self._introduced)])
            head = notes.checkpoint_head(verified.body)
        except CryptoError as error:
            if not silent:
                unknown = f": {_UNKNOWN}" if isinstance(error, notes.UnknownSignerError) else ""
                self.report.find(f"{name}: its signature does not verify{unknown}")
            return
        if not any(key in self._keys for key in verified.signers):
            if not silent:
                self.report.find(f"{name}: only keys that no known key vouches for signed it")
            return
        if (head.origin, head.size) != (self._origin, size) or root not in (None, head.root):
            self.report.find(f"{name}: its columns are not what was signed")
            return
        self.report.checkpoints += 1
        if self._fits(name, head, frontier):
            self._learn_keys(size)
            self.report.signed_size = size
        self._signed = size
        if self._quantum_from is not None and size > self._quantum_from:  # noqa: SIM102 - reads as the rule
            if not any(map(notes.is_post_quantum, verified.signers)):
                self.report.find(f"{name}: it lacks the ML-DSA signature that the log promises")

    def missing(self, end: int) -> None:
        """Note that there is no record from here to before `end`."""
        if self._next < end:
            self.report.find(f"sequence {self._next}: {end - self._next} records are missing before {end}")
            self._next = end

    def finish(self, size: int, frontier: merkle.Frontier | None = None) -> None:
        """Hold what was taken in against the head: its size, and its frontier if it is known."""
        self.missing(size)
        if self.frontier.size > size or (frontier is not None and frontier != self.frontier):
            self.report.find(f"head: the records do not make the tree of {size} that the head says")
        for sequence in self._altered:
            self.report.find(f"sequence {sequence}: the record was altered")
        for seen, _, name in self._expected:
            self.report.find(f"{name}: it has seen {seen} records, the log holds {size}")
        self.report.size, self.report.root = self.frontier.size, self.frontier.root()

    def _check_record(self, row: Mapping[str, Any]) -> bytes:
        sequence = row["sequence"]
        if sequence > self._next:
            self.missing(sequence)
        elif sequence < self._next:
            self.report.find(
                f"sequence {sequence}: {self._next} was expected; it is there twice or misplaced"
            )
        self._next = sequence + 1
        computed, stored = computed_leaf(row), stored_leaf(row)
        if row["action_type"] == INTRODUCE:
            self._introduce(row)
        elif row["action_type"] == ACCEPT_LOSS and row["outcome"] == "granted":
            self._accept(row)
        if stored and computed == stored:
            return stored
        # The tree goes on with what is stored. If that was altered too, the tree is not the one that was signed.
        self._altered[sequence] = stored
        return stored or computed or bytes(merkle.HASH_BYTES)

    def _accept(self, row: Mapping[str, Any]) -> None:
        try:
            accepted = json.loads(row["after_state"])
            lost, digest = accepted["sequence"], bytes.fromhex(accepted["leaf_hash"])
        except (ValueError, KeyError, TypeError, RecursionError):
            self.report.find(f"sequence {row['sequence']}: it accepts no loss")
            return
        if self._altered.get(lost) == digest:
            del self._altered[lost]
            self.report.accepted.append(
                f"sequence {lost}: its content is lost; {row['user_id']} accepted that in record {row['sequence']}"
            )

    def _introduce(self, row: Mapping[str, Any]) -> None:
        try:
            key = json.loads(row["after_state"])["verifier_key"]
            notes.is_post_quantum(key)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, CryptoError):
            self.report.find(f"sequence {row['sequence']}: it introduces no key")
        else:
            self._introduced.append((row["sequence"], key))

    def _fits(self, name: str, head: notes.CheckpointHead, encoded: bytes) -> bool:
        """Whether the records make the tree that was signed; and what is stored of it fits."""
        try:
            stored = merkle.decode_frontier(encoded)
        except CryptoError:
            stored = merkle.EMPTY
        whole = (stored.size, stored.root()) == (head.size, head.root)
        if not whole:
            self.report.find(f"{name}: its frontier is not that of the tree that was signed")
        if (self.frontier.size, self.frontier.root()) == (head.size, head.root):
            return True
        self.report.find(f"{name}: the records from {self._signed} on do not make the tree that was signed")
        if whole:
            # What follows is judged by what was signed, so that one fault is not found again and again.
            self.frontier = stored
        return False

    def _learn_keys(self, size: int) -> None:
        for sequence, key in self._introduced:
            if sequence < size:
                self._keys.append(key)
                self.learned.append(key)
                if notes.is_post_quantum(key) and self._quantum_from is None:
                    self._quantum_from = sequence
        self._introduced = [(sequence, key) for sequence, key in self._introduced if sequence >= size]

    def _meet_expected(self) -> None:
        while self._expected and self._expected[0][0] <= self.frontier.size:
            size, root, name = self._expected.pop(0)
            if size == self.frontier.size and root != self.frontier.root():
                self.report.find(f"{name}: the records do not make the tree of {size} that was anchored")
