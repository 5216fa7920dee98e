from __future__ import annotations

import copy
import ctypes
import gc
import itertools
import pickle
import random
import threading
from pickle import PickleBuffer

import pytest

from vault.crypto import memory
from vault.crypto.errors import BufferClosed, CryptoError, LockedMemoryExhausted
from vault.crypto.memory import LockedArena

SIZES = [0, 1, 2, 63, 64, 65, 1000, 4096, 65_535, 65_536, 65_537, 300_000]
SLAB = 256 * 1024


@pytest.fixture
def arena():
    return LockedArena(2 * 1024 * 1024)


def address(buffer: memory.LockedBuffer) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer.view))


def read(at: int, size: int) -> bytes:
    return ctypes.string_at(at, size)


class TestBuffers:
    @pytest.mark.parametrize("size", SIZES)
    def test_one_is_of_the_size_asked_for_zero_and_writable(self, arena, size):
        with arena.allocate(size) as buffer:
            assert len(buffer) == size
            assert buffer.view.nbytes == size
            assert not buffer.view.readonly
            assert bytes(buffer.view) == bytes(size)
            buffer.view[:] = b"x" * size
            assert bytes(buffer.view) == b"x" * size

    def test_no_negative_size(self, arena):
        with pytest.raises(ValueError, match="negative"):
            arena.allocate(-1)

    @pytest.mark.parametrize("size", [size for size in SIZES if 0 < size <= 65_536])
    def test_closing_wipes(self, arena, size):
        buffer = arena.allocate(size)
        buffer.view[:] = b"x" * size
        at = address(buffer)
        assert buffer.close()
        assert read(at, size) == bytes(size)

    def test_closing_twice_is_closing_once(self, arena):
        buffer = arena.allocate(8)
        other = arena.allocate(8)
        assert buffer.close()
        assert buffer.close()
        assert arena.statistics().used == 64
        other.close()

    def test_a_closed_one_refuses_every_use(self, arena):
        buffer = arena.allocate(8)
        view = buffer.view
        buffer.close()
        assert buffer.closed
        with pytest.raises(BufferClosed):
            _ = buffer.view
        with pytest.raises(ValueError, match="released"):
            view[0] = 1
        with pytest.raises(ValueError, match="released"):
            bytes(view)

    def test_the_block_closes_it_also_after_an_error(self, arena):
        with pytest.raises(KeyError), arena.allocate(8) as buffer:
            raise KeyError
        assert buffer.closed

    def test_one_that_is_forgotten_is_wiped(self, arena):
        buffer = arena.allocate(8)
        buffer.view[:] = b"secretxx"
        at = address(buffer)
        del buffer
        gc.collect()
        assert read(at, 8) == bytes(8)
        assert arena.statistics().used == 0

    def test_nothing_of_it_shows(self, arena):
        with arena.allocate(6) as buffer:
            buffer.view[:] = b"secret"
            assert repr(buffer) == "<LockedBuffer of 6 bytes>"
            assert "secret" not in str(buffer)
        assert repr(buffer) == "<LockedBuffer of 6 bytes, wiped>"

    @pytest.mark.parametrize(
        "duplicate", [pickle.dumps, copy.copy, copy.deepcopy, lambda buffer: copy.deepcopy([buffer])]
    )
    def test_it_is_never_duplicated(self, arena, duplicate):
        with arena.allocate(6) as buffer, pytest.raises(TypeError):
            duplicate(buffer)

    def test_it_takes_no_attributes(self, arena):
        with arena.allocate(6) as buffer, pytest.raises(AttributeError):
            buffer.note = b"secret"


