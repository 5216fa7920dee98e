"""The parent's side: a backend whose work is done in a child that can be killed."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hsm.backend import HsmBackend
from hsm.errors import HsmAuthFailed, HsmBusy, HsmError, HsmUnavailable
from hsm.isolation import batches, wire
from hsm.model import Health, RewrapItem, UnwrapItem, WrapItem
from hsm.usage import UsageCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hsm.model import (
        Capabilities,
        Kek,
        KeyInfo,
        KeyRef,
        KeySpec,
        KeyState,
        ReadableBuffer,
        SignatureAlgorithm,
        WrappedKey,
    )
    from hsm.secretfile import SecretSource

T = TypeVar("T")
log = logging.getLogger("hsm.isolation")

_FIRST_PAUSE: Final = 0.05  # seconds
_LONGEST_PAUSE: Final = 1.0
_OPENING: Final = 30.0  # seconds for a child to start, log in and look around


class _Child:
    """One process and the sockets to it."""

    def __init__(self, settings: tuple[Any, ...], sockets: int, pass_fds: tuple[int, ...]) -> None:
        self.free: queue.LifoQueue[socket.socket | None] = queue.LifoQueue()
        ours, theirs = zip(*(socket.socketpair() for _ in range(sockets)), strict=True)
        self._ours: tuple[socket.socket, ...] = ours
        end, self._lifeline = os.pipe()
        descriptors = [sock.fileno() for sock in theirs]
        command = [sys.executable, "-m", "hsm.isolation.child", str(end), *map(str, descriptors)]
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            command, pass_fds=(end, *descriptors, *pass_fds), stdin=subprocess.DEVNULL, close_fds=True
        )
        os.close(end)
        for sock in theirs:
            sock.close()
        try:
            ours[0].settimeout(_OPENING)
            wire.send(ours[0], settings)
            self.greeting, _ = wire.receive(ours[0])
        except (OSError, wire.WireError):
            self.kill()
            for sock in ours:
                sock.close()
            raise HsmUnavailable("open", "the process for the HSM's library ended as it was opened") from None
        for sock in ours:
            self.free.put(sock)

    def kill(self) -> None:
        """End it, whatever it is doing, and close everything."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        for sock in self._ours:
            # This wakes a thread that waits in it. Closing it is for that thread: the descriptor's number
            # could else be another socket's by the time it looks.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(queue.Empty):
            while (idle := self.free.get_nowait()) is not None:
                idle.close()
        self.free.put(None)  # wakes whoever waits for one, and stays

    def take(self, seconds: float) -> socket.socket:
        """A socket that nobody uses. Raises `queue.Empty`, and `WireError` if the process is gone."""
        sock = self.free.get(timeout=seconds)
        if sock is None:
            self.free.put(None)
            raise wire.WireError("the process is gone")
        return sock


