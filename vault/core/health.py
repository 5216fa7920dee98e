"""Whether the vault can do its work, part by part, and if not, why not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vault.errors import VaultError
from vault.store.ledger import read_head

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hsm import Health as HsmHealth
    from vault.clock import Clock
    from vault.core.anchors import Anchors
    from vault.core.audit import AuditLog
    from vault.core.checkpoints import Checkpoints
    from vault.core.follower import Follower
    from vault.core.hsm import Hsm
    from vault.core.sinks import Sinks
    from vault.store.engine import Database

_REMEMBERED_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0
PARTS = ("hsm", "database", "audit", "revocations", "server")
"""Without any of these the vault is not ready. Its other parts may fail: that is an alarm, and it goes on."""


@dataclass(frozen=True)
class Part:
    """One part's health: whether it is ready, and the reason if it is not."""

    ready: bool
    reason: str = ""


READY = Part(ready=True)


class Health:
    """Looks at each part, at most once a second however often it is asked."""

    def __init__(
        self,
        hsm: Hsm,
        database: Database,
        log: AuditLog,
        follower: Follower,
        checkpoints: Checkpoints,
        anchors: Anchors,
        sinks: Sinks,
        clock: Clock,
    ) -> None:
        self._hsm = hsm
        self._database = database
        self._log = log
        self._follower = follower
        self._checkpoints = checkpoints
        self._anchors = anchors
        self._sinks = sinks
        self._clock = clock
        self._looked = float("-inf")
        self._parts: dict[str, Part] = {}
        self._stopping = False
        self._looking = asyncio.Lock()

    def stop(self) -> None:
        """Be not ready from now on, because the server stops."""
        self._stopping = True
        self._looked = float("-inf")

    async def parts(self) -> dict[str, Part]:
        """Every part's health: those in `PARTS`, `checkpoints`, anchors, sinks, and the second HSM if there is one."""
        async with self._looking:
            if self._clock.monotonic() - self._looked > _REMEMBERED_SECONDS:
                hsm, database = await asyncio.gather(
                    self._look_at_hsm(self._hsm.health), self._look_at_database()
                )
                self._parts = {
                    "hsm": hsm,
                    "database": database,
                    "audit": await self._look_at_log(),
                    "revocations": _part(self._follower.trouble),
                    "server": Part(ready=False, reason="stopping") if self._stopping else READY,
                    "checkpoints": _part(self._checkpoints.alarm),
                    **(
                        {"second_hsm": await self._look_at_hsm(self._hsm.second_health)}
                        if self._hsm.has_second
                        else {}
                    ),
                    **{name: _part(health.reason) for name, health in self._anchors.health.items()},
                    **await self._look_at_sinks(),
                }
                self._looked = self._clock.monotonic()
            return self._parts

    async def _look_at_hsm(self, look: Callable[[], Awaitable[HsmHealth]]) -> Part:
        try:
            health = await look()
        except VaultError as error:
            return Part(ready=False, reason=error.message)
        return READY if health.ok else Part(ready=False, reason=health.reason)

    async def _look_at_log(self) -> Part:
        try:
            reason = await self._log.trouble()
        except VaultError as error:
            reason = error.message
        return Part(ready=not reason, reason=reason)

    async def _look_at_sinks(self) -> dict[str, Part]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                states = await self._sinks.states()
        except (VaultError, TimeoutError):
            return {}  # the database says so itself
        return {f"sink {state.name}": _part(state.error) for state, _, _ in states}

    async def _look_at_database(self) -> Part:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), self._database.read() as connection:
                await read_head(connection)
        except VaultError as error:
            return Part(ready=False, reason=error.message)
        except TimeoutError:
            return Part(ready=False, reason="the database does not answer in time")
        return READY


def _part(reason: str) -> Part:
    return Part(ready=False, reason=reason) if reason else READY
