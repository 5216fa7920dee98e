"""Carrying jobs out. Every worker has some lanes; a lane takes a range of a job by lease, and goes through it.

A chunk is read, moved to the new key without any lock, and committed through the ledger in one unit: the rows,
what could not be done, the cursor and the lease. The unit looks at everything again, under the log's lock: the job
still runs, the range is still this lane's, the key is still the newest, each row is still what was read. So nothing is
lost to a writer, nothing is done twice, and whoever is killed leaves a range that another takes up at the
cursor when the lease is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import hashlib
import json
import logging
import secrets
from typing import TYPE_CHECKING, Any

from vault.core import rotation_report
from vault.core.jobs import ENDED, RotatedMeanwhile
from vault.errors import Reason, VaultError
from vault.model import (
    AuditDraft,
    Job,
    JobFailure,
    JobKind,
    JobRange,
    JobState,
    KeyPurpose,
    Origin,
    Outcome,
)
from vault.store import jobs as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.batch import Load
    from vault.core.checkpoints import Checkpoints
    from vault.core.jobs import Jobs
    from vault.core.keys import Keyring
    from vault.core.rewrap import Moved, Rewrap
    from vault.model import AuditRecord, Key
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.jobs")

ACTOR = "strongroom"
LEASE = datetime.timedelta(seconds=3)
_LANES = 3
# A chunk holds the log's one lock while it commits. Callers wait for that, so while there are any, chunks are small,
# and between them is time for what has gathered.
_FIRST_CHUNK, _CHUNK, _CHUNK_IN_COMPANY = 32, 512, 16
_CHUNK_SECONDS = LEASE.total_seconds() / 3
_COMPANY_SECONDS = 0.3
_STEP_BACK, _MOST_STEP_BACK = 4.0, 0.1
_LOOK_SECONDS = 1.0
_PAUSES = (0.1, 0.3, 1.0)
_NAMED_FAILURES = 10_000


class _NotMine(Exception):  # noqa: N818 - not an error: the world moved on
    """The job stopped, or the range is another's: leave it."""


