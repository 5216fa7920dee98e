"""`GET /metrics`: the supervisor adds up what the workers' slots hold, and serves it as Prometheus reads it.

The supervisor holds no secret and takes no part in a call, so a scrape costs no worker anything, and works while
workers die and are replaced.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from vault.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable

_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder made in it is its maker's alone
_REQUEST_SECONDS = 10.0


class Exposition:
    """The slots' files and the endpoint. Raises `StartError` if it cannot listen."""

    def __init__(self, listen: str, live_workers: Callable[[], int]) -> None:
        # Memory, not a disk: a disk that is full would kill who writes to a mapped file.
        place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="strongroom-metrics-", dir=place))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self.folder))  # type: ignore[no-untyped-call]
        workers = Gauge("strongroom_workers", "Workers that live.", registry=registry)
        workers.set_function(live_workers)
        self._deaths = Counter(
            "strongroom_worker_deaths", "Workers that ended without being told to.", registry=registry
        )

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_SECONDS
            server_version, sys_version = "strongroom", ""

            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404)
                    return
                encode, kind = choose_encoder(self.headers.get("accept", ""))
                body = encode(registry)
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Nothing: what was asked for is no news."""

        host, _, port = listen.rpartition(":")
        family = _Server6 if ":" in host else _Server
        try:
            self._server = family((host.strip("[]"), int(port)), Handler)
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise StartError(f"metrics.listen: cannot listen on {listen}: {error.strerror}") from None
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def died(self, slot: int) -> None:
        """A worker ended: its counts stay, what it said of itself does not."""
        self._deaths.inc()
        for file in self.folder.glob(f"gauge_live*_{slot}.db"):
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop serving, and remove the files."""
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6
