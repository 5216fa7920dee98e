"""When each credential was last used and last revealed, and by whom: read off the log, which alone vouches for it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, case, func, or_, select, true, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from vault.model import Activity, Outcome
from vault.store.tables import audit_records, credential_activity, credential_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Insert
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.model import Credential

_USES = "session.use."
_REVEALS = ("session.reveal", "session.break_glass")


async def absorb(connection: AsyncConnection, first: int, end: int) -> None:
    """Take in what the log says from sequence `first` to before `end`. Twice, or late, it changes nothing."""
    await connection.execute(_absorb(connection.dialect.name), {"first": first, "end": end})


@functools.cache
def _absorb(dialect: str) -> Insert:
    """The database picks the newest of each kind for each credential: nothing of it comes here."""
    log, known = audit_records, credential_activity
    is_use = log.c.action_type.startswith(_USES, autoescape=True)
    is_reveal = log.c.action_type.in_(_REVEALS)
    newest = (
        select(
            log.c.resource,
            func.max(case((is_use, log.c.sequence))).label("used"),
            func.max(case((is_reveal, log.c.sequence))).label("revealed"),
        )
        .where(
            log.c.sequence >= bindparam("first"),
            log.c.sequence < bindparam("end"),
            log.c.outcome == Outcome.GRANTED.value,
            or_(is_use, is_reveal),
        )
        .group_by(log.c.resource)
        .subquery()
    )
    use, reveal = log.alias("use"), log.alias("reveal")
    rows = (
        select(
            newest.c.resource,
            func.coalesce(use.c.tenant, reveal.c.tenant),
            use.c.created_at,
            use.c.user_id,
            reveal.c.created_at,
            reveal.c.user_id,
        )
        .select_from(newest)
        .join(use, use.c.sequence == newest.c.used, isouter=True)
        .join(reveal, reveal.c.sequence == newest.c.revealed, isouter=True)
        .where(true())  # SQLite would take what follows for a condition of the join
    )
    names = ["name", "tenant", "last_used_time", "last_used_by", "last_revealed_time", "last_revealed_by"]
    insert_ = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(known).from_select(
        names, rows
    )
    new = insert_.excluded
    changes: dict[str, ColumnElement[Any]] = {}
    for at, by in (("last_used_time", "last_used_by"), ("last_revealed_time", "last_revealed_by")):
        is_newer = and_(new[at].is_not(None), or_(known.c[at].is_(None), known.c[at] <= new[at]))
        changes |= {name: case((is_newer, new[name]), else_=known.c[name]) for name in (at, by)}
    return insert_.on_conflict_do_update(index_elements=["name"], set_=changes)


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
