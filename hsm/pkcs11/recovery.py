"""Getting a lost HSM back: the one thing that helps is finalising and initialising its module.

Whoever meets trouble first does it, alone, with the gate shut and all calls out; those who meet it
meanwhile wait, and then find it done. After a failure it is not tried again before a pause that doubles,
and calls in between fail at once instead of adding to the trouble.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Final

from pkcs11.exceptions import PKCS11Error

from hsm.errors import HsmAuthFailed, HsmBusy, HsmError, HsmUnavailable
from hsm.pkcs11.codes import CryptokiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm.pkcs11.module import Module
    from hsm.pkcs11.pool import Pool
    from hsm.pkcs11.worker import Worker

log = logging.getLogger("hsm.pkcs11")

FIRST_PAUSE: Final = 0.05  # seconds
LONGEST_PAUSE: Final = 1.0


class Recovery:
    """Brings a pool's connection back, one thread at a time."""

    def __init__(self, module: Module, pool: Pool, sees_its_keys: Callable[[Worker], bool]) -> None:
        self._sees_its_keys = sees_its_keys
        self._module = module
        self._pool = pool
        self._lock = threading.Lock()
        self._pause = 0.0
        self._not_before = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last attempt to get the HSM back failed."""
        return self._pause > 0

    def heal(self, op: str, epoch: int) -> None:
        """Return when a new session works, after a reconnect if need be.

        `epoch` is that of the module when the caller's operation began: if it is over, another thread
        has reconnected meanwhile. Raises `HsmUnavailable`, `HsmAuthFailed`.
        """
        if not self._lock.acquire(timeout=self._pool.wait_seconds):
            raise HsmUnavailable(op, "the HSM is being reconnected")
        try:
            if self._module.epoch != epoch:
                return
            if time.monotonic() < self._not_before:
                raise HsmUnavailable(op, "the HSM is lost; it is tried again shortly")
            if self._works(op):
                self._pause = 0.0
                return
            self._reconnect(op)
        finally:
            self._lock.release()

    def _works(self, op: str) -> bool:
        """Whether a session opened now can do anything."""
        pool = self._pool
        pool.close_idle()
        try:
            worker = pool.acquire(op)
        except HsmBusy:
            return True  # sessions are in use, so not all is lost; the next failure will tell
        except (CryptokiError, PKCS11Error, HsmUnavailable):
            return False
        try:
            worker.random(16)
            alive = pool.logged_in() is True and self._sees_its_keys(worker)
        except CryptokiError:
            alive = False
        if alive:
            pool.release(worker)
        else:
            pool.discard(worker)
        return alive

    def _reconnect(self, op: str) -> None:
        module, pool = self._module, self._pool
        log.warning("the HSM does not answer properly; its module is initialised again")
        try:
            with module.gate.exclusive(op, pool.wait_seconds):
                if module.gate.lost:
                    # Finalising a module with a thread inside is undefined. It must come out first.
                    raise HsmUnavailable(op, "a call to the HSM hangs, so it cannot be reconnected")
                module.finalize()
                pool.forget()
                module.initialize()
            with module.gate.entered(op, pool.wait_seconds):
                pool.log_in(op)
            worker = pool.acquire(op)
            try:
                worker.random(16)
            finally:
                pool.discard(worker)
        except HsmAuthFailed:
            raise
        except (CryptokiError, PKCS11Error, HsmError) as error:
            self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
            self._not_before = time.monotonic() + self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            log.warning("the HSM could not be reconnected: %s", error)
            raise HsmUnavailable(op, "the HSM is lost and could not be reconnected") from None
        self._pause = 0.0
        log.warning("the HSM is back")
