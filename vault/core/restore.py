"""Restoring: a backup put into an empty database, all or nothing, and the judgement on what then lies there.

Nothing is committed before the manifest at the file's end has been read and its signature verified: tables and rows are
one transaction, and the file is read once, so what was verified is what was written, whatever happens to the file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from vault.core.backup import decode_values, encode_values, opened
from vault.core.checkpoint_keys import verifier_keys
from vault.core.inspection import inspect
from vault.errors import Reason, StartError, VaultError
from vault.model import SYSTEM_TENANT, AuditDraft, KeyPurpose, Origin, Outcome, StoredVersion, SubjectState
from vault.store import backup, credentials, schema
from vault.store.engine import RULES, unavailable
from vault.store.ledger import Commit, Unit
from vault.store.rows import COLUMNS, Write

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from vault.core.audit import AuditLog
    from vault.core.backup import Manifest
    from vault.core.envelopes import Envelopes
    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.core.verification import Report
    from vault.store.engine import Database
    from vault.store.ledger import Rows
    from vault.store.rows import Row

SAMPLE = 200
_PAGE = 16
_OF_SUBJECTS = ("subjects", "people", "erasures")


async def load(
    database: Database, hsm: Hsm, file: IO[bytes], origin: str, keys: Sequence[str], server_role: str
) -> Manifest:
    """Put a backup into an empty database, and bring it up to the newest schema. Memory stays flat.

    The manifest must be signed as `Contents.manifest` says. Raises what that raises, `STORAGE_UNAVAILABLE`, and
    `StartError` for a database that is not empty; then the database is as it was.
    """
    try:
        async with opened(hsm, file) as contents, database.write() as connection:
            await backup.make_tables(connection, contents.schema)
            async for page in contents.pages():
                await backup.insert_rows(connection, page.table, page.columns, page.rows)
            manifest = await contents.manifest(origin, keys)
            await schema.upgrade(connection)
            await schema.secure(connection, server_role)
    except RULES as error:
        raise StartError(f"restore: {unavailable(error).message}") from None
    return manifest


async def read_subjects(
    hsm: Hsm, file: IO[bytes], origin: str, keys: Sequence[str], spool: IO[bytes]
) -> None:
    """Write into a file of one's own what a newer backup says of data subjects and people, encrypted as it is there.

    Return only if the whole backup verifies, as for `load`; so `load_subjects` puts in what was verified.
    """
    async with opened(hsm, file) as contents:
        async for page in contents.pages():
            for row in page.whole_rows():
                if _is_of_subjects(page.table, row):
                    spool.write(encode_values([page.table, *row.values()]))
        await contents.manifest(origin, keys)
    spool.seek(0)


async def load_subjects(log: AuditLog, spool: IO[bytes]) -> None:
    """Put into a restored database what became of data subjects and their keys since, as `read_subjects` wrote it.

    An erasure leaves older backups without the keys of those who stayed; a backup from after it has them. Whom it
    knows as erased is erased here too. Raises `AUDIT_UNAVAILABLE`.
    """
    for line in spool:
        table, *values = decode_values(line)
        await log.commit(_newer(Write(table, dict(zip(COLUMNS[table], values, strict=True)))))


def _is_of_subjects(table: str, row: Row) -> bool:
    return table in _OF_SUBJECTS or (table == "keys" and row["purpose"] == KeyPurpose.SUBJECT)


def _newer(write: Write) -> Unit:
    key = write.row_key

    def decide(rows: Rows, _now: datetime.datetime) -> Commit:
        found = rows.get(key.table, *key.key)
        resource = f"{write.row['tenant']}/{key.table}"
        record = AuditDraft(
            SYSTEM_TENANT, "strongroom restore", "backup.restore_newer", resource, Outcome.GRANTED, Origin()
        )
        # A subject or person that came after the older backup has nothing in it.
        if found == write.row or (found is None and key.table in ("subjects", "people")):
            return Commit((record,))
        if key.table == "subjects" and found is not None and found["create_time"] != write.row["create_time"]:
            # Erased and come back since, with another key: what the older backup holds is what was erased.
            gone = {**found, "state": SubjectState.ERASED.value, "wrapped_key": b""}
            return Commit((record,), (Write(key.table, gone),))
        return Commit((record,), (write,))

    return Unit((key,), decide)


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
