"""The schema's version: bringing a database up to date, and telling whether it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from vault.errors import StartError
from vault.store.engine import ERRORS, unavailable
from vault.store.row_security import protect

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from vault.store.engine import Database


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def wanted_revision() -> str:
    """The revision that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("the package has no migrations")
    return head


async def current_revision(database: Database) -> str | None:
    """The revision that the database is at; None if it was never migrated."""
    async with database.read() as connection:
        return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def knows(revision: str) -> bool:
    """Whether this code has the migration of that name."""
    return any(
        script.revision == revision for script in ScriptDirectory.from_config(_config()).walk_revisions()
    )


async def migrate(database: Database, revision: str = "head", *, server_role: str = "") -> None:
    """Bring the database up to the revision, by default the one that this code needs. Does nothing if it is there.

    On PostgreSQL the newest schema comes with its policies, and with what the server's role may do, if one is named.
    Raises `StartError`.
    """

    def upgrade(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    try:
        async with database.write() as connection:
            await connection.run_sync(upgrade)
            if database.is_postgresql and revision == "head":
                await protect(connection, server_role)
    except ERRORS as error:
        raise StartError(f"database: {unavailable(error).message}") from None
