"""What an envelope refuses on its own, before any HSM is asked: edits of its head, and what does not fit."""

from __future__ import annotations

import dataclasses

import pytest

from vault.crypto import envelope, memory, suites
from vault.crypto.encoding import encode
from vault.crypto.envelope import EnvelopeContext
from vault.crypto.errors import BufferClosed, FormatError, IntegrityError, UnknownSuite

CONTEXT = EnvelopeContext("acme", "acme/plaid/item-1", 3, "prod/kek/acme", 7)
WRAPPED = b"wrapped by the HSM"
SECRET = b"correct horse battery staple"
BOTH = pytest.mark.parametrize("suite", [suites.suite(1), suites.suite(2)], ids=lambda suite: suite.name)


@pytest.fixture
def dek() -> memory.LockedBuffer:
    return memory.absorb(bytearray(range(32)))


def sealed(suite: suites.Suite, dek: memory.LockedBuffer, text: bytes = SECRET) -> bytes:
    return envelope.seal(suite, CONTEXT, dek, WRAPPED, memoryview(text))


@BOTH
def test_no_bit_can_be_altered_but_those_that_the_hsm_authenticates(suite, dek):
    blob = sealed(suite, dek, b"x")
    wrapped = range(9, 9 + len(WRAPPED))
    for place in (place for place in range(len(blob)) if place not in wrapped):
        for bit in range(8):
            altered = bytearray(blob)
            altered[place] ^= 1 << bit
            with pytest.raises((IntegrityError, FormatError, UnknownSuite)):
                envelope.open(envelope.parse(bytes(altered)), CONTEXT, dek)


@BOTH
@pytest.mark.parametrize("version", [0, 6, 8, 2**32 - 1])
def test_an_envelope_of_another_kek_version_than_its_row_says_is_refused(suite, dek, version):
    parsed = envelope.parse(sealed(suite, dek))
    with pytest.raises(IntegrityError):
        envelope.open(parsed, dataclasses.replace(CONTEXT, kek_version=version), dek)


@BOTH
def test_after_a_rewrap_the_older_kek_version_is_refused(suite, dek):
    new = envelope.parse(envelope.replace_wrapped_dek(sealed(suite, dek), 8, WRAPPED))
    with envelope.open(new, dataclasses.replace(CONTEXT, kek_version=8), dek) as plaintext:
        assert plaintext.view == SECRET
    with pytest.raises(IntegrityError):
        envelope.open(new, CONTEXT, dek)


@BOTH
def test_a_retired_suite_seals_nothing_new_but_still_opens(suite, dek, monkeypatch):
    parsed = envelope.parse(sealed(suite, dek))
    retired = dataclasses.replace(suite, status=suites.SuiteStatus.RETIRED)
    with pytest.raises(UnknownSuite):
        envelope.seal(retired, CONTEXT, dek, WRAPPED, memoryview(SECRET))
    monkeypatch.setattr(suites, "suite", lambda _number: retired)
    with envelope.open(parsed, CONTEXT, dek) as plaintext:
        assert plaintext.view == SECRET


@BOTH
def test_nothing_is_decrypted_unless_the_commitment_holds(suite, dek, monkeypatch):
    forged = envelope.parse(sealed(suite, dek))._replace(commitment=bytes(32))

    def never(_key: memoryview) -> suites.Aead:
        raise AssertionError("decrypted first")

    monkeypatch.setattr(suites, "suite", lambda _number: dataclasses.replace(suite, aead=never))
    with pytest.raises(IntegrityError):
        envelope.open(forged, CONTEXT, dek)


def test_a_refusal_does_not_say_what_did_not_fit(dek):
    parsed = envelope.parse(sealed(suites.current(), dek))
    texts = set()
    for wrong in (
        {"commitment": bytes(32)},
        {"nonce": bytes(12)},
        {"ciphertext": bytes(50)},
        {"kek_version": 9},
    ):
        with pytest.raises(IntegrityError) as caught:
            envelope.open(parsed._replace(**wrong), CONTEXT, dek)
        texts.add(str(caught.value))
    assert len(texts) == 1


