"""Running work on a session: what is tried again, after which healing, and what never is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeVar

from pkcs11.exceptions import PKCS11Error

from hsm.errors import HsmAuthFailed, HsmError, KeyNotFound
from hsm.pkcs11.codes import ORDERLY, CryptokiError, Remedy, as_failure, as_hsm_error, orderly, to_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm.pkcs11.pool import Pool
    from hsm.pkcs11.recovery import Recovery
    from hsm.pkcs11.worker import Worker

T = TypeVar("T")
Item = TypeVar("Item")
log = logging.getLogger("hsm.pkcs11")

_ATTEMPTS: Final = 3


class Runner:
    """Lends sessions to pieces of work."""

    def __init__(self, pool: Pool, recovery: Recovery) -> None:
        self._pool = pool
        self._recovery = recovery

    def run(self, op: str, work: Callable[[Worker], T]) -> T:
        """Do something that may be done again, healing what can be healed in between."""
        for attempt in range(1, _ATTEMPTS + 1):
            epoch = self._pool.module.epoch
            try:
                return self._once(op, work)
            except (CryptokiError, PKCS11Error) as error:
                failure = as_failure(op, error)
                if failure.code.remedy is Remedy.NONE or attempt == _ATTEMPTS:
                    raise to_error(op, failure) from None
                log.info("%s failed with %s; trying again", op, failure.code.name)
                self._heal(op, failure, epoch)
        raise AssertionError("unreachable")

    def alone(self, op: str, work: Callable[[Worker], T]) -> T:
        """Do something that changes token objects: alone, and, once it has begun, never again."""
        for attempt in (1, 2):
            epoch = self._pool.module.epoch
            begun = False
            try:
                with self._pool.exclusive(op) as worker:
                    worker.require_login()
                    begun = True
                    return work(worker)
            except (CryptokiError, PKCS11Error) as error:
                failure = as_failure(op, error)
                if begun or attempt > 1 or failure.code.remedy is Remedy.NONE:
                    self._heal_for_the_next(op, failure, epoch)
                    raise to_error(op, failure) from None
                self._heal(op, failure, epoch)
        raise AssertionError("unreachable")

    def _once(self, op: str, work: Callable[[Worker], T]) -> T:
        worker = self._pool.acquire(op)
        try:
            try:
                result = work(worker)
            except KeyNotFound:
                # Without a log-in a search finds nothing, which does not mean that nothing is there.
                worker.require_login()
                result = work(worker)
        except BaseException as error:
            (self._pool.release if orderly(error) else self._pool.discard)(worker)
            raise
        self._pool.release(worker)
        return result

    def _heal(self, op: str, failure: CryptokiError, epoch: int) -> None:
        remedy = failure.code.remedy
        # What happened to one session has often happened to all; a repetition must not meet the next.
        if remedy is Remedy.SESSION:
            self._pool.close_idle()
        elif remedy is Remedy.FIND:
            self._pool.forget_keys()
        elif remedy is Remedy.LOGIN:
            try:
                with self._pool.module.gate.entered(op, self._pool.wait_seconds):
                    self._pool.log_in(op)
            except (CryptokiError, PKCS11Error):
                self._recovery.heal(op, epoch)
        elif remedy in (Remedy.CONNECT, Remedy.SUSPECT):
            self._recovery.heal(op, epoch)

    def _heal_for_the_next(self, op: str, failure: CryptokiError, epoch: int) -> None:
        try:
            self._heal(op, failure, epoch)
        except HsmAuthFailed:
            raise
        except HsmError as error:
            log.info("still ill after %s: %s", op, error)

    def many(
        self,
        op: str,
        items: Sequence[Item],
        on: Callable[[Worker, Item], T],
        alone: Callable[[Item], T],
    ) -> list[T | HsmError]:
        """Do all on one session; what fails for other reasons than its own is done again by itself."""
        results: list[T | HsmError] = []
        try:
            worker = self._pool.acquire(op)
        except (CryptokiError, PKCS11Error):
            worker = None  # healing is for the single calls
        try:
            for item in items:
                try:
                    results.append(on(worker, item) if worker else alone(item))
                except ORDERLY as error:
                    results.append(error)
                except (HsmError, CryptokiError, PKCS11Error):
                    # Its session is not to be trusted; each of the rest finds one, and healing, by itself.
                    if worker is not None:
                        self._pool.discard(worker)
                        worker = None
                    try:
                        results.append(alone(item))
                    except (HsmError, CryptokiError, PKCS11Error) as error:
                        results.append(error if isinstance(error, HsmError) else as_hsm_error(op, error))
        except BaseException:
            if worker is not None:
                self._pool.discard(worker)
            raise
        if worker is not None:
            self._pool.release(worker)
        return results
