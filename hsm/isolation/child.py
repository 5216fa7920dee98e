"""The process that holds the vendor's library: `python -m hsm.isolation.child LIFELINE SOCKET...`.

It serves each socket in a thread of its own, one call at a time, and ends when the lifeline does, which is
when its parent does.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from hsm.errors import HsmError, HsmUnavailable
from hsm.isolation import batches, wire
from hsm.model import UnwrapItem, WrapItem
from hsm.open import open_pkcs11
from hsm.uri import parse_pkcs11

if TYPE_CHECKING:
    from hsm.backend import HsmBackend

_PR_SET_DUMPABLE: Final = 4
_M_PERTURB: Final = -6
_ROOM: Final = 64  # bytes, the longest data key
# What a parent may ask for; everything else is refused.
_PLAIN: Final = frozenset(
    {
        *("capabilities", "health", "create_key", "key_info", "list_keys", "set_key_state"),
        *("create_wrapped_key", "rewrap_key", "forget_keys"),
        *("sign", "public_key", "mac", "random"),
    }
)


def harden() -> None:
    """Data keys pass through here: no core dumps, no tracing by others, freed memory overwritten."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_PERTURB, 0xA5)


def serve(backend: HsmBackend, sock: socket.socket) -> None:
    """Answer calls until the other side goes."""
    with contextlib.suppress(wire.WireError, OSError):
        while True:
            call, received = wire.receive(sock)
            secrets: list[bytearray] = []
            try:
                answer = _answer(backend, call, secrets)
            finally:
                call = None
                wire.wipe(received)
            try:
                wire.send(sock, answer)
            finally:
                for secret in secrets:
                    wire.wipe(secret)


def _answer(backend: HsmBackend, call: Any, secrets: list[bytearray]) -> Any:
    op, arguments = call
    try:
        return _perform(backend, op, arguments, secrets)
    except HsmError as error:
        return error
    except ValueError as error:
        return ("ValueError", str(error))
    except Exception as error:  # noqa: BLE001 - its text may hold anything
        return HsmUnavailable(str(op), "the isolated library failed", code_name=type(error).__name__)


def _perform(backend: HsmBackend, op: str, arguments: list[Any], secrets: list[bytearray]) -> Any:
    if op in _PLAIN:
        return getattr(backend, op)(*(_plain(argument) for argument in arguments))
    if op == "deep_health":
        return backend.health(deep=True)
    if op == "destroy_key":
        return backend.destroy_key(arguments[0], confirm=arguments[0].label)
    if op == "wrap_many":
        items = [WrapItem(item.ref, item.dek, bytes(item.aad)) for item in arguments[0]]
        return backend.wrap_many(items)
    if op == "rewrap_many":
        return batches.pack_answers(backend.rewrap_many(batches.unpack(arguments[0])))
    if op == "unwrap_many":
        secrets += [bytearray(_ROOM) for _ in arguments[0]]
        sizes = backend.unwrap_many(
            [
                UnwrapItem(ref, bytes(blob), bytes(aad), memoryview(secret))
                for (ref, blob, aad), secret in zip(arguments[0], secrets, strict=True)
            ]
        )
        return [
            size if isinstance(size, HsmError) else memoryview(secret)[:size]
            for size, secret in zip(sizes, secrets, strict=True)
        ]
    raise HsmUnavailable(op, "not a call that can be isolated")


def _plain(argument: Any) -> Any:
    return bytes(argument) if isinstance(argument, memoryview) else argument


def main() -> None:
    """Open what the first socket's first message names, then serve."""
    logging.basicConfig(level=logging.WARNING)
    harden()
    lifeline, *descriptors = (int(argument) for argument in sys.argv[1:])
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    (uri, sessions, wait_seconds, hang_seconds, cached_keys), _ = wire.receive(sockets[0])
    try:
        backend = open_pkcs11(
            parse_pkcs11(uri),
            sessions=sessions,
            wait_seconds=wait_seconds,
            hang_seconds=hang_seconds,
            cached_keys=cached_keys,
        )
    except HsmError as error:
        wire.send(sockets[0], error)
        return
    except ValueError as error:
        wire.send(sockets[0], ("ValueError", str(error)))
        return
    wire.send(sockets[0], backend.name)
    for sock in sockets:
        threading.Thread(target=serve, args=(backend, sock), daemon=True).start()
    os.read(lifeline, 1)  # nothing is ever sent: it ends when the parent closes it or dies
    # Not a tidy exit: a thread may hang in the library, and the library may crash on its way out.
    os._exit(0)


if __name__ == "__main__":
    main()
