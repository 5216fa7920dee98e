"""Jobs: rewrapping and re-encrypting all that a tenant has, online. Here they are asked for and steered.

A job and its ranges are rows, so it survives everything; `core/lanes.py` carries it out, on every worker.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from vault.core import audit, requests
from vault.crypto import suites
from vault.crypto.errors import CryptoError
from vault.errors import Reason, VaultError, invalid_field
from vault.model import Job, JobFailure, JobKind, JobProgress, JobRange, JobState, KeyPurpose
from vault.store import jobs as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncIterator, Sequence

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.keys import Keyring
    from vault.model import AuditDraft, Caller, Key
    from vault.store.engine import Database
    from vault.store.ledger import Rows

START, UPDATE = "job.start", "job.update"
_LEAST_RANGE, _MOST_RANGE, _RANGES = 1024, 8192, 16
_WATCH_SECONDS = 0.5
_TRIES = 5
ENDED = (JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED)


@dataclasses.dataclass(frozen=True)
class Order:
    """A job that is asked for."""

    tenant: str
    kind: JobKind | None
    """None: not one that there is."""
    source_version: int = 0
    suite: str = ""
    max_per_second: int = 0
    urgent: bool = False
    approved_by: str = ""


class Change(NamedTuple):
    """What to change about a job: its state, or how fast it may go."""

    state: JobState | None = None
    max_per_second: int | None = None
    known: bool = True
    """Whether it is a command that there is."""


class RotatedMeanwhile(Exception):  # noqa: N818 - not an error: somebody else was first
    """The tenant's newest key is not the one that was looked at: look again."""


