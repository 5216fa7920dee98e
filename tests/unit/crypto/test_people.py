"""What stands for a person: the same under one key, another under another, and without the key nothing to go by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.crypto import memory, people
from vault.crypto.errors import CryptoError
from vault.crypto.memory import LockedBuffer

ALICE = "spiffe://bank.example/people/alice"
KEY = bytes(range(32))


def locked(data: bytes) -> LockedBuffer:
    buffer = memory.allocate(len(data))
    buffer.view[:] = data
    return buffer


def test_what_docs_formats_says_of_this_key_is_so() -> None:
    with locked(KEY) as key:
        assert people.pseudonym(key, ALICE) == "person:sRURsUMYZH5G7mLicot_jg"
        assert people.alias(key, "device", "laptop-7") == "_9bgJCax24RtzQ7pE1OETn5yT3R2AsKfyU-WsYVY66s"
        assert (
            people.seal(key, "x identity", b"abc", nonce=bytes(12)).hex()
            == "01000000000000000000000000e84796e81f5dd8bef34bcd4aec47b8d6b9eaf8"
        )


def test_a_pseudonym_is_one_for_each_identity_and_key() -> None:
    with locked(KEY) as one, locked(bytes(32)) as other:
        made = [people.pseudonym(key, who) for key in (one, other) for who in (ALICE, ALICE + "s")]
        assert len(set(made)) == len(made)
        assert people.pseudonym(one, ALICE) == made[0]
        assert people.alias(one, "device", "a") != people.alias(one, "certificate", "a")


@given(plaintext=st.binary(max_size=300))
def test_a_copy_opens_as_what_it_was_sealed_as_and_as_nothing_else(plaintext: bytes) -> None:
    with locked(KEY) as key, locked(bytes(32)) as other:
        sealed = people.seal(key, "person:a identity", plaintext)
        assert people.open(key, "person:a identity", sealed) == plaintext
        for wrong, what in ((other, "person:a identity"), (key, "person:b identity")):
            with pytest.raises(CryptoError):
                people.open(wrong, what, sealed)


def test_every_flipped_bit_of_a_copy_is_found_and_so_is_every_cut() -> None:
    with locked(KEY) as key:
        sealed = people.seal(key, "w", b"alice")
        for bit in range(len(sealed) * 8):
            flipped = bytearray(sealed)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CryptoError):
                people.open(key, "w", bytes(flipped))
        for size in range(len(sealed)):
            with pytest.raises(CryptoError):
                people.open(key, "w", sealed[:size])
