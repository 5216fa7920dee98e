"""Look-ups of data subjects. Writes go through `ledger.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from vault.model import Subject, SubjectState
from vault.store.tables import subjects

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


def subject_from(row: Row) -> Subject:
    """A subject from its row."""
    return Subject(**{**row, "state": SubjectState(row["state"])})


def subject_row(subject: Subject) -> Row:
    """A subject's row."""
    row: Row = {column.name: getattr(subject, column.name) for column in subjects.columns}
    return {**row, "state": subject.state.value}


async def get_subject(connection: AsyncConnection, tenant: str, subject_id: str) -> Subject | None:
    """The subject of this id."""
    statement = select(subjects).where(subjects.c.tenant == tenant, subjects.c.subject_id == subject_id)
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else subject_from(dict(row))


async def under_older_key(
    connection: AsyncConnection, tenant: str, key_version: int, limit: int
) -> list[Subject]:
    """Subjects whose key is still wrapped by a version below `key_version`; at most so many."""
    statement = (
        select(subjects)
        .where(
            subjects.c.tenant == tenant,
            subjects.c.key_version < key_version,
            subjects.c.state == SubjectState.ACTIVE.value,
        )
        .limit(limit)
    )
    return [subject_from(dict(row)) for row in (await connection.execute(statement)).mappings()]
