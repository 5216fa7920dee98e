from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.crypto import merkle
from vault.crypto.errors import FormatError, IntegrityError

HASH = st.binary(min_size=32, max_size=32)
LEAVES = st.lists(HASH, min_size=1, max_size=40)


@given(st.lists(LEAVES, max_size=5))
def test_how_the_leaves_were_batched_makes_no_difference(batches):
    frontier = merkle.EMPTY
    for batch in batches:
        frontier = frontier.append_many(batch)
    flat = [leaf for batch in batches for leaf in batch]
    assert frontier == merkle.EMPTY.append_many(flat)
    assert frontier.root() == merkle.tree_root(flat)
    assert merkle.decode_frontier(merkle.encode_frontier(frontier)) == frontier


@given(LEAVES, st.data())
def test_a_proof_holds_for_its_own_leaf_and_for_no_other(leaves, data):
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof, root = merkle.inclusion_proof(leaves, index), merkle.tree_root(leaves)
    merkle.verify_inclusion(leaves[index], index, len(leaves), proof, root)
    other = data.draw(HASH)
    if other != leaves[index]:
        with pytest.raises(IntegrityError):
            merkle.verify_inclusion(other, index, len(leaves), proof, root)


@given(LEAVES, HASH, st.data())
def test_one_changed_leaf_breaks_consistency_if_the_older_log_had_it(leaves, other, data):
    old = data.draw(st.integers(1, len(leaves)))
    at = data.draw(st.integers(0, len(leaves) - 1))
    changed = [*leaves[:at], other, *leaves[at + 1 :]]
    old_root, root = merkle.tree_root(leaves[:old]), merkle.tree_root(changed)
    proof = merkle.consistency_proof(changed, old)
    if at >= old or changed == leaves:
        merkle.verify_consistency(old, old_root, len(leaves), root, proof)
    else:
        with pytest.raises(IntegrityError):
            merkle.verify_consistency(old, old_root, len(leaves), root, proof)


@given(
    st.integers(-2, 2**64), HASH, st.integers(-2, 2**64), HASH, st.lists(st.binary(max_size=40), max_size=70)
)
def test_no_made_up_proof_holds(first, one, second, other, proof):
    with contextlib.suppress(IntegrityError):
        merkle.verify_inclusion(one, first, second, proof, other)
        assert (first, second, one, proof) == (0, 1, other, [])
    with contextlib.suppress(IntegrityError):
        merkle.verify_consistency(first, one, second, other, proof)
        assert (first, one, proof) == (second, other, [])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frontier_that_encodes_to_the_same_bytes_or_a_format_error(data):
    with contextlib.suppress(FormatError):
        assert merkle.encode_frontier(merkle.decode_frontier(data)) == data
