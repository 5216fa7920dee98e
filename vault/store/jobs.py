"""Look-ups for jobs: the jobs, their ranges, and the versions that are still to be done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, func, literal, or_, select, tuple_

from vault.model import (
    Job,
    JobFailure,
    JobKind,
    JobProgress,
    JobRange,
    JobState,
    VersionState,
)
from vault.store.engine import driver_of
from vault.store.tables import credential_versions, job_failures, job_ranges, jobs

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.engine import Database
    from vault.store.rows import Row

_versions = credential_versions.c


class KeyUse(NamedTuple):
    """How many versions that hold a secret are under a key version and a suite, and how old they are."""

    kek_version: int
    suite: int
    versions: int
    oldest: datetime.datetime
    newest: datetime.datetime


def job_from(row: Mapping[str, Any]) -> Job:
    """A job from its row."""
    return Job(
        **{
            **row,
            "kind": JobKind(row["kind"]),
            "state": JobState(row["state"]),
            "urgent": bool(row["urgent"]),
        }
    )


def job_row(job: Job) -> Row:
    """A job's row."""
    row: Row = {column.name: getattr(job, column.name) for column in jobs.columns}
    return {**row, "kind": job.kind.value, "state": job.state.value, "urgent": int(job.urgent)}


def range_from(row: Mapping[str, Any]) -> JobRange:
    """A range from its row."""
    return JobRange(**{**row, "finished": bool(row["finished"])})


def range_row(part: JobRange) -> Row:
    """A range's row."""
    row: Row = {column.name: getattr(part, column.name) for column in job_ranges.columns}
    return {**row, "finished": int(part.finished)}


def failure_row(failure: JobFailure) -> Row:
    """A failure's row."""
    return {column.name: getattr(failure, column.name) for column in job_failures.columns}


async def get_progress(
    connection: AsyncConnection, job_id: str, now: datetime.datetime, *, tenant: str = ""
) -> JobProgress | None:
    """A job, of this tenant if one is named, and how far it is."""
    statement = select(jobs).where(jobs.c.job_id == job_id)
    if tenant:
        # Before anything more is looked up: another tenant's job costs what an absent one does.
        statement = statement.where(jobs.c.tenant == tenant)
    row = (await connection.execute(statement)).mappings().first()
    if row is None:
        return None
    return (await _with_progress(connection, [job_from(dict(row))], now))[0]


async def list_progress(
    connection: AsyncConnection, tenant: str, now: datetime.datetime, *, before: tuple[str, str], limit: int
) -> list[JobProgress]:
    """A tenant's jobs, newest first, beginning behind the job of this creation time (ISO) and id."""
    statement = select(jobs).where(jobs.c.tenant == tenant)
    if before[1]:
        moment = now.fromisoformat(before[0])
        statement = statement.where(
            or_(
                jobs.c.create_time < moment,
                and_(jobs.c.create_time == moment, jobs.c.job_id < before[1]),
            )
        )
    statement = statement.order_by(jobs.c.create_time.desc(), jobs.c.job_id.desc()).limit(limit)
    found = [job_from(dict(row)) for row in (await connection.execute(statement)).mappings()]
    return await _with_progress(connection, found, now)


async def _with_progress(
    connection: AsyncConnection, found: Sequence[Job], now: datetime.datetime
) -> list[JobProgress]:
    alive = and_(job_ranges.c.finished == 0, job_ranges.c.lease_time > now)
    statement = (
        select(
            job_ranges.c.job_id,
            func.sum(job_ranges.c.done).label("done"),
            func.sum(job_ranges.c.skipped).label("skipped"),
            func.sum(job_ranges.c.failed).label("failed"),
            func.sum(case((alive, 1), else_=0)).label("workers"),
        )
        .where(job_ranges.c.job_id.in_([job.job_id for job in found]))
        .group_by(job_ranges.c.job_id)
    )
    sums = {row["job_id"]: row for row in (await connection.execute(statement)).mappings()}
    return [
        JobProgress(job, *(int(sums[job.job_id][name]) for name in ("done", "skipped", "failed", "workers")))
        if job.job_id in sums
        else JobProgress(job)
        for job in found
    ]


async def unfinished(connection: AsyncConnection) -> list[Job]:
    """Jobs with something left to do, urgent ones first, then by age: running, or ended without a report."""
    return [job_from(dict(row)) for row in (await connection.execute(_UNFINISHED)).mappings()]


_UNFINISHED = (
    select(jobs)
    .where(
        or_(
            jobs.c.state == JobState.RUNNING.value,
            and_(jobs.c.state == JobState.CANCELLED.value, jobs.c.report == ""),
        )
    )
    .order_by(jobs.c.urgent.desc(), jobs.c.create_time, jobs.c.job_id)
)


async def find_unfinished(
    connection: AsyncConnection, tenant: str, kind: JobKind, *, urgent: bool, source_version: int
) -> str | None:
    """The id of a tenant's job of this kind that is running or paused; of an urgent one, with the same source."""
    statement = select(jobs.c.job_id).where(
        jobs.c.tenant == tenant,
        jobs.c.kind == kind.value,
        jobs.c.urgent == int(urgent),
        jobs.c.state.in_((JobState.RUNNING.value, JobState.PAUSED.value)),
    )
    if urgent:
        statement = statement.where(jobs.c.source_version == source_version)
    return (await connection.execute(statement)).scalars().first()


