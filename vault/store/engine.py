"""Connections: PostgreSQL in earnest, SQLite (WAL) as the embedded default.

`read` gives a connection for look-ups, `write` one transaction. On SQLite a write takes the write lock at
its beginning (`BEGIN IMMEDIATE`), so two writers queue instead of failing half-way.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg import InterfaceError, PostgresError
from sqlalchemy import event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from vault.errors import Reason, StartError, VaultError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_DRIVERS = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
_CONNECT_SECONDS = 5
ERRORS = (SQLAlchemyError, PostgresError, InterfaceError, OSError, TimeoutError)


class Database:
    """The database: two ways in, and one error when it does not answer (`STORAGE_UNAVAILABLE`)."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.is_postgresql = engine.dialect.name == "postgresql"

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for look-ups; each statement sees what was committed before it."""
        try:
            async with self._reader.connect() as connection:
                try:
                    yield connection
                except (PostgresError, InterfaceError):
                    await connection.invalidate()
                    raise
        except ERRORS as error:
            raise unavailable(error) from None

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed when the block ends, undone when it raises.

        On PostgreSQL the driver keeps the transaction, so that `driver_of` may be used within it.
        """
        if not self.is_postgresql:
            async with self._engine.begin() as connection:
                yield connection
            return
        async with self._reader.connect() as connection:
            driver = await driver_of(connection)
            try:
                async with driver.transaction():
                    yield connection
            except BaseException:
                # What the driver was told past SQLAlchemy, SQLAlchemy cannot judge: this connection is not lent again.
                await connection.invalidate()
                raise

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A connection for look-ups that all see the database of one moment, and hold up no writer."""
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if self.is_postgresql else "BEGIN DEFERRED"
        try:
            async with self._reader.connect() as connection:
                try:
                    await connection.exec_driver_sql(begin)
                    yield connection
                    await connection.exec_driver_sql("ROLLBACK")
                except BaseException:
                    await connection.invalidate()
                    raise
        except ERRORS as error:
            raise unavailable(error) from None

    async def connect_alone(self) -> Any:
        """An asyncpg connection outside of the pool, the caller's to close. PostgreSQL only."""
        _, parameters = self._engine.dialect.create_connect_args(self._engine.url)
        return await asyncpg.connect(**parameters, timeout=_CONNECT_SECONDS)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


async def driver_of(connection: AsyncConnection) -> Any:
    """The asyncpg connection beneath: for the few statements that every call waits for, at a fraction of the cost."""
    return (await connection.get_raw_connection()).driver_connection


def unavailable(error: BaseException) -> VaultError:
    """What a caller is told when the database fails: that it did, never what it said."""
    return VaultError(Reason.STORAGE_UNAVAILABLE, f"the database does not answer ({type(error).__name__})")


def connect(url: str, password: str | None = None, *, pool_size: int = 8) -> Database:
    """Open a database by its URL (`postgresql://user@host/name` or `sqlite:///path`).

    The password comes from a file, never from the URL. Raises `StartError` for a URL that cannot be used.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StartError(
            "database.url: not a URL such as postgresql://user@host/name or sqlite:///path"
        ) from None
    if parsed.password is not None:
        raise StartError("database.url: must not hold a password; name a file in database.password_file")
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise StartError("database.url: only postgresql:// and sqlite:/// are supported")
    parsed = parsed.set(drivername=driver, password=password)
    if driver.startswith("sqlite"):
        engine = create_async_engine(parsed, pool_size=pool_size, hide_parameters=True)
        _prepare_sqlite(engine)
    else:
        engine = create_async_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=5,
            pool_use_lifo=True,
            hide_parameters=True,
            connect_args={
                "timeout": _CONNECT_SECONDS,
                "command_timeout": 30,
                "server_settings": {"application_name": "strongroom", "jit": "off"},
            },
        )
    return Database(engine)


def in_network(address: str, network: str) -> bool:
    """PostgreSQL's function of the same name, for SQLite. What is no address lies in no network."""
    try:
        inner, outer = (ipaddress.ip_network(text, strict=False) for text in (address, network))
    except ValueError:
        return False
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        connection.create_function("in_network", 2, in_network, deterministic=True)

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