class Company:
    """Whether anybody calls this worker just now, or did so a moment ago."""

    def __init__(self, load: Load, clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._calls = 0
        self._until = 0.0

    def forget(self) -> None:
        """Count only who calls from now on: whoever started a job called, and is not kept waiting by it."""
        self._calls = self._load.calls
        self._until = 0.0

    def is_here(self) -> bool:
        """Whether chunks are to be small now, and pauses long."""
        now = self._clock.monotonic()
        if self._load.in_flight or self._load.calls != self._calls:
            self._calls = self._load.calls
            self._until = now + _COMPANY_SECONDS
        return now < self._until


class Lanes:
    """The share of one worker in all jobs."""

    def __init__(
        self,
        database: Database,
        log_: AuditLog,
        keyring: Keyring,
        rewrap: Rewrap,
        checkpoints: Checkpoints,
        jobs: Jobs,
        load: Load,
        clock: Clock,
    ) -> None:
        self._database = database
        self._log = log_
        self._keyring = keyring
        self._rewrap = rewrap
        self._checkpoints = checkpoints
        self._look_again = jobs.started
        self._company = Company(load, clock)
        self._chunk = _FIRST_CHUNK
        self._clock = clock
        self._name = secrets.token_urlsafe(12)

    def notice(self, record: AuditRecord) -> None:
        """Take note of a change in the log: another worker started or steered a job."""
        if record.action.startswith("job."):
            self._look_again.set()

    async def run(self) -> None:
        """Do what there is to do, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._look_again.wait()
            try:
                await self.work()
            except Exception as error:  # noqa: BLE001 - whatever it is, the job waits where it is and is tried again
                log.error("a job cannot go on", extra={"error": type(error).__name__})  # noqa: TRY400
                await asyncio.sleep(_LOOK_SECONDS)

    async def work(self) -> None:
        """Take part in every job, the urgent first, until there is nothing to take or something changed."""
        self._look_again.clear()
        self._company.forget()
        async with self._database.read() as connection:
            found = await store.unfinished(connection)
        for job in found:
            if job.state is JobState.RUNNING and await self._is_erased(job):
                with contextlib.suppress(_NotMine):
                    await self._log.commit(_cancel_unit(job))
            elif job.state is JobState.RUNNING:
                async with asyncio.TaskGroup() as lanes:
                    for number in range(_LANES):
                        lanes.create_task(self._lane(job, f"{self._name}/{number}"))
            await self._finish(job.job_id)
            if self._look_again.is_set():
                return

    async def _is_erased(self, job: Job) -> bool:
        """Whether the tenant is gone, and with it everything that there was to do."""
        try:
            await self._keyring.active(job.tenant, KeyPurpose.KEK)
        except VaultError as error:
            if error.reason is Reason.TENANT_NOT_FOUND:
                return True
            raise
        return False

    async def _lane(self, job: Job, holder: str) -> None:
        pauses = iter(_PAUSES)
        while not self._look_again.is_set():
            try:
                part = await self._claim(job, holder)
                if part is None:
                    return
                await self._go_through(job, part)
            except _NotMine:
                continue
            except VaultError as error:
                # The HSM or the database does not answer: nothing is lost, the range waits at its cursor.
                pause = next(pauses, None)
                if pause is None:
                    log.warning("a lane gives up for now", extra={"reason": error.reason.value})
                    return
                await asyncio.sleep(pause)
            else:
                pauses = iter(_PAUSES)

    async def _claim(self, job: Job, holder: str) -> JobRange | None:
        """Take a range that nobody holds."""
        async with self._database.read() as connection:
            ranges = await store.open_ranges(connection, job.job_id)
        for part in ranges:
            if _is_free(part, holder, self._clock.now()):
                with contextlib.suppress(_NotMine):
                    taken: JobRange = await self._log.commit(_claim_unit(job, part, holder))
                    return taken
        return None

    async def _go_through(self, job: Job, part: JobRange) -> None:
        while not part.finished and not self._look_again.is_set():
            began = self._clock.monotonic()
            kek = await self._keyring.active(job.tenant, KeyPurpose.KEK)
            limit, seconds = await self._pace(job)
            rows = await store.next_rows(self._database, job, part, kek.version, limit)
            moved = await self._move(job, rows, kek)
            try:
                part, job = await self._log.commit(
                    _chunk_unit(job, part, kek, rows, moved, last=_is_last(part, rows, limit))
                )
            except RotatedMeanwhile:
                self._keyring.forget_tenant(job.tenant)
                continue
            took = self._clock.monotonic() - began
            self._chunk = next_chunk(self._chunk, len(rows), took)
            await asyncio.sleep(max(seconds - took, self._courtesy(took)))

    async def _move(self, job: Job, rows: Sequence[Mapping[str, Any]], kek: Key) -> list[Moved]:
        if job.kind is JobKind.REWRAP:
            return await self._rewrap.rewrap(rows, kek)
        return await self._rewrap.reencrypt(rows, kek, job.suite)

    async def _pace(self, job: Job) -> tuple[int, float]:
        """How many versions to do next, and how long that has to take at least, in seconds."""
        chunk = min(self._chunk, _CHUNK_IN_COMPANY) if self._company.is_here() else self._chunk
        if not job.max_per_second:
            return chunk, 0.0
        async with self._database.read() as connection:
            progress = await store.get_progress(connection, job.job_id, self._clock.now())
        lanes = max(1, progress.workers if progress else 1)
        limit = max(1, min(chunk, job.max_per_second // lanes))
        return limit, limit * lanes / job.max_per_second

    def _courtesy(self, took: float) -> float:
        """How long to step back for callers."""
        return min(_STEP_BACK * took, _MOST_STEP_BACK) if self._company.is_here() else 0.0

    async def _finish(self, job_id: str) -> None:
        """End a job of which every range is finished, and write the report that it owes."""
        async with self._database.read() as connection:
            progress = await store.get_progress(connection, job_id, self._clock.now())
            open_ranges = await store.open_ranges(connection, job_id)
            if progress is None or progress.job.report or progress.job.state is JobState.PAUSED:
                return
            job = progress.job
            if job.state is JobState.RUNNING and open_ranges:
                return
            uses = await store.key_uses(connection, job.tenant)
        state = job.state
        if state not in ENDED:
            state = JobState.FAILED if progress.failed else JobState.SUCCEEDED
        ended = dataclasses.replace(job, state=state, end_time=job.end_time or self._clock.now())
        failures, digest = await self._failures(job_id)
        report = {
            "after": json.loads(store.counts(uses)),
            "approved_by": job.approved_by,
            "before": json.loads(job.before),
            "done": progress.done,
            "end_time": _moment(ended.end_time),
            "failed": progress.failed,
            "failures": [
                {"name": item.name, "reason": item.reason, "version": item.version} for item in failures
            ],
            "failures_sha256": digest,
            "job": job.job_id,
            "kind": job.kind.value,
            "requested_by": job.created_by,
            "skipped": progress.skipped,
            "source_version": job.source_version,
            "start_time": _moment(job.create_time),
            "state": state.value,
            "suite": job.suite,
            "tenant": job.tenant,
            "total": job.total,
        }
        note = await self._checkpoints.attest(rotation_report.text(report))
        with contextlib.suppress(_NotMine):
            await self._log.commit(_end_unit(dataclasses.replace(ended, report=note), progress.done))

    async def _failures(self, job_id: str) -> tuple[list[JobFailure], str]:
        """The first failures of a job, and SHA-256 (hex) over all, however many: a line each, by name and version."""
        digest = hashlib.sha256()
        named: list[JobFailure] = []
        after = ("", 0)
        while True:
            async with self._database.read() as connection:
                page = await store.list_failures(connection, job_id, after=after, limit=_NAMED_FAILURES)
            for item in page:
                digest.update(rotation_report.failure_line(item.name, item.version, item.reason))
            named = named or rotation_report.that_fit(page)
            if len(page) < _NAMED_FAILURES:
                return named, digest.hexdigest()
            after = (page[-1].name, page[-1].version)


def _claim_unit(job: Job, part: JobRange, holder: str) -> Unit:
    key = RowKey("job_ranges", (part.job_id, part.number))

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row = rows.get(key.table, *key.key)
        current = rows.get("jobs", job.job_id)
        if row is None or current is None or current["state"] != JobState.RUNNING.value:
            raise _NotMine
        found = store.range_from(row)
        if found.finished or not _is_free(found, holder, now):
            raise _NotMine
        taken = dataclasses.replace(found, holder=holder, lease_time=now + LEASE)
        record = _record(job, "job.claim", {"range": part.number, "holder": holder})
        return Commit((record,), (Write("job_ranges", store.range_row(taken)),), taken)

    return Unit((key, RowKey("jobs", (job.job_id,))), decide)


def _chunk_unit(
    job: Job,
    part: JobRange,
    kek: Key,
    read: Sequence[Mapping[str, Any]],
    moved: Sequence[Moved],
    *,
    last: bool,
) -> Unit:
    range_key = RowKey("job_ranges", (part.job_id, part.number))
    keys = [RowKey("credential_versions", (row["name"], row["version"])) for row in read]

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        job_row = rows.get("jobs", job.job_id)
        range_row = rows.get(range_key.table, *range_key.key)
        if job_row is None or range_row is None or job_row["state"] != JobState.RUNNING.value:
            raise _NotMine
        found = store.range_from(range_row)
        # The cursor too: what was committed without an answer must not be counted again.
        if (found.holder, found.cursor_name, found.cursor_version) != (
            part.holder,
            part.cursor_name,
            part.cursor_version,
        ):
            raise _NotMine
        tenant = rows.get("tenants", job.tenant)
        if tenant is None or tenant["kek_version"] != kek.version:
            raise RotatedMeanwhile
        writes: list[Write] = []
        skipped = failed = 0
        for key, before, after in zip(keys, read, moved, strict=True):
            current = rows.get(key.table, *key.key)
            if current is None or current["envelope"] != before["envelope"]:
                skipped += 1
            elif isinstance(after, VaultError):
                failed += 1
                failure = JobFailure(job.job_id, before["name"], before["version"], after.reason.value, now)
                writes.append(Write("job_failures", store.failure_row(failure)))
            else:
                writes.append(Write("credential_versions", after))
        done = len(read) - skipped - failed
        cursor = (read[-1]["name"], read[-1]["version"]) if read else (part.last_name, part.last_version)
        after_part = dataclasses.replace(
            found,
            cursor_name=cursor[0],
            cursor_version=cursor[1],
            done=found.done + done,
            skipped=found.skipped + skipped,
            failed=found.failed + failed,
            finished=last,
            lease_time=now + LEASE,
        )
        writes.append(Write("job_ranges", store.range_row(after_part)))
        record = _record(
            job,
            f"job.{job.kind.value}",
            {
                "range": part.number,
                "kek_version": kek.version,
                "done": done,
                "skipped": skipped,
                "failed": failed,
            },
        )
        return Commit((record,), tuple(writes), (after_part, store.job_from(job_row)))

    reads = (*keys, range_key, RowKey("jobs", (job.job_id,)), RowKey("tenants", (job.tenant,)))
    return Unit(reads, decide)


def _cancel_unit(job: Job) -> Unit:
    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row = rows.get("jobs", job.job_id)
        if row is None or row["state"] != JobState.RUNNING.value:
            raise _NotMine
        after = {**row, "state": JobState.CANCELLED.value, "update_time": now, "end_time": now}
        record = _record(job, "job.cancel", {"why": "the tenant is gone"})
        return Commit((record,), (Write("jobs", after),))

    return Unit((RowKey("jobs", (job.job_id,)),), decide)


def _end_unit(ended: Job, done: int) -> Unit:
    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row = rows.get("jobs", ended.job_id)
        if row is None or row["report"] or row["state"] == JobState.PAUSED.value:
            raise _NotMine
        if row["state"] != JobState.RUNNING.value and row["state"] != ended.state.value:
            raise _NotMine
        after = dataclasses.replace(ended, update_time=now)
        record = _record(ended, "job.end", {"state": ended.state.value, "done": done, "total": ended.total})
        return Commit((record,), (Write("jobs", store.job_row(after)),))

    return Unit((RowKey("jobs", (ended.job_id,)),), decide)


def next_chunk(chunk: int, done: int, seconds: float) -> int:
    """How many versions to do at once from now on, when so many took so long.

    A chunk must be over well within the lease of its range, however slow the HSM: else others take the range up, and
    it never ends.
    """
    if not done or seconds <= 0:
        return chunk
    return max(1, min(_CHUNK, 2 * chunk, int(_CHUNK_SECONDS * done / seconds)))


def _is_last(part: JobRange, rows: Sequence[Mapping[str, Any]], limit: int) -> bool:
    """Whether nothing of a range is left behind these rows."""
    end = (part.last_name, part.last_version)
    return len(rows) < limit or (rows[-1]["name"], rows[-1]["version"]) == end


def _is_free(part: JobRange, holder: str, now: datetime.datetime) -> bool:
    return part.holder == holder or part.lease_time is None or part.lease_time <= now


def _record(job: Job, action: str, state: dict[str, object]) -> AuditDraft:
    return AuditDraft(
        tenant=job.tenant,
        identity=ACTOR,
        action=action,
        resource=f"{job.tenant}/keys",
        outcome=Outcome.GRANTED,
        origin=Origin(),
        after_state=canonical_json({"job": job.job_id, **state}),
    )


def _moment(value: datetime.datetime | None) -> str:
    return value.isoformat() if value else ""
