from __future__ import annotations

import hashlib

import pytest

from vault.crypto import merkle
from vault.crypto.errors import FormatError, IntegrityError

# The leaves that implementations of RFC 6962 have been tested with since the first, and the roots over 1 to 8 of them.
LEAVES = [
    merkle.leaf_hash(bytes.fromhex(data))
    for data in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    bytes.fromhex(root)
    for root in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
EMPTY_ROOT = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def from_definition(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash as RFC 9162, section 2.1.1 defines it, on leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(
        b"\x01" + from_definition(leaves[:split]) + from_definition(leaves[split:])
    ).digest()


def numbered(size: int) -> list[bytes]:
    return [merkle.leaf_hash(number.to_bytes(4, "big")) for number in range(size)]


class TestKnownValues:
    def test_the_root_of_nothing(self):
        assert merkle.EMPTY.root().hex() == EMPTY_ROOT
        assert merkle.tree_root([]).hex() == EMPTY_ROOT

    @pytest.mark.parametrize("size", range(1, 9))
    def test_roots(self, size):
        assert merkle.tree_root(LEAVES[:size]) == ROOTS[size - 1]
        frontier = merkle.EMPTY
        for leaf in LEAVES[:size]:
            frontier = frontier.append(leaf)
        assert frontier.root() == ROOTS[size - 1]

    @pytest.mark.parametrize(
        ("index", "size", "path"),
        [
            (0, 1, []),
            (
                0,
                8,
                [
                    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
                ],
            ),
            (
                5,
                8,
                [
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                ],
            ),
            (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
            (
                1,
                5,
                [
                    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                ],
            ),
        ],
    )
    def test_inclusion(self, index, size, path):
        assert [part.hex() for part in merkle.inclusion_proof(LEAVES[:size], index)] == path
        merkle.verify_inclusion(LEAVES[index], index, size, [bytes.fromhex(p) for p in path], ROOTS[size - 1])

    @pytest.mark.parametrize(
        ("old", "new", "path"),
        [
            (1, 1, []),
            (
                1,
                8,
                [
                    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
                ],
            ),
            (
                6,
                8,
                [
                    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                ],
            ),
            (
                2,
                5,
                [
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                ],
            ),
        ],
    )
    def test_consistency(self, old, new, path):
        assert [part.hex() for part in merkle.consistency_proof(LEAVES[:new], old)] == path
        merkle.verify_consistency(
            old, ROOTS[old - 1], new, ROOTS[new - 1], [bytes.fromhex(part) for part in path]
        )

    def test_a_leaf_can_never_be_taken_for_a_node(self):
        left, right = LEAVES[:2]
        assert merkle.node_hash(left, right) != merkle.leaf_hash(left + right)
        assert merkle.leaf_hash(b"\x01" + left + right) != merkle.node_hash(left, right)


class TestEverySize:
    @pytest.mark.parametrize("size", range(71))
    def test_appending_gives_the_root_that_the_definition_gives(self, size):
        leaves = numbered(size)
        expected = from_definition(leaves)
        assert merkle.tree_root(leaves) == expected
        for split in range(size + 1):
            frontier = merkle.EMPTY.append_many(leaves[:split]).append_many(leaves[split:])
            assert (frontier.size, frontier.root()) == (size, expected)
            assert len(frontier.hashes) == size.bit_count()

    def test_every_leaf_of_every_size_is_proved(self):
        for size in range(1, 41):
            leaves = numbered(size)
            root = merkle.tree_root(leaves)
            for index in range(size):
                proof = merkle.inclusion_proof(leaves, index)
                merkle.verify_inclusion(leaves[index], index, size, proof, root)

    def test_every_pair_of_sizes_is_proved(self):
        roots = [merkle.tree_root(numbered(size)) for size in range(41)]
        for size in range(1, 41):
            leaves = numbered(size)
            for old in range(1, size + 1):
                proof = merkle.consistency_proof(leaves, old)
                merkle.verify_consistency(old, roots[old], size, roots[size], proof)


class TestRefusals:
    def test_a_mutated_inclusion_proof(self):
        for size in (1, 2, 3, 7, 8, 11):
            leaves = numbered(size)
            root = merkle.tree_root(leaves)
            for index in range(size):
                proof = merkle.inclusion_proof(leaves, index)
                for mutated in mutations(proof):
                    with pytest.raises(IntegrityError):
                        merkle.verify_inclusion(leaves[index], index, size, mutated, root)
                for leaf, at, length in [
                    (flipped(leaves[index]), index, size),
                    *((leaves[index], other, size) for other in range(-2, size + 3) if other != index),
                    (leaves[index], index, 0),
                    (leaves[index], index, size * 4 + 1),
                ]:
                    with pytest.raises(IntegrityError):
                        merkle.verify_inclusion(leaf, at, length, proof, root)
                with pytest.raises(IntegrityError):
                    merkle.verify_inclusion(leaves[index], index, size, proof, flipped(root))

    def test_a_mutated_consistency_proof(self):
        for size in (1, 2, 3, 7, 8, 11):
            leaves = numbered(size)
            root = merkle.tree_root(leaves)
            for old in range(1, size + 1):
                old_root = merkle.tree_root(leaves[:old])
                proof = merkle.consistency_proof(leaves, old)
                for mutated in mutations(proof):
                    with pytest.raises(IntegrityError):
                        merkle.verify_consistency(old, old_root, size, root, mutated)
                with pytest.raises(IntegrityError):
                    merkle.verify_consistency(old, flipped(old_root), size, root, proof)
                with pytest.raises(IntegrityError):
                    merkle.verify_consistency(old, old_root, size, flipped(root), proof)
                for other in (-1, 0, size + 1):
                    with pytest.raises(IntegrityError):
                        merkle.verify_consistency(other, old_root, size, root, proof)

    def test_a_log_whose_past_was_rewritten(self):
        honest, rewritten = numbered(20), numbered(20)
        rewritten[4] = flipped(rewritten[4])
        old_root, root = merkle.tree_root(honest[:10]), merkle.tree_root(rewritten)
        for leaves in (honest, rewritten):
            with pytest.raises(IntegrityError):
                merkle.verify_consistency(10, old_root, 20, root, merkle.consistency_proof(leaves, 10))

    @pytest.mark.parametrize(("size", "index"), [(0, 0), (3, 3), (3, -1)])
    def test_no_proof_of_a_leaf_that_is_not_there(self, size, index):
        with pytest.raises(ValueError, match="no such leaf"):
            merkle.inclusion_proof(numbered(size), index)

    @pytest.mark.parametrize(("size", "old"), [(3, 4), (3, 0), (0, 0), (3, -1)])
    def test_no_proof_of_a_log_that_was_not(self, size, old):
        with pytest.raises(ValueError, match="no such older log"):
            merkle.consistency_proof(numbered(size), old)


class TestFrontier:
    @pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 70])
    def test_it_comes_back_as_it_was(self, size):
        frontier = merkle.EMPTY.append_many(numbered(size))
        encoded = merkle.encode_frontier(frontier)
        assert encoded == size.to_bytes(8, "big") + b"".join(frontier.hashes)
        assert merkle.decode_frontier(encoded) == frontier

    def test_one_that_came_back_goes_on(self):
        leaves = numbered(50)
        kept = merkle.decode_frontier(merkle.encode_frontier(merkle.EMPTY.append_many(leaves[:21])))
        assert kept.append_many(leaves[21:]).root() == from_definition(leaves)

    def test_cut_or_lengthened_anywhere(self):
        encoded = merkle.encode_frontier(merkle.EMPTY.append_many(numbered(7)))
        for length in range(len(encoded)):
            with pytest.raises(FormatError):
                merkle.decode_frontier(encoded[:length])
        for extra in (b"\0", bytes(31), bytes(32)):
            with pytest.raises(FormatError):
                merkle.decode_frontier(encoded + extra)

    @pytest.mark.parametrize("size", [0, 1, 3, 6, 15, 2**64 - 1])
    def test_a_size_that_does_not_fit_the_hashes(self, size):
        with pytest.raises(FormatError):
            merkle.decode_frontier(size.to_bytes(8, "big") + bytes(32 * 2 if size.bit_count() != 2 else 32))

    def test_appending_changes_nothing_that_was_there(self):
        one = merkle.EMPTY.append_many(numbered(5))
        before = merkle.encode_frontier(one)
        one.append(LEAVES[0])
        assert merkle.encode_frontier(one) == before
        assert merkle.EMPTY.size == 0


def flipped(data: bytes, bit: int = 0) -> bytes:
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def mutations(proof: list[bytes]) -> list[list[bytes]]:
    found = [[*proof, bytes(32)], [bytes(32), *proof], [*proof, *LEAVES]]
    for at, part in enumerate(proof):
        found.append([*proof[:at], flipped(part, at), *proof[at + 1 :]])
        found.append([*proof[:at], part[:-1], *proof[at + 1 :]])
        found.append([*proof[:at], part + b"\0", *proof[at + 1 :]])
        found.append([*proof[:at], b"", *proof[at + 1 :]])
        found.append([*proof[:at], *proof[at + 1 :]])
        found.append([*proof[:at], part, part, *proof[at + 1 :]])
    if len(proof) > 1:
        found.append(proof[::-1])
        found.append([*proof[1:], proof[0]])
    return found
