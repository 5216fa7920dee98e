"""Many credentials at once, sealed as a Put would, by way of the vault's own parts and not of the wire."""

from __future__ import annotations

import asyncio
import datetime
from typing import TYPE_CHECKING

from vault import config as configuration
from vault.core.envelopes import Envelopes
from vault.core.subjects import Subjects
from vault.crypto import bundle, memory, suites
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
from vault.server.app import foundation
from vault.store import credentials as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import Write

if TYPE_CHECKING:
    from pathlib import Path

_BATCH = 500


def seed(
    config_file: Path, count: int, tenant: str = "acme", folder: str = "seed", size: int = 64, first: int = 0
) -> None:
    """Store `count` credentials, `<tenant>/<folder>/<number>`, each with a field `value` of its number and a filler."""
    asyncio.run(_seed(config_file, count, tenant, folder, size, first))


def value_of(number: int, size: int = 64) -> str:
    return f"{number}:".ljust(size, "x")


async def _seed(config_file: Path, count: int, tenant: str, folder: str, size: int, start: int) -> None:
    async with foundation(configuration.load(config_file)) as base:
        envelopes = Envelopes(
            base.hsm, base.keyring, Subjects(base.database, base.hsm, base.log, base.keyring)
        )
        kek = await base.keyring.active(tenant, KeyPurpose.KEK)
        for first in range(start, start + count, _BATCH):
            now = datetime.datetime.now(datetime.UTC)

            async def one(number: int) -> tuple[str, bytes]:
                name = f"{tenant}/{folder}/{number:07}"
                with bundle.pack_into(
                    {"value": value_of(number, size).encode()}, memory.allocate
                ) as plaintext:
                    return name, await envelopes.seal(kek, name, 1, plaintext)

            sealed = await asyncio.gather(*(one(n) for n in range(first, min(first + _BATCH, start + count))))
            writes = []
            for name, envelope in sealed:
                credential = Credential(
                    name, "generic", {}, CredentialState.ACTIVE, 1, ("value",), "seed", now, now, None, "seed", "seed",
                )  # fmt: skip
                version = Version(
                    name, 1, VersionState.ENABLED, suites.current().number, kek.version, ("value",), now, "seed", None,
                )  # fmt: skip
                writes.append(Write("credentials", store.credential_row(credential)))
                writes.append(Write("credential_versions", store.version_row(version, envelope)))
            draft = AuditDraft(tenant, "seed", "test.seed", f"{tenant}/{folder}", Outcome.GRANTED, Origin())
            commit = Commit((draft,), tuple(writes))
            await base.log.commit(Unit((), lambda _rows, _now, commit=commit: commit))
