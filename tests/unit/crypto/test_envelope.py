"""The envelope, against frozen vectors and against whoever can write to the database."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from collections import Counter
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from vault.crypto import envelope, memory, suites
from vault.crypto.encoding import encode
from vault.crypto.envelope import EnvelopeContext
from vault.crypto.errors import BufferClosed, CryptoError, FormatError, IntegrityError, UnknownSuite
from vault.crypto.memory import LockedBuffer

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "envelope_v1.json").read_text())
ERRORS: dict[str, type[CryptoError]] = {
    "integrity": IntegrityError,
    "format": FormatError,
    "unknown suite": UnknownSuite,
}
CONTEXT = EnvelopeContext("acme", "acme/stripe/live", 3, "kek/acme", 1)
NONCE = bytes(range(12))


def locked(data: bytes) -> LockedBuffer:
    buffer = memory.allocate(len(data))
    buffer.view[:] = data
    return buffer


def unwrap(parsed: envelope.Envelope, context: EnvelopeContext) -> LockedBuffer:
    """What the HSM does, with the KEK that the row names."""
    kek = VECTORS["keks"].get(f"{context.kek_name}/{context.kek_version}")
    aad = envelope.wrap_aad(suites.suite(parsed.suite), context)
    try:
        return memory.absorb(
            AESGCM(bytes.fromhex(kek)).decrypt(parsed.wrapped_dek[:12], parsed.wrapped_dek[12:], aad)
        )
    except InvalidTag:
        raise IntegrityError("the HSM refuses") from None


def open_row(blob: bytes, context: EnvelopeContext) -> bytes:
    parsed = envelope.parse(blob)
    if parsed.kek_version != context.kek_version:
        raise IntegrityError("row and envelope differ")
    with unwrap(parsed, context) as dek, envelope.open(parsed, context, dek) as plaintext:
        return bytes(plaintext.view)


def seal(
    plaintext: bytes = b"hello", suite: int = 1, wrapped: bytes = b"wrapped"
) -> tuple[bytes, LockedBuffer]:
    dek = envelope.new_dek()
    return envelope.seal(suites.suite(suite), CONTEXT, dek, wrapped, memoryview(plaintext)), dek


class TestVectors:
    @pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: f"{v['id']}: {v['comment']}")
    def test_a_vector_opens_or_fails_as_it_says(self, vector):
        context = EnvelopeContext(**vector["context"])
        blob = bytes.fromhex(vector["envelope"])
        if vector["expect"] == "ok":
            assert open_row(blob, context) == bytes.fromhex(vector["plaintext"])
        else:
            with pytest.raises(ERRORS[vector["expect"]]):
                open_row(blob, context)

    @pytest.mark.parametrize(
        "vector", [v for v in VECTORS["vectors"] if v["expect"] == "ok"], ids=lambda v: v["comment"]
    )
    def test_sealing_gives_the_vector_byte_for_byte(self, vector):
        blob = bytes.fromhex(vector["envelope"])
        with locked(bytes.fromhex(vector["dek"])) as dek:
            sealed = envelope.seal(
                suites.suite(vector["suite"]),
                EnvelopeContext(**vector["context"]),
                dek,
                envelope.parse(blob).wrapped_dek,
                memoryview(bytes.fromhex(vector["plaintext"])),
                nonce=bytes.fromhex(vector["nonce"]),
            )
        assert sealed == blob

    def test_most_vectors_are_negative_and_every_suite_has_them(self):
        counts = Counter((v["suite"], v["expect"]) for v in VECTORS["vectors"])
        for suite in (1, 2):
            assert counts[suite, "integrity"] > 20
            assert counts[suite, "format"] >= 12
            assert counts[suite, "ok"] >= 5

    def test_numbers_are_unique(self):
        numbers = [v["id"] for v in VECTORS["vectors"]]
        assert numbers == list(range(1, len(numbers) + 1))


class TestFormat:
    @pytest.mark.parametrize(("suite", "aead"), [(1, AESGCM), (2, ChaCha20Poly1305)])
    def test_an_implementation_from_the_description_alone_opens_it(self, suite, aead):
        blob, dek = seal(b"the plaintext", suite)
        assert blob[:9] == b"\x01" + bytes([0, suite]) + bytes([0, 0, 0, 1]) + bytes([0, 7])
        assert blob[9:16] == b"wrapped"
        nonce, commitment, ciphertext = blob[16:28], blob[28:60], blob[60:]
        bound = encode("strongroom/envelope/v1", 1, suite, "acme", "acme/stripe/live", 3)
        expand = [
            hmac.digest(dek.view, purpose + b"\0" + bound + b"\x01", hashlib.sha256)
            for purpose in (b"commitment", b"key")
        ]
        assert commitment == expand[0]
        assert aead(expand[1]).decrypt(nonce, ciphertext, bound) == b"the plaintext"

    @pytest.mark.parametrize("suite", [1, 2])
    def test_every_flipped_bit_is_noticed(self, suite):
        """The head is the HSM's to check; from the nonce on it is the envelope's own."""
        blob, dek = seal(b"abc", suite)
        for at in range(16, len(blob)):
            for bit in range(8):
                altered = bytearray(blob)
                altered[at] ^= 1 << bit
                with pytest.raises(IntegrityError):
                    envelope.open(envelope.parse(bytes(altered)), CONTEXT, dek)

    def test_every_truncation_is_refused(self):
        blob, dek = seal()
        for length in range(len(blob)):
            with pytest.raises((FormatError, IntegrityError)):
                envelope.open(envelope.parse(blob[:length]), CONTEXT, dek)

    @pytest.mark.parametrize(
        "change",
        [
            {"tenant": "acm"},
            {"tenant": ""},
            {"credential": "acme/stripe/liv"},
            {"credential": "ACME/stripe/live"},
            {"version": 2},
            {"version": 30},
            {"version": -3},
            {"tenant": "acmea", "credential": "cme/stripe/live"},
        ],
    )
    @pytest.mark.parametrize("suite", [1, 2])
    def test_it_opens_in_no_other_row(self, suite, change):
        blob, dek = seal(suite=suite)
        with pytest.raises(IntegrityError):
            envelope.open(envelope.parse(blob), dataclasses.replace(CONTEXT, **change), dek)

    def test_what_the_hsm_binds_names_every_part_of_the_context(self):
        aads = {envelope.wrap_aad(suites.suite(number), CONTEXT) for number in (1, 2)}
        for field in dataclasses.fields(CONTEXT):
            value = getattr(CONTEXT, field.name)
            other = value + 1 if isinstance(value, int) else value + "x"
            aads.add(envelope.wrap_aad(suites.suite(1), dataclasses.replace(CONTEXT, **{field.name: other})))
        assert len(aads) == 2 + len(dataclasses.fields(CONTEXT))

    @pytest.mark.parametrize("suite", [1, 2])
    @pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 64 * 1024])
    def test_any_size_comes_back_as_it_was(self, suite, size):
        plaintext = hashlib.shake_128(b"x").digest(size)
        blob, dek = seal(plaintext, suite)
        with envelope.open(envelope.parse(blob), CONTEXT, dek) as opened:
            assert opened.view == plaintext

    def test_two_envelopes_of_one_plaintext_share_nothing_but_the_head(self):
        dek = envelope.new_dek()
        first, second = (
            envelope.parse(envelope.seal(suites.current(), CONTEXT, dek, b"w", memoryview(b"same")))
            for _ in range(2)
        )
        assert first.nonce != second.nonce
        assert first.ciphertext != second.ciphertext

    def test_deks_are_new_locked_and_whole(self):
        with envelope.new_dek() as one, envelope.new_dek() as other:
            assert len(one) == 32
            assert one.view != other.view
            assert any(one.view[16:])

    def test_nothing_secret_shows(self):
        blob, _ = seal(wrapped=b"WRAPPED")
        shown = repr(envelope.parse(blob))
        assert "WRAPPED" not in shown
        assert "suite=1" in shown

    @pytest.mark.parametrize("wrapped", [b"", bytes(1025), bytes(70_000)])
    def test_a_wrapped_dek_that_could_not_be_read_back_is_never_written(self, wrapped):
        blob, dek = seal()
        with pytest.raises(FormatError):
            envelope.seal(suites.current(), CONTEXT, dek, wrapped, memoryview(b""))
        with pytest.raises(FormatError):
            envelope.replace_wrapped_dek(blob, 2, wrapped)

    def test_a_wiped_dek_seals_and_opens_nothing(self):
        blob, dek = seal()
        dek.close()
        with pytest.raises(BufferClosed):
            envelope.open(envelope.parse(blob), CONTEXT, dek)
        with pytest.raises(BufferClosed):
            envelope.seal(suites.current(), CONTEXT, dek, b"w", memoryview(b""))

    def test_a_failed_opening_leaves_no_locked_memory_behind(self):
        blob, dek = seal()
        altered = envelope.parse(blob[:-1] + bytes([blob[-1] ^ 1]))
        before = memory.statistics()
        for _ in range(100):
            with pytest.raises(IntegrityError):
                envelope.open(altered, CONTEXT, dek)
        assert memory.statistics() == before


class TestRewrap:
    @pytest.mark.parametrize("wrapped", [b"w", b"a longer one than before", bytes(1024)])
    def test_only_the_head_changes_and_it_opens_under_the_newer_key(self, wrapped):
        blob, dek = seal(b"still here")
        newer = envelope.replace_wrapped_dek(blob, 2, wrapped)
        old, new = envelope.parse(blob), envelope.parse(newer)
        assert old._replace(kek_version=2, wrapped_dek=wrapped) == new
        with envelope.open(new, dataclasses.replace(CONTEXT, kek_version=2), dek) as plaintext:
            assert plaintext.view == b"still here"

    def test_back_again_is_the_same_envelope(self):
        blob, _ = seal()
        assert (
            envelope.replace_wrapped_dek(envelope.replace_wrapped_dek(blob, 9, b"x"), 1, b"wrapped") == blob
        )

    def test_what_is_no_envelope_is_not_rewrapped(self):
        with pytest.raises(FormatError):
            envelope.replace_wrapped_dek(b"\x02" + bytes(100), 2, b"w")


class TestCommitment:
    """AES-GCM alone lets one ciphertext open under two keys: here such a ciphertext, and what stops it."""

    def two_key_ciphertext(self, keys: tuple[bytes, bytes], nonce: bytes, bound: bytes) -> bytes:
        """A ciphertext of two blocks whose one tag holds under both keys.

        The tag is linear in the ciphertext's blocks over GF(2^128). The first block is chosen freely, the second is
        solved so that both keys give the same tag.
        """
        subkeys = [_aes(key, bytes(16)) for key in keys]
        masks = [_aes(key, nonce + b"\0\0\0\x01") for key in keys]
        first = b"any sixteen byte"
        padded = bound + bytes(-len(bound) % 16)
        lengths = (8 * len(bound)).to_bytes(8, "big") + (8 * 32).to_bytes(8, "big")
        constants = [
            _ghash(subkey, padded + first + bytes(16) + lengths) ^ int.from_bytes(mask, "big")
            for subkey, mask in zip(subkeys, masks, strict=True)
        ]
        # The second block's coefficient is the subkey squared.
        squares = [_multiply(*[int.from_bytes(subkey, "big")] * 2) for subkey in subkeys]
        second = _multiply(constants[0] ^ constants[1], _invert(squares[0] ^ squares[1]))
        body = first + second.to_bytes(16, "big")
        tag = _ghash(subkeys[0], padded + body + lengths) ^ int.from_bytes(masks[0], "big")
        return body + tag.to_bytes(16, "big")

    def test_a_ciphertext_that_opens_under_two_deks_is_refused_under_both_but_the_committed(self):
        bound = encode("strongroom/envelope/v1", 1, 1, CONTEXT.tenant, CONTEXT.credential, CONTEXT.version)
        deks = envelope.new_dek(), envelope.new_dek()
        derived = [
            {
                p: hmac.digest(dek.view, p + b"\0" + bound + b"\x01", hashlib.sha256)
                for p in (b"key", b"commitment")
            }
            for dek in deks
        ]
        ciphertext = self.two_key_ciphertext((derived[0][b"key"], derived[1][b"key"]), NONCE, bound)
        plaintexts = [AESGCM(each[b"key"]).decrypt(NONCE, ciphertext, bound) for each in derived]
        assert plaintexts[0] != plaintexts[1], "the attack itself must work, or the test shows nothing"

        for own, other in ((0, 1), (1, 0)):
            forged = envelope.Envelope(1, 1, b"w", NONCE, derived[own][b"commitment"], ciphertext)
            with envelope.open(forged, CONTEXT, deks[own]) as plaintext:
                assert plaintext.view == plaintexts[own]
            with pytest.raises(IntegrityError):
                envelope.open(forged, CONTEXT, deks[other])


def _aes(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def _multiply(x: int, y: int) -> int:
    """In GCM's field, whose first bit is the constant term."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = (y >> 1) ^ (0xE1 << 120 if y & 1 else 0)
    return product


def _invert(x: int) -> int:
    result, power = 1 << 127, x
    for bit in range(128):
        if bit:
            result = _multiply(result, power)
        power = _multiply(power, power)
    return result


def _ghash(subkey: bytes, data: bytes) -> int:
    total, key = 0, int.from_bytes(subkey, "big")
    for at in range(0, len(data), 16):
        total = _multiply(total ^ int.from_bytes(data[at : at + 16], "big"), key)
    return total
