"""Databases for tests that need no vault: migrated by their owner, and handed out as the server's role sees them."""

from __future__ import annotations

from tests.support.postgres import SERVER, owner_url
from vault.store.engine import Database, connect
from vault.store.schema import migrate


async def migrated(url: str) -> Database:
    owner = connect(owner_url(url))
    try:
        await migrate(owner, server_role=SERVER if owner.is_postgresql else "")
    finally:
        await owner.close()
    return connect(url)
