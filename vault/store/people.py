"""Look-ups of people. Writes go through `ledger.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from vault.model import SYSTEM_TENANT, Subject
from vault.store.subjects import subject_from
from vault.store.tables import people, subjects

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


class StoredPerson(NamedTuple):
    """A person's row, and the subject that has the key it is sealed under. Erased: `sealed` is empty."""

    number: int
    sealed: bytes
    subject: Subject


def person_row(number: int, subject_id: str, sealed: bytes) -> Row:
    """A person's row."""
    return {"number": number, "subject_id": subject_id, "sealed": sealed}


async def list_after(connection: AsyncConnection, number: int, limit: int) -> list[StoredPerson]:
    """The people who came after the one of this number, in order; at most so many."""
    statement = (
        select(people.c.number, people.c.sealed, *subjects.columns)
        .join(subjects, (subjects.c.tenant == SYSTEM_TENANT) & (subjects.c.subject_id == people.c.subject_id))
        .where(people.c.number > number)
        .order_by(people.c.number)
        .limit(limit)
    )
    found = []
    for values in (await connection.execute(statement)).mappings():
        row = dict(values)
        found.append(StoredPerson(row.pop("number"), row.pop("sealed"), subject_from(row)))
    return found


async def number_of(connection: AsyncConnection, subject_id: str) -> int | None:
    """The number of the person with this pseudonym."""
    statement = select(people.c.number).where(people.c.subject_id == subject_id)
    number: int | None = (await connection.execute(statement)).scalar()
    return number
