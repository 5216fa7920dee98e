"""Many credentials at once, sealed as a Put would, by way of the vault's own parts and not of the wire."""

from __future__ import annotations

import asyncio
import datetime
from typing import TYPE_CHECKING

from vault import config as configuration
from vault.core.envelopes import Envelopes, context_of
from vault.core.hsm import Wrapping
from vault.core.subjects import Subjects
from vault.crypto import bundle, memory, suites
from vault.crypto import envelope as envelopes
from vault.model import (
    AuditDraft,
    Credential,
    CredentialState,
    KeyPurpose,
    Origin,
    Outcome,
    Version,
    VersionState,
)
from vault.server.foundation import foundation, open_owned_database
from vault.store import credentials as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import COLUMNS, Write

if TYPE_CHECKING:
    from pathlib import Path

    from vault.store.rows import Row

_BATCH = 500


def seed(
    config_file: Path, count: int, tenant: str = "acme", folder: str = "seed", size: int = 64, first: int = 0
) -> None:
    """Store `count` credentials, `<tenant>/<folder>/<number>`, each with a field `value` of its number and a filler."""
    asyncio.run(_seed(config_file, count, tenant, folder, size, first))


def seed_by_copy(
    config_file: Path, count: int, tenant: str = "acme", folder: str = "seed", first: int = 0
) -> None:
    """As `seed`, for hundreds of thousands: by COPY, past the log, which therefore does not vouch for them."""
    asyncio.run(_seed_by_copy(config_file, count, tenant, folder, first))


def value_of(number: int, size: int = 64) -> str:
    return f"{number}:".ljust(size, "x")


async def _seed(config_file: Path, count: int, tenant: str, folder: str, size: int, start: int) -> None:
    async with foundation(configuration.load(config_file)) as base:
        sealer = Envelopes(base.hsm, base.keyring, Subjects(base.database, base.hsm, base.log, base.keyring))
        kek = await base.keyring.active(tenant, KeyPurpose.KEK)
        for first in range(start, start + count, _BATCH):
            now = datetime.datetime.now(datetime.UTC)

            async def one(number: int) -> tuple[str, bytes]:
                name = f"{tenant}/{folder}/{number:07}"
                with bundle.pack_into(
                    {"value": value_of(number, size).encode()}, memory.allocate
                ) as plaintext:
                    return name, await sealer.seal(kek, name, 1, plaintext)

            sealed = await asyncio.gather(*(one(n) for n in range(first, min(first + _BATCH, start + count))))
            writes = [
                Write(table, row)
                for name, envelope in sealed
                for table, row in _rows(name, kek.version, envelope, now).items()
            ]
            draft = AuditDraft(tenant, "seed", "test.seed", f"{tenant}/{folder}", Outcome.GRANTED, Origin())
            commit = Commit((draft,), tuple(writes))
            await base.log.commit(Unit((), lambda _rows, _now, commit=commit: commit))


async def _seed_by_copy(config_file: Path, count: int, tenant: str, folder: str, start: int) -> None:
    suite = suites.current()
    config = configuration.load(config_file)
    # COPY knows no row-level security: as the owner.
    owned = open_owned_database(config)
    async with foundation(config) as base:
        kek = await base.keyring.active(tenant, KeyPurpose.KEK)
        driver = await owned.connect_alone()
        for first in range(start, start + count, _BATCH):
            numbers = range(first, min(first + _BATCH, start + count))
            names = [f"{tenant}/{folder}/{number:07}" for number in numbers]
            contexts = [context_of(name, 1, kek) for name in names]
            deks = [envelopes.new_dek() for _ in names]
            wrapped = await base.hsm.wrap_each(
                [
                    Wrapping(kek, dek, envelopes.wrap_aad(suite, context))
                    for dek, context in zip(deks, contexts, strict=True)
                ]
            )
            now = datetime.datetime.now(datetime.UTC)
            rows: dict[str, list[tuple[object, ...]]] = {}
            for number, name, context, dek, blob in zip(numbers, names, contexts, deks, wrapped, strict=True):
                if not isinstance(blob, bytes):
                    raise blob
                plaintext = bundle.pack_into({"value": value_of(number).encode()}, memory.allocate)
                with plaintext, dek:
                    sealed = envelopes.seal(suite, context, dek, blob, plaintext.view)
                for table, row in _rows(name, kek.version, sealed, now).items():
                    rows.setdefault(table, []).append(tuple(row[column] for column in COLUMNS[table]))
            for table, records in rows.items():
                await driver.copy_records_to_table(table, records=records, columns=COLUMNS[table])
        # What autovacuum does within a minute.
        await driver.execute("ANALYZE")
        await driver.close()
    await owned.close()


def _rows(name: str, kek_version: int, envelope: bytes, now: datetime.datetime) -> dict[str, Row]:
    credential = Credential(
        name, "generic", {}, CredentialState.ACTIVE, 1, ("value",), "seed", now, now, None, "seed", "seed",
    )  # fmt: skip
    version = Version(
        name, 1, VersionState.ENABLED, suites.current().number, kek_version, ("value",), now, "seed", None,
    )  # fmt: skip
    return {
        "credentials": store.credential_row(credential),
        "credential_versions": store.version_row(version, envelope),
    }
