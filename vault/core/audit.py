"""The audit log: nothing is answered before its record is durable.

Concurrent requests share one transaction (group commit, `store/ledger.py`). If the record cannot be made
durable in time, the caller gets `AUDIT_UNAVAILABLE` and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vault.core.batch import Batcher, Load
from vault.errors import Reason, VaultError
from vault.model import AuditDraft, Origin, Outcome
from vault.store.ledger import Commit, Ledger, RuleBroken, Unit
from vault.store.reach import current
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.clock import Clock
    from vault.model import Caller
    from vault.store.engine import Database

log = logging.getLogger("strongroom.audit")

_BATCH = 256


class Required(Protocol):
    """The sinks without whose receipt there is no answer."""

    def behind(self, size: int) -> bool:
        """Whether one of them has yet to take some of the first `size` records."""

    async def taken(self, size: int) -> None:
        """Return once every one of them has taken the first `size` records."""

    def wake(self) -> None:
        """There is something new to take."""

    async def trouble(self) -> str:
        """What is wrong with them; empty if nothing is."""


class Watch(Protocol):
    """Is told of every batch: of how many units, how long its commit took, and whether it came about."""

    def __call__(self, units: int, seconds: float, /, *, ok: bool) -> None:
        """Take note of a batch; `seconds` is how long its commit took."""


class AuditLog:
    """Commits units: effects with their records."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        load: Load,
        *,
        wait_seconds: float,
        watch: Watch = lambda _units, _seconds, **_: None,
    ) -> None:
        self._ledger = Ledger(database)
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._required: Required | None = None
        self._watch = watch
        self.works = True
        """Whether the last batch could be written."""
        # One batch at a time: the next gathers while this one commits, and the head's lock is never fought over.
        self._batcher: Batcher[Unit, _Done] = Batcher(
            self._commit, load, limit=_BATCH, concurrency=1, patience_seconds=wait_seconds, gathers=True
        )

    async def commit(self, unit: Unit) -> Any:
        """Decide and write a unit; return its result once it is durable.

        Raises what the unit's decision raised, or `AUDIT_UNAVAILABLE`.
        """
        return await self._make_durable(unit._replace(reach=current()))

    async def record(self, *drafts: AuditDraft) -> None:
        """Make records of something that writes nothing else durable. Raises `AUDIT_UNAVAILABLE`."""
        commit = Commit(drafts)
        await self._make_durable(Unit((), lambda _rows, _now: commit, current()))

    async def _make_durable(self, unit: Unit) -> Any:
        until = asyncio.get_running_loop().time() + self._wait_seconds
        try:
            done = await self._batcher(unit)
            if self._required is not None and self._required.behind(done.size):
                # Outside of the batch: while a sink takes these records, the next batch commits.
                async with asyncio.timeout_at(until):
                    await self._required.taken(done.size)
        except TimeoutError:
            raise VaultError(
                Reason.AUDIT_UNAVAILABLE, "the audit record could not be written in time"
            ) from None
        return done.result

    def require(self, sinks: Required) -> None:
        """From now on no record counts as made before these sinks have it too."""
        self._required = sinks

    async def note(self, draft: AuditDraft) -> None:
        """Make a record durable in the log alone: how it fares with a sink cannot wait for that sink."""
        commit = Commit((draft,))
        await self._batcher(Unit((), lambda _rows, _now: commit, current()))

    async def probe(self) -> bool:
        """Whether the log can be written. Tried if the last batch could not be: by a record that it goes on."""
        if not self.works:
            with contextlib.suppress(VaultError):
                await self.record(by_vault("", "audit.resume", ""))
        return self.works

    async def trouble(self) -> str:
        """Why nothing would count as made just now; empty if it would. Raises `STORAGE_UNAVAILABLE`."""
        if not await self.probe():
            return "the last record was not written"
        return "" if self._required is None else await self._required.trouble()

    async def drain(self) -> None:
        """Wait until everything handed in is decided."""
        await self._batcher.drain()

    async def _commit(self, units: Sequence[Unit]) -> list[_Done | BaseException]:
        now = self._clock.now()
        began = self._clock.monotonic()
        try:
            committed = await self._ledger.commit(units, now)
        except RuleBroken as error:
            if len(units) == 1:
                log.error("a unit broke a rule of the database", extra={"rule": error.rule})  # noqa: TRY400
                return [RuntimeError("the change broke a rule of the database")]
            # One bad unit must not take the others with it: each on its own.
            return [result for unit in units for result in await self._commit([unit])]
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be answered without its record
            said = error.message if isinstance(error, VaultError) else type(error).__name__
            log.error("the audit log cannot be written", extra={"error": said})  # noqa: TRY400
            self.works = False
            self._watch(len(units), self._clock.monotonic() - began, ok=False)
            failure = VaultError(Reason.AUDIT_UNAVAILABLE, "the audit record could not be written")
            return [failure] * len(units)
        self.works = True
        self._watch(len(units), self._clock.monotonic() - began, ok=True)
        if self._required is not None:
            self._required.wake()
        return [
            result if isinstance(result, BaseException) else _Done(result, committed.size)
            for result in committed.results
        ]


class _Done(NamedTuple):
    """A unit's result, and how long the log is with its records."""

    result: Any
    size: int


def granted(
    caller: Caller, action: str, resource: str, *, session_id: str = "", before: str = "", after: str = ""
) -> AuditDraft:
    """The record of something that this caller was granted."""
    token = caller.token
    return AuditDraft(
        tenant=token.tenant if token else "",
        identity=caller.identity,
        action=action,
        resource=resource,
        outcome=Outcome.GRANTED,
        origin=caller.origin,
        token_id=token.issued_id if token else "",
        session_id=session_id,
        before_state=before,
        after_state=after,
    )


def repeated(draft: AuditDraft) -> AuditDraft:
    """The record of a call that was made before by the same request id, and changes nothing now."""
    return draft._replace(after_state=_REPEATED)


_REPEATED = canonical_json({"repeated": True})


def by_vault(tenant: str, action: str, resource: str) -> AuditDraft:
    """The record of something that the vault did of itself."""
    return AuditDraft(tenant, "strongroom", action, resource, Outcome.GRANTED, Origin())
