"""What the vault stands on, server or not: clock, database, HSM, log, keys; opened, checked and closed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import hsm as hsm_library
from hsm import HsmAuthFailed, HsmError
from hsm.uri import UriError
from vault.clock import SystemClock
from vault.config import read_secret_file
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.core.capabilities import HsmCapabilities
from vault.core.hsm import SECOND, Hsm, OneHsm
from vault.core.keys import Keyring
from vault.crypto import memory
from vault.errors import StartError, VaultError
from vault.metrics import Metrics
from vault.server import references
from vault.store.engine import connect, user_of
from vault.store.reach import ALL_TENANTS, declare
from vault.store.row_security import why_unsafe
from vault.store.schema import current_revision, wanted_revision

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vault.config import Config, SecondHsm
    from vault.config import Hsm as HsmSection
    from vault.core.one_hsm import Watch
    from vault.store.engine import Database


log = logging.getLogger("strongroom.app")


@dataclass(frozen=True)
class Foundation:
    """What the vault stands on, server or not: clock, database, HSM, log, keys."""

    clock: SystemClock
    load: Load
    database: Database
    hsm: Hsm
    log: AuditLog
    keyring: Keyring
    capabilities: HsmCapabilities
    metrics: Metrics


@contextlib.asynccontextmanager
async def foundation(config: Config, *, any_hsm: bool = False) -> AsyncIterator[Foundation]:
    """Open database and HSM, check that they can be used, and close them at the end. Raises `StartError`.

    What follows is done for every tenant: a call that comes over the wire declares for itself (`edge.py`).

    `any_hsm` lets in an HSM that is not what it was recorded to be.
    """
    declare(ALL_TENANTS)
    clock = SystemClock()
    memory.configure(limit_bytes=config.sessions.locked_memory_bytes)
    load = Load()
    metrics = Metrics()
    database = open_database(config)
    try:
        await _check_schema(database, any_role=config.database.danger_any_role)
        hsm = await asyncio.to_thread(open_hsm, config, load, metrics)
        try:
            audit_log = AuditLog(
                database, clock, load, wait_seconds=config.audit.wait_seconds, watch=metrics.committed
            )
            capabilities = HsmCapabilities(database, audit_log)
            if not any_hsm:
                for place, backend in hsm.backends.items():
                    await capabilities.check(place, backend)
            keyring = Keyring(database, hsm, audit_log, config.hsm.deployment, config.hsm.key_placement)
            yield Foundation(clock, load, database, hsm, audit_log, keyring, capabilities, metrics)
            await audit_log.drain()
        finally:
            await asyncio.to_thread(hsm.close)
    finally:
        await database.close()


def open_database(config: Config) -> Database:
    """Open the configured database. Raises `StartError`."""
    file = config.database.password_file
    password = read_secret_file(file, "database.password_file") if file else references.password(config)
    return connect(config.database.url, password, pool_size=config.database.pool_size)


def open_owned_database(config: Config) -> Database:
    """Open the configured database as the owner of its tables, to migrate or to restore. Raises `StartError`."""
    url, file = config.database.owner_url, config.database.owner_password_file
    if url is None:
        return open_database(config)
    password = read_secret_file(file, "database.owner_password_file") if file else None
    return connect(url, password, pool_size=config.database.pool_size, key="database.owner_url")


def server_role(config: Config) -> str:
    """The role that is given what the server needs when the tables' owner migrates; empty if there are not two."""
    return user_of(config.database.url) if config.database.owner_url else ""


def open_hsm(config: Config, load: Load, metrics: Metrics) -> Hsm:
    """Open the configured HSMs. Raises `StartError`."""
    if config.hsm.softhsm_config_file is not None:
        # SoftHSM reads this once, when its library is loaded.
        os.environ["SOFTHSM2_CONF"] = str(config.hsm.softhsm_config_file)
    # What is wrong at start is said in one line, by whoever catches the error.
    logging.getLogger("hsm").setLevel(logging.CRITICAL)
    second = config.second_hsm
    try:
        first = _open_one(config, config.hsm, load, functools.partial(metrics.hsm_called, "hsm"))
        watch = functools.partial(metrics.hsm_called, SECOND)
        return Hsm(first, (lambda: _open_one(config, second, load, watch)) if second else None)
    except HsmAuthFailed as error:
        raise StartError(f"hsm: no log-in: {error}") from None
    except (HsmError, UriError) as error:
        raise StartError(f"hsm: {error}") from None
    finally:
        logging.getLogger("hsm").setLevel(logging.NOTSET)


async def record_hsms(base: Foundation) -> None:
    """Record what the HSMs are, those that have no record yet. Raises `StartError`."""
    for place, backend in base.hsm.backends.items():
        await base.capabilities.record(place, backend)


def _open_one(config: Config, section: HsmSection | SecondHsm, load: Load, watch: Watch) -> OneHsm:
    backend = hsm_library.open_backend(
        references.hsm_uri(config, section.uri),
        sessions=section.sessions,
        wait_seconds=section.wait_seconds,
        hang_seconds=section.hang_seconds,
        cached_keys=section.cached_keys,
    )
    deadline = section.wait_seconds + section.hang_seconds
    return OneHsm(backend, load, watch, threads=section.sessions, deadline_seconds=deadline)


async def _check_schema(database: Database, *, any_role: bool) -> None:
    await database.check()
    try:
        current = await current_revision(database)
    except VaultError as error:
        raise StartError(f"database: {error.message}") from None
    if current != wanted_revision():
        raise StartError(
            f"database: its schema is at {current or 'nothing'}, this version needs {wanted_revision()}: "
            "run `strongroom migrate`"
        )
    if not database.is_postgresql:
        return
    try:
        unsafe = await why_unsafe(database)
    except VaultError as error:
        raise StartError(f"database: {error.message}") from None
    if unsafe and not any_role:
        raise StartError(
            f"database.url: {unsafe.why}: tenants would be kept apart by the vault's code alone; {unsafe.mend}"
        )
    if unsafe:
        log.warning("database.danger_any_role: no row-level security", extra={"why": unsafe.why})
