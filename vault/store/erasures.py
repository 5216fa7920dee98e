"""Look-ups for erasures: what hangs on a tenant or on one of its subjects. Writes go through `ledger.py`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from vault.model import Erasure, ErasureState, VersionState
from vault.store.tables import credential_versions, credentials, erasures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


def erasure_from(row: Row) -> Erasure:
    """An erasure from its row."""
    return Erasure(
        **{**row, "state": ErasureState(row["state"]), "approved_by": tuple(json.loads(row["approved_by"]))}
    )


def erasure_row(erasure: Erasure) -> Row:
    """An erasure's row."""
    row: Row = {column.name: getattr(erasure, column.name) for column in erasures.columns}
    return {**row, "state": erasure.state.value, "approved_by": json.dumps(erasure.approved_by)}


async def list_names(
    connection: AsyncConnection, tenant: str, subject_id: str, *, after: str, limit: int
) -> list[str]:
    """The credentials of a tenant, or of one of its subjects, by name."""
    statement = select(credentials.c.name).where(*_whose(tenant, subject_id), credentials.c.name > after)
    found = await connection.execute(statement.order_by(credentials.c.name).limit(limit))
    return list(found.scalars())


async def count(connection: AsyncConnection, tenant: str, subject_id: str) -> tuple[int, int]:
    """How many credentials there are, and how many versions of them hold a secret."""
    whose = _whose(tenant, subject_id)
    table = credential_versions
    number = select(func.count()).select_from(credentials).where(*whose)
    holding = (
        select(func.count())
        .select_from(table.join(credentials, credentials.c.name == table.c.name))
        .where(*whose, table.c.state == VersionState.ENABLED.value)
    )
    return (await connection.execute(number)).scalar_one(), (await connection.execute(holding)).scalar_one()


async def holding_versions(connection: AsyncConnection, names: Sequence[str]) -> list[tuple[str, int]]:
    """The versions of these credentials that hold a secret."""
    table = credential_versions
    statement = select(table.c.name, table.c.version).where(
        table.c.name.in_(names), table.c.state == VersionState.ENABLED.value
    )
    ordered = statement.order_by(table.c.name, table.c.version)
    return [(row.name, row.version) for row in await connection.execute(ordered)]


def _whose(tenant: str, subject_id: str) -> list[ColumnElement[bool]]:
    whose = [credentials.c.tenant == tenant]
    return [*whose, credentials.c.subject_id == subject_id] if subject_id else whose
