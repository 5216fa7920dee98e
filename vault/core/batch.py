"""Combining: calls made at about the same time share one piece of work.

Under load the cost of a look-up, an HSM hop or a commit is divided among all that waited for it; a lone
call is not held back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Runs `work` over lists of items that arrived while it was busy.

    At most `concurrency` batches run at once, each of at most `limit` items, in order of arrival. `work`
    answers a result or an exception for each item, in order; if it raises, every item of the batch gets
    that error. A result whose caller has gone meanwhile is handed to `discard`.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]],
        *,
        limit: int,
        concurrency: int,
        discard: Callable[[R], object] = lambda _result: None,
    ) -> None:
        self._discard = discard
        self._work = work
        self._limit = limit
        self._free = concurrency
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._scheduled = False
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, item: T) -> R:
        """Have the item worked on with others, and give its result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if not self._scheduled and self._free:
            # Not at once: whoever else is ready in this turn of the loop comes along.
            self._scheduled = True
            loop.call_soon(self._start)
        return await future

    def _start(self) -> None:
        self._scheduled = False
        while self._free and self._waiting:
            batch: list[tuple[T, asyncio.Future[R]]] = []
            while self._waiting and len(batch) < self._limit:
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
            self._start()

    async def drain(self) -> None:
        """Wait until nothing waits and nothing runs."""
        while self._running or self._waiting:  # noqa: ASYNC110 - only when the server stops
            await asyncio.sleep(0.005)
