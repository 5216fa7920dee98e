"""Sinks: where else the audit log goes, and the followers that bring it there without a gap.

A follower reads the log from where its sink has come to, hands the sink a batch, and only then moves the sink's place
on. So a sink may get a record twice (each carries its sequence), and never misses one, whatever stops or dies. The
log itself is the queue: a sink that is slow or away costs no memory. One worker at a time serves a sink, by a lease.

A required sink must have a record before its caller is answered. The waiting has an end: `AuditLog.commit` gives up
after `audit.wait_seconds`, and the caller gets `AUDIT_UNAVAILABLE` and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from vault.core.audit import by_vault
from vault.errors import VaultError
from vault.store import audit
from vault.store import sinks as store
from vault.store.ledger import read_head
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.store.engine import Database
    from vault.store.sinks import SinkState

log = logging.getLogger("strongroom.sinks")

BATCH = 500
_LEASE = datetime.timedelta(seconds=5)
_RENEW_SECONDS = 1.0
_POLL_SECONDS = 0.25
_POLL_REQUIRED_SECONDS = 0.02
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class SinkError(Exception):
    """A sink did not take a batch. The text says why in a few words, and repeats nothing of the records."""


class Sink(Protocol):
    """A place that takes records. Its methods block; they are called in a thread of the sink's own."""

    def deliver(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Return once the sink has these records, which follow in the log on those before. Raises `SinkError`."""

    def close(self) -> None:
        """Let go of what is open."""


@dataclasses.dataclass(frozen=True)
class Outlet:
    """A sink, what it is called, and whether there is no answer without its receipt."""

    name: str
    required: bool
    sink: Sink


class Sinks:
    """The sinks of this worker: brings them the log, and waits for those that are required."""

    def __init__(self, outlets: Sequence[Outlet], database: Database, log_: AuditLog, clock: Clock) -> None:
        self._outlets = outlets
        self._database = database
        self._log = log_
        self._clock = clock
        self._holder = secrets.token_hex(8)
        self._required = [outlet.name for outlet in outlets if outlet.required]
        self._come: dict[str, int] = dict.fromkeys(self._required, 0)
        self._waiting = 0
        self._moved = asyncio.Condition()
        self._news = {outlet.name: asyncio.Event() for outlet in outlets}

    async def start(self) -> None:
        """Make the sinks known; a new one begins with what is recorded from now on."""
        for outlet in self._outlets:
            await store.enrol(self._database, outlet.name)

    async def run(self) -> None:
        """Serve every sink until cancelled."""
        async with asyncio.TaskGroup() as group:
            for outlet in self._outlets:
                group.create_task(self._serve(outlet))

    def wake(self) -> None:
        """There is something new in the log."""
        for event in self._news.values():
            event.set()

    def behind(self, size: int) -> bool:
        """Whether a required sink has yet to take some of the first `size` records."""
        return bool(self._required) and min(self._come.values()) < size

    async def taken(self, size: int) -> None:
        """Return once every required sink has the first `size` records; the caller sees to an end of the waiting."""
        self._waiting += 1
        try:
            async with self._moved:
                await self._moved.wait_for(lambda: not self.behind(size))
        finally:
            self._waiting -= 1

    async def states(self) -> list[tuple[SinkState, bool, int]]:
        """Each configured sink's state, whether it is required, and how many records it still has to get."""
        if not self._outlets:
            return []
        async with self._database.read() as connection:
            size = (await read_head(connection)).size
            known = {state.name: state for state in await store.states(connection)}
        return [
            (known[outlet.name], outlet.required, max(0, size - known[outlet.name].next_sequence))
            for outlet in self._outlets
            if outlet.name in known
        ]

    async def trouble(self) -> str:
        """What is wrong with the required sinks; empty if nothing is."""
        if not self._required:
            return ""
        return "; ".join(
            f"the required sink {state.name}: {state.error}"
            for state, required, _ in await self.states()
            if required and state.error
        )

    async def _serve(self, outlet: Outlet) -> None:
        # A thread of its own: a sink that hangs holds up nobody else.
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"sink-{outlet.name}")
        pause = _FIRST_PAUSE
        try:
            while True:
                try:
                    await self._while_ours(outlet, thread)
                    pause = _FIRST_PAUSE
                except SinkError as error:
                    await self._failed(outlet, str(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
                except (VaultError, TimeoutError) as error:
                    log.warning(
                        "cannot serve a sink", extra={"sink": outlet.name, "error": type(error).__name__}
                    )
                    await asyncio.sleep(_LONGEST_PAUSE)
        finally:
            with contextlib.suppress(Exception):
                await store.release(self._database, outlet.name, self._holder, self._clock.now())
            outlet.sink.close()
            thread.shutdown(wait=False, cancel_futures=True)

    async def _while_ours(self, outlet: Outlet, thread: ThreadPoolExecutor) -> None:
        """Bring the sink what is new, as long as this worker holds its lease; else see how far others have come."""
        now = self._clock.now()
        claimed = await store.claim(self._database, outlet.name, self._holder, now, now + _LEASE)
        if claimed is None:
            await self._learn(outlet)
            return
        place, failing = claimed
        await self._tell(outlet, place)
        renew = self._clock.monotonic() + _RENEW_SECONDS
        while self._clock.monotonic() < renew:
            self._news[outlet.name].clear()
            rows = await self._next(place)
            if rows:
                failing |= await self._deliver(thread, outlet, rows)
                place = rows[-1]["sequence"] + 1
                await self._tell(outlet, place)
                until = self._clock.now() + _LEASE
                if not await store.advance(self._database, outlet.name, self._holder, place, until):
                    return
                if failing:
                    failing = False
                    await self._note("audit.recover_sink", outlet, "")
                renew = self._clock.monotonic() + _RENEW_SECONDS
            else:
                await self._rest(outlet)

    async def _next(self, place: int) -> Sequence[Mapping[str, Any]]:
        async with self._database.read() as connection:
            size = (await read_head(connection)).size
        if size <= place:
            return ()
        async for rows in audit.stream_rows(self._database, place, size, page=BATCH):
            try:
                return [audit.readable(row) for row in rows]
            except VaultError as error:
                raise SinkError(error.message) from None
        return ()

    async def _deliver(
        self, thread: ThreadPoolExecutor, outlet: Outlet, rows: Sequence[Mapping[str, Any]]
    ) -> bool:
        """Hand the sink a batch. Whether it took so long that it was taken for failing. Raises `SinkError`."""
        delivery = asyncio.get_running_loop().run_in_executor(thread, outlet.sink.deliver, rows)
        slow = False
        while True:
            done, _ = await asyncio.wait({delivery}, timeout=_LEASE.total_seconds() / 2)
            if done:
                await delivery
                return slow
            # The thread cannot be stopped, and what it delivers is not to be delivered beside it: keep the lease.
            slow = True
            now = self._clock.now()
            await store.claim(self._database, outlet.name, self._holder, now, now + _LEASE)
            await self._failed(outlet, "does not answer")

    async def _rest(self, outlet: Outlet) -> None:
        seconds = _POLL_REQUIRED_SECONDS if outlet.required else _POLL_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news[outlet.name].wait()

    async def _learn(self, outlet: Outlet) -> None:
        """How far whoever serves the sink has come; asked often only while somebody here waits for it."""
        until = self._clock.monotonic() + _RENEW_SECONDS
        while self._clock.monotonic() < until:
            if self._waiting:
                async with self._database.read() as connection:
                    for state in await store.states(connection):
                        if state.name == outlet.name:
                            await self._tell(outlet, state.next_sequence)
            await asyncio.sleep(_POLL_REQUIRED_SECONDS if outlet.required else _RENEW_SECONDS)

    async def _tell(self, outlet: Outlet, place: int) -> None:
        if outlet.required and place > self._come[outlet.name]:
            async with self._moved:
                self._come[outlet.name] = place
                self._moved.notify_all()

    async def _failed(self, outlet: Outlet, error: str) -> None:
        with contextlib.suppress(VaultError):
            now = self._clock.now()
            if await store.fail(self._database, outlet.name, self._holder, error, now):
                log.error("a sink of the audit log fails", extra={"sink": outlet.name, "error": error})
                await self._note("audit.fail_sink", outlet, error)

    async def _note(self, action: str, outlet: Outlet, error: str) -> None:
        draft = by_vault("system", action, f"system/sinks/{outlet.name}")
        state = {"required": outlet.required, **({"error": error} if error else {})}
        with contextlib.suppress(VaultError, TimeoutError):
            await self._log.note(draft._replace(after_state=canonical_json(state)))
