"""How calls and answers cross the socket.

    4 bytes   length of the text, big endian
    4 bytes   length of the rest
    text      JSON: what the call or answer is, with the places of its byte strings in the rest
    rest      the byte strings, one after the other

Not pickle: the child runs a vendor's code, and what it sends must not be able to run in its parent. Byte
strings stay out of the JSON so that data keys pass through buffers that are wiped.
"""

from __future__ import annotations

import enum
import json
import struct
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from hsm import errors, model

if TYPE_CHECKING:
    import socket

_HEAD: Final = struct.Struct(">II")
_MOST: Final = 64 << 20  # bytes in a message; a batch of messages to sign is far below
_CLASSES: Final[dict[str, type[Any]]] = {
    kind.__name__: kind
    for kind in (
        *(model.KeyRef, model.KeySpec, model.KeyInfo, model.Health, model.Capabilities, model.WrapItem),
        *(model.WrappedKey, model.RewrapItem),
        *(model.KeyAlgorithm, model.KeyState, model.SignatureAlgorithm, model.IvMode, model.WrapScheme),
    )
}
_ERRORS: Final[dict[str, type[errors.HsmError]]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.HsmError)
}


class WireError(Exception):
    """The other side is gone, or does not speak this language."""


def send(sock: socket.socket, message: Any) -> None:
    """Send one message, and wipe what it was put together in. Raises `OSError`."""
    rest = _Rest()
    text = json.dumps(_dump(message, rest)).encode()
    frame = bytearray(_HEAD.size + len(text) + rest.size)
    view = memoryview(frame)
    try:
        _HEAD.pack_into(frame, 0, len(text), rest.size)
        place = _HEAD.size
        for part in (text, *rest.parts):
            view[place : place + len(part)] = part
            place += len(part)
        sock.sendall(view)
    finally:
        view[:] = bytes(len(frame))


def receive(sock: socket.socket) -> tuple[Any, bytearray]:
    """Receive one message, and the buffer that its byte strings are views of, for the caller to wipe.

    Raises `WireError`, `OSError`.
    """
    head = _exactly(sock, _HEAD.size)
    text_size, size = _HEAD.unpack(head)
    if text_size > _MOST or size > _MOST:
        raise WireError("a message of impossible size")
    text, rest = _exactly(sock, text_size), _exactly(sock, size)
    try:
        return _load(json.loads(text), memoryview(rest)), rest
    except (ValueError, KeyError, TypeError, IndexError):
        raise WireError("a message that cannot be read") from None


def wipe(buffer: bytearray) -> None:
    """Overwrite a received buffer, whose views may still exist."""
    memoryview(buffer)[:] = bytes(len(buffer))


def _exactly(sock: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    view, got = memoryview(buffer), 0
    while got < size:
        count = sock.recv_into(view[got:])
        if not count:
            raise WireError("the other side is gone")
        got += count
    return buffer


class _Rest:
    """The byte strings of a message that is put together, and their size."""

    def __init__(self) -> None:
        self.parts: list[bytes | bytearray | memoryview] = []
        self.size = 0

    def add(self, part: bytes | bytearray | memoryview) -> list[int]:
        """Where it lies, and how long it is."""
        start = self.size
        self.parts.append(part)
        self.size += len(part)
        return [start, len(part)]


def _dump(value: Any, rest: _Rest) -> Any:
    if value is None or isinstance(value, bool | int | float) or type(value) is str:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return {"b": rest.add(value)}
    if isinstance(value, list | tuple | frozenset):
        kind = {list: "l", tuple: "t", frozenset: "s"}[type(value)]
        return {kind: [_dump(item, rest) for item in value]}
    if isinstance(value, errors.HsmError):
        return {"x": [type(value).__name__, value.op, value.message, value.code_name]}
    if isinstance(value, enum.Enum):
        return {"c": [type(value).__name__, [value.value]]}
    if is_dataclass(value):
        return {"c": [type(value).__name__, [_dump(getattr(value, f.name), rest) for f in fields(value)]]}
    raise TypeError(f"cannot send a {type(value).__name__}")


def _load(value: Any, rest: memoryview) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "b":
        start, size = content
        if not 0 <= start <= start + size <= len(rest):
            raise ValueError("a byte string out of bounds")
        return rest[start : start + size]
    if kind == "x":
        name, op, message, code = content
        return _ERRORS[name](str(op), str(message), code_name=str(code))
    if kind == "c":
        arguments = [_load(item, rest) for item in content[1]]
        # Views are for data keys; an id or a context is a value like any other.
        return _CLASSES[content[0]](
            *(
                bytes(item) if isinstance(item, memoryview) and content[0] != "WrapItem" else item
                for item in arguments
            )
        )
    items = [_load(item, rest) for item in content]
    return {"l": list, "t": tuple, "s": frozenset}[kind](items)