class Jobs:
    """Starts, shows and steers jobs."""

    def __init__(self, database: Database, log: AuditLog, keyring: Keyring, clock: Clock) -> None:
        self._database = database
        self._log = log
        self._keyring = keyring
        self._clock = clock
        self.started = asyncio.Event()
        """Set when a job of this worker's callers was started or changed."""

    async def start(
        self, caller: Caller, order: Order, request_id: str, *, validate_only: bool
    ) -> JobProgress:
        """Start a job, or say what it would be. For the errors see `JobService.Start`."""
        requests.customer_tenant(order.tenant)
        requests.require(caller, "key.rewrap", f"{order.tenant}/keys")
        kind = order.kind.value if order.kind else ""
        repeat = requests.repeat(
            caller,
            START,
            request_id,
            order.tenant,
            kind,
            order.source_version,
            order.suite,
            order.max_per_second,
        )
        return await self.begin(
            audit.granted(caller, START, f"{order.tenant}/keys"), order, repeat, validate_only
        )

    async def begin(
        self, draft: AuditDraft, order: Order, repeat: requests.Repeat | None, validate_only: bool
    ) -> JobProgress:
        """Start a job for whom the draft names; whether they may was decided before."""
        if order.kind is None:
            raise invalid_field("kind", "is required: rewrap or re-encrypt")
        suite = _suite(order)
        requests.rate(order.max_per_second)
        for _ in range(_TRIES):
            newest = await self._keyring.active(order.tenant, KeyPurpose.KEK)
            job, bounds = await self._plan(order, order.kind, suite, newest, draft.identity)
            await self._refuse_second(job)
            if validate_only:
                dry = canonical_json({"validate_only": True, "total": job.total})
                await self._log.record(draft._replace(after_state=dry))
                return JobProgress(dataclasses.replace(job, job_id=""))
            try:
                made: str = await self._log.commit(_start_unit(draft, job, bounds, newest, repeat))
            except RotatedMeanwhile:
                self._keyring.forget_tenant(order.tenant)
            except RuntimeError:
                # Two started one at the same moment, and the database let one through.
                await self._refuse_second(job)
                raise
            else:
                self.started.set()
                return await self.progress(order.tenant, made)
        raise VaultError(Reason.KEY_CHANGED, "other administrators keep rotating this key; try again")

    async def get(self, caller: Caller, tenant: str, job_id: str) -> JobProgress:
        """A job and how far it is. Raises `JOB_NOT_FOUND`."""
        requests.customer_tenant(tenant)
        requests.require(caller, "key.read", f"{tenant}/keys")
        progress = await self.progress(tenant, requests.job_id(job_id))
        await self._log.record(audit.granted(caller, "job.get", job_id))
        return progress

    async def list_jobs(
        self, caller: Caller, tenant: str, *, before: tuple[str, str], limit: int
    ) -> list[JobProgress]:
        """A tenant's jobs, newest first."""
        requests.customer_tenant(tenant)
        requests.require(caller, "key.read", f"{tenant}/keys")
        async with self._database.read() as connection:
            found = await store.list_progress(
                connection, tenant, self._clock.now(), before=before, limit=limit
            )
        await self._log.record(audit.granted(caller, "job.list", f"{tenant}/keys"))
        return found

    async def list_failures(
        self, caller: Caller, tenant: str, job_id: str, *, after: tuple[str, int], limit: int
    ) -> list[JobFailure]:
        """What a job could not do, by name and version, beginning behind `after`. Raises `JOB_NOT_FOUND`."""
        requests.customer_tenant(tenant)
        requests.require(caller, "key.read", f"{tenant}/keys")
        await self.progress(tenant, requests.job_id(job_id))
        async with self._database.read() as connection:
            found = await store.list_failures(connection, job_id, after=after, limit=limit)
        await self._log.record(audit.granted(caller, "job.list_failures", job_id))
        return found

    async def watch(self, caller: Caller, tenant: str, job_id: str) -> AsyncIterator[JobProgress]:
        """A job whenever it got on, until it has ended. Raises `JOB_NOT_FOUND`."""
        requests.customer_tenant(tenant)
        requests.require(caller, "key.read", f"{tenant}/keys")
        last: JobProgress | None = None
        seen = await self.progress(tenant, requests.job_id(job_id))
        await self._log.record(audit.granted(caller, "job.watch", job_id))
        while True:
            if seen != last:
                yield seen
                last = seen
            if seen.job.report:
                return
            await asyncio.sleep(_WATCH_SECONDS)
            seen = await self.progress(tenant, job_id)

    async def update(
        self, caller: Caller, tenant: str, job_id: str, change: Change, *, validate_only: bool
    ) -> JobProgress:
        """Pause, resume, cancel or throttle a job. Raises `JOB_NOT_FOUND`, `JOB_ENDED`."""
        requests.customer_tenant(tenant)
        requests.require(caller, "key.rewrap", f"{tenant}/keys")
        requests.job_id(job_id)
        if not change.known:
            raise invalid_field("command", "is not a known command")
        if change.max_per_second is not None:
            requests.rate(change.max_per_second)
        draft = audit.granted(caller, UPDATE, job_id)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            row = rows.get("jobs", job_id)
            if row is None or row["tenant"] != tenant:
                raise _not_found()
            before = store.job_from(row)
            if before.state in ENDED:
                raise VaultError(Reason.JOB_ENDED, "the job has ended")
            after = dataclasses.replace(
                before,
                state=change.state or before.state,
                max_per_second=before.max_per_second
                if change.max_per_second is None
                else change.max_per_second,
                update_time=now,
                end_time=now if change.state is JobState.CANCELLED else None,
            )
            if validate_only:
                return Commit((draft._replace(after_state=_VALIDATED),), (), after)
            record = draft._replace(before_state=_state(before), after_state=_state(after))
            return Commit((record,), (Write("jobs", store.job_row(after)),), after)

        changed: Job = await self._log.commit(Unit((RowKey("jobs", (job_id,)),), decide))
        progress = await self.progress(tenant, job_id)
        if validate_only:
            return dataclasses.replace(progress, job=changed)
        self.started.set()
        return progress

    async def _plan(
        self, order: Order, kind: JobKind, suite: int, newest: Key, identity: str
    ) -> tuple[Job, list[tuple[str, int]]]:
        if order.source_version:
            source = await self._keyring.version(order.tenant, KeyPurpose.KEK, order.source_version)
            if kind is JobKind.REWRAP and source.version == newest.version:
                raise invalid_field("source_version", "is the newest; there is nothing newer to rewrap to")
        now = self._clock.now()
        job = Job(
            job_id=requests.new_id(),
            tenant=order.tenant,
            kind=kind,
            state=JobState.RUNNING,
            source_version=order.source_version,
            suite=suite,
            urgent=order.urgent,
            max_per_second=order.max_per_second,
            total=0,
            before="",
            report="",
            create_time=now,
            created_by=identity,
            approved_by=order.approved_by,
            update_time=now,
            end_time=None,
        )
        async with self._database.read() as connection:
            uses = await store.key_uses(connection, order.tenant)
            total = await store.count(connection, job, newest.version)
            size = max(_LEAST_RANGE, min(_MOST_RANGE, total // _RANGES))
            bounds = await store.bounds(connection, job, newest.version, size) if total else []
        return dataclasses.replace(job, total=total, before=store.counts(uses)), bounds

    async def _refuse_second(self, job: Job) -> None:
        async with self._database.read() as connection:
            other = await store.find_unfinished(
                connection, job.tenant, job.kind, urgent=job.urgent, source_version=job.source_version
            )
        if other is not None:
            raise VaultError(Reason.JOB_RUNNING, "a job of this kind is under way already", job_id=other)

    async def progress(self, tenant: str, job_id: str) -> JobProgress:
        """A job and how far it is. Raises `JOB_NOT_FOUND`."""
        async with self._database.read() as connection:
            found = await store.get_progress(connection, job_id, self._clock.now(), tenant=tenant)
        if found is None:
            raise _not_found()
        return found


def _start_unit(
    draft: AuditDraft,
    job: Job,
    bounds: Sequence[tuple[str, int]],
    newest: Key,
    repeat: requests.Repeat | None,
) -> Unit:
    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        if repeat and (earlier := repeat.earlier(rows)) is not None:
            return Commit((audit.repeated(draft),), (), earlier)
        tenant = rows.get("tenants", job.tenant)
        if tenant is None or tenant["kek_version"] != newest.version:
            raise RotatedMeanwhile
        record = draft._replace(
            after_state=canonical_json(
                {
                    "job": job.job_id,
                    "kind": job.kind.value,
                    "source_version": job.source_version,
                    "target_version": newest.version,
                    "suite": job.suite,
                    "total": job.total,
                    "urgent": job.urgent,
                }
            ),
        )
        writes = [Write("jobs", store.job_row(dataclasses.replace(job, create_time=now, update_time=now)))]
        first = ("", 0)
        for number, last in enumerate(bounds):
            part = JobRange(
                job.job_id, number, *first, *last, 0, 0, 0, finished=False, holder="", lease_time=None
            )
            writes.append(Write("job_ranges", store.range_row(part)))
            first = last
        if repeat:
            writes.extend(repeat.remember(job.job_id, now))
        return Commit((record,), tuple(writes), job.job_id)

    return Unit((RowKey("tenants", (job.tenant,)), *(repeat.reads if repeat else ())), decide)


def _suite(order: Order) -> int:
    if order.kind is JobKind.REWRAP:
        if order.suite:
            raise invalid_field("suite", "a rewrap keeps the suite; re-encrypt to change it")
        return 0
    if not order.suite:
        return suites.current().number
    try:
        suite = suites.by_name(order.suite)
    except CryptoError:
        suite = None
    if suite is None or suite.status is suites.SuiteStatus.RETIRED:
        raise invalid_field("suite", "must name a suite that may seal")
    return suite.number


def _state(job: Job) -> str:
    return canonical_json({"state": job.state.value, "max_per_second": job.max_per_second})


def _not_found() -> VaultError:
    return VaultError(Reason.JOB_NOT_FOUND, "no such job")


_VALIDATED = canonical_json({"validate_only": True})