async def open_ranges(connection: AsyncConnection, job_id: str) -> list[JobRange]:
    """The ranges of a job that are not finished, in order."""
    statement = (
        select(job_ranges)
        .where(job_ranges.c.job_id == job_id, job_ranges.c.finished == 0)
        .order_by(job_ranges.c.number)
    )
    return [range_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def list_failures(
    connection: AsyncConnection, job_id: str, *, after: tuple[str, int], limit: int
) -> list[JobFailure]:
    """What a job could not do, by name and version, beginning behind `after`."""
    pair = tuple_(job_failures.c.name, job_failures.c.version)
    statement = (
        select(job_failures)
        .where(job_failures.c.job_id == job_id, pair > tuple_(literal(after[0]), literal(after[1])))
        .order_by(job_failures.c.name, job_failures.c.version)
        .limit(limit)
    )
    return [JobFailure(**row) for row in (await connection.execute(statement)).mappings()]


async def key_uses(connection: AsyncConnection, tenant: str) -> list[KeyUse]:
    """What is under each of a tenant's key versions and suites, newest key first."""
    statement = (
        select(
            _versions.kek_version,
            _versions.suite,
            func.count(),
            func.min(_versions.create_time),
            func.max(_versions.create_time),
        )
        .where(_versions.tenant == tenant, _versions.state == VersionState.ENABLED.value)
        .group_by(_versions.kek_version, _versions.suite)
        .order_by(_versions.kek_version.desc(), _versions.suite)
    )
    return [KeyUse(*row) for row in await connection.execute(statement)]


async def list_uses(
    connection: AsyncConnection, tenant: str, kek_version: int, *, after: tuple[str, int], limit: int
) -> list[tuple[str, int]]:
    """Names and versions of what a key version wraps, by name, beginning behind `after`."""
    pair = tuple_(_versions.name, _versions.version)
    statement = (
        select(_versions.name, _versions.version)
        .where(
            _versions.tenant == tenant,
            _versions.kek_version == kek_version,
            _versions.state == VersionState.ENABLED.value,
            pair > tuple_(literal(after[0]), literal(after[1])),
        )
        .order_by(_versions.name, _versions.version)
        .limit(limit)
    )
    return [(row.name, row.version) for row in await connection.execute(statement)]


async def bounds(connection: AsyncConnection, job: Job, newest: int, size: int) -> list[tuple[str, int]]:
    """Where to cut a job's work into ranges of about `size` versions: the last version of each range."""
    place = func.row_number().over(order_by=(_versions.name, _versions.version)).label("place")
    counted = select(_versions.name, _versions.version, place).where(_wanted(job, newest)).subquery()
    most = select(func.max(counted.c.place)).scalar_subquery()
    statement = (
        select(counted.c.name, counted.c.version)
        .where(or_(counted.c.place % size == 0, counted.c.place == most))
        .order_by(counted.c.place)
    )
    return [(row.name, row.version) for row in await connection.execute(statement)]


async def count(connection: AsyncConnection, job: Job, newest: int) -> int:
    """How many versions a job has to do."""
    statement = select(func.count()).select_from(credential_versions).where(_wanted(job, newest))
    return int((await connection.execute(statement)).scalar_one())


async def next_rows(
    database: Database, job: Job, part: JobRange, newest: int, limit: int
) -> list[Mapping[str, Any]]:
    """The next whole rows of `credential_versions` that a range has to do, behind its cursor."""
    async with database.read() as connection:
        if database.is_postgresql:
            rows: list[Mapping[str, Any]] = await driver_of(connection).fetch(
                _NEXT_REWRAP if job.kind is JobKind.REWRAP else _NEXT_REENCRYPT,
                part.cursor_name,
                part.cursor_version,
                part.last_name,
                part.last_version,
                job.tenant,
                job.source_version,
                newest,
                limit,
            )
            return rows
        pair = tuple_(_versions.name, _versions.version)
        statement = (
            select(credential_versions)
            .where(
                _wanted(job, newest),
                pair > tuple_(literal(part.cursor_name), literal(part.cursor_version)),
                pair <= tuple_(literal(part.last_name), literal(part.last_version)),
            )
            .order_by(_versions.name, _versions.version)
            .limit(limit)
        )
        return [dict(row) for row in (await connection.execute(statement)).mappings()]


def counts(uses: Sequence[KeyUse]) -> str:
    """JSON: how many versions each key version wraps."""
    found: dict[str, int] = {}
    for use in uses:
        found[str(use.kek_version)] = found.get(str(use.kek_version), 0) + use.versions
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def _wanted(job: Job, newest: int) -> ColumnElement[bool]:
    """What is a job's to do: the same condition as in the statements below."""
    condition = and_(_versions.tenant == job.tenant, _versions.state == VersionState.ENABLED.value)
    if job.source_version:
        condition = and_(condition, _versions.kek_version == job.source_version)
    if job.kind is JobKind.REWRAP:
        condition = and_(condition, _versions.kek_version < newest)
    return condition


# Without any cast of ours each statement is prepared once. The operators are spelt as functions, which no index serves:
# so the way is always the primary key, in order, until there are enough, and never all that a tenant has left, sorted.
_NEXT_REENCRYPT = """
SELECT * FROM credential_versions
WHERE (name, version) > ($1, $2) AND (name, version) <= ($3, $4) AND texteq(tenant, $5) AND state = 'enabled'
  AND ($6::int = 0 OR kek_version = $6) AND $7::int >= 0
ORDER BY name, version LIMIT $8
"""
_NEXT_REWRAP = _NEXT_REENCRYPT.replace("$7::int >= 0", "int4lt(kek_version, $7)")