class IsolatedBackend(HsmBackend):
    """Another backend, in a child process. Calls that may be repeated survive the child's death."""

    def __init__(
        self,
        uri: str,
        *,
        sessions: int,
        wait_seconds: float,
        hang_seconds: float,
        cached_keys: int,
        source: SecretSource | None,
    ) -> None:
        self._settings = (uri, sessions, wait_seconds, hang_seconds, cached_keys)
        self._sessions = sessions
        self._wait_seconds = wait_seconds
        self._hang_seconds = hang_seconds
        self._pass_fds = (int(source.place),) if source is not None and source.kind == "fd" else ()
        self._usage = UsageCounter()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._auth_failed: HsmAuthFailed | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self.restarts = 0
        self._child: _Child | None = self._start("open")

    @property
    def _forked(self) -> bool:
        return os.getpid() != self._pid

    def _start(self, op: str) -> _Child:
        child = _Child(self._settings, self._sessions, self._pass_fds)
        greeting = child.greeting
        if isinstance(greeting, str) and greeting == getattr(self, "name", greeting):
            self.name = greeting
            return child
        child.kill()
        if isinstance(greeting, str):
            raise HsmUnavailable(op, f"another token has taken the place of {self.name}")
        if isinstance(greeting, HsmAuthFailed):
            self._auth_failed = greeting
        if isinstance(greeting, HsmError):
            raise greeting
        if isinstance(greeting, tuple):
            raise ValueError(greeting[1])  # noqa: TRY004 - passed on
        raise HsmUnavailable(op, "the process for the HSM's library does not speak")

    # -- calling -----------------------------------------------------------------------------------

    def _call(self, op: str, *arguments: Any, repeat: bool = True) -> tuple[Any, bytearray]:
        """One call and the buffer of its answer, for the caller to wipe."""
        if self._forked:
            raise HsmUnavailable(op, "this process was forked from one that uses the HSM; spawn it instead")
        attempt = 0
        while True:
            child = self._living(op)
            try:
                answer, buffer = self._exchange(child, op, arguments)
            except (OSError, wire.WireError) as error:
                self._bury(child, hung=isinstance(error, TimeoutError))
                attempt += 1
                if not repeat or attempt > 1 or isinstance(error, TimeoutError):
                    what = "did not answer in time" if isinstance(error, TimeoutError) else "died"
                    raise HsmUnavailable(op, f"the process of the HSM's library {what}") from None
                continue
            if isinstance(answer, HsmError):
                raise answer
            if isinstance(answer, tuple) and answer and answer[0] == "ValueError":
                raise ValueError(answer[1])
            return answer, buffer

    def _exchange(self, child: _Child, op: str, arguments: tuple[Any, ...]) -> tuple[Any, bytearray]:
        try:
            sock = child.take(self._wait_seconds)
        except queue.Empty:
            raise HsmBusy(op, "every session of the HSM is in use") from None
        try:
            sock.settimeout(self._hang_seconds)
            wire.send(sock, (op, list(arguments)))
            answer = wire.receive(sock)
        except BaseException:
            # Not given back: an answer may still come to it.
            sock.close()
            raise
        child.free.put(sock)
        return answer

    def _living(self, op: str) -> _Child:
        child = self._child
        if child is not None:
            return child
        with self._lock:
            if self._child is None:
                if self._auth_failed is not None:
                    raise self._auth_failed
                if time.monotonic() < self._not_before:
                    raise HsmUnavailable(op, "the HSM's library is lost; it is tried again shortly")
                try:
                    self._child = self._start(op)
                except HsmError:
                    self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
                    self._not_before = time.monotonic() + self._pause
                    raise
                self._pause = 0.0
                self.restarts += 1
                log.warning("the process of the HSM's library was started anew")
            return self._child

    def _bury(self, child: _Child, *, hung: bool) -> None:
        with self._lock:
            if self._child is child:
                self._child = None
                log.error("the process of the HSM's library %s", "hangs and is killed" if hung else "died")
                child.kill()

    def _plain(self, op: str, *arguments: Any, repeat: bool = True) -> Any:
        answer, buffer = self._call(op, *arguments, repeat=repeat)
        if isinstance(answer, memoryview):
            found = bytes(answer)
            answer.release()
            wire.wipe(buffer)
            return found
        return answer

    # -- the interface -----------------------------------------------------------------------------

    def _wrap_many(self, items: Sequence[WrapItem]) -> list[bytes | HsmError]:
        return self._counted([(item.ref, item) for item in items], self._wrapped)

    def _wrapped(self, items: Sequence[WrapItem]) -> list[bytes | HsmError]:
        answers, _ = self._call("wrap_many", items)
        return [bytes(answer) if isinstance(answer, memoryview) else answer for answer in answers]

    def _rewrap_many(self, items: Sequence[RewrapItem]) -> list[bytes | HsmError]:
        return self._counted([(item.new, item) for item in items], self._rewrapped)

    def _rewrapped(self, items: Sequence[RewrapItem]) -> list[bytes | HsmError]:
        answer, _ = self._call("rewrap_many", batches.pack(items))
        try:
            return batches.unpack_answers(answer, len(items))
        except (TypeError, ValueError):
            raise HsmUnavailable("rewrap_many", "the process for the HSM's library does not speak") from None

    def _counted(
        self, items: Sequence[tuple[Kek, T]], work: Callable[[list[T]], list[bytes | HsmError]]
    ) -> list[bytes | HsmError]:
        """Have the child wrap something for each item, by the KEK beside it, whose use is counted here."""
        results: list[bytes | HsmError | None] = []
        for kek, _ in items:
            try:
                self._usage.spend(kek)
                results.append(None)
            except HsmError as error:
                results.append(error)
        asked = [item for (_, item), result in zip(items, results, strict=True) if result is None]
        given = iter(work(asked) if asked else [])
        return [next(given) if result is None else result for result in results]

    def _unwrap_many(self, items: Sequence[UnwrapItem]) -> list[int | HsmError]:
        answers, buffer = self._call("unwrap_many", [(item.ref, item.blob, item.aad) for item in items])
        try:
            return [self._place(item, answer) for item, answer in zip(items, answers, strict=True)]
        finally:
            wire.wipe(buffer)

    def _place(self, item: UnwrapItem, answer: Any) -> int | HsmError:
        if isinstance(answer, HsmError):
            return answer
        if len(item.into) < len(answer):
            raise ValueError(f"the buffer is shorter than the key of {len(answer)} bytes")
        item.into[: len(answer)] = answer
        return len(answer)

    def _wrap(self, ref: Kek, dek: ReadableBuffer, aad: bytes) -> bytes:
        (answer,) = self._wrap_many([WrapItem(ref, dek, aad)])
        if isinstance(answer, HsmError):
            raise answer
        return answer

    def _unwrap(self, ref: Kek, blob: bytes, aad: bytes, into: memoryview) -> int:
        (answer,) = self._unwrap_many([UnwrapItem(ref, blob, aad, into)])
        if isinstance(answer, HsmError):
            raise answer
        return answer

    def _capabilities(self) -> Capabilities:
        found: Capabilities = self._plain("capabilities")
        return found

    def _health(self, deep: bool) -> Health:
        if self._forked:
            return Health(ok=False, reason="forked")
        try:
            found: Health = self._plain("deep_health" if deep else "health")
        except HsmAuthFailed:
            return Health(ok=False, reason="auth failed")
        return found

    def _create_key(self, spec: KeySpec) -> KeyInfo:
        info: KeyInfo = self._plain("create_key", spec, repeat=False)
        return info

    def _create_wrapped_key(self, root: KeyRef, ref: KeyRef) -> bytes:
        made: WrappedKey = self._plain("create_wrapped_key", root, ref)
        return made.blob

    def _rewrap_key(self, key: WrappedKey, root: KeyRef) -> bytes:
        moved: WrappedKey = self._plain("rewrap_key", key, root)
        return moved.blob

    def _key_info(self, ref: KeyRef) -> KeyInfo:
        info: KeyInfo = self._plain("key_info", ref)
        return info

    def _list_keys(self, label_prefix: str) -> list[KeyInfo]:
        infos: list[KeyInfo] = self._plain("list_keys", label_prefix)
        return infos

    def _set_key_state(self, ref: KeyRef, state: KeyState) -> None:
        self._plain("set_key_state", ref, state)

    def _destroy_key(self, ref: KeyRef) -> None:
        self._plain("destroy_key", ref, repeat=False)
        self._usage.forget(ref)

    def _sign(self, ref: KeyRef, algorithm: SignatureAlgorithm, message: bytes) -> bytes:
        signature: bytes = self._plain("sign", ref, algorithm, message)
        return signature

    def _public_key(self, ref: KeyRef) -> bytes:
        found: bytes = self._plain("public_key", ref)
        return found

    def _mac(self, ref: KeyRef, data: bytes) -> bytes:
        found: bytes = self._plain("mac", ref, data)
        return found

    def _random(self, size: int) -> bytes:
        found: bytes = self._plain("random", size)
        return found

    def forget_keys(self) -> None:  # noqa: D102
        with self._errors("forget_keys"):
            self._plain("forget_keys")

    def usage(self) -> Mapping[KeyRef, int]:  # noqa: D102 - inherited
        return self._usage.snapshot()

    def note_usage(self, ref: KeyRef, count: int) -> None:  # noqa: D102
        self._usage.note(ref, count)

    def settle_usage(self, ref: KeyRef, count: int) -> None:  # noqa: D102
        self._usage.settle(ref, count)

    def _close(self) -> None:
        with self._lock:
            child, self._child = self._child, None
            if child is not None and not self._forked:
                child.kill()
