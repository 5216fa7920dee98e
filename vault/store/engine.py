"""Connections: PostgreSQL in earnest, SQLite (WAL) as the embedded default.

`read` gives a connection for look-ups, `write` one transaction. On SQLite a write takes the write lock at
its beginning (`BEGIN IMMEDIATE`), so two writers queue instead of failing half-way.

On PostgreSQL each begins with the declaration of whose rows it may touch (`reach.py`), which ends with the transaction:
a connection that goes back to the pool carries none. SQLite knows no row-level security.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import os
import sqlite3
import ssl
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg import InterfaceError, InternalClientError, PostgresError
from sqlalchemy import event, make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from vault.errors import NotYetError, Reason, StartError, VaultError
from vault.store.reach import as_array, current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from vault.store.reach import Reach

_DRIVERS = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
_TLS = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""The modes of libpq's `sslmode`, by which the driver goes too."""
_CA = "be of the CA in the file that PGSSLROOTCERT names, or else in ~/.postgresql/root.crt"
_CONNECT_SECONDS = 5
_POOL_SECONDS = 5
SETTING = "strongroom.tenants"
"""The setting of a transaction that the policies of `row_security.py` read: an array of tenants."""
# The driver's "internal" errors come of a connection that was lost at an unlucky moment.
ERRORS = (SQLAlchemyError, PostgresError, InterfaceError, InternalClientError, OSError, TimeoutError)

RULES = (IntegrityError, DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)
"""Those of them that say: what was to be written broke a rule of the database."""


class Database:
    """The database: two ways in, and one error when it does not answer (`STORAGE_UNAVAILABLE`)."""

    def __init__(self, engine: AsyncEngine, connections: int, key: str) -> None:
        self._engine = engine
        self._key = key
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.is_postgresql = engine.dialect.name == "postgresql"
        self._room = asyncio.Semaphore(connections)
        self._kept: list[AsyncConnection] = []

    @contextlib.asynccontextmanager
    async def read(self, reach: Reach | None = None) -> AsyncIterator[AsyncConnection]:
        """A connection for look-ups; each statement sees what was committed before it.

        `reach`: whose rows it sees, unless it is what the task has declared. `NOBODY` is enough for tables that belong
        to no tenant, and costs nothing.
        """
        reach = current() if reach is None else reach
        try:
            async with self._lend() as connection:
                if not self.is_postgresql:
                    yield connection
                    return
                driver = driver_of(connection)
                try:
                    if reach:
                        await driver.execute(_begin(reach))
                    yield connection
                    if reach:
                        await driver.execute("COMMIT")
                except VaultError:
                    if reach:
                        await driver.execute("ROLLBACK")
                    raise
                except BaseException:
                    # What the driver was told past SQLAlchemy, SQLAlchemy cannot judge: it is not lent again.
                    await connection.invalidate()
                    raise
        except ERRORS as error:
            raise unavailable(error) from None

    @contextlib.asynccontextmanager
    async def write(self, reach: Reach | None = None) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed when the block ends, undone when it raises. `reach` as for `read`.

        On PostgreSQL it is the driver's, so that `driver_of` may be used within it. A rule that was broken is the
        writer's to judge: that error is one of `RULES`.
        """
        with _but_rules():
            if not self.is_postgresql:
                async with self._engine.begin() as connection:
                    yield connection
                return
            async with self._lend() as connection:
                driver = driver_of(connection)
                try:
                    await driver.execute(_begin(current() if reach is None else reach))
                    yield connection
                    await driver.execute("COMMIT")
                except BaseException:
                    await connection.invalidate()
                    raise

    @contextlib.asynccontextmanager
    async def single(self) -> AsyncIterator[Any]:
        """The driver's connection, for one statement: a transaction of its own, which itself declares its reach.

        PostgreSQL only. Errors as for `write`.
        """
        with _but_rules():
            async with self._lend() as connection:
                try:
                    yield driver_of(connection)
                except BaseException:
                    await connection.invalidate()
                    raise

    @contextlib.asynccontextmanager
    async def snapshot(self, reach: Reach | None = None) -> AsyncIterator[AsyncConnection]:
        """A connection for look-ups that all see the database of one moment, and hold up no writer."""
        reach = current() if reach is None else reach
        begin = _begin(reach, "ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            async with self._lend() as connection:
                try:
                    if self.is_postgresql:
                        await driver_of(connection).execute(begin)
                    else:
                        await connection.exec_driver_sql("BEGIN DEFERRED")
                    yield connection
                    await connection.exec_driver_sql("ROLLBACK")
                except BaseException:
                    await connection.invalidate()
                    raise
        except ERRORS as error:
            raise unavailable(error) from None

    @contextlib.asynccontextmanager
    async def _lend(self) -> AsyncIterator[AsyncConnection]:
        """A connection in autocommit. Kept on PostgreSQL: the pool's lending costs as much as four statements."""
        if self._room.locked():
            async with asyncio.timeout(_POOL_SECONDS):
                await self._room.acquire()
        else:
            await self._room.acquire()
        try:
            connection = await self._from_kept() or await self._reader.connect()
            try:
                yield connection
            except BaseException:
                await asyncio.shield(connection.close())
                raise
            if self.is_postgresql:
                self._kept.append(connection)
            else:
                await asyncio.shield(connection.close())
        finally:
            self._room.release()

    async def _from_kept(self) -> AsyncConnection | None:
        while self._kept:
            connection = self._kept.pop()
            if not driver_of(connection).is_closed():
                return connection
            await connection.invalidate()
            await connection.close()
        return None

    async def connect_alone(self) -> Any:
        """An asyncpg connection outside of the pool, the caller's to close. PostgreSQL only."""
        _, parameters = self._engine.dialect.create_connect_args(self._engine.url)
        return await asyncpg.connect(**parameters, timeout=_CONNECT_SECONDS)

    async def check(self) -> None:
        """Connect once, and say in full why not: for whoever starts the vault, never for a caller.

        Raises `NotYetError` if the database does not answer, `StartError` if it answers and something is to be mended.
        """
        try:
            async with self._lend():
                pass
        except ERRORS as error:
            raise _why_not(_cause(error), self._key) from None

    async def close(self) -> None:
        """Close every connection."""
        while self._kept:
            await self._kept.pop().close()
        await self._engine.dispose()


