"""Sessions of one token: one that is logged in and never lent, and a bounded number that are.

A log-in belongs to the process, not to a session, and lasts as long as the process has a session with the
token. So the anchor session logs in and stays; workers are opened without a PIN and share its log-in. A
worker is checked out by one thread at a time, last in first out, so that an idle HSM keeps few sessions
warm. After any error that is not the caller's own, a worker is closed and not used again.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import logging
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pkcs11.exceptions import PKCS11Error

from hsm.errors import HsmAuthFailed, HsmBusy, HsmUnavailable
from hsm.pkcs11 import codes, cryptoki
from hsm.pkcs11.codes import CryptokiError, from_binding, orderly, to_error
from hsm.pkcs11.module import forked
from hsm.pkcs11.worker import Worker
from hsm.secretfile import SecretSourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkcs11.types import Session, Token

    from hsm.pkcs11.module import Module
    from hsm.secretfile import SecretSource

log = logging.getLogger("hsm.pkcs11")

_SESSION_COUNT = 0x0B1


class Pool:
    """The sessions of one backend. Thread-safe; the module's gate is its only lock.

    `limit` is the most workers at once, less where the token has fewer sessions. `wait_seconds` is how
    long to wait for one. `hang_seconds` is how long a call may take before its session is given up: the
    thread in it cannot be freed, but others get a new session in its place. `homes` sessions of the token
    are left for `open_home`.
    """

    def __init__(
        self,
        module: Module,
        find_token: Callable[[], Token],
        pin: SecretSource | None,
        *,
        limit: int,
        wait_seconds: float,
        hang_seconds: float,
        homes: int = 0,
    ) -> None:
        self._homes = homes
        self.module = module
        self.limit = limit
        self.wait_seconds = wait_seconds
        self.hang_seconds = hang_seconds
        self.hung = 0
        self.auth_failed: HsmAuthFailed | None = None
        self._find_token = find_token
        self._pin = pin
        self._token: Token | None = None
        self._anchor: Session | None = None
        self._anchor_epoch = 0
        self._ready_epoch = 0  # the epoch in which the log-in was last seen to be in order
        self._login_lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self.doubts = 0
        """Grows whenever sessions or handles are in doubt: what others keep of them is to be made anew."""
        self._open = 0  # workers that exist or are being opened, lost ones left out

    # -- logging in --------------------------------------------------------------------------------

    def log_in(self, op: str = "open") -> None:
        """Make sure that the anchor is there and logged in; at most one attempt with the PIN.

        The caller must be inside the module's gate.

        Raises `HsmAuthFailed` (if the HSM refused the PIN, nothing is tried ever again), `HsmUnavailable`,
        and whatever the module or its binding answers (`CryptokiError`, `PKCS11Error`).
        """
        with self._login_lock:
            if self.auth_failed is not None:
                raise self.auth_failed
            try:
                self._log_in(op)
                self._ready_epoch = self._anchor_epoch
            except HsmAuthFailed as error:
                # Only the HSM's own refusal is final; a PIN that cannot be read now costs no attempt.
                if error.code_name:
                    self.auth_failed = error
                    log.error("the HSM refused the log-in; it is not tried again: %s", error)  # noqa: TRY400
                raise

    def _log_in(self, op: str) -> None:
        module = self.module
        if self._anchor is not None and (self._anchor_epoch != module.epoch or not self._anchor_lives()):
            self._drop_anchor()
        if self._anchor is None:
            self._token = self._find_token()
            self._anchor = self._token.open(rw=True)
            self._anchor_epoch = module.epoch
            self._bound_by_token()
        if self._anchor_state() == cryptoki.CKS_RW_USER and self._slot() in module.logins:
            self._compare_pin(op)
            return
        if self._pin is None:
            raise HsmAuthFailed(op, "no pin-source is given")
        try:
            with self._pin.read() as pin:
                area = (ctypes.c_char * len(pin)).from_buffer(pin)
                try:
                    rv = module.functions.C_Login(_handle(self._anchor), cryptoki.CKU_USER, area, len(pin))
                finally:
                    del area  # else the buffer could not be wiped
                if rv in (cryptoki.OK, codes.ALREADY_LOGGED_IN):
                    module.logins[self._slot()] = self._digest(pin)
        except SecretSourceError as error:
            self._drop_anchor()
            raise HsmAuthFailed(op, f"the PIN: {error}") from None
        if rv not in (cryptoki.OK, codes.ALREADY_LOGGED_IN):
            self._drop_anchor()
            failure = CryptokiError(rv)
            if failure.code.error is HsmAuthFailed:
                raise to_error(op, failure)
            raise failure

    def _compare_pin(self, op: str) -> None:
        # While a process is logged in, the module accepts any PIN. A second backend must still know it.
        if self._pin is None:
            raise HsmAuthFailed(op, "no pin-source is given")
        try:
            with self._pin.read() as pin:
                same = hmac.compare_digest(self._digest(pin), self.module.logins[self._slot()])
        except SecretSourceError as error:
            raise HsmAuthFailed(op, f"the PIN: {error}") from None
        if not same:
            raise HsmAuthFailed(op, "not the PIN that this process is logged in with")

    def _digest(self, pin: bytearray) -> bytes:
        return hmac.new(self.module.salt, pin, hashlib.sha256).digest()

    def _slot(self) -> int:
        assert self._token is not None
        return int(self._token.slot.slot_id)

    def _bound_by_token(self) -> None:
        info = cryptoki.TokenInfo()
        if self.module.functions.C_GetTokenInfo(self._slot(), ctypes.byref(info)):
            return
        most = info.max_session_count
        if most not in (0, cryptoki.UNAVAILABLE):  # 0 is CK_EFFECTIVELY_INFINITE
            self.limit = max(1, min(self.limit, most - 1 - self._homes))

    def _anchor_state(self) -> int | None:
        if self._anchor is None:
            return None
        info = cryptoki.SessionInfo()
        if self.module.functions.C_GetSessionInfo(_handle(self._anchor), ctypes.byref(info)):
            return None
        return int(info.state)

    def _anchor_lives(self) -> bool:
        return self._anchor_state() is not None

    def _drop_anchor(self) -> None:
        anchor, self._anchor = self._anchor, None
        if anchor is not None and self._anchor_epoch == self.module.epoch:
            self.module.functions.C_CloseSession(_handle(anchor))

    def logged_in(self) -> bool | None:
        """Whether the anchor is logged in; `None` if it does not answer. Raises `HsmBusy`."""
        with self.module.gate.entered("health", self.wait_seconds):
            if self._anchor_epoch != self.module.epoch:
                return None
            state = self._anchor_state()
        return None if state is None else state == cryptoki.CKS_RW_USER

    # -- lending workers ---------------------------------------------------------------------------

    def acquire(self, op: str) -> Worker:
        """Check a worker out. Raises `HsmBusy` after `wait_seconds`, `CryptokiError`, `HsmError`."""
        gate = self.module.gate
        if gate.forked:
            raise forked(op)
        with gate.changed:
            if not self._idle or gate.shut:
                self._wait_for_turn(op)
            gate.active += 1
            worker = self._pop_idle()
            if worker is None:
                self._open += 1
            else:
                worker.since = time.monotonic()
                self._busy.add(worker)
                return worker
        try:
            worker = self._new_worker(op)
        except BaseException:
            with gate.changed:
                gate.active -= 1
                self._open -= 1
                gate.changed.notify_all()
            raise
        with gate.changed:
            self._busy.add(worker)
        return worker

    def _pop_idle(self) -> Worker | None:
        while self._idle:
            worker = self._idle.pop()
            if worker.epoch == self.module.epoch:
                return worker
            self._open -= 1  # another backend has had the module initialised again
        return None

    def release(self, worker: Worker) -> None:
        """Give a worker back whose session is in order."""
        gate = self.module.gate
        with gate.changed:
            if not worker.lost:
                self._leave(worker)
                if worker.epoch == self.module.epoch:
                    self._idle.append(worker)
                else:
                    self._open -= 1
                return
        self._bury(worker)

    def discard(self, worker: Worker) -> None:
        """Give a worker back whose session is not to be used again."""
        # Closed before it is given back, while it still counts as a call under way: a reconnect in
        # between would make the handle someone else's.
        self._close_quietly(worker)
        gate = self.module.gate
        with gate.changed:
            if worker.lost:
                self._count_hung(-1)
            else:
                self._leave(worker)
                self._open -= 1

    def _bury(self, worker: Worker) -> None:
        """Close the session of a call that ended after it had been given up."""
        self._close_quietly(worker)  # before it stops counting as hung, as no reconnect happens until then
        with self.module.gate.changed:
            self._count_hung(-1)

    def _count_hung(self, change: int) -> None:
        self.hung += change
        self.module.gate.lost += change
        self.module.gate.changed.notify_all()

    @contextmanager
    def exclusive(self, op: str) -> Iterator[Worker]:
        """Be alone in the module, with a worker: for whatever changes token objects."""
        gate = self.module.gate
        if gate.forked:
            raise forked(op)
        with gate.exclusive(op, self.wait_seconds):
            # A session of its own: one that has lain idle may be dead, and such work is not done twice.
            with gate.changed:
                spare = self._idle.pop(0) if self._idle and self._open >= self.limit else None
                gate.active += 1
                self._open += spare is None
            if spare is not None:
                self._close_quietly(spare)
            try:
                worker = self._new_worker(op)
            except BaseException:
                with gate.changed:
                    gate.active -= 1
                    self._open -= 1
                raise
            with gate.changed:
                self._busy.add(worker)
            try:
                yield worker
            except BaseException as error:
                (self.release if orderly(error) else self.discard)(worker)
                raise
            self.release(worker)

    def _close_quietly(self, worker: Worker) -> None:
        # A handle of an earlier epoch may by now be another session's.
        if worker.epoch == self.module.epoch:
            self.module.functions.C_CloseSession(worker.handle)

    def _leave(self, worker: Worker) -> None:
        self._busy.discard(worker)
        self.module.gate.active -= 1
        self.module.gate.changed.notify_all()

    def _wait_for_turn(self, op: str) -> None:
        gate = self.module.gate
        deadline = time.monotonic() + self.wait_seconds
        while True:
            self._give_up_hung()
            if self.hung >= self.limit:
                raise HsmUnavailable(op, "calls to the HSM hang")
            if not gate.shut and (self._idle or self._open < self.limit):
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise HsmBusy(op, "every session of the HSM is in use")
            # Not the whole time at once: a call may start to count as hung while we wait.
            gate.changed.wait(min(left, max(self.hang_seconds / 4, 0.01)))

    def _give_up_hung(self) -> None:
        oldest = time.monotonic() - self.hang_seconds
        for worker in [worker for worker in self._busy if worker.since < oldest]:
            worker.lost = True
            self._busy.discard(worker)
            self._open -= 1
            self.module.gate.active -= 1
            self._count_hung(1)
            log.error("a call to the HSM has hung for %.1f s; its session is given up", self.hang_seconds)

    def check_hung(self) -> int:
        """Give up on calls that hang, and say how many do."""
        with self.module.gate.changed:
            self._give_up_hung()
            return self.hung

    def _new_worker(self, op: str) -> Worker:
        self._check_login(op)
        assert self._token is not None
        epoch = self.module.epoch
        try:
            session = self._token.open(rw=True)
        except PKCS11Error as error:
            failure = from_binding(op, error)
            if isinstance(failure, CryptokiError) and failure.rv == _SESSION_COUNT and self._open > 1:
                self.limit = self._open - 1  # this HSM has fewer sessions than it said
            raise failure from None
        worker = Worker(session, self.module.functions, epoch)
        worker.since = time.monotonic()
        return worker

    def _check_login(self, op: str) -> None:
        if self.auth_failed is not None:
            raise self.auth_failed
        if self._anchor is None or self._ready_epoch != self.module.epoch:
            self.log_in(op)

    def open_home(self, op: str) -> Worker:
        """A session beside those that are lent. The caller has a worker checked out. Raises as `acquire`."""
        return self._new_worker(op)

    def close_home(self, worker: Worker) -> None:
        """Close such a session. The caller is inside the gate."""
        self._close_quietly(worker)

    def forget(self) -> None:
        """Let go of all idle sessions without calling the module, which has been finalised."""
        with self.module.gate.changed:
            self._open -= len(self._idle)
            self._idle.clear()
            self.module.gate.changed.notify_all()

    def close_idle(self) -> None:
        """Close the idle sessions, whose state is doubtful."""
        with self.module.gate.changed:
            idle = [worker for worker in self._idle if worker.epoch == self.module.epoch]
            self._open -= len(self._idle)
            self._idle.clear()
            self.doubts += 1
            self.module.gate.active += 1  # so that the module is not finalised under the closing
        for worker in idle:
            self._close_quietly(worker)
        with self.module.gate.changed:
            self.module.gate.active -= 1
            self.module.gate.changed.notify_all()

    def forget_keys(self) -> None:
        """Make every session look its keys up again."""
        with self.module.gate.changed:
            for worker in (*self._idle, *self._busy):
                worker.stale = True
            self.doubts += 1

    def close(self) -> None:
        """Close every session that no thread is in, the anchor last; with the last, the log-in ends."""
        if self.module.gate.forked:
            return
        self.close_idle()
        with suppress(HsmBusy), self.module.gate.entered("close", self.wait_seconds), self._login_lock:
            self._drop_anchor()

    @property
    def open_sessions(self) -> int:
        """How many sessions this pool has with the token now, the anchor among them."""
        return self._open + self.hung + (self._anchor is not None)


def _handle(session: Session) -> int:
    return int(session.handle)  # type: ignore[attr-defined]  # the binding's stubs leave it out
