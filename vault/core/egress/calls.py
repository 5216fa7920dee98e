"""Has a request made by a process of its own, to which the secrets go straight from locked memory."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.crypto import memory
from vault.crypto.hardening import ENVIRONMENT
from vault.errors import Reason, VaultError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from vault.crypto.memory import LockedBuffer

MAX_AT_ONCE = 16
ROOM_SECONDS = 5.0
"""How long a request waits for its turn: less than a lease on a refresh lasts beyond the request itself."""
_GRACE_SECONDS = 3.0
_MAX_CAPTURED = 16_384
_MAX_HEAD = 16 * 1024 * 1024


class Injection(NamedTuple):
    """Where the next values go."""

    place: str
    name: str
    values: tuple[memoryview, ...]
    secret: tuple[bool, ...]


class Capture(NamedTuple):
    """A value to take out of the answer: where it is, and what to put in its place (nothing: it stays)."""

    pointer: str
    handle: str = ""
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Request:
    """A request, without its secrets."""

    host: str
    port: int
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: bytes
    injections: tuple[Injection, ...]
    captures: tuple[Capture, ...]
    response_bytes: int
    seconds: int
    loopback: bool = False
    ca_file: Path | None = None
    only_captures: bool = False
    """Whether nobody wants the rest of an answer of which something was captured: then it is not passed on."""


class Answer(NamedTuple):
    """A provider's answer, free of secrets, and what was captured from it, in locked memory."""

    status: int
    headers: dict[str, str]
    body: bytes
    captured: tuple[LockedBuffer, ...]


_ERRORS = {
    "address": (Reason.DESTINATION_DENIED, "the host's addresses are not all public ones"),
    "unreachable": (Reason.UPSTREAM_UNREACHABLE, "the provider could not be reached; nothing was sent"),
    "withheld": (Reason.RESPONSE_WITHHELD, "the provider's answer would have shown a secret"),
    "unsuitable": (Reason.SECRET_UNSUITABLE, "a field cannot stand where the connector puts it"),
    "body": (Reason.FIELD_INVALID, "body: is not of the form that the connector injects into"),
}


def _failure(name: str = "") -> VaultError:
    failed = (Reason.UPSTREAM_FAILED, "the provider gave no usable answer; it may have acted")
    return VaultError(*_ERRORS.get(name, failed))


class Calls:
    """Makes requests, a bounded number at once."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    async def make(self, request: Request) -> Answer:
        """Make a request.

        Raises `DESTINATION_DENIED`, `UPSTREAM_*`, `RESPONSE_WITHHELD`, `SECRET_UNSUITABLE`, and `OVERLOADED` if its
        turn did not come.
        """
        async with self._turn():
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            child = subprocess.Popen(  # noqa: ASYNC220 - our own module; starting it takes a millisecond
                [sys.executable, "-I", "-m", "vault.core.egress.child"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env=dict(ENVIRONMENT),
                cwd="/",
            )
            theirs.close()
            try:
                async with asyncio.timeout(request.seconds + _GRACE_SECONDS):
                    return await _converse(ours, request)
            except (TimeoutError, OSError, ValueError):
                raise _failure() from None
            finally:
                ours.close()
                child.kill()
                await asyncio.to_thread(child.wait)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                await self._room.acquire()
        except TimeoutError:
            raise VaultError(
                Reason.OVERLOADED, "as many requests as the worker makes are under way; nothing was sent"
            ) from None
        try:
            yield
        finally:
            self._room.release()


async def _converse(ours: socket.socket, request: Request) -> Answer:
    loop = asyncio.get_running_loop()
    values = [value for injection in request.injections for value in injection.values]
    head = json.dumps(_head(request, values)).encode()
    await loop.sock_sendall(ours, len(head).to_bytes(4, "big") + head)
    for value in values:
        # A view of locked memory: what the kernel does not take at once is taken later from the same place.
        await loop.sock_sendall(ours, value)
    answer = json.loads(await _read(ours, int.from_bytes(await _read(ours, 4), "big")))
    if "error" in answer:
        raise _failure(answer["error"])
    captured: list[LockedBuffer] = []
    try:
        for size in answer["sizes"]:
            if size > _MAX_CAPTURED:
                raise _failure()  # noqa: TRY301 - the buffers before it are wiped here
            buffer = memory.allocate(size)
            captured.append(buffer)
            await _read_into(ours, buffer.view)
    except BaseException:
        for buffer in captured:
            buffer.close()
        raise
    return Answer(answer["status"], answer["headers"], base64.b64decode(answer["body"]), tuple(captured))


def _head(request: Request, values: list[memoryview]) -> dict[str, Any]:
    return {
        "host": request.host,
        "port": request.port,
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": request.headers,
        "body": base64.b64encode(request.body).decode(),
        "inject": [
            {"place": item.place, "name": item.name, "values": len(item.values)}
            for item in request.injections
        ],
        "sizes": [len(value) for value in values],
        "secret": [told for item in request.injections for told in item.secret],
        "capture": [item._asdict() for item in request.captures],
        "capture_secret": [bool(item.handle) for item in request.captures],
        "response_bytes": request.response_bytes,
        "seconds": request.seconds,
        "loopback": request.loopback,
        "only_captures": request.only_captures,
        "ca_file": os.fspath(request.ca_file) if request.ca_file else "",
    }


async def _read(ours: socket.socket, size: int) -> bytes:
    if size > _MAX_HEAD:
        raise _failure()
    buffer = bytearray(size)
    await _read_into(ours, memoryview(buffer))
    return bytes(buffer)


async def _read_into(ours: socket.socket, view: memoryview) -> None:
    loop = asyncio.get_running_loop()
    while view:
        with contextlib.suppress(BlockingIOError):
            count = await loop.sock_recv_into(ours, view)
            if not count:
                raise _failure()
            view = view[count:]
