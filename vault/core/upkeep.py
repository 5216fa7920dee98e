"""Upkeep, once an hour: rows that nobody needs any more go, and the log's coming months get their partitions."""

from __future__ import annotations

import asyncio
import datetime
import logging
from typing import TYPE_CHECKING

from vault.store.upkeep import forget_before, make_months

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.store.engine import Database

log = logging.getLogger("strongroom.upkeep")

_EVERY_SECONDS = 3600.0
REQUESTS_KEPT = datetime.timedelta(hours=24)
"""How long the same request_id gets the same answer."""


MONTHS_AHEAD = datetime.timedelta(days=90)
"""How far ahead the log has its partitions. What has none goes into the default one."""


async def run(database: Database, clock: Clock) -> None:
    """Do what is due, again and again, until cancelled."""
    while True:
        now = clock.now()
        for work in (
            forget_before(database, requests=now - REQUESTS_KEPT, tokens=now),
            make_months(database, until=now + MONTHS_AHEAD),
        ):
            try:
                await work
            except Exception as error:  # noqa: BLE001 - it can wait for the next hour
                log.warning("upkeep failed", extra={"error": type(error).__name__})
        await asyncio.sleep(_EVERY_SECONDS)
