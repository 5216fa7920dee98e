"""Who last used and last revealed each credential, gathered from the log about once a second.

The log has it already: a record of each use, durable before the use was answered. So a use writes nothing more: the
database itself picks from what was recorded since the last place in the log the newest of each credential, and keeps
it in a table. The place moves on in the same transaction, so one worker does it and the others find it done. That
table is not vouched for by the log, since it follows from it, and is made again from it if it is lost.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from vault.errors import VaultError
from vault.store import activity as store
from vault.store import sinks as places
from vault.store.ledger import read_head
from vault.store.reach import NOBODY

if TYPE_CHECKING:
    from vault.store.engine import Database

log = logging.getLogger("strongroom.activity")

PLACE = "activity"
_EVERY_SECONDS = 1.0
_STEP = 20_000


class ActivityWatch:
    """Keeps the table of last uses."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        async with self._database.read(NOBODY) as connection:
            position = await places.place_of(connection, PLACE)
            size = (await read_head(connection)).size
        while position < size:
            end = min(position + _STEP, size)
            async with self._database.write() as connection:
                if not await places.move(connection, PLACE, position, end):
                    return
                await store.absorb(connection, position, end)
            position = end
