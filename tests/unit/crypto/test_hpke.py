"""HPKE, against an implementation of its own from RFC 9180 and the X-Wing draft, and against published values."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.crypto import hpke, memory
from vault.crypto.errors import FormatError, IntegrityError

SUITES = [pytest.param(suite, id=suite.name) for suite in hpke.SUITES.values()]
X25519, XWING = hpke.SUITES[1], hpke.SUITES[2]
INFO = b"some context"
# Points of small order (RFC 7748, section 6.1): a shared secret of zeros, whatever the private key.
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@dataclass(frozen=True)
class Reference:
    """HPKE base mode with HKDF-SHA256 and AES-GCM, from the RFC's text."""

    kem_id: int
    aead_id: int = 2

    @property
    def key_bytes(self) -> int:
        return {1: 16, 2: 32}[self.aead_id]

    @property
    def suite_id(self) -> bytes:
        return b"HPKE" + self.kem_id.to_bytes(2, "big") + bytes([0, 1, 0, self.aead_id])

    @staticmethod
    def extract(salt: bytes, suite_id: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite_id + label + ikm, hashlib.sha256)

    @staticmethod
    def expand(prk: bytes, suite_id: bytes, label: bytes, info: bytes, length: int) -> bytes:
        info = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info
        return hmac.digest(prk, info + b"\x01", hashlib.sha256)[:length]

    def dhkem(self, shared: bytes, enc: bytes, public: bytes) -> bytes:
        suite_id = b"KEM" + self.kem_id.to_bytes(2, "big")
        prk = self.extract(b"", suite_id, b"eae_prk", shared)
        return self.expand(prk, suite_id, b"shared_secret", enc + public, 32)

    def schedule(self, shared_secret: bytes, info: bytes) -> tuple[bytes, bytes]:
        """The key and the nonce of the first message."""
        context = b"\0" + self.extract(b"", self.suite_id, b"psk_id_hash", b"")
        context += self.extract(b"", self.suite_id, b"info_hash", info)
        secret = self.extract(shared_secret, self.suite_id, b"secret", b"")
        key = self.expand(secret, self.suite_id, b"key", context, self.key_bytes)
        return key, self.expand(secret, self.suite_id, b"base_nonce", context, 12)

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        ephemeral = X25519PrivateKey.generate()
        enc = ephemeral.public_key().public_bytes_raw()
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public[-32:]))
        if self.kem_id == 0x20:
            return self.dhkem(shared, enc, public), enc
        pq_shared, pq_enc = MLKEM768PublicKey.from_public_bytes(public[:-32]).encapsulate()
        return xwing_combine(pq_shared, shared, enc, public[-32:]), pq_enc + enc

    def decapsulate(self, seed: bytes, enc: bytes) -> bytes:
        if self.kem_id == 0x20:
            private = X25519PrivateKey.from_private_bytes(seed)
            shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
            return self.dhkem(shared, enc, private.public_key().public_bytes_raw())
        expanded = hashlib.shake_256(seed).digest(96)
        private = X25519PrivateKey.from_private_bytes(expanded[64:])
        shared = private.exchange(X25519PublicKey.from_public_bytes(enc[-32:]))
        pq_shared = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).decapsulate(enc[:-32])
        return xwing_combine(pq_shared, shared, enc[-32:], private.public_key().public_bytes_raw())

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        shared, enc = self.encapsulate(public)
        key, nonce = self.schedule(shared, info)
        return enc + AESGCM(key).encrypt(nonce, plaintext, b"")

    def open(self, seed: bytes, info: bytes, sealed: bytes) -> bytes:
        split = 32 if self.kem_id == 0x20 else 1120
        key, nonce = self.schedule(self.decapsulate(seed, sealed[:split]), info)
        return AESGCM(key).decrypt(nonce, sealed[split:], b"")


def xwing_combine(pq_shared: bytes, shared: bytes, enc: bytes, public: bytes) -> bytes:
    return hashlib.sha3_256(pq_shared + shared + enc + public + b"\\.//^\\").digest()


REFERENCES = {1: Reference(0x0020), 2: Reference(0x647A)}


