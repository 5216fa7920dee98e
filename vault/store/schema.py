"""The schema's version: bringing a database up to date, and telling whether it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import column, inspect, select, table

from vault.errors import StartError, VaultError
from vault.store.engine import RULES, unavailable
from vault.store.row_security import protect

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.engine import Database


# Alembic takes a third of the time in which a worker starts, and only `migrate` needs it: its table and the names of
# its files tell where a schema is.
_MIGRATIONS = Path(__file__).parent / "migrations"
_VERSIONS = table("alembic_version", column("version_num"))


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _revisions() -> list[str]:
    return sorted(file.name[1:5] for file in (_MIGRATIONS / "versions").glob("v[0-9][0-9][0-9][0-9]_*.py"))


def wanted_revision() -> str:
    """The revision that this code needs."""
    return _revisions()[-1]


def knows(revision: str) -> bool:
    """Whether this code has the migration of that name."""
    return revision in _revisions()


async def current_revision(database: Database) -> str | None:
    """The revision that the database is at; None if it was never migrated."""
    async with database.read() as connection:
        return await revision_of(connection)


async def revision_of(connection: AsyncConnection) -> str | None:
    """The same, as a transaction sees it."""

    def read(connection: Connection) -> str | None:
        if not inspect(connection).has_table(_VERSIONS.name):
            return None
        revision: str | None = connection.execute(select(_VERSIONS.c.version_num)).scalar()
        return revision

    return await connection.run_sync(read)


async def migrate(database: Database, *, server_role: str = "") -> None:
    """Bring the database up to the revision that this code needs. Does nothing if it is there.

    On PostgreSQL that comes with the policies, and with what the server's role may do, if one is named.
    Raises `StartError`.
    """
    await database.check()
    try:
        async with database.write() as connection:
            await upgrade(connection)
            await secure(connection, server_role)
    except RULES as error:
        raise StartError(f"database: {unavailable(error).message}") from None
    except VaultError as error:
        raise StartError(f"database: {error.message}") from None


async def upgrade(connection: AsyncConnection, revision: str = "head") -> None:
    """Bring the tables up to a revision, within the caller's transaction."""
    from alembic import command  # noqa: PLC0415

    def run(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    await connection.run_sync(run)


async def secure(connection: AsyncConnection, server_role: str) -> None:
    """Put the policies, and what a role may do, on the newest tables of PostgreSQL, within the caller's transaction."""
    if connection.dialect.name == "postgresql":
        await protect(connection, server_role)
