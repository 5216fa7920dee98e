"""The process model: one supervisor, N workers, each a process of its own on the same port.

Workers are spawned, never forked: PKCS#11 does not survive a fork. The first one starts alone, so that what
is wrong at start (a wrong PIN above all) is tried once. A worker that dies later is replaced, with back-off.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from vault.config import load
from vault.crypto.hardening import ENVIRONMENT
from vault.errors import EX_CONFIG, EX_TEMPFAIL, StartError
from vault.server.exposition import Exposition

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

_START_SECONDS = 60.0
_POLL_SECONDS = 0.2
_MIN_BACKOFF = 0.5
_MAX_BACKOFF = 30.0
_KILL_AFTER_SECONDS = 10.0


def _refuse_busy_port(listen: str) -> None:
    """Workers share the port with each other, so a stranger's server on it would go unnoticed: look before."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise StartError(f"server.listen: cannot listen on {listen}: {error.strerror}") from None


class Supervisor:
    """Starts the workers, keeps them, and stops them on SIGTERM or SIGINT.

    A worker that cannot start for a reason that will not go away (exit code 78, a wrong PIN for one) is not tried
    again.
    """

    def __init__(self, config_file: Path) -> None:
        self._file = config_file
        self._config = load(config_file)
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        """By slot: a number that a worker has alone while it lives, and its successor after it."""
        self._exposition: Exposition | None = None
        self._stopping = threading.Event()

    def run(self) -> int:
        """Serve until told to stop; return the exit code: 0, or that of a worker that could not start."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        _refuse_busy_port(self._config.server.listen)
        with contextlib.ExitStack() as stack:
            if self._config.metrics.listen:
                self._exposition = Exposition(self._config.metrics.listen, self._live_workers)
                stack.callback(self._exposition.close)
            return self._serve()

    def _serve(self) -> int:
        for slot in range(self._config.server.workers):
            code = self._start(slot)
            if code is not None:
                if code not in (0, EX_CONFIG, EX_TEMPFAIL):
                    print(f"strongroom: a worker ended while it started ({code})", file=sys.stderr)  # noqa: T201
                self._stop()
                return abs(code)
        print(f"strongroom: listening on {self._config.server.listen}", file=sys.stderr, flush=True)  # noqa: T201
        self._keep()
        self._stop()
        return 0 if self._stopping.is_set() else EX_CONFIG

    def _keep(self) -> None:
        """Replace workers that end, until all is to stop or there is none, and none that could start."""
        backoff = _MIN_BACKOFF
        steady_since = time.monotonic()
        missing: set[int] = set()
        while not self._stopping.wait(_POLL_SECONDS):
            dead = {slot: worker for slot, worker in self._workers.items() if worker.poll() is not None}
            for slot, worker in dead.items():
                del self._workers[slot]
                if self._exposition is not None:
                    self._exposition.died(slot)
                print(  # noqa: T201
                    f"strongroom: worker {worker.pid} ended ({worker.returncode}); starting another",
                    file=sys.stderr,
                    flush=True,
                )
            missing |= set(dead)
            if not missing:
                if time.monotonic() - steady_since > _MAX_BACKOFF:
                    backoff = _MIN_BACKOFF
                continue
            self._stopping.wait(backoff)
            backoff = min(backoff * 2, _MAX_BACKOFF)
            codes = {slot: self._start(slot) for slot in sorted(missing)}
            # What ended for a reason that may pass, a database that is away for one, is tried again.
            again = {slot for slot, code in codes.items() if code not in (None, EX_CONFIG)}
            missing = again - set(self._workers)
            if not self._workers and not missing:
                return
            steady_since = time.monotonic()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping.set()

    def _live_workers(self) -> int:
        return sum(worker.poll() is None for worker in list(self._workers.values()))

    def _start(self, slot: int) -> int | None:
        """Start a worker and wait until it listens; its exit code if it does not, 0 if all is to stop."""
        if self._stopping.is_set():
            return 0
        measured = [str(self._exposition.folder), str(slot)] if self._exposition is not None else []
        reading, writing = os.pipe()
        try:
            worker = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "vault.server.worker", str(self._file), str(writing), *measured],
                pass_fds=(writing,),
                env={**os.environ, **ENVIRONMENT},
                # Signals come from here, in order, not from the terminal to all at once.
                start_new_session=True,
            )
            os.close(writing)
            self._workers[slot] = worker
            deadline = time.monotonic() + _START_SECONDS
            while time.monotonic() < deadline and not self._stopping.is_set():
                if select.select([reading], [], [], _POLL_SECONDS)[0]:
                    if os.read(reading, 1):
                        return None
                    del self._workers[slot]
                    return worker.wait() or 1
            return 0 if self._stopping.is_set() else 1
        finally:
            os.close(reading)

    def _stop(self) -> None:
        for worker in self._workers.values():
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._config.server.drain_seconds + _KILL_AFTER_SECONDS
        for worker in self._workers.values():
            try:
                worker.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
