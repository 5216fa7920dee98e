"""Look-ups for the metrics: a few numbers about everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from vault.model import KeyPurpose, KeyState
from vault.store.tables import job_ranges, jobs, key_usage, keys

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection


class JobCounts(NamedTuple):
    """What became of the versions in all jobs of a kind, ended ones included."""

    kind: str
    done: int
    skipped: int
    failed: int


async def oldest_active(connection: AsyncConnection) -> list[tuple[str, datetime.datetime]]:
    """For each purpose, when the oldest active key was made."""
    statement = (
        select(keys.c.purpose, func.min(keys.c.create_time))
        .where(keys.c.state == KeyState.ACTIVE.value)
        .group_by(keys.c.purpose)
    )
    return [(row[0], row[1]) for row in await connection.execute(statement)]


async def most_wraps(connection: AsyncConnection) -> int:
    """How often the most used of all active key-encryption keys has wrapped."""
    statement = select(func.max(key_usage.c.wraps)).where(
        keys.c.object_id == key_usage.c.object_id,
        keys.c.state == KeyState.ACTIVE.value,
        keys.c.purpose == KeyPurpose.KEK.value,
    )
    return int((await connection.execute(statement)).scalar() or 0)


async def wraps_of(connection: AsyncConnection, tenants: Sequence[str]) -> list[tuple[str, int, int]]:
    """Tenant, version and count of wraps, for every version of these tenants' keys."""
    statement = select(keys.c.tenant, keys.c.version, key_usage.c.wraps).where(
        keys.c.object_id == key_usage.c.object_id,
        keys.c.tenant.in_(tenants),
        keys.c.purpose == KeyPurpose.KEK.value,
    )
    return [(row[0], row[1], row[2]) for row in await connection.execute(statement)]


async def job_states(connection: AsyncConnection) -> list[tuple[str, str, int]]:
    """Kind, state and number of all jobs."""
    statement = select(jobs.c.kind, jobs.c.state, func.count()).group_by(jobs.c.kind, jobs.c.state)
    return [(row[0], row[1], row[2]) for row in await connection.execute(statement)]


async def job_counts(connection: AsyncConnection) -> list[JobCounts]:
    """What became of the versions in all jobs."""
    statement = (
        select(
            jobs.c.kind,
            func.sum(job_ranges.c.done),
            func.sum(job_ranges.c.skipped),
            func.sum(job_ranges.c.failed),
        )
        .where(jobs.c.job_id == job_ranges.c.job_id)
        .group_by(jobs.c.kind)
    )
    return [
        JobCounts(row[0], int(row[1]), int(row[2]), int(row[3]))
        for row in await connection.execute(statement)
    ]


async def job_totals(connection: AsyncConnection) -> list[tuple[str, int]]:
    """Kind, and how many versions its jobs had to do when they began, all of them together."""
    statement = select(jobs.c.kind, func.sum(jobs.c.total)).group_by(jobs.c.kind)
    return [(row[0], int(row[1])) for row in await connection.execute(statement)]
