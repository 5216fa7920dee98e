"""Listeners that are no vault, or that stand between a client and one."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def listener(serve: Callable[[socket.socket], None], host: str = "127.0.0.1") -> Iterator[str]:
    """Something that listens and is no vault: what it does with each connection is `serve`."""
    with socket.create_server((host, 0)) as listening:

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                serve(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield f"{host}:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()


def forward_to(port: int, *, cut: threading.Event | None = None) -> Callable[[socket.socket], None]:
    """Carries each connection to a port of this machine. Once `cut` is set nothing gets through, and nobody is told."""

    def carry(there: socket.socket, back: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := there.recv(4096):
                if cut is None or not cut.is_set():
                    back.sendall(data)

    def serve(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as onward:
            threading.Thread(target=carry, args=(onward, connection), daemon=True).start()
            carry(connection, onward)

    return serve
