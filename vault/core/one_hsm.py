"""The HSM as the event loop sees it: blocking calls in a pool of threads, errors in the vault's words.

Wraps and unwraps that arrive together share one hop to a thread and one HSM session.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

from hsm import (
    Health,
    HsmBusy,
    HsmError,
    HsmIntegrityError,
    Kek,
    KeyAlgorithm,
    KeyAmbiguous,
    KeyRef,
    RewrapItem,
    SignatureAlgorithm,
    UnwrapItem,
    WrapItem,
    WrappedKey,
)
from vault.core.batch import Batcher, Load
from vault.crypto import memory
from vault.crypto.envelope import DEK_BYTES, dek_places
from vault.crypto.memory import LockedBuffer
from vault.errors import Reason, VaultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hsm import HsmBackend
    from vault.model import HsmObject, Key

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("strongroom.hsm")

# Where one call takes longer than this, calls side by side on several sessions gain more than calls in a row.
_SLOW_SECONDS = 0.0005
_BATCH = 64
# Bulk work goes through the pool in parts: small ones where a call would wait long behind a large one.
_BULK_FAST, _BULK_SLOW, _BULK_SLOW_ALONE, _BULK_AT_FIRST = 256, 2, 16, 8
_HEALTH_SECONDS = 1.0
_SIGNATURES = {KeyAlgorithm.EC_P256: SignatureAlgorithm.ES256, KeyAlgorithm.ED25519: SignatureAlgorithm.EDDSA}


class Wrapping(NamedTuple):
    """A data key to be wrapped by a key-encryption key."""

    key: Key
    dek: LockedBuffer
    aad: bytes


class Unwrapping(NamedTuple):
    """A wrapped data key of 32 bytes."""

    key: Key
    wrapped: bytes
    aad: bytes


class Rewrapping(NamedTuple):
    """A wrapped data key of 32 bytes, to be wrapped by another key-encryption key."""

    unwrapping: Unwrapping
    key: Key
    aad: bytes


class Signing(NamedTuple):
    """A message to be signed."""

    key: Key | HsmObject
    algorithm: str
    message: bytes


class Watch(Protocol):
    """Is told of every hop to the HSM."""

    def __call__(self, operation: str, waited: float, took: float, outcomes: Mapping[str, int], /) -> None:
        """How long it waited for a thread and took (seconds); how many of its operations ended with which reason."""


class OneHsm:
    """One HSM: runs the backend's calls off the event loop.

    A call that is not answered within `deadline_seconds` is refused, but its thread stays in it. Once no thread is
    left, calls are refused at once, until the first of those comes back.
    """

    def __init__(
        self, backend: HsmBackend, load: Load, watch: Watch, *, threads: int, deadline_seconds: float
    ) -> None:
        self.backend = backend
        self._watch = watch
        self._deadline = deadline_seconds
        self._load = load
        self._threads = threads
        self._overdue = 0
        self._doubted = False
        self._look: asyncio.Future[Health] | None = None
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="hsm-health")
        self._sign_pace = _Pace()
        self._unwrap_pace = _Pace()
        self._bulk_pace = _Pace()
        self._bulk_is_fast: bool | None = None
        self._turn = asyncio.Lock()
        self._bulk_turn = asyncio.Lock()
        self._bulk_slots = asyncio.Semaphore(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="hsm")
        self._wraps: Batcher[Wrapping, bytes] = Batcher(
            self._wrap_batch, load, limit=_BATCH, concurrency=threads
        )
        self._signs: Batcher[Signing, bytes] = Batcher(
            self._sign_batch, load, limit=_BATCH, concurrency=threads
        )
        self._unwraps: Batcher[Unwrapping, LockedBuffer] = Batcher(
            self._unwrap_batch, load, limit=_BATCH, concurrency=threads, discard=LockedBuffer.close
        )

    async def wrap(self, wrapping: Wrapping) -> bytes:
        """Wrap a data key. Raises `HSM_UNAVAILABLE`."""
        return await self._wraps(wrapping)

    async def unwrap(self, unwrapping: Unwrapping) -> LockedBuffer:
        """Unwrap a data key into a locked buffer, the caller's to close.

        Raises `STORED_DATA_DAMAGED`, `HSM_UNAVAILABLE`.
        """
        return await self._unwraps(unwrapping)

    async def unwrap_all(self, unwrappings: Sequence[Unwrapping]) -> LockedBuffer:
        """Unwrap several data keys, all or none, into one locked buffer, in order; it is the caller's to close.

        Raises `STORED_DATA_DAMAGED`, `HSM_UNAVAILABLE`.
        """
        if len(unwrappings) == 1:
            return await self.unwrap(unwrappings[0])
        # Threads that get their answers at once only wait for each other, and for the interpreter.
        async with self._turn if self._unwraps.limit > 1 else contextlib.nullcontext():
            return await self.call(self._unwrap_all_in_thread, unwrappings)

    async def unwrap_each(self, unwrappings: Sequence[Unwrapping]) -> list[LockedBuffer | BaseException]:
        """Unwrap many data keys in bulk; a buffer, the caller's to close, or an error for each."""
        return await self._in_parts(self._unwrap_in_thread, unwrappings)

    async def wrap_each(self, wrappings: Sequence[Wrapping]) -> list[bytes | BaseException]:
        """Wrap many data keys in bulk; a blob or an error for each."""
        return await self._in_parts(self._wrap_in_thread, wrappings)

    async def rewrap_each(self, rewrappings: Sequence[Rewrapping]) -> list[bytes | BaseException]:
        """Wrap many data keys by other keys, in bulk; a blob or an error for each. They pass only locked memory."""
        return await self._in_parts(self._rewrap_in_thread, rewrappings)

    def kek(self, key: Key) -> Kek:
        """A key as this HSM knows it."""
        for home in key.homes:
            if home.backend == self.backend.name and home.root_version:
                return WrappedKey(ref(key), KeyRef(home.root_label, home.root_object_id), home.wrapped)
        return ref(key)

    async def sign(self, key: Key | HsmObject, algorithm: str, message: bytes) -> bytes:
        """Sign a message. Raises `HSM_UNAVAILABLE`."""
        return await self._signs(Signing(key, algorithm, message))

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one of the backend's methods in the pool."""
        if self._overdue >= self._threads:
            raise VaultError(Reason.HSM_UNAVAILABLE, "calls to the HSM hang")
        loop = asyncio.get_running_loop()
        hop = _Hop(functools.partial(function, *args, **kwargs))
        future = loop.run_in_executor(self._pool, hop)
        outcome: object = None
        try:
            outcome = answer = await asyncio.wait_for(asyncio.shield(future), self._deadline)
        except HsmError as error:
            outcome = self._said(error)
            raise outcome from None
        except VaultError as error:
            outcome = error
            raise
        except TimeoutError:
            self._overdue += 1
            future.add_done_callback(self._came_back)
            outcome = VaultError(Reason.HSM_UNAVAILABLE, "the HSM did not answer in time")
            raise outcome from None
        finally:
            self._watch(_operation(function), *hop.times(), _outcomes(outcome))
        return answer

    async def health(self) -> Health:
        """Whether the HSM works. It is made to do everything that it can, if a call of late has failed.

        Asked in a thread of its own, as the others may all hang. Never raises an `HsmError`.
        """
        if self._look is None or self._look.done():
            deep, self._doubted = self._doubted, False
            loop = asyncio.get_running_loop()
            self._look = loop.run_in_executor(self._looker, functools.partial(self.backend.health, deep=deep))
        try:
            found = await asyncio.wait_for(asyncio.shield(self._look), _HEALTH_SECONDS)
        except TimeoutError:
            found = Health(ok=False, reason="does not answer in time")
        self._doubted |= not found.ok
        return found

    def close(self) -> None:
        """Stop the threads and log out."""
        for pool in (self._pool, self._looker):
            pool.shutdown(wait=True, cancel_futures=True)
        self.backend.close()

    def _came_back(self, future: asyncio.Future[T]) -> None:
        """Note that a call has ended that was given up."""
        self._overdue -= 1
        if not future.cancelled():
            future.exception()

    def _said(self, error: HsmError) -> VaultError:
        """The vault's word for an HSM's error; whether the HSM is in order is to be looked at."""
        if not isinstance(error, HsmIntegrityError):
            self._doubted = True
        return translate(error)

    async def _in_parts(
        self, work: Callable[[Sequence[T]], list[R | BaseException]], items: Sequence[T]
    ) -> list[R | BaseException]:
        """Run bulk work in the pool, part by part: side by side if the HSM is slow, else one after the other."""

        async def run(part: Sequence[T]) -> list[R | BaseException]:
            # Threads that get their answers at once only wait for each other, and for the interpreter.
            turn = self._bulk_turn if self._bulk_is_fast else contextlib.nullcontext()
            async with turn, self._bulk_slots:
                began = time.perf_counter()
                answers = await self.call(work, part)
                self._bulk_is_fast = self._bulk_pace.after(time.perf_counter() - began, len(part)) > 1
                return answers

        found: list[R | BaseException] = []
        done = 0
        while done < len(items):
            if self._bulk_is_fast is False:
                limit = _BULK_SLOW if self._load.in_flight else _BULK_SLOW_ALONE
                parts = [items[at : at + limit] for at in range(done, len(items), limit)]
            else:
                parts = [items[done : done + (_BULK_FAST if self._bulk_is_fast else _BULK_AT_FIRST)]]
            for answers in await asyncio.gather(*(run(part) for part in parts)):
                found.extend(answers)
            done = len(found)
        return found

    async def _wrap_batch(self, batch: Sequence[Wrapping]) -> list[bytes | BaseException]:
        return await self.call(self._wrap_in_thread, batch)

    def _wrap_in_thread(self, batch: Sequence[Wrapping]) -> list[bytes | BaseException]:
        results = self.backend.wrap_many(
            [WrapItem(self.kek(item.key), item.dek.view, item.aad) for item in batch]
        )
        return [self._said(result) if isinstance(result, HsmError) else result for result in results]

    def _rewrap_in_thread(self, batch: Sequence[Rewrapping]) -> list[bytes | BaseException]:
        keks = self._keks(key for (old, _, _), new, _ in batch for key in (old, new))
        results = self.backend.rewrap_many(
            [
                RewrapItem(keks[id(old)], blob, old_aad, keks[id(new)], aad)
                for (old, blob, old_aad), new, aad in batch
            ]
        )
        return [self._said(result) if isinstance(result, HsmError) else result for result in results]

    async def _sign_batch(self, batch: Sequence[Signing]) -> list[bytes | BaseException]:
        return await self.call(self._sign_in_thread, batch)

    def _sign_in_thread(self, batch: Sequence[Signing]) -> list[bytes | BaseException]:
        began = time.perf_counter()
        answers: list[bytes | BaseException] = []
        for item in batch:
            try:
                answers.append(self.backend.sign(ref(item.key), algorithm_of(item.algorithm), item.message))
            except HsmError as error:
                answers.append(self._said(error))
        self._signs.limit = self._sign_pace.after(time.perf_counter() - began, len(batch))
        return answers

    async def _unwrap_batch(self, batch: Sequence[Unwrapping]) -> list[LockedBuffer | BaseException]:
        return await self.call(self._unwrap_in_thread, batch)

    def _unwrap_in_thread(self, batch: Sequence[Unwrapping]) -> list[LockedBuffer | BaseException]:
        # The buffers are made here, not by the callers: a caller that is cancelled would else wipe and free
        # memory that the HSM is about to write a key into.
        buffers = [memory.allocate(DEK_BYTES) for _ in batch]
        results = self._unwrap_into([buffer.view for buffer in buffers], batch)
        answers: list[LockedBuffer | BaseException] = []
        for buffer, result in zip(buffers, results, strict=True):
            if result == DEK_BYTES:
                answers.append(buffer)
                continue
            buffer.close()
            answers.append(self._said(result) if isinstance(result, HsmError) else damaged())
        return answers

    def _unwrap_all_in_thread(self, batch: Sequence[Unwrapping]) -> LockedBuffer:
        whole = memory.allocate(DEK_BYTES * len(batch))  # here: see above
        try:
            results = self._unwrap_into(dek_places(whole.view), batch)
            wrong = next((result for result in results if result != DEK_BYTES), None)
            if wrong is None:
                return whole
        except BaseException:
            whole.close()
            raise
        whole.close()
        raise self._said(wrong) if isinstance(wrong, HsmError) else damaged()

    def _unwrap_into(
        self, places: Sequence[memoryview], batch: Sequence[Unwrapping]
    ) -> Sequence[int | HsmError]:
        keks = self._keks(item.key for item in batch)
        items = [
            UnwrapItem(keks[id(key)], wrapped, aad, place)
            for (key, wrapped, aad), place in zip(batch, places, strict=True)
        ]
        began = time.perf_counter()
        results = self.backend.unwrap_many(items)
        self._unwraps.limit = self._unwrap_pace.after(time.perf_counter() - began, len(batch))
        return results

    def _keks(self, keys: Iterable[Key]) -> dict[int, Kek]:
        """The keys as this HSM knows them, by identity: there are few of them in a batch."""
        return {number: self.kek(key) for number, key in {id(key): key for key in keys}.items()}