def driver_of(connection: AsyncConnection) -> Any:
    """The asyncpg connection beneath: for the few statements that every call waits for, at a fraction of the cost."""
    assert connection.sync_connection is not None
    return connection.sync_connection.connection.driver_connection


@contextlib.contextmanager
def _but_rules() -> Iterator[None]:
    """A database that does not answer, as callers are told of it; a broken rule as it is."""
    try:
        yield
    except RULES:
        raise
    except ERRORS as error:
        raise unavailable(error) from None


@functools.lru_cache(maxsize=4096)
def _begin(reach: Reach, how: str = "") -> str:
    """Begin a transaction and declare its reach, in one round trip."""
    array = as_array(reach).replace("'", "''")
    return f"BEGIN {how}; SET LOCAL {SETTING} = '{array}'"


def unavailable(error: BaseException) -> VaultError:
    """What a caller is told when the database fails: that it did, and the driver's name for it; never what it said."""
    return VaultError(
        Reason.STORAGE_UNAVAILABLE, f"the database does not answer ({type(_cause(error)).__name__})"
    )


def _cause(error: BaseException) -> BaseException:
    """What the driver raised."""
    wrapped = getattr(error, "orig", None) or error
    return wrapped.__cause__ or wrapped


def _why_not(error: BaseException, key: str) -> StartError:
    """Why there is no connection, in the words of the driver or of PostgreSQL, and what to do."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return StartError(
            f"{key}: the certificate of the database does not verify: {error.verify_message}; it must name the host "
            f"of the URL, and {_CA}"
        )
    if isinstance(error, asyncpg.ClientConfigurationError):
        return StartError(f"{key}: TLS cannot be set up: {said}; the certificate of the database must {_CA}")
    if isinstance(error, asyncpg.CannotConnectNowError | asyncpg.TooManyConnectionsError):
        return NotYetError(f"{key}: the database takes no connection now: {said}")
    if isinstance(error, asyncpg.PostgresError):
        return StartError(f"{key}: the database refuses the connection: {said}")
    if isinstance(error, sqlite3.Error):
        return StartError(f"{key}: the database cannot be opened: {said}")
    return NotYetError(f"{key}: the database does not answer: {said}")


def connect(
    url: str, password: str | None = None, *, pool_size: int = 8, key: str = "database.url"
) -> Database:
    """Open a database by its URL (`postgresql://user@host/name` or `sqlite:///path`).

    The password comes from a file, never from the URL. `key`: where the URL stands in the configuration.
    Raises `StartError` for a URL that cannot be used.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StartError(f"{key}: not a URL such as postgresql://user@host/name or sqlite:///path") from None
    if parsed.password is not None:
        raise StartError(f"{key}: must not hold a password; name a file in database.password_file")
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise StartError(f"{key}: only postgresql:// and sqlite:/// are supported")
    if driver.startswith("postgresql"):
        _check_options(parsed.query, key)
    parsed = parsed.set(drivername=driver, password=password)
    if driver.startswith("sqlite"):
        engine = create_async_engine(parsed, pool_size=pool_size, hide_parameters=True)
        _prepare_sqlite(engine)
    else:
        engine = create_async_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_POOL_SECONDS,
            pool_use_lifo=True,
            hide_parameters=True,
            connect_args={
                "timeout": _CONNECT_SECONDS,
                "command_timeout": 30,
                "server_settings": {"application_name": "strongroom", "jit": "off"},
            },
        )
    return Database(engine, pool_size, key)


def _check_options(query: Mapping[str, object], key: str) -> None:
    """An option that the driver does not know, or a CA that is not there, is named before the driver stumbles on it."""
    if unknown := set(query) - {"ssl"}:
        raise StartError(f"{key}: unknown option {min(unknown)}; there is one, ssl={'|'.join(_TLS)}")
    if "ssl" in query and query["ssl"] not in _TLS:
        raise StartError(f"{key}: ssl must be one of {', '.join(_TLS)}")
    file = os.environ.get("PGSSLROOTCERT", "")
    if str(query.get("ssl")).startswith("verify") and file and not os.access(file, os.R_OK):
        raise StartError(f"{key}: PGSSLROOTCERT names {file}, which cannot be read")


def user_of(url: str) -> str:
    """The role that a URL names. Raises `StartError`."""
    user = make_url(url).username
    if not user:
        raise StartError("database.url: must name a role, as postgresql://role@host/name")
    return user


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
