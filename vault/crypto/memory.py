"""Locked memory: the only place where a plaintext or a data key may lie.

Buffers come from an arena of anonymous private mappings that are locked into RAM (`mlock`), left out of core
dumps (`MADV_DONTDUMP`) and zero in a forked child (`MADV_WIPEONFORK`). The kernel's default limit is 8 MiB, so
small buffers share pages. A buffer is wiped when it is closed, and refuses any use afterwards.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Self

from vault.crypto.errors import BufferClosed, LockedMemoryExhausted

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_SLAB = 256 * 1024
_SMALLEST = 64
_LARGEST_SHARED = 64 * 1024
_DEFAULT_LIMIT = 6 * 1024 * 1024
_MADV_DONTDUMP = 16
_MADV_WIPEONFORK = 18
_INTERNED = 1  # bytes objects of length 0 and 1 are shared by the whole interpreter

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.munlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_BYTES_HEADER = bytes.__basicsize__ - 1


class ArenaStatistics(NamedTuple):
    """Bytes that are locked, and bytes of them in use."""

    locked: int
    used: int


class LockedBuffer:
    """Locked bytes of a fixed size; zero at first, wiped by `close`. Never copied, pickled or shown."""

    __slots__ = ("__weakref__", "_address", "_release", "_size", "_view")

    def __init__(self, view: memoryview, address: int, release: Callable[[], None]) -> None:
        self._view: memoryview | None = view
        self._address = address
        self._size = len(view)
        self._release = release

    @property
    def view(self) -> memoryview:
        """The content, writable. Raises `BufferClosed`."""
        if self._view is None:
            raise BufferClosed("the buffer was wiped")
        return self._view

    @property
    def closed(self) -> bool:
        """Whether it was wiped."""
        return self._view is None

    def close(self) -> bool:
        """Wipe, read back, give the memory back to the arena. Returns whether every byte read back is zero."""
        if self._view is None:
            return True
        # Through the address: this works while others still hold views, which then show zeros.
        ctypes.memset(self._address, 0, self._size)
        wiped = not any(self._view)
        try:
            self._view.release()
        except BufferError:
            # Somebody still looks at it: it stays theirs, and zero, and is never lent again.
            self._view = None
            return wiped
        self._view = None
        self._release()
        return wiped

    def __len__(self) -> int:
        return self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_view", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return f"<LockedBuffer of {self._size} bytes{', wiped' if self.closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a locked buffer cannot be pickled")

    def __copy__(self) -> NoReturn:
        raise TypeError("a locked buffer cannot be copied")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        raise TypeError("a locked buffer cannot be copied")


class LockedArena:
    """Lends locked buffers, up to a limit of locked bytes. Safe in threads."""

    def __init__(self, limit_bytes: int = _DEFAULT_LIMIT) -> None:
        self._limit = limit_bytes
        self._lock = threading.RLock()  # a buffer may be finalised in the middle of an allocation
        self._free: dict[int, list[tuple[memoryview, int]]] = {}
        self._maps: list[mmap.mmap] = []
        self._locked = 0
        self._used = 0

    def allocate(self, size: int) -> LockedBuffer:
        """A zeroed buffer of exactly `size` bytes. Raises `LockedMemoryExhausted`."""
        if size < 0:
            raise ValueError("a size is not negative")
        if size > _LARGEST_SHARED:
            return self._allocate_alone(size)
        shape = max(_SMALLEST, 1 << (size - 1).bit_length() if size else _SMALLEST)
        with self._lock:
            free = self._free.setdefault(shape, [])
            if not free:
                self._add_slab(shape, free)
            block, address = free.pop()
            self._used += shape

        def release() -> None:
            with self._lock:
                self._used -= shape
                free.append((block, address))

        return LockedBuffer(block[:size], address, release)

    def statistics(self) -> ArenaStatistics:
        """How much is locked and in use."""
        with self._lock:
            return ArenaStatistics(self._locked, self._used)

    def _add_slab(self, shape: int, free: list[tuple[memoryview, int]]) -> None:
        mapping, address = self._map(_SLAB)
        self._maps.append(mapping)
        view = memoryview(mapping)
        free.extend((view[at : at + shape], address + at) for at in range(0, _SLAB, shape))

    def _allocate_alone(self, size: int) -> LockedBuffer:
        whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        with self._lock:
            mapping, address = self._map(whole)
            self._used += whole

        def release() -> None:
            with self._lock:
                self._used -= whole
                self._locked -= whole
            _libc.munlock(address, whole)
            mapping.close()

        return LockedBuffer(memoryview(mapping)[:size], address, release)

    def _map(self, size: int) -> tuple[mmap.mmap, int]:
        if self._locked + size > self._limit:
            raise LockedMemoryExhausted("the limit of locked memory is reached")
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        if _libc.mlock(address, size) != 0:
            number = ctypes.get_errno()
            raise LockedMemoryExhausted(f"mlock: {os.strerror(number)}; raise RLIMIT_MEMLOCK")
        for advice in (_MADV_DONTDUMP, _MADV_WIPEONFORK):
            if _libc.madvise(address, size, advice) != 0:
                raise LockedMemoryExhausted(f"madvise: {os.strerror(ctypes.get_errno())}")
        self._locked += size
        return mapping, address


_arena = LockedArena()


def configure(*, limit_bytes: int) -> None:
    """Let this process lock at most so many bytes. To be called before anything is allocated."""
    global _arena  # noqa: PLW0603 - one process has one limit of locked memory, hence one arena
    _arena = LockedArena(limit_bytes)


def allocate(size: int) -> LockedBuffer:
    """A zeroed locked buffer from this process's arena. Raises `LockedMemoryExhausted`."""
    return _arena.allocate(size)


def statistics() -> ArenaStatistics:
    """How much this process has locked and in use."""
    return _arena.statistics()


def absorb(secret: bytes | bytearray) -> LockedBuffer:
    """Move a secret that a library could only return as an object into a locked buffer, and wipe the object.

    Nobody else may hold the object. Objects of less than two bytes are shared by the interpreter: those
    are copied, and left as they are.
    """
    try:
        buffer = allocate(len(secret))
        buffer.view[:] = secret
    finally:
        wipe(secret)
    return buffer


def wipe(secret: bytes | bytearray | memoryview) -> None:
    """Overwrite with zeros, in place, even `bytes`: only for objects that nobody else holds."""
    size = len(secret)
    if isinstance(secret, bytes):
        if size > _INTERNED:
            ctypes.memset(id(secret) + _BYTES_HEADER, 0, size)
    elif size:
        ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(secret)), 0, size)
