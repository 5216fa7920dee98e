"""Locked memory: the only place where a plaintext or a data key may lie.

Buffers come from an arena of anonymous private mappings that are locked into RAM (`mlock`), left out of core
dumps (`MADV_DONTDUMP`) and zero in a forked child (`MADV_WIPEONFORK`). The kernel's default limit is 8 MiB, so
small buffers share pages. A buffer is wiped when it is closed, and refuses any use afterwards. Views that outlive it
show zeros; its bytes are lent again only when the last of them is gone.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from pickle import PickleBuffer  # pickles nothing: the one thing that counts the views of a view
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Self

from vault.crypto.errors import BufferClosed, LockedMemoryExhausted

if TYPE_CHECKING:
    from collections.abc import Sequence
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
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_gil = ctypes.PyDLL(None)  # short calls keep the interpreter's lock: giving it up costs more than they do
_gil.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
_gil.memset.restype = ctypes.c_void_p
_gil.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_BYTES_HEADER = bytes.__basicsize__ - 1


class ArenaStatistics(NamedTuple):
    """Bytes that are locked, and bytes of them in use."""

    locked: int
    used: int


class LockedBuffer:
    """Locked bytes of a fixed size; zero at first, wiped by `close`. Never copied, pickled or shown."""

    __slots__ = ("__weakref__", "_arena", "_at", "_base", "_size", "_slab", "_view")

    def __init__(self, arena: LockedArena, slab: _Slab, at: int, size: int) -> None:
        self._arena, self._slab, self._at, self._size = arena, slab, at, size
        self._base = slab.view[at : at + size]
        # Every view that is made of this one holds the base, so the base tells whether one is left.
        self._view: memoryview | None = memoryview(PickleBuffer(self._base))

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
        with self._arena._lock:  # noqa: SLF001 - two threads may close one buffer
            view, self._view = self._view, None
            if view is None:
                return True
            # Through the address: this works while others still hold views, which then show zeros.
            wiped = _zero(self._slab.address + self._at, self._size)
            try:
                view.release()
            except BufferError:
                del view  # somebody reads it right now, and keeps the base
            self._arena._give_back(self._base, self._slab, self._at)  # noqa: SLF001
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


class _Slab:
    """One mapping, cut into blocks of one size."""

    __slots__ = ("address", "block", "mapping", "size", "used", "view")

    def __init__(self, mapping: mmap.mmap, address: int, size: int, block: int) -> None:
        self.mapping, self.address, self.size, self.block = mapping, address, size, block
        self.view = memoryview(mapping)
        self.used = 0


class LockedArena:
    """Lends locked buffers, up to a limit of locked bytes. Safe in threads."""

    def __init__(self, limit_bytes: int = _DEFAULT_LIMIT) -> None:
        self._limit = limit_bytes
        self._lock = threading.RLock()  # a buffer may be finalised in the middle of an allocation
        self._slabs: list[_Slab] = []
        self._free: dict[int, list[tuple[_Slab, int]]] = {}
        self._watched: list[tuple[memoryview, _Slab, int]] = []  # closed, but somebody still has a view
        self._locked = 0
        self._used = 0

    def allocate(self, size: int) -> LockedBuffer:
        """A zeroed buffer of exactly `size` bytes. Raises `LockedMemoryExhausted`."""
        if size < 0:
            raise ValueError("a size is not negative")
        with self._lock:
            slab, at = self._take(size)
            slab.used += 1
            self._used += slab.block
        return LockedBuffer(self, slab, at, size)

    def statistics(self) -> ArenaStatistics:
        """How much is locked and in use."""
        with self._lock:
            self._reclaim()
            return ArenaStatistics(self._locked, self._used)

    def _take(self, size: int) -> tuple[_Slab, int]:
        if size > _LARGEST_SHARED:
            whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            return self._map(whole, whole), 0
        block = max(_SMALLEST, 1 << (size - 1).bit_length() if size else _SMALLEST)
        free = self._free.setdefault(block, [])
        if not free and self._watched:
            self._reclaim()
        if not free:
            slab = self._map(_SLAB, block)
            free.extend((slab, at) for at in range(0, _SLAB, block))
        return free.pop()

    def _give_back(self, base: memoryview, slab: _Slab, at: int) -> None:
        try:
            base.release()
        except BufferError:
            self._watched.append((base, slab, at))
            return
        slab.used -= 1
        self._used -= slab.block
        if slab.block > _LARGEST_SHARED:
            self._unmap(slab)
        else:
            self._free[slab.block].append((slab, at))

    def _reclaim(self) -> None:
        """Take back what was closed and that nobody sees any longer."""
        watched, self._watched = self._watched, []
        for base, slab, at in watched:
            # Whoever held the view may have written to it.
            _zero(slab.address + at, len(base))
            self._give_back(base, slab, at)

    def _map(self, size: int, block: int) -> _Slab:
        while self._locked + size > self._limit:
            self._make_room()
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        if _libc.mlock(address, size) != 0:
            number = ctypes.get_errno()
            raise LockedMemoryExhausted(f"mlock: {os.strerror(number)}; raise RLIMIT_MEMLOCK")
        for advice in (_MADV_DONTDUMP, _MADV_WIPEONFORK):
            if _libc.madvise(address, size, advice) != 0:
                raise LockedMemoryExhausted(f"madvise: {os.strerror(ctypes.get_errno())}")
        slab = _Slab(mapping, address, size, block)
        self._slabs.append(slab)
        self._locked += size
        return slab

    def _make_room(self) -> None:
        """Give up a slab of which nothing is lent, cut for a size that nobody asks for now."""
        self._reclaim()
        idle = next((slab for slab in self._slabs if not slab.used), None)
        if idle is None:
            raise LockedMemoryExhausted("the limit of locked memory is reached")
        free = self._free[idle.block]
        free[:] = [entry for entry in free if entry[0] is not idle]
        self._unmap(idle)

    def _unmap(self, slab: _Slab) -> None:
        self._slabs.remove(slab)
        self._locked -= slab.size
        slab.view.release()
        slab.mapping.close()


_arena = LockedArena()


def configure(*, limit_bytes: int) -> None:
    """Let this process lock at most so many bytes. To be called before anything is allocated."""
    global _arena  # noqa: PLW0603 - one process has one limit of locked memory, hence one arena
    _arena = LockedArena(limit_bytes)


def can_lock(size: int) -> bool:
    """Whether this process may lock so many bytes, by RLIMIT_MEMLOCK or CAP_IPC_LOCK: tried, and given up again."""
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    locked: int = _libc.mlock(ctypes.addressof(ctypes.c_char.from_buffer(mapping)), size)
    mapping.close()
    return locked == 0


def allocate(size: int) -> LockedBuffer:
    """A zeroed locked buffer from this process's arena. Raises `LockedMemoryExhausted`."""
    return _arena.allocate(size)


