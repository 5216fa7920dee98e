"""The judgement on a restored database: the log, every row against it, and what it holds really opens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vault.core.checkpoint_keys import verifier_keys
from vault.core.inspection import inspect
from vault.errors import Reason, VaultError
from vault.model import StoredVersion
from vault.store import backup, credentials

if TYPE_CHECKING:
    import datetime

    from vault.core.envelopes import Envelopes
    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.core.verification import Report
    from vault.store.engine import Database

SAMPLE = 200
_PAGE = 16


@dataclass(frozen=True)
class Judgement:
    """What was found: the report on log and rows; how many versions opened, and why others did not."""

    report: Report
    opened: int
    unopened: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether nothing was found, and everything that was tried opened, but for what was erased."""
        return not self.report.findings and not set(self.unopened) - {Reason.VERSION_DESTROYED.value}


async def judge(
    database: Database,
    hsm: Hsm,
    keyring: Keyring,
    envelopes: Envelopes,
    origin: str,
    now: datetime.datetime,
    *,
    most: int | None = SAMPLE,
) -> Judgement:
    """Verify the log and the rows, and open so many versions chosen at random, or all of them.

    Raises `STORAGE_UNAVAILABLE`, `HSM_UNAVAILABLE` if no key at all can be asked for.
    """
    report = await inspect(database, origin, await verifier_keys(origin, keyring, hsm), now)
    opened = 0
    unopened: Counter[str] = Counter()
    async for page in backup.sample_versions(database, most, page=_PAGE):
        async with database.read() as connection:
            found = await credentials.get_stored(connection, page)
        for stored in found:
            try:
                (buffer,) = await envelopes.open_all([stored] if isinstance(stored, StoredVersion) else [])
            except VaultError as error:
                unopened[error.reason.value] += 1
            else:
                buffer.close()
                opened += 1
    return Judgement(report, opened, dict(unopened))
