"""Where a PIN or a token comes from: a file, a systemd credential or a file descriptor. Nothing else.

Environment variables and arguments are readable by other processes and end up in crash reports, so there
is no way to pass a secret by value. What is read lands in one `bytearray`, which is wiped when the `with`
block ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SECRET: Final = 4096  # bytes
_CREDENTIAL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


class SecretSourceError(ValueError):
    """A secret cannot be had from where it should be. The text names the place, never the content."""


@dataclass(frozen=True, slots=True)
class SecretSource:
    """A place to read a secret from: `kind` is `file`, `credential` or `fd`."""

    kind: str
    place: str

    @classmethod
    def parse(cls, text: str) -> SecretSource:
        """Read `/path`, `file:/path`, `credential:NAME` or `fd:N`. Raises `SecretSourceError`."""
        kind, colon, place = text.partition(":")
        if text.startswith("/"):
            return cls("file", text)
        if colon and kind == "file":
            path = unquote(place.removeprefix("//"))
            if path.startswith("/"):
                return cls("file", path)
            raise SecretSourceError("a secret file is named by its absolute path")
        if colon and kind == "credential" and _CREDENTIAL_NAME.fullmatch(place):
            return cls("credential", place)
        if colon and kind == "fd" and place.isascii() and place.isdigit():
            return cls("fd", place)
        raise SecretSourceError("a secret comes from file:/path, credential:NAME or fd:N")

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}"

    @contextlib.contextmanager
    def read(self) -> Iterator[bytearray]:
        """Give the secret without its final line end, and wipe it afterwards. Raises `SecretSourceError`.

        A file must not be readable by everyone. A descriptor that can be rewound (a file, a memfd) can
        be read again after a reconnect; a pipe gives its secret once.
        """
        buffer = bytearray(MAX_SECRET + 1)
        try:
            size = self._read_into(memoryview(buffer))
            if size > MAX_SECRET:
                raise SecretSourceError(f"{self} is longer than {MAX_SECRET} bytes")
            while size and buffer[size - 1] in b"\r\n":
                size -= 1
            if not size:
                raise SecretSourceError(f"{self} is empty")
            # Not `del buffer[size:]` nor a slice: both may leave the old bytes behind in freed memory.
            secret = bytearray(size)
            try:
                memoryview(secret)[:] = memoryview(buffer)[:size]
                yield secret
            finally:
                secret[:] = bytes(len(secret))
        finally:
            buffer[:] = bytes(len(buffer))

    def _read_into(self, view: memoryview) -> int:
        try:
            if self.kind == "fd":
                return _fill(_rewound(int(self.place)), view)
            descriptor = os.open(self._path(), os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
            try:
                mode = os.fstat(descriptor).st_mode
                if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
                    raise SecretSourceError(f"{self} is not a file")
                if mode & stat.S_IROTH:
                    raise SecretSourceError(f"{self} can be read by everyone; chmod 0400 it")
                return _fill(descriptor, view)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SecretSourceError(f"{self} cannot be read: {error.strerror}") from None

    def _path(self) -> Path:
        if self.kind == "file":
            return Path(self.place)
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise SecretSourceError(f"{self} needs $CREDENTIALS_DIRECTORY, which systemd sets")
        return Path(directory) / self.place


def _rewound(descriptor: int) -> int:
    with contextlib.suppress(OSError):  # a pipe cannot be rewound
        os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _fill(descriptor: int, view: memoryview) -> int:
    size = 0
    while size < len(view) and (count := os.readv(descriptor, [view[size:]])):
        size += count
    return size