def seeded(suite: hpke.HpkeSuite, seed: bytes = bytes(range(32))) -> hpke.HpkeKeyPair:
    with memory.allocate(len(seed)) as buffer:
        buffer.view[:] = seed
        return hpke.keypair_from_seed(suite, buffer)


class TestAgainstTheReference:
    def test_the_reference_gives_the_values_of_rfc_9180_a_1_1(self):
        reference = Reference(0x0020, aead_id=1)
        private = X25519PrivateKey.from_private_bytes(
            bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
        )
        enc = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
        public = private.public_key().public_bytes_raw()
        assert public.hex() == "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d"
        secret = reference.dhkem(private.exchange(X25519PublicKey.from_public_bytes(enc)), enc, public)
        assert secret.hex() == "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc"
        key, nonce = reference.schedule(secret, b"Ode on a Grecian Urn")
        assert key.hex() == "4531685d41d65f03dc48f6b8302c05b0"
        assert nonce.hex() == "56d890e5accaaf011cff4b7d"

    @pytest.mark.parametrize("plaintext", [b"", b"x", bytes(1000)])
    @pytest.mark.parametrize("info", [b"", INFO, bytes(300)])
    @pytest.mark.parametrize("suite", SUITES)
    def test_it_opens_what_the_reference_seals(self, suite, info, plaintext):
        keys = seeded(suite)
        sealed = REFERENCES[suite.number].seal(keys.public_bytes, info, plaintext)
        with hpke.open(suite, keys.private, info, sealed) as opened:
            assert isinstance(opened, memory.LockedBuffer)
            assert opened.view == plaintext

    @pytest.mark.parametrize("plaintext", [b"", b"x", bytes(1000)])
    @pytest.mark.parametrize("info", [b"", INFO, bytes(300)])
    @pytest.mark.parametrize("suite", SUITES)
    def test_the_reference_opens_what_it_seals(self, suite, info, plaintext):
        keys = seeded(suite)
        sealed = hpke.seal(suite, keys.public_bytes, info, plaintext)
        assert len(sealed) == suite.enc_bytes + len(plaintext) + 16
        assert REFERENCES[suite.number].open(bytes(range(32)), info, sealed) == plaintext

    @pytest.mark.parametrize(
        ("number", "digest"),
        [
            (0, "2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb"),
            (1, "c42ba5f8430d7d2c83739338203819f090e8303ce9c8b02107c272bfa5376916"),
            (2, "6b080d6b84f095342092fa7a22423e58bd681397ad0ef00eac92bd254db4fa95"),
        ],
    )
    def test_seeds_make_the_public_keys_of_the_x_wing_draft(self, number, digest):
        """The draft takes its seeds from SHAKE128 of nothing: 32 bytes for a key, then 64 for an encapsulation."""
        seed = hashlib.shake_128(b"").digest(96 * 3)[96 * number :][:32]
        public = seeded(XWING, seed).public_bytes
        assert len(public) == 1216
        assert hashlib.sha256(public).hexdigest() == digest

    def test_a_seed_of_suite_1_is_the_private_key_itself(self):
        seed = bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
        public = "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d"
        assert seeded(X25519, seed).public_bytes.hex() == public


@pytest.mark.parametrize("suite", SUITES)
class TestKeys:
    def test_sizes_are_as_the_table_says(self, suite):
        keys = hpke.generate_keypair(suite)
        assert len(keys.public_bytes) == suite.public_bytes
        assert suite.enc_bytes == {1: 32, 2: 1120}[suite.number]

    def test_one_seed_makes_one_key(self, suite):
        assert seeded(suite).public_bytes == seeded(suite).public_bytes
        assert seeded(suite).public_bytes != seeded(suite, bytes(32)).public_bytes
        assert hpke.generate_keypair(suite).public_bytes != hpke.generate_keypair(suite).public_bytes

    @pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
    def test_a_seed_of_another_length(self, suite, length):
        with pytest.raises(FormatError):
            seeded(suite, bytes(length))

    def test_the_private_half_does_not_show(self, suite):
        assert "private" not in repr(seeded(suite)).lower()

    def test_no_locked_memory_stays_behind(self, suite):
        before = memory.statistics().used
        for _ in range(20):
            keys = hpke.generate_keypair(suite)
            sealed = hpke.seal(suite, keys.public_bytes, INFO, b"x")
            hpke.open(suite, keys.private, INFO, sealed).close()
        assert memory.statistics().used == before


