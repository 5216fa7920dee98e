"""Who last used and last revealed each credential, gathered from the log about once a second.

The log has it already: a record of each use, durable before the use was answered. So a use writes nothing more; one
worker, by a lease, reads what was recorded since its place in the log and keeps the newest of each credential in a
table. That table is not vouched for by the log, since it follows from it, and is made again from it if it is lost.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import secrets
from typing import TYPE_CHECKING

from vault.errors import VaultError
from vault.store import activity as store
from vault.store import sinks as places
from vault.store.ledger import read_head

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.store.engine import Database

log = logging.getLogger("strongroom.activity")

PLACE = "activity"
_EVERY_SECONDS = 1.0
_LEASE = datetime.timedelta(seconds=15)
_STEP = 20_000


class ActivityWatch:
    """Keeps the table of last uses."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._holder = secrets.token_hex(8)
        self._seen = 0

    async def run(self) -> None:
        """Look about once a second, until cancelled."""
        enrolled = False
        while True:
            try:
                if not enrolled:
                    await places.enrol(self._database, PLACE, begin=0)
                    enrolled = True
                await self.look()
            except VaultError as error:
                log.warning("cannot note what was used", extra={"reason": error.reason.value})
            await asyncio.sleep(_EVERY_SECONDS)

    async def look(self) -> None:
        """Take in what was recorded since the last look, of whichever worker made it."""
        async with self._database.read() as connection:
            size = (await read_head(connection)).size
        if size == self._seen:
            return
        now = self._clock.now()
        claimed = await places.claim(self._database, PLACE, self._holder, now, now + _LEASE)
        if claimed is None:
            return
        position, _ = claimed
        while position < size:
            end = min(position + _STEP, size)
            await store.absorb(self._database, position, end)
            until = self._clock.now() + _LEASE
            if not await places.advance(self._database, PLACE, self._holder, end, until):
                return
            position = end
        self._seen = size
