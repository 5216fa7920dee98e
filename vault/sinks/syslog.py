"""Syslog: RFC 5424 messages over TLS, octet-counted as RFC 5425 has it.

Syslog has no receipt. What comes nearest is used: a batch counts as delivered when the receiver's TCP has acknowledged
every byte of it and the connection still stands; else the whole batch is sent again on a new connection. A receiver
that crashes with acknowledged bytes still unread loses them; the sequence in each message shows it.
"""

from __future__ import annotations

import fcntl
import json
import select
import socket
import ssl
import struct
import termios
import time
from typing import TYPE_CHECKING, Any

from vault.core.sinks import SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TIMEOUT_SECONDS = 5.0
_ALERT_SECONDS = 0.2
_LOG_AUDIT = 13
_WARNING, _INFORMATIONAL = 4, 6
_ESTABLISHED = 1
_MAX_MSGID = 32


class Syslog:
    """Sends records to one receiver."""

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        render: Callable[[Mapping[str, Any]], dict[str, Any]],
    ) -> None:
        self._address = (host, port)
        self._context = context
        self._render = render
        self._hostname = socket.gethostname()[:255] or "-"
        self._connection: ssl.SSLSocket | None = None

    def deliver(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the records, and return when the receiver's TCP has them."""
        try:
            connection = self._connect() if self._connection is None else self._connection
            connection.sendall(
                b"".join(frame(message(row, self._hostname, self._render(row))) for row in rows)
            )
            _await_receipt(connection)
        except ssl.SSLCertVerificationError:
            self.close()
            raise SinkError("the receiver's certificate does not verify") from None
        except OSError as error:
            self.close()
            raise SinkError(
                f"the connection failed: {error.strerror or type(error).__name__}"[:120]
            ) from None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(self._address, timeout=_TIMEOUT_SECONDS)
        try:
            connection = self._context.wrap_socket(plain, server_hostname=self._address[0])
        except BaseException:
            plain.close()
            raise
        # In TLS 1.3 a receiver refuses a client's certificate after the client took the handshake for done.
        if select.select([connection], [], [], _ALERT_SECONDS)[0]:
            _read_what_came(connection)
        self._connection = connection
        return connection


def context(ca_file: str, certificate_file: str | None, private_key_file: str | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the receiver's name verified; with a certificate of our own if there is one."""
    made = ssl.create_default_context(cafile=ca_file)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate_file is not None:
        made.load_cert_chain(certificate_file, private_key_file)
    return made


def message(row: Mapping[str, Any], hostname: str, body: dict[str, Any]) -> bytes:
    """A record as an RFC 5424 message: facility "log audit", MSGID the action, MSG the record as JSON in ASCII."""
    severity = _INFORMATIONAL if row["outcome"] == "granted" else _WARNING
    moment = row["created_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    name = row["action_type"][:_MAX_MSGID] or "-"
    return f"<{_LOG_AUDIT * 8 + severity}>1 {moment} {hostname} strongroom - {name} - {json.dumps(body)}".encode()


def frame(text: bytes) -> bytes:
    """A message with its length before it (RFC 5425, section 4.3)."""
    return b"%d %b" % (len(text), text)


def _await_receipt(connection: ssl.SSLSocket) -> None:
    """Return once the peer's TCP acknowledged everything; raise `OSError` if the connection is not what it was."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    pause = 0.0002
    while True:
        (unsent,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED:
            raise ConnectionResetError("the receiver closed the connection")
        if unsent == 0:
            _read_what_came(connection)
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the receiver does not take what is sent")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _read_what_came(connection: ssl.SSLSocket) -> None:
    """Take in what TLS sent of its own accord (tickets); raise `OSError` for an alert or an end."""
    connection.setblocking(False)
    try:
        if not connection.recv(4096):
            raise ConnectionResetError("the receiver closed the connection")
    except ssl.SSLWantReadError:
        pass
    finally:
        connection.settimeout(_TIMEOUT_SECONDS)
