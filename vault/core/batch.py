"""Combining: calls made at about the same time share one piece of work.

Under load the cost of a look-up, an HSM hop or a commit is divided among all that waited for it; a lone
call is not held back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")

_LINGER_PER_CALL = 0.0003
_MAX_LINGER = 0.01


class Load:
    """How many calls are in flight in this worker: whom a batch may wait for."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.calls = 0
        """How many there have been."""

    def call(self) -> Self:
        """Count a call as in flight, for as long as a `with` block lasts."""
        return self

    def __enter__(self) -> Self:
        self.in_flight += 1
        self.calls += 1
        return self

    def __exit__(self, *_error: object) -> None:
        self.in_flight -= 1

    @property
    def linger_seconds(self) -> float:
        """How long company is worth waiting for: longer with every call that may come, never long."""
        return min(self.in_flight * _LINGER_PER_CALL, _MAX_LINGER)


class Batcher(Generic[T, R]):
    """Runs `work` over lists of items that arrived while it was busy, or within the linger of its load.

    A batch starts when everybody in flight is in it (so a lone call starts at once), when it is full, or when the
    linger is over. Beside a batch that runs, another starts only when it is full. At most `concurrency` batches run at
    once, each of at most `limit` items, in order of arrival. `work` answers a result or an exception for each item, in
    order; if it raises, every item of the batch gets that error. A result whose caller has gone meanwhile is handed to
    `discard`. Who is not answered within `patience_seconds` gets a `TimeoutError`.
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
    ) -> None:
        self._work = work
        self._load = load
        self._discard = discard
        self.limit = limit
        self._concurrency = self._free = concurrency
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
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
        if self._patience is not None:
            self._forget_answered()
            self._unanswered.append((loop.time() + self._patience, future))
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
            if not full and len(self._waiting) < self._load.in_flight:
                if self._timer is None:
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(self._load.linger_seconds, self._on_timer)
                return
            self._start()

    def _on_timer(self) -> None:
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
            self._consider()

    async def drain(self) -> None:
        """Wait until nothing waits and nothing runs."""
        while self._running or self._waiting:  # noqa: ASYNC110 - only when the server stops
            await asyncio.sleep(0.005)
