"""Combining: calls made at about the same time share one piece of work.

Under load the cost of a look-up, an HSM hop or a commit is divided among all that waited for it; a lone
call is not held back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")

_LINGER_PER_CALL = 0.001
_MAX_LINGER = 0.05
_GAP = 0.002
_LOOK_SECONDS = 0.05


class Load:
    """How many calls are in flight in this worker, whom a batch may wait for; and for how long it is worth it."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.calls = 0
        """How many there have been."""
        self._busy = 0.0
        self._looked, self._ran = time.monotonic(), _ran_seconds()

    def call(self) -> Self:
        """Count a call as in flight, for as long as a `with` block lasts."""
        return self

    def __enter__(self) -> Self:
        self.in_flight += 1
        self.calls += 1
        return self

    def __exit__(self, *_error: object) -> None:
        self.in_flight -= 1

    def linger_seconds(self, company: int) -> float:
        """How long so many calls are worth waiting for: never long, and far less while the event loop has idle times.

        Who waits in a busy worker would have waited for the processor anyway. To be called in the loop's thread.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            ran = _ran_seconds()
            self._busy = min(1.0, (ran - self._ran) / (now - self._looked))
            self._looked, self._ran = now, ran
        return min(company * _LINGER_PER_CALL, _MAX_LINGER) * self._busy**2


def _ran_seconds() -> float:
    """For how long this thread ran, or waited for a processor, if the kernel tells."""
    try:
        ran, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
    except (OSError, ValueError):
        return time.thread_time()
    return (int(ran) + int(waited)) / 1e9


class Batcher(Generic[T, R]):
    """Runs `work` over lists of items that arrived while it was busy, or within a linger.

    A batch starts when all who may come are in it: as many as are in flight, or were when the last one ended (so a
    lone call starts at once). It starts when it is full too, when nobody has come for a gap, or when the linger is
    over; one that `gathers` knows no gaps, so that who went apart elsewhere comes together there. Beside a batch that
    runs, another starts only when it is full. At most `concurrency` batches run at once, each of at most `limit` items,
    in order of arrival.

    `work` answers a result or an exception for each item, in order; if it raises, every item of the batch gets that
    error. A result whose caller has gone meanwhile is handed to `discard`. Who is not answered within
    `patience_seconds` gets a `TimeoutError`.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]],
        load: Load,
        *,
        limit: int,
        concurrency: int,
        discard: Callable[[R], object] = lambda _result: None,
        patience_seconds: float | None = None,
        gathers: bool = False,
    ) -> None:
        self._work = work
        self._load = load
        self._discard = discard
        self.limit = limit
        self._concurrency = self._free = concurrency
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._last = 1
        self._gathers = gathers
        self._arrived = self._linger_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._patience = patience_seconds
        # In the order of their deadlines, so that one timer serves them all.
        self._unanswered: deque[tuple[float, asyncio.Future[R]]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def __call__(self, item: T) -> R:
        """Have the item worked on with others, and give its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        self._arrived = loop.time()
        if self._patience is not None:
            self._forget_answered()
            self._unanswered.append((self._arrived + self._patience, future))
            if self._alarm is None:
                self._alarm = loop.call_later(self._patience, self._on_alarm)
        self._consider()
        return await future

    def _forget_answered(self) -> None:
        while self._unanswered and self._unanswered[0][1].done():
            self._unanswered.popleft()

    def _on_alarm(self) -> None:
        self._alarm = None
        loop = asyncio.get_running_loop()
        self._forget_answered()
        while self._unanswered and self._unanswered[0][0] <= loop.time():
            self._unanswered[0][1].set_exception(TimeoutError())
            self._forget_answered()
        if self._unanswered:
            self._alarm = loop.call_at(self._unanswered[0][0], self._on_alarm)

    def _consider(self) -> None:
        """Start what is due, or see to it that it starts when it is."""
        while self._waiting and self._free:
            full = len(self._waiting) >= self.limit
            if not full and self._free < self._concurrency:
                return
            company = max(self._load.in_flight, self._last)
            if not full and len(self._waiting) < company:
                if self._timer is None:
                    loop = asyncio.get_running_loop()
                    self._linger_until = loop.time() + self._load.linger_seconds(company)
                    self._timer = loop.call_at(self._due(), self._on_timer)
                return
            self._start()

    def _due(self) -> float:
        return self._linger_until if self._gathers else min(self._linger_until, self._arrived + _GAP)

    def _on_timer(self) -> None:
        loop = asyncio.get_running_loop()
        if self._due() > loop.time():
            self._timer = loop.call_at(self._due(), self._on_timer)
            return
        self._timer = None
        if self._waiting and self._free == self._concurrency:
            self._start()
        self._consider()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self.limit:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        if batch:
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._work([item for item, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if isinstance(result, BaseException):
                    if not future.done():
                        future.set_exception(result)
                elif future.done():
                    self._discard(result)
                else:
                    future.set_result(result)
        finally:
            self._free += 1
            # Before those that were just answered go: they are the ones who come again.
            self._last = self._load.in_flight
            self._consider()

    async def drain(self) -> None:
        """Wait until nothing waits and nothing runs."""
        while self._running or self._waiting:  # noqa: ASYNC110 - only when the server stops
            await asyncio.sleep(0.005)
