"""When each credential was last used and last revealed, and by whom: read off the log, which alone vouches for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import case, func, or_, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from vault.model import Activity, Outcome
from vault.store.tables import audit_records, credential_activity, credential_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Insert
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.model import Credential
    from vault.store.engine import Database

_USES = "session.use."
_REVEALS = ("session.reveal", "session.break_glass")


async def absorb(database: Database, first: int, end: int) -> None:
    """Take in what the log says from sequence `first` to before `end`. Twice, or late, it changes nothing."""
    log = audit_records
    revealed = log.c.action_type.in_(_REVEALS)
    # The newest of each kind for each credential: the database picks them, a busy second is a few rows.
    newest = (
        select(func.max(log.c.sequence))
        .where(
            log.c.sequence >= first,
            log.c.sequence < end,
            log.c.outcome == Outcome.GRANTED.value,
            or_(revealed, log.c.action_type.startswith(_USES, autoescape=True)),
        )
        .group_by(log.c.resource, case((revealed, 1), else_=0))
    )
    wanted = (
        select(log.c.resource, log.c.tenant, log.c.user_id, log.c.created_at, log.c.action_type)
        .where(log.c.sequence >= first, log.c.sequence < end, log.c.sequence.in_(newest))
        # In one order everywhere, so that two workers never wait for each other.
        .order_by(log.c.resource)
    )
    async with database.read() as connection:
        found = (await connection.execute(wanted)).all()
    for kind in ("used", "revealed"):
        at, by = f"last_{kind}_time", f"last_{kind}_by"
        rows = [
            {"name": row.resource, "tenant": row.tenant, at: row.created_at, by: row.user_id}
            for row in found
            if (row.action_type in _REVEALS) == (kind == "revealed")
        ]
        if rows:
            async with database.write() as connection:
                await connection.execute(_upsert(database, at, by), rows)


def _upsert(database: Database, at: str, by: str) -> Insert:
    known = credential_activity
    insert_ = (postgresql.insert if database.is_postgresql else sqlite.insert)(known)
    return insert_.on_conflict_do_update(
        index_elements=["name"],
        set_={at: insert_.excluded[at], by: insert_.excluded[by]},
        where=or_(known.c[at].is_(None), known.c[at] <= insert_.excluded[at]),
    )


async def of(connection: AsyncConnection, credentials: Sequence[Credential]) -> dict[str, Activity]:
    """By name: who last wrote each of these credentials, and what is known of its uses."""
    if not credentials:
        return {}
    versions, known = credential_versions, credential_activity
    newest = tuple_(versions.c.name, versions.c.version).in_(
        [(credential.name, credential.latest_version) for credential in credentials]
    )
    statement = (
        select(
            versions.c.name,
            versions.c.create_time,
            versions.c.created_by,
            known.c.last_used_time,
            known.c.last_used_by,
            known.c.last_revealed_time,
            known.c.last_revealed_by,
        )
        .join(known, known.c.name == versions.c.name, isouter=True)
        .where(newest)
    )
    return {
        row.name: Activity(
            last_written_time=row.create_time,
            last_written_by=row.created_by,
            last_used_time=row.last_used_time,
            last_used_by=row.last_used_by or "",
            last_revealed_time=row.last_revealed_time,
            last_revealed_by=row.last_revealed_by or "",
        )
        for row in await connection.execute(statement)
    }
