"""The hashing of an append-only log: RFC 9162, section 2.1 (SHA-256), as functions of hashes.

A `Frontier` is what must be kept to append and to compute the root: the roots of the complete subtrees that the log
consists of, from the largest to the smallest, one for each bit of its size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vault.crypto.errors import FormatError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HASH_BYTES = 32
_SIZE_BYTES = 8
LEVEL_BITS = 8
"""A stored level of the tree is this many levels of nodes above the one before: tiles of 256 hashes, as in C2SP."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Node(NamedTuple):
    """The root of a complete subtree of `256 ** level` leaves, the `position`-th of its kind from the left."""

    level: int
    position: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Frontier:
    """A log's size and the roots of its complete subtrees, largest first."""

    size: int
    hashes: tuple[bytes, ...]

    def append_many(self, leaves: Iterable[bytes]) -> Frontier:
        """The frontier after these leaf hashes."""
        return self.grow(leaves)[0]

    def grow(self, leaves: Iterable[bytes]) -> tuple[Frontier, list[Node]]:
        """The frontier after these leaf hashes, and the nodes of the stored levels that they complete."""
        size, stack = self.size, list(self.hashes)
        nodes: list[Node] = []
        for leaf in leaves:
            stack.append(leaf)
            # Each trailing one-bit of the old size is a complete subtree that now has its equal beside it.
            bits, height = size, 0
            while bits & 1:
                right = stack.pop()
                stack.append(node_hash(stack.pop(), right))
                bits, height = bits >> 1, height + 1
                if height % LEVEL_BITS == 0:
                    nodes.append(Node(height // LEVEL_BITS, bits, stack[-1]))
            size += 1
        return Frontier(size, tuple(stack)), nodes

    def append(self, leaf: bytes) -> Frontier:
        """The frontier after this leaf hash."""
        return self.append_many((leaf,))

    def root(self) -> bytes:
        """The root hash; of an empty log, the hash of nothing."""
        if not self.hashes:
            return hashlib.sha256().digest()
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root


EMPTY = Frontier(0, ())


def encode_frontier(frontier: Frontier) -> bytes:
    """8 bytes of size (big-endian), then the hashes."""
    return frontier.size.to_bytes(_SIZE_BYTES, "big") + b"".join(frontier.hashes)


def decode_frontier(data: bytes) -> Frontier:
    """The frontier that was encoded. Raises `FormatError`."""
    size = int.from_bytes(data[:_SIZE_BYTES], "big")
    if len(data) != _SIZE_BYTES + HASH_BYTES * size.bit_count():
        raise FormatError("not a frontier")
    return Frontier(
        size, tuple(data[at : at + HASH_BYTES] for at in range(_SIZE_BYTES, len(data), HASH_BYTES))
    )


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """The root over these leaf hashes."""
    return EMPTY.append_many(leaves).root()


class Span(NamedTuple):
    """A run of leaves, from `first` to before `end`."""

    first: int
    end: int


def inclusion_path(index: int, size: int) -> list[Span]:
    """The subtrees whose roots are the audit path of a leaf (RFC 9162, 2.1.3.1), from the leaf up."""
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    path: list[Span] = []
    span = Span(0, size)
    while span.end - span.first > 1:
        middle = span.first + _split(span.end - span.first)
        left, right = Span(span.first, middle), Span(middle, span.end)
        span, other = (left, right) if index < middle else (right, left)
        path.append(other)
    return path[::-1]


def consistency_path(old_size: int, size: int) -> list[Span]:
    """The subtrees whose roots prove that the log of `old_size` is the beginning of this one (RFC 9162, 2.1.4.1)."""
    if not 0 < old_size <= size:
        raise ValueError("no such older log")
    path: list[Span] = []
    span, complete = Span(0, size), True
    while span.end != old_size:
        middle = span.first + _split(span.end - span.first)
        left, right = Span(span.first, middle), Span(middle, span.end)
        if old_size <= middle:
            span = left
            path.append(right)
        else:
            span, complete = right, False
            path.append(left)
    if not complete:
        path.append(span)
    return path[::-1]


def stored_nodes(span: Span) -> list[tuple[int, int]]:
    """The nodes of the stored levels (level 0: leaves), as (level, position), that a subtree's root is made of."""
    wanted: list[tuple[int, int]] = []
    for height, position in _complete(span):
        level, rest = divmod(height, LEVEL_BITS)
        wanted.extend((level, (position << rest) + place) for place in range(1 << rest))
    return wanted


def subtree_root(span: Span, nodes: Mapping[tuple[int, int], bytes]) -> bytes:
    """A subtree's root from the nodes that `stored_nodes` names. Raises `KeyError` if one is missing."""
    roots = []
    for height, position in _complete(span):
        level, rest = divmod(height, LEVEL_BITS)
        roots.append(tree_root([nodes[level, (position << rest) + place] for place in range(1 << rest)]))
    return Frontier(span.end - span.first, tuple(roots)).root()


def frontier_within(frontier: Frontier, span: Span) -> Frontier:
    """What a log's frontier says of one of the subtrees on the path of a later leaf: that subtree's own frontier."""
    parts = zip(_complete(Span(0, frontier.size)), frontier.hashes, strict=True)
    inside = [part for (height, position), part in parts if span.first <= position << height < span.end]
    return Frontier(max(0, min(frontier.size, span.end) - span.first), tuple(inside))


def _complete(span: Span) -> list[tuple[int, int]]:
    """The complete subtrees that a subtree consists of, as (height, position), largest first."""
    found, first = [], span.first
    while first < span.end:
        height = (span.end - first).bit_length() - 1
        found.append((height, first >> height))
        first += 1 << height
    return found


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of a leaf, from the leaf up, from all leaf hashes."""
    return [tree_root(leaves[first:end]) for first, end in inclusion_path(index, len(leaves))]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise `IntegrityError` unless the leaf is in the tree at that index (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise IntegrityError("no such leaf")
    node, last, computed = index, size - 1, leaf
    for part in proof:
        if last == 0:
            raise IntegrityError("a proof is too long")
        if node & 1 or node == last:
            computed = node_hash(part, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, part)
        node, last = node >> 1, last >> 1
    if last != 0 or computed != root:
        raise IntegrityError("a leaf is not in the tree")


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """Proof that the log of `old_size` leaves is the beginning of this one, from all leaf hashes."""
    return [tree_root(leaves[first:end]) for first, end in consistency_path(old_size, len(leaves))]


def verify_consistency(  # noqa: C901 - the RFC's own steps, in its order
    old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise `IntegrityError` unless the older log is the beginning of the newer (RFC 9162, 2.1.4.2)."""
    if not 0 < old_size <= size:
        raise IntegrityError("sizes do not fit")
    if old_size == size:
        if proof or old_root != root:
            raise IntegrityError("two logs of one size differ")
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise IntegrityError("a proof is too short")
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for part in path[1:]:
        if last == 0:
            raise IntegrityError("a proof is too long")
        if node & 1 or node == last:
            old, new = node_hash(part, old), node_hash(part, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, part)
        node, last = node >> 1, last >> 1
    if last != 0 or old != old_root or new != root:
        raise IntegrityError("the older log is not the beginning of the newer")


def _split(size: int) -> int:
    """The largest power of two that is smaller."""
    return 1 << ((size - 1).bit_length() - 1)
