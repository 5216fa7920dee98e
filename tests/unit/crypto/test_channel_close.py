from __future__ import annotations

import pytest

from vault.crypto import memory
from vault.crypto.errors import BufferClosed
from vault.crypto.stream import SessionOpener, SessionSealer


@pytest.mark.parametrize("end", [SessionSealer, SessionOpener])
def test_closing_an_end_of_the_channel_wipes_its_key(end):
    key = memory.absorb(bytearray(range(32)))
    kept = key.view[:]
    channel = end(key)
    assert channel.close() is True
    assert key.closed
    assert bytes(kept) == bytes(32)
    assert channel.close() is True


@pytest.mark.parametrize("end", [SessionSealer, SessionOpener])
def test_an_end_whose_key_was_wiped_by_another_refuses(end):
    key = memory.absorb(bytearray(range(32)))
    channel = end(key)
    key.close()
    with pytest.raises(BufferClosed):
        channel.seal(b"", memoryview(b"x")) if end is SessionSealer else channel.open(1, b"", bytes(16))
