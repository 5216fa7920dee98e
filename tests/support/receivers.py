"""Real receivers for the sinks of the log: a syslog listener over TLS, an OTLP collector over HTTP."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from tests.support.postgres import free_port

if TYPE_CHECKING:
    from pathlib import Path


class SyslogReceiver:
    """Takes octet-counted messages over TLS on a port of its own; can be stopped and started again."""

    def __init__(self, pki: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.messages: list[bytes] = []
        self.broken: list[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pki / "server.pem", pki / "server-key.pem")
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.start()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """End as a crash would: every connection is cut."""
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(plain,), daemon=True).start()

    def _read(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as connection:
                self._open.append(connection)
                buffer = b""
                while data := connection.recv(65536):
                    buffer += data
                    while b" " in buffer:
                        length, _, rest = buffer.partition(b" ")
                        if not length.isdigit():
                            self.broken.append(buffer)
                            return
                        if len(rest) < int(length):
                            break
                        self.messages.append(rest[: int(length)])
                        buffer = rest[int(length) :]
        except OSError:
            return


class Collector:
    """An OTLP collector. `answer` is what it does with the next requests: take, refuse, hang."""

    def __init__(self) -> None:
        self.requests: list[ExportLogsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.answer = "take"
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if collector.answer == "hang":
                    time.sleep(20)
                    return
                if collector.answer == "take":
                    collector.requests.append(ExportLogsServiceRequest.FromString(body))
                    collector.headers.append(dict(self.headers))
                reply = ExportLogsServiceResponse()
                if collector.answer == "reject":
                    reply.partial_success.rejected_log_records = 1
                self.send_response(503 if collector.answer == "refuse" else 200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(reply.SerializeToString())))
                self.end_headers()
                self.wfile.write(reply.SerializeToString())

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/logs"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def sequences(self) -> list[int]:
        """The sequence of every record taken, in the order they came."""
        return [
            attribute.value.int_value
            for request in self.requests
            for record in request.resource_logs[0].scope_logs[0].log_records
            for attribute in record.attributes
            if attribute.key == "strongroom.sequence"
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
