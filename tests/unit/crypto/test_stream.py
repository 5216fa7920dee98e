from __future__ import annotations

import threading

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vault.crypto import memory, stream
from vault.crypto.errors import BufferClosed, FormatError, IntegrityError
from vault.crypto.stream import SessionOpener, SessionSealer

KEY = bytes(range(32))


@pytest.fixture
def key():
    with memory.allocate(stream.KEY_BYTES) as buffer:
        buffer.view[:] = KEY
        yield buffer


def seal(sealer: SessionSealer, text: bytes = b"hello") -> tuple[int, bytes]:
    return sealer.seal(b"aad", memoryview(text))


def test_the_format_is_aes_gcm_under_the_counter(key):
    sealer = SessionSealer(key)
    seal(sealer)
    counter, sealed = seal(sealer)
    assert counter == 2
    assert AESGCM(KEY).decrypt(bytes(11) + b"\x02", sealed, b"aad") == b"hello"


def test_counters_begin_at_one_and_follow_each_other(key):
    sealer = SessionSealer(key)
    assert [seal(sealer)[0] for _ in range(5)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("text", [b"", b"x", bytes(70_000)])
def test_a_message_comes_through_in_locked_memory(key, text):
    with SessionOpener(key).open(*insert_aad(seal(SessionSealer(key), text))) as opened:
        assert isinstance(opened, memory.LockedBuffer)
        assert opened.view == text


def insert_aad(message: tuple[int, bytes], aad: bytes = b"aad") -> tuple[int, bytes, bytes]:
    return message[0], aad, message[1]


def test_messages_may_overtake_each_other(key):
    sealer, opener = SessionSealer(key), SessionOpener(key)
    messages = [insert_aad(seal(sealer, bytes([number]))) for number in range(6)]
    for number in (3, 0, 5, 1, 4, 2):
        with opener.open(*messages[number]) as opened:
            assert opened.view[0] == number


def test_each_message_opens_once(key):
    sealer, opener = SessionSealer(key), SessionOpener(key)
    messages = [insert_aad(seal(sealer)) for _ in range(4)]
    for number in (0, 3, 1):
        opener.open(*messages[number]).close()
        for seen in (0, 3, 1)[: (0, 3, 1).index(number) + 1]:
            with pytest.raises(IntegrityError):
                opener.open(*messages[seen])
    opener.open(*messages[2]).close()
    for message in messages:
        with pytest.raises(IntegrityError):
            opener.open(*message)


def test_a_forged_message_does_not_use_up_its_counter(key):
    opener = SessionOpener(key)
    counter, aad, sealed = insert_aad(seal(SessionSealer(key)))
    with pytest.raises(IntegrityError):
        opener.open(counter, aad, bytes(len(sealed)))
    opener.open(counter, aad, sealed).close()


def test_what_is_remembered_does_not_grow_with_the_session(key):
    sealer, opener = SessionSealer(key), SessionOpener(key)
    for _ in range(2_000):
        opener.open(*insert_aad(seal(sealer))).close()
    assert len(opener._seen) == 0


def test_every_flipped_bit_is_noticed(key):
    opener = SessionOpener(key)
    counter, sealed = seal(SessionSealer(key))
    for at in range(len(sealed)):
        for bit in range(8):
            altered = bytearray(sealed)
            altered[at] ^= 1 << bit
            with pytest.raises(IntegrityError):
                opener.open(counter, b"aad", bytes(altered))


@pytest.mark.parametrize("aad", [b"", b"aa", b"aadx", b"AAD"])
def test_another_context_is_noticed(key, aad):
    with pytest.raises(IntegrityError):
        SessionOpener(key).open(*insert_aad(seal(SessionSealer(key)), aad))


@pytest.mark.parametrize("counter", [2, 256, 2**32])
def test_another_counter_is_noticed(key, counter):
    with pytest.raises(IntegrityError):
        SessionOpener(key).open(counter, b"aad", seal(SessionSealer(key))[1])


@pytest.mark.parametrize("counter", [0, -1, 2**32 + 1, 2**96])
def test_a_counter_that_no_channel_reaches(key, counter):
    with pytest.raises(FormatError):
        SessionOpener(key).open(counter, b"aad", seal(SessionSealer(key))[1])


@pytest.mark.parametrize("length", [0, 1, 15])
def test_too_short(key, length):
    with pytest.raises(FormatError):
        SessionOpener(key).open(1, b"aad", bytes(length))


def test_another_key_is_noticed(key):
    with memory.allocate(32) as other, pytest.raises(IntegrityError):
        SessionOpener(other).open(*insert_aad(seal(SessionSealer(key))))


def test_a_closed_channel_carries_nothing(key):
    sealer, opener = SessionSealer(key), SessionOpener(key)
    message = insert_aad(seal(sealer))
    sealer.close()
    opener.close()
    with pytest.raises(BufferClosed):
        seal(sealer)
    with pytest.raises(BufferClosed):
        opener.open(*message)


def test_a_wiped_key_carries_nothing(key):
    sealer, opener = SessionSealer(key), SessionOpener(key)
    message = insert_aad(seal(sealer))
    key.close()
    with pytest.raises(BufferClosed):
        seal(sealer)
    with pytest.raises(BufferClosed):
        opener.open(*message)


def test_a_key_carries_so_many_messages_and_no_more(key, monkeypatch):
    monkeypatch.setattr(stream, "MAX_MESSAGES", 3)
    sealer = SessionSealer(key)
    for _ in range(3):
        seal(sealer)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            seal(sealer)


def test_no_locked_memory_stays_behind_when_opening_fails(key):
    opener = SessionOpener(key)
    message = insert_aad(seal(SessionSealer(key)))
    opener.open(*message).close()
    before = memory.statistics()
    for sealed in (message[2], bytes(40)):
        for _ in range(50):
            with pytest.raises(IntegrityError):
                opener.open(message[0], b"aad", sealed)
    assert memory.statistics() == before


def test_threads_never_share_a_counter(key):
    sealer = SessionSealer(key)
    messages: list[tuple[int, bytes]] = []

    def work() -> None:
        messages.extend(seal(sealer) for _ in range(500))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counter for counter, _ in messages) == list(range(1, 4_001))
    assert len({sealed for _, sealed in messages}) == 4_000
    opener = SessionOpener(key)
    for message in messages:
        opener.open(*insert_aad(message)).close()