@pytest.mark.parametrize("suite", SUITES)
class TestRefusals:
    def test_another_context(self, suite):
        keys = seeded(suite)
        sealed = hpke.seal(suite, keys.public_bytes, INFO, b"hello")
        for info in (b"", INFO[:-1], INFO + b"\0", INFO.upper()):
            with pytest.raises(IntegrityError):
                hpke.open(suite, keys.private, info, sealed)

    def test_another_key(self, suite):
        sealed = hpke.seal(suite, seeded(suite).public_bytes, INFO, b"hello")
        with pytest.raises(IntegrityError):
            hpke.open(suite, hpke.generate_keypair(suite).private, INFO, sealed)

    def test_a_flipped_bit_in_every_byte(self, suite):
        keys = seeded(suite)
        sealed = hpke.seal(suite, keys.public_bytes, INFO, b"hello")
        for at in range(0, len(sealed), 1 if suite.number == 1 else 7):
            # The top bit of an X25519 point is masked (RFC 7748, section 5), and bound by the KEM all the same.
            altered = bytearray(sealed)
            altered[at] ^= 0x80
            with pytest.raises(IntegrityError):
                hpke.open(suite, keys.private, INFO, bytes(altered))

    def test_cut_at_every_byte(self, suite):
        keys = seeded(suite)
        sealed = hpke.seal(suite, keys.public_bytes, INFO, b"hello")
        for length in range(len(sealed)):
            error = FormatError if length < suite.enc_bytes + 16 else IntegrityError
            with pytest.raises(error):
                hpke.open(suite, keys.private, INFO, sealed[:length])

    @pytest.mark.parametrize("extra", [1, 16, 1000])
    def test_bytes_too_many(self, suite, extra):
        keys = seeded(suite)
        sealed = hpke.seal(suite, keys.public_bytes, INFO, b"hello")
        with pytest.raises(IntegrityError):
            hpke.open(suite, keys.private, INFO, sealed + bytes(extra))

    @pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:4])
    def test_sealing_to_a_point_of_low_order(self, suite, point):
        with pytest.raises(FormatError):
            hpke.seal(suite, seeded(suite).public_bytes[:-32] + point, INFO, b"hello")

    @pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:4])
    def test_opening_from_a_point_of_low_order(self, suite, point):
        keys = seeded(suite)
        sealed = hpke.seal(suite, keys.public_bytes, INFO, b"hello")
        altered = sealed[: suite.enc_bytes - 32] + point + sealed[suite.enc_bytes :]
        with pytest.raises(IntegrityError):
            hpke.open(suite, keys.private, INFO, altered)

    def test_public_keys_of_another_length(self, suite):
        for length in (0, 1, 31, 33, 1184, 1215, 1217, 5000):
            with pytest.raises(FormatError):
                hpke.seal(suite, bytes(length), INFO, b"hello")
        other = hpke.SUITES[3 - suite.number]
        with pytest.raises(FormatError):
            hpke.seal(suite, seeded(other).public_bytes, INFO, b"hello")

    def test_what_one_suite_sealed_the_other_does_not_open(self, suite):
        other = hpke.SUITES[3 - suite.number]
        sealed = hpke.seal(suite, seeded(suite).public_bytes, INFO, bytes(2000))
        with pytest.raises(IntegrityError):
            hpke.open(other, seeded(other).private, INFO, sealed)

    def test_no_two_messages_are_alike(self, suite):
        public = seeded(suite).public_bytes
        assert len({hpke.seal(suite, public, INFO, b"hello") for _ in range(10)}) == 10


def test_an_ml_kem_key_whose_numbers_are_too_large_is_refused():
    public = b"\xff" * 1184 + seeded(X25519).public_bytes
    with pytest.raises(FormatError):
        hpke.seal(XWING, public, INFO, b"hello")


def test_seeds_are_new_and_locked():
    with hpke.new_seed() as one, hpke.new_seed() as other:
        assert len(one) == hpke.SEED_BYTES
        assert one.view != other.view