class TestViewsThatOutliveTheBuffer:
    """A slice of a view stays usable when the view is released: it must never show what comes after."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda view: view[2:6],
            lambda view: view[2:6][1:3],
            memoryview,
            lambda view: view.cast("H"),
            lambda view: view.toreadonly(),
            PickleBuffer,
            (ctypes.c_char * 8).from_buffer,
        ],
    )
    @pytest.mark.parametrize("size", [8, 100_000])
    def test_they_show_zeros_for_ever_and_the_bytes_are_lent_again_only_behind_them(self, arena, make, size):
        buffer = arena.allocate(size)
        buffer.view[:8] = b"secretxx"
        view, at = make(buffer.view), address(buffer)
        used = arena.statistics().used
        assert buffer.close()
        with pytest.raises(BufferClosed):
            _ = buffer.view
        assert not any(bytes(view))

        later = [arena.allocate(size) for _ in range(10)]
        for each in later:
            each.view[:] = b"x" * size
        assert not any(bytes(view))
        assert at not in {address(each) for each in later}
        for each in later:
            each.close()
        assert arena.statistics().used == used

        del view, buffer
        gc.collect()
        assert arena.statistics().used == 0

    def test_what_they_write_is_wiped_before_the_bytes_are_lent_again(self):
        arena = LockedArena(SLAB)
        buffer = arena.allocate(65_536)
        view = buffer.view[:6]
        buffer.close()
        view[:] = b"afters"
        del view
        four = [arena.allocate(65_536) for _ in range(4)]
        assert not any(any(bytes(each.view)) for each in four)

    def test_a_reader_in_the_middle_of_a_call_keeps_the_buffer_from_being_lent(self, arena):
        buffer = arena.allocate(64)
        with memoryview(PickleBuffer(buffer.view)) as reader:
            assert buffer.close()
            assert bytes(reader) == bytes(64)
            with arena.allocate(64) as other:
                other.view[:] = b"x" * 64
                assert bytes(reader) == bytes(64)
        assert arena.statistics().used == 0


class TestArena:
    def test_reused_memory_is_zero(self, arena):
        seen = set()
        for _ in range(5_000):
            with arena.allocate(64) as buffer:
                assert not any(buffer.view)
                buffer.view[:] = b"\xff" * 64
                seen.add(address(buffer))
        assert len(seen) < 5_000

    def test_buffers_do_not_overlap(self, arena):
        random.seed(1)
        buffers = [arena.allocate(random.choice([1, 64, 65, 500, 5_000])) for _ in range(300)]
        spans = sorted((address(buffer), len(buffer)) for buffer in buffers)
        for (at, size), (following, _) in itertools.pairwise(spans):
            assert at + size <= following
        for number, buffer in enumerate(buffers):
            buffer.view[:] = bytes([number % 256]) * len(buffer)
        for number, buffer in enumerate(buffers):
            assert bytes(buffer.view) == bytes([number % 256]) * len(buffer)

    def test_statistics(self, arena):
        assert arena.statistics() == (0, 0)
        with arena.allocate(65), arena.allocate(65_537):
            assert arena.statistics() == (SLAB + 69_632, 128 + 69_632)
        assert arena.statistics() == (SLAB, 0)

    def test_small_buffers_share_pages(self, arena):
        buffers = [arena.allocate(32) for _ in range(4_096)]
        assert arena.statistics() == (SLAB, SLAB)
        assert len({address(buffer) for buffer in buffers}) == 4_096

    @pytest.mark.parametrize("size", [1, 1_000, 65_536, 70_000, 3_000_000])
    def test_exhaustion_is_an_error_and_passes(self, arena, size):
        lent = []
        with pytest.raises(LockedMemoryExhausted):
            while True:
                lent.append(arena.allocate(size))
        assert arena.statistics().locked <= 2 * 1024 * 1024
        if lent:
            lent.pop().close()
            arena.allocate(size).close()
        for buffer in lent:
            buffer.close()
        assert arena.statistics().used == 0

    def test_memory_once_cut_for_one_size_serves_another(self, arena):
        """A rush of one size must not leave the arena unable to lend any other."""
        for size in (32, 5_000, 65_536, 300_000, 600_000, 100, 65_536, 32):
            lent = []
            with pytest.raises(LockedMemoryExhausted):
                while True:
                    lent.append(arena.allocate(size))
            assert lent
            for buffer in lent:
                buffer.close()

    def test_a_slab_in_use_is_not_given_up(self, arena):
        kept = arena.allocate(32)
        kept.view[:] = b"k" * 32
        with pytest.raises(LockedMemoryExhausted):
            lent = [arena.allocate(65_536) for _ in range(100)]
            del lent
        gc.collect()
        assert bytes(kept.view) == b"k" * 32

    @pytest.mark.parametrize("call", ["mlock", "madvise"])
    def test_memory_that_the_kernel_does_not_lock_is_not_lent(self, arena, monkeypatch, call):
        class Libc:
            mlock = staticmethod(lambda *_: 0)
            madvise = staticmethod(lambda *_: 0)

        refusing = Libc()
        setattr(refusing, call, lambda *_: -1)
        with monkeypatch.context() as patch:
            patch.setattr(memory, "_libc", refusing)
            with pytest.raises(LockedMemoryExhausted):
                arena.allocate(1)
            with pytest.raises(LockedMemoryExhausted):
                arena.allocate(100_000)
        assert arena.statistics() == (0, 0)
        arena.allocate(1).close()

    def test_a_hundred_thousand_allocations_leave_nothing_behind(self):
        def resident() -> int:
            with open("/proc/self/statm") as status:  # noqa: PTH123 - the kernel's file
                return int(status.read().split()[1]) * 4_096

        def rounds(count: int) -> None:
            for number in range(count):
                memory.allocate(SIZES[number % 9]).close()

        rounds(1_000)
        gc.collect()
        before, objects, size = memory.statistics(), len(gc.get_objects()), resident()
        rounds(100_000)
        gc.collect()
        assert memory.statistics() == before
        assert len(gc.get_objects()) < objects + 100
        assert resident() < size + 4 * 1024 * 1024


class TestThreads:
    def run(self, work, count=8):
        errors = []

        def guarded(number):
            try:
                work(number)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors

    def test_threads_never_share_a_buffer(self, arena):
        def work(number):
            choose = random.Random(number)
            held = []
            for _ in range(600):
                buffer = arena.allocate(choose.choice([32, 64, 200, 3_000]))
                assert not any(buffer.view[:32])
                buffer.view[:] = bytes([number + 1]) * len(buffer)
                held.append(buffer)
                if len(held) > 20:
                    buffer = held.pop(choose.randrange(len(held)))
                    assert bytes(buffer.view) == bytes([number + 1]) * len(buffer)
                    assert buffer.close()
            for buffer in held:
                assert bytes(buffer.view) == bytes([number + 1]) * len(buffer)
                buffer.close()

        self.run(work)
        assert arena.statistics().used == 0

    def test_a_buffer_that_many_close_at_once_is_given_back_once(self, arena):
        buffers = [arena.allocate(64) for _ in range(2_000)]
        barrier = threading.Barrier(8)

        def work(_number):
            barrier.wait()
            for buffer in buffers:
                assert buffer.close()

        self.run(work)
        assert arena.statistics().used == 0
        again = [arena.allocate(64) for _ in range(4_096)]
        assert len({address(buffer) for buffer in again}) == 4_096


class TestAbsorbing:
    """`absorb` and `wipe` write into objects that never change: those here are made for it."""

    @pytest.mark.parametrize("kind", [bytes, bytearray])
    @pytest.mark.parametrize("size", [2, 3, 32, 70_000])
    def test_the_source_is_wiped(self, kind, size):
        secret = kind(bytearray(b"s" * size))
        with memory.absorb(secret) as buffer:
            assert bytes(buffer.view) == b"s" * size
            assert secret == bytes(size)

    @pytest.mark.parametrize("secret", [b"", b"a"])
    def test_bytes_that_everybody_shares_are_left_alone(self, secret):
        expected = bytes(bytearray(secret))
        with memory.absorb(secret) as buffer:
            assert bytes(buffer.view) == expected
        assert b"a" == bytes([97])  # noqa: SIM300 - the very object

    def test_the_source_is_wiped_even_when_there_is_no_room(self, monkeypatch):
        monkeypatch.setattr(memory, "_arena", LockedArena(0))
        secret = bytes(bytearray(b"secret"))
        with pytest.raises(LockedMemoryExhausted):
            memory.absorb(secret)
        assert secret == bytes(6)

    @pytest.mark.parametrize(
        "make",
        [
            bytes,
            bytearray,
            memoryview,
            lambda source: memoryview(source)[1:4],
            lambda s: memoryview(s).cast("H"),
        ],
    )
    def test_wipe(self, make):
        secret = make(bytearray(b"secret"))
        memory.wipe(secret)
        assert bytes(secret) == bytes(len(bytes(secret)))

    def test_wipe_leaves_the_neighbours_alone(self):
        secret = bytearray(b"secret")
        memory.wipe(memoryview(secret)[1:4])
        assert secret == b"s\0\0\0et"

    def test_wipe_of_nothing(self):
        for nothing in (b"", bytearray(), memoryview(bytearray())):
            memory.wipe(nothing)

    def test_what_may_only_be_read_is_not_taken_for_wiped(self):
        with pytest.raises(TypeError):
            memory.wipe(memoryview(b"secret"))


def test_the_limit_of_the_process_can_be_set(monkeypatch):
    monkeypatch.setattr(memory, "_arena", memory._arena)
    memory.configure(limit_bytes=SLAB)
    with memory.allocate(32):
        assert memory.statistics() == (SLAB, 64)
        with pytest.raises(LockedMemoryExhausted):
            memory.allocate(1_000)


def test_to_be_out_of_memory_is_not_to_find_something_damaged():
    """Whoever takes a `CryptoError` for damaged data must not take this for it."""
    assert not issubclass(LockedMemoryExhausted, CryptoError)


@pytest.mark.parametrize("parts", [[], [b""], [b"ab", b"", b"cde"]])
def test_parts_are_put_together_in_order(parts):
    with memory.concatenate([memoryview(part) for part in parts]) as whole:
        assert whole.view == b"".join(parts)