class _Hop(Generic[T]):
    """A call that notes when it is asked for, begins and ends."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._asked = time.perf_counter()
        self._began: float | None = None
        self._ended: float | None = None

    def __call__(self) -> T:
        self._began = time.perf_counter()
        try:
            return self._function()
        finally:
            self._ended = time.perf_counter()

    def times(self) -> tuple[float, float]:
        """How long it waited and took so far, in seconds."""
        now = time.perf_counter()
        began = self._began or now
        return began - self._asked, (self._ended or now) - began


class _Pace:
    """How many calls to make in a row in one thread.

    Judged by the shortest time that a call took of late: what is longer may have waited for the interpreter, not for
    the HSM. The memory of it fades, one part in a hundred with every batch.
    """

    def __init__(self) -> None:
        self._shortest = _SLOW_SECONDS

    def after(self, seconds: float, calls: int) -> int:
        """The limit from now on, given how long a batch took."""
        self._shortest = min(self._shortest * 1.01 + 1e-9, seconds / calls)
        return 1 if self._shortest > _SLOW_SECONDS else _BATCH


def _operation(function: Callable[..., object]) -> str:
    """What a hop is called in the metrics: `_unwrap_in_thread` is `unwrap`."""
    return getattr(function, "__name__", "other").strip("_").removesuffix("_in_thread")


def _outcomes(outcome: object) -> Mapping[str, int]:
    """How the operations of a hop ended, each with its reason."""
    if isinstance(outcome, LockedBuffer):
        return {_reason(outcome): len(outcome) // DEK_BYTES}
    if not isinstance(outcome, list):
        return {_reason(outcome): 1}
    return Counter(map(_reason, outcome))


def _reason(outcome: object) -> str:
    return outcome.reason.value if isinstance(outcome, VaultError) else "OK"


def ref(key: Key | HsmObject) -> KeyRef:
    """How the HSM knows a key."""
    return KeyRef(key.label, key.object_id)


def algorithm_of(name: str) -> SignatureAlgorithm:
    """The signature algorithm that a key algorithm is used with."""
    return _SIGNATURES[KeyAlgorithm(name)]


def damaged() -> VaultError:
    """The error for stored data that does not verify."""
    return VaultError(Reason.STORED_DATA_DAMAGED, "what is stored does not verify; raise an alarm")


def translate(error: HsmError) -> VaultError:
    """An HSM's error in the vault's words. What the caller cannot help is said as unavailability."""
    if isinstance(error, HsmIntegrityError):
        return damaged()
    log.warning(
        "hsm call failed", extra={"op": error.op, "error": type(error).__name__, "code": error.code_name}
    )
    if isinstance(error, KeyAmbiguous):
        return VaultError(
            Reason.HSM_UNAVAILABLE,
            "the HSM holds a key of this name already: another vault's? Then give this one its own hsm.deployment",
        )
    if isinstance(error, HsmBusy):
        return VaultError(Reason.OVERLOADED, "every HSM session is busy")
    return VaultError(Reason.HSM_UNAVAILABLE, f"the HSM refused or failed ({type(error).__name__})")
