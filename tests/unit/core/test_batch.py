"""Combining concurrent calls."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from vault.core.batch import Batcher, Load

if TYPE_CHECKING:
    from collections.abc import Sequence


class Work:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = 0
        self.most = 0

    async def __call__(self, items: Sequence[int]) -> list[int | BaseException]:
        self.batches.append(list(items))
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1
        return [ValueError(str(item)) if item < 0 else item * 2 for item in items]


def load_of(calls: int) -> Load:
    load = Load()
    load.in_flight = calls
    return load


class Patient(Load):
    """The load of a worker that is so busy that company is worth any wait."""

    def linger_seconds(self, company: int) -> float:
        return 5.0 if company else 0.0


async def test_calls_of_the_same_moment_share_one_batch_and_each_gets_its_own_answer() -> None:
    work = Work()
    batcher = Batcher(work, load_of(50), limit=100, concurrency=1)
    assert await asyncio.gather(*map(batcher, range(50))) == [item * 2 for item in range(50)]
    assert work.batches == [list(range(50))]


async def test_what_comes_while_a_batch_runs_makes_the_next_one_and_nothing_is_lost() -> None:
    work = Work()
    batcher = Batcher(work, Load(), limit=10, concurrency=2)
    results = await asyncio.gather(*map(batcher, range(95)))
    assert results == [item * 2 for item in range(95)]
    assert max(map(len, work.batches)) == 10
    assert work.most == 2


async def test_a_lone_call_starts_at_once_and_company_is_not_waited_for_for_ever() -> None:
    work = Work()
    alone = asyncio.ensure_future(Batcher(work, load_of(1), limit=10, concurrency=1)(1))
    # Its own turn, and then that of the batch: no timer in between.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert work.batches == [[1]]
    assert await alone == 2
    assert await Batcher(work, load_of(1000), limit=10, concurrency=1)(1) == 2
    assert work.batches == [[1], [1]]


async def test_those_who_were_answered_together_are_waited_for_and_come_together_again() -> None:
    work, load = Work(), Patient()
    batcher = Batcher(work, load, limit=100, concurrency=1, gathers=True)

    together = asyncio.Barrier(10)

    async def caller(number: int) -> None:
        with load.call():
            await together.wait()
            await batcher(number)
        for _ in range(3):
            await asyncio.sleep(number / 1000)
            with load.call():
                await batcher(number)

    await asyncio.gather(*map(caller, range(10)))
    assert [sorted(batch) for batch in work.batches] == [list(range(10))] * 4


async def test_who_stays_away_is_not_waited_for_once_nobody_comes_any_more() -> None:
    work, load = Work(), Patient()
    load.in_flight = 50
    batcher = Batcher(work, load, limit=100, concurrency=1)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*map(batcher, range(3)))
    assert asyncio.get_running_loop().time() - began < load.linger_seconds(3)
    assert work.batches == [[0, 1, 2]]


def test_an_idle_worker_waits_for_nobody_and_a_busy_one_a_little_never_long() -> None:
    load = Load()
    time.sleep(0.2)
    assert load.linger_seconds(1000) < 0.005
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
    assert 0.01 < load.linger_seconds(1000) <= 0.05
    assert load.linger_seconds(10) <= 0.01


async def test_one_items_error_is_its_own() -> None:
    batcher = Batcher(Work(), Load(), limit=10, concurrency=1)
    results = await asyncio.gather(batcher(1), batcher(-1), batcher(2), return_exceptions=True)
    assert (results[0], results[2]) == (2, 4)
    assert isinstance(results[1], ValueError)


async def test_an_error_of_the_whole_work_reaches_every_caller_and_the_next_batch_runs() -> None:
    calls = 0

    async def work(items: Sequence[int]) -> list[int | BaseException]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError
        return list(items)

    batcher = Batcher(work, load_of(2), limit=10, concurrency=1)
    results = await asyncio.gather(batcher(1), batcher(2), return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    assert await batcher(3) == 3


async def test_a_result_whose_caller_has_gone_is_discarded_and_not_lost() -> None:
    discarded: list[int] = []
    batcher = Batcher(Work(), Load(), limit=10, concurrency=1, discard=discarded.append)
    gone = asyncio.ensure_future(batcher(1))
    stays = asyncio.ensure_future(batcher(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == 4
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert discarded == [2]


async def test_draining_waits_for_everything_handed_in() -> None:
    work = Work()
    batcher = Batcher(work, Load(), limit=1, concurrency=1)
    pending = [asyncio.ensure_future(batcher(item)) for item in range(5)]
    await asyncio.sleep(0)
    await batcher.drain()
    assert all(future.done() for future in pending)


async def test_who_is_not_answered_in_time_is_told_so_and_those_after_are_served() -> None:
    held = asyncio.Event()

    async def work(items: Sequence[int]) -> list[int | BaseException]:
        await held.wait()
        return list(items)

    batcher = Batcher(work, load_of(1), limit=10, concurrency=1, patience_seconds=0.02)
    began = asyncio.get_running_loop().time()
    in_work = asyncio.ensure_future(batcher(1))
    await asyncio.sleep(0.01)
    waits = asyncio.ensure_future(batcher(2))
    # Nobody is answered before `held`.
    for unanswered in (in_work, waits):
        with pytest.raises(TimeoutError):
            await unanswered
    assert asyncio.get_running_loop().time() - began > 0.02
    held.set()
    await batcher.drain()
    assert await batcher(3) == 3
