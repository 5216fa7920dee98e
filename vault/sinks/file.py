"""A file of JSON lines, changed for a new one when it is full.

A full file is kept beside the new one as `<stem>-<last sequence><suffix>`; of those the newest are kept. What a crash
cut in the middle of a line is taken away, and records that the file already has are not written again.

At most one batch comes again, and its records are those of the file. If the log brings others in their places, it was
set back: the file then takes nothing, since it is what is left of the records that were lost.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import IO, TYPE_CHECKING, Any

from vault.core.sinks import BATCH, SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_TAIL_BYTES = 4 << 20


class File:
    """Appends records to a file, durably."""

    def __init__(
        self, path: Path, max_bytes: int, keep: int, render: Callable[[Mapping[str, Any]], dict[str, Any]]
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._render = render
        self._file: IO[bytes] | None = None
        self._last = -1
        self._newest: dict[int, str] = {}
        """The ids of its newest records, by their sequences."""

    def deliver(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append what the file does not have, and return when it is on the disk."""
        try:
            file = self._open() if self._file is None else self._file
            self._refuse_others(rows)
            for row in rows:
                if row["sequence"] > self._last:
                    file.write(json.dumps(self._render(row)).encode() + b"\n")
                    self._last = row["sequence"]
                    self._newest[self._last] = row["id"]
            while len(self._newest) > BATCH:
                del self._newest[next(iter(self._newest))]
            file.flush()
            os.fsync(file.fileno())
            if file.tell() >= self._max_bytes:
                self._change()
        except OSError as error:
            self.close()
            raise SinkError(f"cannot write the file: {error.strerror or type(error).__name__}") from None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what was answered for is on the disk already
                self._file.close()
            self._file = None

    def _refuse_others(self, rows: Sequence[Mapping[str, Any]]) -> None:
        others = any(self._newest.get(row["sequence"], row["id"]) != row["id"] for row in rows)
        if others or self._last - rows[0]["sequence"] >= BATCH:
            self.close()  # to look again: it may be put aside, and a new one begun
            raise SinkError("holds other records than the log, which was set back")

    def _open(self) -> IO[bytes]:
        file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640), "ab+")
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        file.truncate(start + whole)
        file.seek(0, os.SEEK_END)
        full = self._full()
        lines = tail[:whole].splitlines()
        for older in reversed(full):
            if len(lines) >= BATCH:
                break
            lines = [*_last_lines(older), *lines]
        self._newest = dict(filter(None, map(_mark, lines[-BATCH:])))
        before = int(full[-1].stem.rpartition("-")[2]) if full else -1
        self._last = max(before, *self._newest, -1)
        self._file = file
        return file

    def _change(self) -> None:
        self.close()
        self._path.rename(self._path.with_name(f"{self._path.stem}-{self._last:020d}{self._path.suffix}"))
        for old in self._full()[: -self._keep]:
            old.unlink()

    def _full(self) -> list[Path]:
        """The full files, oldest first."""
        return sorted(self._path.parent.glob(f"{self._path.stem}-{'[0-9]' * 20}{self._path.suffix}"))


def _last_lines(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().splitlines()


def _mark(line: bytes) -> tuple[int, str] | None:
    """The sequence and the id of a line's record; None if it is none."""
    try:
        record = json.loads(line)
        found = record.get("metadata", record)
        return int(found["sequence"]), str(found.get("id") or found["uid"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
