"""Waking the other workers: PostgreSQL's LISTEN and NOTIFY. What was woken for is in the log; this only says "look".

It may be lost, when the connection is. Whoever listens looks by itself now and then as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from vault.store.engine import ERRORS, driver_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.engine import Database

_CHANNEL = "strongroom"
_RECONNECT_SECONDS = 1.0


async def wake(connection: AsyncConnection, database: Database) -> None:
    """Wake whoever listens on this database, as soon as the transaction is committed. SQLite has no such thing."""
    if database.is_postgresql:
        await driver_of(connection).execute(f"NOTIFY {_CHANNEL}")


async def listen(database: Database, woken: Callable[[], None]) -> None:
    """Call `woken` whenever somebody wakes, until cancelled; connect again whenever the connection is lost."""
    while database.is_postgresql:
        with contextlib.suppress(*ERRORS):
            await _listen_once(database, woken)
        await asyncio.sleep(_RECONNECT_SECONDS)


async def _listen_once(database: Database, woken: Callable[[], None]) -> None:
    connection = await database.connect_alone()
    lost = asyncio.Event()
    try:
        connection.add_termination_listener(lambda _connection: lost.set())
        await connection.add_listener(_CHANNEL, lambda *_notice: woken())
        await lost.wait()
    finally:
        connection.terminate()
