"""Anchors: places outside the database that hold checkpoints, so that a database cut or set back is noticed.

A file or a directory on other storage, a witness that speaks C2SP `tlog-witness`, a syslog server. Each is told of
every new checkpoint and has a health of its own; one that fails holds up neither the others nor the vault, and is
tried again. What can be read back is held against the database at start and by `audit verify`. A file or a directory
that cannot be read, or that is empty though the log has checkpoints, is not passed over at start: what it knew may be
what the database lost.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import logging
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO

from vault.core import evidence
from vault.crypto import notes
from vault.crypto.errors import CryptoError
from vault.errors import VaultError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vault.clock import Clock
    from vault.model import Checkpoint

log = logging.getLogger("strongroom.anchors")

TIMEOUT_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0
_AGAIN_SECONDS = 5.0
_MAX_ANSWER = 64 * 1024
_CONFLICT = 409
_MAX_HELD = 1000


Prove = Callable[[int, "Checkpoint"], Awaitable[list[bytes]]]
"""Gives the path that proves that the log of a size is the beginning of a checkpoint."""


class AnchorFailed(Exception):  # noqa: N818 - what happened, for the log and the health service
    """An anchor could not take a checkpoint. The text says why, and holds nothing secret."""


class Held(NamedTuple):
    """A checkpoint that an anchor holds: by what name to speak of it, and its note."""

    name: str
    note: str


class Silent(NamedTuple):
    """An anchor that should show what it holds, and does not: by what name to speak of it, and why."""

    name: str
    reason: str
    empty: bool
    """Whether it could be read, and held nothing."""


class Asked(NamedTuple):
    """What anchors answered."""

    held: list[Held]
    silent: list[Silent]


class Anchor(Protocol):
    """A place that holds checkpoints."""

    name: str
    shows: bool
    """Whether it shows what it holds to whoever asks, always."""

    async def push(self, checkpoint: Checkpoint) -> str:
        """Hand over a checkpoint; gives the signature lines that it was answered with. Raises `AnchorFailed`."""
        ...

    async def held(self) -> list[Held]:
        """What it holds, oldest first; nothing if it cannot be asked. Raises `AnchorFailed`."""
        ...


class FileAnchor:
    """The newest checkpoint in one file."""

    shows = True

    def __init__(self, path: Path) -> None:
        self.name = f"file {path}"
        self._path = path

    async def push(self, checkpoint: Checkpoint) -> str:
        """Put it in the place of an older one."""
        await asyncio.to_thread(self._write, checkpoint)
        return ""

    async def held(self) -> list[Held]:
        """The one checkpoint."""
        return await asyncio.to_thread(self._read)

    def _write(self, checkpoint: Checkpoint) -> None:
        with contextlib.suppress(CryptoError, AnchorFailed):
            if any(_size(held.note) >= checkpoint.size for held in self._read()):
                return
        fresh = self._path.with_suffix(f".{os.getpid()}.new")
        try:
            with fresh.open("w") as file:
                _write_down(file, checkpoint.note)
            fresh.replace(self._path)
        except OSError as error:
            raise AnchorFailed(f"it cannot be written: {error.strerror}") from None

    def _read(self) -> list[Held]:
        if not self._path.parent.is_dir():
            raise AnchorFailed("its folder is not there")
        try:
            return [Held("anchor", self._path.read_text(errors="replace"))]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AnchorFailed(f"it cannot be read: {error.strerror}") from None


class DirectoryAnchor:
    """Every checkpoint in a file of its own, never written twice: for storage that only takes what is new."""

    shows = True

    def __init__(self, path: Path) -> None:
        self.name = f"directory {path}"
        self._path = path

    async def push(self, checkpoint: Checkpoint) -> str:
        """Put it beside the others."""
        await asyncio.to_thread(self._write, checkpoint)
        return ""

    async def held(self) -> list[Held]:
        """The newest thousand."""
        return await asyncio.to_thread(self._read)

    def _write(self, checkpoint: Checkpoint) -> None:
        path = self._path / f"{checkpoint.size:020}.checkpoint"
        try:
            with _nameless(self._path) or path.open("x") as file:
                _write_down(file, checkpoint.note)
                if isinstance(file.name, int):
                    # A descriptor has Python follow the link by linkat(2), whatever it is: the path is absolute.
                    os.link(f"/proc/self/fd/{file.name}", path, src_dir_fd=file.name)
        except FileExistsError:
            return
        except OSError as error:
            raise AnchorFailed(f"it cannot be written: {error.strerror}") from None

    def _read(self) -> list[Held]:
        try:
            files = sorted(path for path in self._path.iterdir() if path.suffix == ".checkpoint")
            return [
                Held(f"anchor {path.name}", path.read_text(errors="replace")) for path in files[-_MAX_HELD:]
            ]
        except FileNotFoundError:
            raise AnchorFailed("it is not there") from None
        except OSError as error:
            raise AnchorFailed(f"it cannot be read: {error.strerror}") from None


class Witness:
    """A witness of C2SP `tlog-witness`, which cosigns what is consistent with all that it saw before."""

    shows = False

    def __init__(
        self,
        url: str,
        verifier_key: str,
        origin: str,
        ca_file: Path | None,
        prove: Prove,
    ) -> None:
        """`prove` gives the path from a size to a checkpoint."""
        self.name = f"witness {url}"
        self._url = url.rstrip("/")
        self._key = verifier_key
        self._origin = origin
        self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        self._prove = prove
        self._seen = 0

    async def push(self, checkpoint: Checkpoint) -> str:
        """Have it cosigned. Raises `AnchorFailed`, also if the witness has seen a longer or another log."""
        status, answer = await self._add(checkpoint, self._seen)
        if status == _CONFLICT:
            # It tells what it has seen; from there we prove again.
            seen = _conflict(answer)
            if seen > checkpoint.size:
                raise AnchorFailed(f"it has seen {seen} records, the log holds {checkpoint.size}")
            status, answer = await self._add(checkpoint, seen)
        if status != 200:  # noqa: PLR2004 - OK
            raise AnchorFailed(f"it answers {status}")
        self._seen = checkpoint.size
        try:
            lines = answer.decode()
            notes.verify_note(checkpoint.note.partition("\n\n")[0] + "\n\n" + lines, [self._key])
        except (UnicodeDecodeError, CryptoError):
            raise AnchorFailed("its cosignature does not verify") from None
        return lines

    async def held(self) -> list[Held]:
        """The checkpoint that it saw last, if it shows it."""
        digest = hashlib.sha256(self._origin.encode()).hexdigest()
        status, answer = await self._ask(f"{self._url}/{digest}/checkpoint", None)
        if status != 200:  # noqa: PLR2004
            return []
        return [Held(self.name, answer.decode(errors="replace"))]

    async def _add(self, checkpoint: Checkpoint, seen: int) -> tuple[int, bytes]:
        path = await self._prove(seen, checkpoint) if seen else []
        body = evidence.consistency_text(seen, path, checkpoint.note)
        return await self._ask(f"{self._url}/add-checkpoint", body.encode())

    async def _ask(self, url: str, body: bytes | None) -> tuple[int, bytes]:
        return await asyncio.to_thread(_http, url, body, self._tls)


class SyslogAnchor:
    """A syslog server over TLS (RFC 5424, RFC 5425), which is told every checkpoint. It cannot be asked."""

    shows = False

    def __init__(self, host: str, port: int, ca_file: Path | None, clock: Clock) -> None:
        self.name = f"syslog {host}:{port}"
        self._address = (host, port)
        self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        self._clock = clock

    async def push(self, checkpoint: Checkpoint) -> str:
        """Send it. That it was sent is all that syslog tells."""
        await asyncio.to_thread(self._send, self._message(checkpoint))
        return ""

    async def held(self) -> list[Held]:
        """Nothing: syslog has no way back."""
        return []

    def _message(self, checkpoint: Checkpoint) -> bytes:
        # Facility 13 (log audit), severity 5 (notice).
        stamp = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        note = base64.b64encode(checkpoint.note.encode()).decode()
        header = f"<109>1 {stamp} {socket.gethostname()} strongroom {os.getpid()} checkpoint -"
        text = f"{header} size={checkpoint.size} note={note}"
        return f"{len(text)} {text}".encode()

    def _send(self, message: bytes) -> None:
        try:
            with (
                socket.create_connection(self._address, TIMEOUT_SECONDS) as plain,
                self._tls.wrap_socket(plain, server_hostname=self._address[0]) as channel,
            ):
                channel.sendall(message)
                with contextlib.suppress(OSError):
                    channel.unwrap()
        except OSError as error:
            raise AnchorFailed(f"it cannot be reached: {_reason(error)}") from None


@dataclass
class AnchorHealth:
    """How an anchor is: how far it has come, and what is wrong, if something is."""

    size: int = 0
    reason: str = ""


class Anchors:
    """All anchors of a vault."""

    def __init__(
        self, anchors: Sequence[Anchor], keep: Callable[[Checkpoint, str, str], Awaitable[None]]
    ) -> None:
        """`keep` stores the lines that a checkpoint was cosigned with, and by whom."""
        self._anchors = anchors
        self._keep = keep
        self._newest: Checkpoint | None = None
        self._work: dict[str, asyncio.Task[None]] = {}
        self.health = {anchor.name: AnchorHealth() for anchor in anchors}

    async def tell(self, checkpoint: Checkpoint) -> None:
        """Have every anchor take a checkpoint. Waits a little, not for ever: what takes longer goes on by itself."""
        self._newest = checkpoint
        for anchor in self._anchors:
            if anchor.name not in self._work:
                self._work[anchor.name] = asyncio.create_task(self._bring(anchor))
        if self._work:
            await asyncio.wait(self._work.values(), timeout=_PATIENCE_SECONDS)

    async def held(self) -> list[Held]:
        """What the anchors hold; one that cannot be asked is passed over, and logged."""
        return (await self.ask()).held

    async def ask(self) -> Asked:
        """What the anchors hold, and which should hold something and show nothing."""
        return await ask(self._anchors)

    async def close(self) -> None:
        """Stop trying."""
        for task in self._work.values():
            task.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)

    async def _bring(self, anchor: Anchor) -> None:
        """Push the newest checkpoint, and what became newest meanwhile, until the anchor has it."""
        health = self.health[anchor.name]
        try:
            while self._newest is not None and health.size < self._newest.size:
                checkpoint = self._newest
                try:
                    async with asyncio.timeout(2 * TIMEOUT_SECONDS):
                        lines = await anchor.push(checkpoint)
                        if lines:
                            await self._keep(checkpoint, anchor.name, lines)
                except (AnchorFailed, VaultError, TimeoutError) as error:
                    health.reason = str(error) or "it does not answer in time"
                    told = {"anchor": anchor.name, "reason": health.reason}
                    log.error("an anchor does not take checkpoints", extra=told)  # noqa: TRY400
                    await asyncio.sleep(_AGAIN_SECONDS)
                else:
                    health.size, health.reason = checkpoint.size, ""
        finally:
            del self._work[anchor.name]


async def ask(anchors: Sequence[Anchor]) -> Asked:
    """What these anchors hold, and which should hold something and show nothing; one that cannot be asked is logged."""
    answer = Asked([], [])
    for anchor in anchors:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                found = await anchor.held()
        except (AnchorFailed, TimeoutError) as error:
            reason = str(error) or "it does not answer in time"
            log.warning("an anchor cannot be asked", extra={"anchor": anchor.name, "reason": reason})
            if anchor.shows:
                answer.silent.append(Silent(anchor.name, reason, empty=False))
        else:
            answer.held.extend(found)
            if anchor.shows and not found:
                answer.silent.append(Silent(anchor.name, "it holds no checkpoint", empty=True))
    return answer


def _http(url: str, body: bytes | None, tls: ssl.SSLContext) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "text/plain"})  # noqa: S310 - configured
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=tls) as answer:  # noqa: S310
            return answer.status, answer.read(_MAX_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_MAX_ANSWER)
    except (OSError, ValueError) as error:
        raise AnchorFailed(f"it cannot be reached: {_reason(error)}") from None


def _conflict(answer: bytes) -> int:
    text = answer.decode(errors="replace").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 19):  # noqa: PLR2004 - digits of 63 bits
        raise AnchorFailed("its answer is not a size")
    return int(text)


def _reason(error: Exception) -> str:
    cause: Any = error.reason if isinstance(error, urllib.error.URLError) else error
    return getattr(cause, "strerror", None) or type(cause).__name__


def _size(note: str) -> int:
    return notes.checkpoint_head(note.partition("\n\n")[0] + "\n").size


def _nameless(folder: Path) -> TextIO | None:
    """A file that gets its name when it is whole, so that who is killed leaves no half one (open(2), `O_TMPFILE`).

    None where the file system has none, as NFS.
    """
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o644), "w")
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            return None
        raise


def _write_down(file: TextIO, text: str) -> None:
    """Write, and have it on the disk: an anchor that a power cut leaves empty would refuse the next start."""
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
