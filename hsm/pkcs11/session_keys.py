"""The wrapped KEKs that are in the HSM at the moment, as session objects: a bounded number of them.

An object dies with the session that made it, and may be used by every other session of the process. So a few
sessions, the homes, are kept for making them and lent to nobody. Each entry counts who uses it: the one that
was used longest ago makes room for a new one, unless it is in use. A home whose session is in doubt takes no
more keys, and is closed, with all that live in it, when its last user has left.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from hsm.errors import HsmError, HsmUnavailable
from hsm.pkcs11 import objects as obj
from hsm.pkcs11 import wrapped
from hsm.pkcs11.codes import CryptokiError, orderly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm.model import KeyRef, WrappedKey
    from hsm.pkcs11.pool import Pool
    from hsm.pkcs11.sealing import Sealer
    from hsm.pkcs11.worker import Worker

HOMES: Final = 4


class _Home:
    """A session in which keys live. `lock` is held while it is used; `users` counts calls with its keys."""

    __slots__ = ("lock", "users", "worker")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.worker: Worker | None = None
        self.users = 0


class _Entry:
    """A loaded key, and how many calls use it now."""

    __slots__ = ("handle", "home", "users")

    def __init__(self, handle: int, home: _Home) -> None:
        self.handle = handle
        self.home = home
        self.users = 0


class SessionKeys:
    """Loads wrapped KEKs and lends their handles. Thread-safe; called by whoever has a worker checked out."""

    def __init__(self, pool: Pool, limit: int, find_root: Callable[[Worker, KeyRef], int]) -> None:
        if limit < 1:
            raise ValueError("room for at least one key")
        self._pool = pool
        self._limit = limit
        self._find_root = find_root
        self._lock = threading.Lock()
        self._entries: OrderedDict[WrappedKey, _Entry] = OrderedDict()
        self._homes = [_Home() for _ in range(HOMES)]
        self._retired: list[_Home] = []
        self._trusted = self._state()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def open_sessions(self) -> int:
        """How many sessions the homes have."""
        return sum(home.worker is not None for home in (*self._homes, *self._retired))

    @contextmanager
    def lent(self, worker: Worker, key: WrappedKey, sealer: Sealer) -> Iterator[int]:
        """The handle of a key, for the length of the block.

        Raises `HsmIntegrityError` for a blob that is not this key's, `KeyNotFound` for a root that is not
        there, `CryptokiError`, `HsmUnavailable`.
        """
        entry = self._in_use(key) or self._load(worker, key, sealer)
        try:
            yield entry.handle
        finally:
            with self._lock:
                entry.users -= 1
                entry.home.users -= 1
                leaving = entry.home in self._retired and not entry.home.users
                if leaving:
                    self._retired.remove(entry.home)
            if leaving:
                self._close(entry.home)

    def close(self) -> None:
        """Close every home, and with it its keys. The caller is inside the gate."""
        with self._lock:
            homes, self._homes = self._homes, [_Home() for _ in range(HOMES)]
            homes += self._retired
            self._retired.clear()
            self._entries.clear()
        for home in homes:
            self._close(home)

    def _state(self) -> tuple[int, int]:
        return self._pool.module.epoch, self._pool.doubts

    def _in_use(self, key: WrappedKey) -> _Entry | None:
        with self._lock:
            if self._trusted != self._state():
                self._trusted = self._state()
                self._retire(*self._homes)
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
                entry.users += 1
                entry.home.users += 1
            idle = [home for home in self._retired if not home.users and not home.lock.locked()]
            self._retired = [home for home in self._retired if home not in idle]
        for home in idle:
            self._close(home)
        return entry

    def _retire(self, *homes: _Home) -> None:
        """Take no more keys from homes whose sessions are in doubt. The lock is held."""
        self._entries = OrderedDict(
            (key, entry) for key, entry in self._entries.items() if entry.home not in homes
        )
        self._retired += [home for home in homes if home.worker is not None]
        self._homes = [_Home() if home in homes else home for home in self._homes]

    def _load(self, worker: Worker, key: WrappedKey, sealer: Sealer) -> _Entry:
        entry: _Entry | None = None
        while entry is None:
            home = self._homes[hash(key) % HOMES]
            if not home.lock.acquire(timeout=self._pool.hang_seconds):
                self._give_up(home)
                raise HsmUnavailable("unwrap", "a call to the HSM hangs")
            try:
                entry = self._in_use(key)  # another thread may have loaded it meanwhile
                if entry is None and home in self._homes:
                    entry = self._loaded(worker, home, key, sealer)
            finally:
                home.lock.release()
        self._make_room()
        return entry

    def _give_up(self, home: _Home) -> None:
        with self._lock:
            if home in self._homes:
                self._retire(home)

    def _loaded(self, worker: Worker, home: _Home, key: WrappedKey, sealer: Sealer) -> _Entry:
        try:
            if home.worker is None:
                home.worker = self._pool.open_home("unwrap")
            root = self._find_root(home.worker, key.root)
            handle = wrapped.unwrap(home.worker, key.blob, root, key.ref, sealer)
        except BaseException as error:
            if not orderly(error):
                self._give_up(home)
            raise
        try:
            wrapped.prove(worker, handle, key.blob, key.ref, sealer)
        except BaseException:
            _destroy(home.worker, handle, key)
            raise
        entry = _Entry(handle, home)
        with self._lock:
            entry.users = 1
            home.users += 1
            if home in self._homes:  # else it was retired meanwhile, and goes with its last user
                self._entries[key] = entry
        return entry

    def _make_room(self) -> None:
        """Destroy what was used longest ago and is not in use, until the rest fits."""
        while True:
            with self._lock:
                if len(self._entries) <= self._limit:
                    return
                found = next(((k, e) for k, e in self._entries.items() if not e.users), None)
                if found is None:
                    return  # all are in use; the next that is loaded makes room
                key, entry = found
                del self._entries[key]
            if entry.home.lock.acquire(timeout=self._pool.hang_seconds):
                try:
                    if entry.home.worker is not None:
                        _destroy(entry.home.worker, entry.handle, key)
                finally:
                    entry.home.lock.release()

    def _close(self, home: _Home) -> None:
        worker, home.worker = home.worker, None
        if worker is not None:
            self._pool.close_home(worker)


def _destroy(worker: Worker, handle: int, key: WrappedKey) -> None:
    """Destroy a session object; looked at before, as after a lost session the handle might be another's."""
    with suppress(CryptokiError, HsmError):
        said = obj.read(worker, handle, (obj.CKA_ID, obj.CKA_TOKEN))
        if said == {obj.CKA_ID: key.ref.object_id, obj.CKA_TOKEN: False}:
            obj.destroy(worker, handle)