@pytest.mark.parametrize("version", [-1, 2**32])
def test_a_kek_version_of_more_than_32_bits_is_refused(dek, version):
    with pytest.raises(FormatError):
        envelope.seal(
            suites.current(),
            dataclasses.replace(CONTEXT, kek_version=version),
            dek,
            WRAPPED,
            memoryview(SECRET),
        )
    with pytest.raises(FormatError):
        envelope.replace_wrapped_dek(sealed(suites.current(), dek), version, WRAPPED)


@pytest.mark.parametrize("length", [0, 8, 11, 13, 16])
def test_a_nonce_of_another_length_is_refused(dek, length):
    with pytest.raises(FormatError):
        envelope.seal(suites.current(), CONTEXT, dek, WRAPPED, memoryview(SECRET), nonce=bytes(length))


@BOTH
@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_data_key_of_another_length_is_refused(suite, dek, length):
    parsed = envelope.parse(sealed(suite, dek))
    with memory.allocate(length) as other:
        with pytest.raises(FormatError):
            envelope.seal(suite, CONTEXT, other, WRAPPED, memoryview(SECRET))
        with pytest.raises(FormatError):
            envelope.open(parsed, CONTEXT, other)


def test_a_wiped_data_key_is_refused(dek):
    parsed = envelope.parse(sealed(suites.current(), dek))
    dek.close()
    with pytest.raises(BufferClosed):
        envelope.seal(suites.current(), CONTEXT, dek, WRAPPED, memoryview(SECRET))
    with pytest.raises(BufferClosed):
        envelope.open(parsed, CONTEXT, dek)


def test_data_keys_are_random_and_have_256_bits():
    keys = [envelope.new_dek() for _ in range(16)]
    assert {len(key) for key in keys} == {32}
    assert len({bytes(key.view) for key in keys}) == 16


@BOTH
def test_what_many_are_bound_to_is_what_each_is(suite):
    bind = envelope.bindings(suite, CONTEXT.tenant, CONTEXT.kek_name, CONTEXT.kek_version)
    for credential, version in (("acme/plaid/item-1", 3), ("acme/a/b", 2**31), ("acme/ü", 0)):
        context = dataclasses.replace(CONTEXT, credential=credential, version=version)
        domain = ("strongroom/envelope/v1", envelope.FORMAT, suite.number)
        assert bind(credential, version) == (
            envelope.wrap_aad(suite, context),
            encode(*domain, context.tenant, credential, version),
        )


@BOTH
def test_many_open_one_after_the_other_with_one_buffer_for_their_keys(suite, dek):
    bind = envelope.bindings(suite, CONTEXT.tenant, CONTEXT.kek_name, CONTEXT.kek_version)
    bound = bind(CONTEXT.credential, CONTEXT.version).content
    with memory.allocate(envelope.KEY_BYTES) as key:
        for text in (SECRET, b"", b"another"):
            parsed = envelope.parse(sealed(suite, dek, text))
            assert envelope.plaintext_bytes(parsed) == len(text)
            with memory.allocate(len(text)) as plaintext:
                envelope.open_into(parsed, bound, dek.view, key.view, plaintext.view)
                assert plaintext.view == text


@BOTH
@pytest.mark.parametrize("size", [16, 31, 33, 64])
def test_a_data_key_of_another_length_opens_nothing(suite, dek, size):
    parsed = envelope.parse(sealed(suite, dek))
    with memory.allocate(size) as other, memory.allocate(envelope.KEY_BYTES) as key:
        with memory.allocate(len(SECRET)) as plaintext, pytest.raises(FormatError):
            envelope.open_into(parsed, b"bound", other.view, key.view, plaintext.view)
        assert not any(key.view)


@BOTH
def test_where_the_commitment_does_not_hold_neither_key_nor_content_is_made(suite, dek):
    parsed = envelope.parse(sealed(suite, dek))
    with memory.allocate(envelope.KEY_BYTES) as key, memory.allocate(len(SECRET)) as plaintext:
        with pytest.raises(IntegrityError):
            envelope.open_into(parsed, b"bound to another", dek.view, key.view, plaintext.view)
        assert not any(key.view)
        assert not any(plaintext.view)