def concatenate(parts: Sequence[memoryview]) -> LockedBuffer:
    """A locked buffer with the parts one after the other. Raises `LockedMemoryExhausted`."""
    whole = allocate(sum(map(len, parts)))
    at = 0
    for part in parts:
        whole.view[at : at + len(part)] = part
        at += len(part)
    return whole


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
    if isinstance(secret, bytes):
        if len(secret) > _INTERNED:
            _zero(id(secret) + _BYTES_HEADER, len(secret))
        return
    size = secret.nbytes if isinstance(secret, memoryview) else len(secret)
    if size:
        _zero(ctypes.addressof(ctypes.c_char.from_buffer(secret)), size)


def _zero(address: int, size: int) -> bool:
    """Overwrite with zeros; whether zeros are what is there now."""
    if not size:
        return True
    _gil.memset(address, 0, size)
    first = ctypes.c_ubyte.from_address(address).value
    # Every byte equals its neighbour, and the first is zero.
    return first == 0 and _gil.memcmp(address, address + 1, size - 1) == 0


def _forget_parent() -> None:
    # A child inherits neither the locks on pages nor their content, nor the thread that may hold the arena's lock.
    global _arena  # noqa: PLW0603
    _arena._lock = threading.RLock()  # noqa: SLF001
    _arena = LockedArena(_arena._limit)  # noqa: SLF001


os.register_at_fork(after_in_child=_forget_parent)
