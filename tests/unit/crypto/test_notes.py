"""Signed notes: published examples of others, what is made here, and everything that is not a note."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from vault.crypto import notes
from vault.crypto.errors import FormatError, IntegrityError

# The example of the C2SP specification.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n"
    "\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
# The example of the format's first implementation, golang.org/x/mod/sumdb/note.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# A checkpoint that the public log of Sigstore signed with ECDSA.
REKOR_KEY = (
    "rekor.sigstore.dev+c0d23d6a+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLOC96l+smG"
    "NM7nwZ4QvFK/4sueRoVj//QP22Ni4Qt9DPfkWLc="
)
REKOR_NOTE = (
    "Rekor\n"
    "798034\n"
    "f+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=\n"
    "\n"
    "— rekor.sigstore.dev wNI9ajBEAiARInWIWyCdyG27CO6LPnPekyw20qO0YJfoaPaowGp/XgIgc+qEHS3+GKVClgqq20uDLet7MCoTURUCRdxw"
    "WBHHufk=\n"
)
NAME = "vault.example/audit"
ROOT = bytes(range(32))
BODY = notes.checkpoint_body(NAME, 7, ROOT)


class Signer:
    """A key, its verifier key, and notes by it."""

    def __init__(self, kind: str, name: str = NAME) -> None:
        self.ed25519 = ed25519.Ed25519PrivateKey.generate()
        self.ecdsa = ec.generate_private_key(ec.SECP256R1())
        self.kind = kind
        self.key = notes.verifier_key(
            name, spki((self.ed25519 if kind == "ed25519" else self.ecdsa).public_key())
        )

    def sign(self, body: str) -> bytes:
        if self.kind == "ed25519":
            return self.ed25519.sign(body.encode())
        r, s = decode_dss_signature(self.ecdsa.sign(body.encode(), ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def note(self, body: str = BODY) -> str:
        return notes.sign_with(body, self.key, self.sign(body))

    def line(self, body: str = BODY) -> str:
        return self.note(body).rpartition("\n\n")[2]


def spki(key: object) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]


@pytest.fixture(params=["ed25519", "ecdsa"])
def signer(request):
    return Signer(request.param)


def respelled(note: str, index: int, replacement: str) -> str:
    """The note with one of the three parts of its signature line replaced."""
    text, _, line = note.rpartition("\n\n")
    parts = line.removesuffix("\n").split(" ")
    parts[index] = replacement
    return f"{text}\n\n{' '.join(parts)}\n"


class TestPublishedExamples:
    @pytest.mark.parametrize(
        ("note", "key"), [(EXAMPLE, EXAMPLE_KEY), (GO_NOTE, GO_KEY), (REKOR_NOTE, REKOR_KEY)]
    )
    def test_they_verify(self, note, key):
        assert notes.verify_note(note, [key]) == note.rpartition("\n\n")[0] + "\n"

    @pytest.mark.parametrize(
        ("note", "key"), [(EXAMPLE, EXAMPLE_KEY), (GO_NOTE, GO_KEY), (REKOR_NOTE, REKOR_KEY)]
    )
    def test_no_other_text_verifies(self, note, key):
        for at in range(0, len(note.rpartition("\n\n")[0]), 3):
            altered = note[:at] + chr(ord(note[at]) ^ 1) + note[at + 1 :]
            with pytest.raises((IntegrityError, FormatError)):
                notes.verify_note(altered, [key])

    def test_the_checkpoint_says_what_it_says(self):
        head = notes.verify_checkpoint(REKOR_NOTE, [REKOR_KEY])
        root = base64.b64decode("f+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=")
        assert head == notes.CheckpointHead("Rekor", 798_034, root)

    def test_an_ed25519_note_is_made_byte_for_byte(self):
        signature = base64.b64decode(GO_NOTE.rstrip("\n").rpartition(" ")[2])[4:]
        assert notes.sign_with(GO_NOTE.rpartition("\n\n")[0] + "\n", GO_KEY, signature) == GO_NOTE

    @pytest.mark.parametrize(
        "key",
        [
            "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
            "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "rekor.sigstore.dev+00000000+" + REKOR_KEY.split("+", 2)[2],
            "rekor.sigstore.dev+c0d23d6a+AwEB",
        ],
    )
    def test_keys_of_a_wrong_length_type_or_id(self, key):
        with pytest.raises(FormatError):
            notes.verify_note(GO_NOTE, [key])

    @pytest.mark.parametrize("key", [EXAMPLE_KEY, GO_KEY])
    def test_no_part_of_a_key_is_a_key(self, key):
        for start in range(len(key)):
            for end in (start, start + 1, (start + len(key)) // 2, len(key) - 1, len(key)):
                part = key[start:end]
                if part != key:
                    with pytest.raises(FormatError):
                        notes.verify_note(GO_NOTE, [part])
        for at in range(len(key)):
            with pytest.raises(FormatError):
                notes.verify_note(GO_NOTE, [key[:at] + chr(ord(key[at]) + 1) + key[at + 1 :]])


class TestVerifierKeys:
    def test_an_ed25519_keys_id_covers_name_type_and_key(self):
        public = ed25519.Ed25519PrivateKey.generate().public_key()
        name, key_id, encoded = notes.verifier_key(NAME, spki(public)).split("+", 2)
        typed = b"\x01" + public.public_bytes_raw()
        assert (name, base64.b64decode(encoded)) == (NAME, typed)
        assert key_id == hashlib.sha256(NAME.encode() + b"\n" + typed).hexdigest()[:8]

    @pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
    def test_an_ecdsa_keys_id_covers_its_der_alone(self, curve):
        der = spki(ec.generate_private_key(curve).public_key())
        name, key_id, encoded = notes.verifier_key(NAME, der).split("+", 2)
        assert (name, base64.b64decode(encoded)) == (NAME, b"\x02" + der)
        assert key_id == hashlib.sha256(der).hexdigest()[:8]

    @pytest.mark.parametrize(
        "name", ["", "a b", "a+b", "a\tb", "a\n", "a\u00a0b", "a\u2028b", " ", "a\u3000"]
    )
    def test_names_that_no_key_can_have(self, name):
        with pytest.raises(FormatError):
            notes.verifier_key(name, spki(ed25519.Ed25519PrivateKey.generate().public_key()))

    @pytest.mark.parametrize(
        "der",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\x30", id="cut off"),
            pytest.param(b"garbage", id="garbage"),
            pytest.param(bytes.fromhex("302a300506032b6571032100") + bytes(31), id="Ed25519 a byte short"),
            pytest.param(bytes.fromhex("3009300506032a0304030000"), id="an algorithm that does not exist"),
            pytest.param(spki(x25519.X25519PrivateKey.generate().public_key()), id="X25519"),
            pytest.param(spki(rsa.generate_private_key(65_537, 2048).public_key()), id="RSA"),
            pytest.param(spki(ec.generate_private_key(ec.SECP256K1()).public_key()), id="secp256k1"),
        ],
    )
    def test_what_is_no_key_for_notes(self, der):
        with pytest.raises(FormatError):
            notes.verifier_key(NAME, der)
        typed = b"\x02" + der
        key = f"{NAME}+{hashlib.sha256(der).hexdigest()[:8]}+{base64.b64encode(typed).decode()}"
        with pytest.raises(FormatError):
            notes.verify_note(GO_NOTE, [key])

    def test_an_ed25519_key_is_not_taken_as_an_ecdsa_key(self):
        der = spki(ed25519.Ed25519PrivateKey.generate().public_key())
        typed = base64.b64encode(b"\x02" + der).decode()
        key = f"{NAME}+{hashlib.sha256(der).hexdigest()[:8]}+{typed}"
        with pytest.raises(FormatError):
            notes.verify_note(GO_NOTE, [key])

    @pytest.mark.parametrize("respell", [str.upper, " ".join, lambda text: text + "00"])
    def test_the_id_has_one_spelling(self, respell):
        name, key_id, encoded = GO_KEY.split("+", 2)
        with pytest.raises(FormatError):
            notes.verify_note(GO_NOTE, [f"{name}+{respell(key_id)}+{encoded}"])


class TestSigning:
    def test_what_is_signed_verifies(self, signer):
        assert notes.verify_note(signer.note(), [signer.key]) == BODY
        assert notes.verify_checkpoint(signer.note(), [signer.key]) == (NAME, 7, ROOT)

    def test_the_text_may_hold_empty_lines_and_any_letters(self, signer):
        body = "è\n\n\u2014 not a signature AAAA\n\n\U0001f512\n"
        assert notes.verify_note(signer.note(body), [signer.key]) == body

    @pytest.mark.parametrize("body", ["", "no end", "a\r\n", "a\tb\n", "a\0\n", "\x1b[31m\n", "\ud800\n"])
    def test_a_text_that_no_note_can_have(self, signer, body):
        with pytest.raises(FormatError):
            notes.sign_with(body, signer.key, bytes(64))

    @pytest.mark.parametrize("length", [0, 1, 63, 65, 96])
    def test_a_signature_of_another_length(self, signer, length):
        with pytest.raises(FormatError):
            notes.sign_with(BODY, signer.key, bytes(length))

    @pytest.mark.parametrize("verifier", ["", "a", "a+b", "a+b+c", NAME + "+00000000+AAAA"])
    def test_with_what_is_no_verifier_key(self, verifier):
        with pytest.raises(FormatError):
            notes.sign_with(BODY, verifier, bytes(64))


class TestVerifying:
    def test_a_note_by_nobody_known(self, signer):
        for keys in ([], [EXAMPLE_KEY], [Signer("ed25519").key, Signer("ecdsa").key]):
            with pytest.raises(IntegrityError):
                notes.verify_note(signer.note(), keys)

    def test_every_flipped_bit_of_a_signature_is_noticed(self, signer):
        note = signer.note()
        raw = base64.b64decode(note.rstrip("\n").rpartition(" ")[2])
        for at in range(8 * len(raw)):
            altered = bytearray(raw)
            altered[at // 8] ^= 1 << at % 8
            with pytest.raises(IntegrityError):
                notes.verify_note(respelled(note, 2, base64.b64encode(altered).decode()), [signer.key])

    def test_an_unknown_key_beside_a_known_one_is_ignored(self, signer):
        stranger = Signer("ed25519", "stranger.example")
        for note in (signer.note() + stranger.line(), stranger.note() + signer.line()):
            assert notes.verify_note(note, [signer.key]) == BODY

    def test_a_stranger_of_the_same_name_is_ignored(self, signer):
        assert notes.verify_note(signer.note() + Signer("ecdsa").line(), [signer.key]) == BODY

    def test_a_known_id_under_another_name_is_ignored(self, signer):
        renamed = signer.line().replace(NAME, "other.example")
        assert notes.verify_note(signer.note() + renamed, [signer.key]) == BODY
        with pytest.raises(IntegrityError):
            notes.verify_note(BODY + "\n" + renamed, [signer.key])

    def test_a_bad_signature_by_a_known_key_spoils_the_good_one_beside_it(self, signer):
        other = Signer("ed25519", "other.example")
        bad = other.line(BODY + "another text\n")
        for note in (signer.note() + bad, BODY + "\n" + bad + signer.line()):
            with pytest.raises(IntegrityError):
                notes.verify_note(note, [signer.key, other.key])
            assert notes.verify_note(note, [signer.key]) == BODY

    def test_a_bad_second_signature_by_the_same_key_spoils_the_note(self, signer):
        with pytest.raises(IntegrityError):
            notes.verify_note(signer.note() + signer.line(BODY + "x\n"), [signer.key])

    def test_a_hundred_signatures_and_no_more(self, signer):
        stranger = Signer("ed25519", "stranger.example")
        note = signer.note() + stranger.line() * 99
        assert notes.verify_note(note, [signer.key]) == BODY
        with pytest.raises(FormatError):
            notes.verify_note(note + stranger.line(), [signer.key])

    @pytest.mark.parametrize(
        "template",
        [
            "",
            "\n",
            "\n\n",
            "{text}",
            "{text}\n",
            "{text}— {name} {signature}\n",
            "{text}\n— {name} {signature}",
            "{text}\n— {name} {signature}\n\n",
            "{text}\n— {name} {signature}\nstray\n",
            "{text}\nstray\n— {name} {signature}\n",
            "{text}\r\n— {name} {signature}\n",
            "{text}\n— {name} {signature}\r\n",
            "\x01{text}\n— {name} {signature}\n",
            "\t{text}\n— {name} {signature}\n",
            "\ud800{text}\n— {name} {signature}\n",
            "{text}\n- {name} {signature}\n",
            "{text}\n-- {name} {signature}\n",
            "{text}\n—{name} {signature}\n",
            "{text}\n—  {name} {signature}\n",
            "{text}\n — {name} {signature}\n",
            "{text}\n— Bad Name {signature}\n",
            "{text}\n— Bad+Name {signature}\n",
            "{text}\n— Bad\u00a0Name {signature}\n",
            "{text}\n—  {signature}\n",
            "{text}\n— {signature}\n",
            "{text}\n— {name} {signature}\u2028",
            "{text}\n— {name} {signature}\n— {name} {signature}\u2028\n",
            "{text}\n— {name}\n",
            "{text}\n— {name} \n",
            "{text}\n— {name} AAAA\n",
            "{text}\n— {name} AAAAAA==\n",
            "{text}\n— {name} not-base64!\n",
            "{text}\n— {name} éééé\n",
            "{text}\n— {name} {signature}=\n",
            "{text}\n— {name} {signature} \n",
            "{text}\n— {name} ={signature}\n",
        ],
    )
    def test_what_is_not_a_note(self, template):
        signer = Signer("ed25519")
        signature = signer.line().rstrip("\n").rpartition(" ")[2]
        proper = "{text}\n— {name} {signature}\n"
        assert notes.verify_note(proper.format(text=BODY, name=NAME, signature=signature), [signer.key])
        with pytest.raises(FormatError):
            notes.verify_note(template.format(text=BODY, name=NAME, signature=signature), [signer.key])

    def test_every_truncation_is_refused(self, signer):
        note = signer.note()
        for length in range(len(note)):
            with pytest.raises((FormatError, IntegrityError)):
                notes.verify_note(note[:length], [signer.key])


class TestCheckpoints:
    def test_the_text_is_frozen(self):
        assert notes.checkpoint_body("o", 12, bytes(32)) == f"o\n12\n{'A' * 43}=\n"

    @pytest.mark.parametrize("size", [0, 1, 10, 2**63 - 1])
    def test_any_size(self, size):
        signer = Signer("ed25519")
        note = signer.note(notes.checkpoint_body(NAME, size, ROOT))
        assert notes.verify_checkpoint(note, [signer.key]).size == size

    def test_lines_behind_the_third_are_allowed(self):
        signer = Signer("ed25519")
        assert notes.verify_checkpoint(signer.note(BODY + "more\n"), [signer.key]).size == 7

    @pytest.mark.parametrize(
        "lines",
        [
            ["o"],
            ["o", "1"],
            ["", "1", "R"],
            ["o", "", "R"],
            ["o", "-1", "R"],
            ["o", "+1", "R"],
            ["o", "01", "R"],
            ["o", "00", "R"],
            ["o", "1 ", "R"],
            ["o", " 1", "R"],
            ["o", "1_0", "R"],
            ["o", "0x1", "R"],
            ["o", "1.0", "R"],
            ["o", "\u0661", "R"],
            ["o", "\u00b2", "R"],
            ["o", "9" * 5_000, "R"],
            ["o", "1", ""],
            ["o", "1", "AAAA"],
            ["o", "1", "R="],
            ["o", "1", " R"],
            ["o", "1", "é"],
            ["o", "1", "R".lower()],
            ["o", "1", "_" * 43 + "="],
        ],
    )
    def test_what_is_signed_but_not_a_checkpoint(self, lines):
        signer = Signer("ed25519")
        root = base64.b64encode(ROOT).decode()
        body = "".join(line.replace("R", root) + "\n" for line in lines)
        with pytest.raises(FormatError):
            notes.verify_checkpoint(signer.note(body), [signer.key])

    def test_nothing_is_read_from_what_is_not_signed(self):
        signer = Signer("ed25519")
        other = notes.checkpoint_body(NAME, 8, ROOT)
        with pytest.raises(IntegrityError):
            notes.verify_checkpoint(other + "\n" + signer.line(), [signer.key])
