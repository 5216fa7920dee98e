"""Upkeep: rows that nobody needs any more are removed, once an hour."""

from __future__ import annotations

import asyncio
import datetime
import logging
from typing import TYPE_CHECKING

from vault.store.upkeep import forget_before

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.store.engine import Database

log = logging.getLogger("strongroom.upkeep")

_EVERY_SECONDS = 3600.0
REQUESTS_KEPT = datetime.timedelta(hours=24)
"""How long the same request_id gets the same answer."""


async def run(database: Database, clock: Clock) -> None:
    """Remove what is out of date, again and again, until cancelled."""
    while True:
        try:
            await forget_before(database, requests=clock.now() - REQUESTS_KEPT, revocations=clock.now())
        except Exception as error:  # noqa: BLE001 - it can wait for the next hour
            log.warning("upkeep failed", extra={"error": type(error).__name__})
        await asyncio.sleep(_EVERY_SECONDS)
