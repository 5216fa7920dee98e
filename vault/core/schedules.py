"""When keys are rotated: by age, by number of wraps, carried out by the vault itself; and how they stand.

Cryptoperiods are those of NIST SP 800-57 part 1 rev. 5, table 1. Random IVs wear a GCM key out (NIST SP 800-38D: 2^32
wraps), so every process says now and then how often it has wrapped, and learns what all have: the number is kept in the
database, for all workers, across restarts. A process that is killed takes a few seconds of counting with it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import logging
from typing import TYPE_CHECKING, NamedTuple

from vault.core import audit, requests
from vault.core.jobs import Order
from vault.errors import Reason, VaultError, invalid_field
from vault.model import (
    SYSTEM_TENANT,
    AuditDraft,
    JobKind,
    JobState,
    Key,
    KeyPurpose,
    KeySchedule,
    KeyState,
    Origin,
    Outcome,
)
from vault.store import jobs as jobs_store
from vault.store import keys as store
from vault.store.ledger import Commit, Unit
from vault.store.reach import with_system
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm import KeyRef
    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.hsm import Hsm
    from vault.core.jobs import Jobs
    from vault.core.keys import Keyring
    from vault.core.lifecycle import Lifecycle
    from vault.model import Caller, Job, JobProgress
    from vault.store.engine import Database
    from vault.store.jobs import KeyUse
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.schedules")

ACTOR = "strongroom"
SCHEDULE = "key.schedule"
WORN_OUT = 2**31
"""Wraps after which a key is rotated whatever its schedule says: half of what NIST SP 800-38D allows."""
_KEPT_FROM = 2**28
"""Wraps from which on each process keeps a key's number in memory; below it, the database's is enough."""
YEAR = datetime.timedelta(days=365)
PERIODS = {
    KeyPurpose.KEK: 2 * YEAR,
    KeyPurpose.INGEST: 2 * YEAR,
    KeyPurpose.TOKEN: 3 * YEAR,
    KeyPurpose.CHECKPOINT: 3 * YEAR,
}
"""The longest originator usage period: symmetric key-wrapping keys 2 years, private signature keys 3."""
OWN = (KeyPurpose.TOKEN, KeyPurpose.CHECKPOINT, KeyPurpose.INGEST)
_LEAST = datetime.timedelta(minutes=1)
_LOOK_SECONDS = 5.0


class KeyStatus(NamedTuple):
    """A key version: what depends on it, how often it has wrapped, what is due."""

    key: Key
    uses: tuple[KeyUse, ...]
    wraps: int
    rotate_due_time: datetime.datetime | None
    destroy_time: datetime.datetime | None


class Status(NamedTuple):
    """How a tenant's keys stand. `remaining`: how long until nothing is under an old one, if that can be told."""

    versions: list[KeyStatus]
    jobs: list[JobProgress]
    remaining: datetime.timedelta | None
    schedules: list[KeySchedule]


class Schedules:
    """Rotates what is due, counts what was used, and says how keys stand."""

    def __init__(
        self,
        database: Database,
        hsm: Hsm,
        log_: AuditLog,
        keyring: Keyring,
        jobs: Jobs,
        lifecycle: Lifecycle,
        clock: Clock,
    ) -> None:
        self._database = database
        self._hsm = hsm
        self._log = log_
        self._keyring = keyring
        self._jobs = jobs
        self._lifecycle = lifecycle
        self._clock = clock
        self._told: dict[bytes, int] = {}

    async def run(self) -> None:
        """Count, rotate and destroy, again and again, until cancelled."""
        while True:
            for work in (
                self.count,
                self.rotate_due,
                self._lifecycle.carry_out,
                self._lifecycle.clear_announced,
            ):
                try:
                    await work()
                except Exception as error:  # noqa: BLE001 - the next look may succeed
                    log.warning("a schedule was not carried out", extra={"error": type(error).__name__})
            await asyncio.sleep(_LOOK_SECONDS)

    async def count(self) -> None:
        """Say how often this process has wrapped since it last did, and learn how often all have."""
        usages = [(backend, backend.usage()) for backend in self._hsm.backends.values()]
        counted: dict[bytes, tuple[KeyRef, int]] = {}
        for _, usage in usages:
            for key, wraps in usage.items():
                # A mirrored key has the same id in both HSMs, and wraps in both.
                if wraps > counted.get(key.object_id, (key, 0))[1]:
                    counted[key.object_id] = (key, wraps)
        more = {
            object_id: wraps - self._told.get(object_id, 0)
            for object_id, (_, wraps) in counted.items()
            if wraps > self._told.get(object_id, 0)
        }
        if not more:
            return
        await store.add_usage(self._database, more)
        async with self._database.read() as connection:
            totals = await store.usage(connection, more)
        for object_id in more:
            key, wraps = counted[object_id]
            total = max(totals.get(object_id, 0), wraps)
            if total < _KEPT_FROM:
                for backend, usage in usages:
                    backend.settle_usage(key, usage.get(key, 0))
                continue
            for backend, _ in usages:
                backend.note_usage(key, total)
            self._told[object_id] = total

    async def rotate_due(self) -> None:
        """Rotate every key that is due."""
        async with self._database.read() as connection:
            due = await store.due_keys(connection, self._clock.now(), worn_out=WORN_OUT)
            found = await store.list_schedules(connection) if due else []
        schedules = {(one.tenant, one.purpose): one for one in found}
        for key, by_wraps in due:
            if key.purpose in PERIODS:
                reason = "wraps" if by_wraps else "age"
                await self._rotate(key, schedules.get((key.tenant, key.purpose)), reason)

    async def set_schedule(
        self, caller: Caller, schedule: KeySchedule, *, validate_only: bool
    ) -> KeySchedule:
        """Set when a key is rotated. For the errors see `KeyService.SetSchedule`."""
        tenant = schedule.tenant
        purpose(tenant, schedule.purpose)
        requests.require(caller, SCHEDULE, f"{tenant}/keys")
        every = datetime.timedelta(seconds=schedule.every_seconds)
        if every and not _LEAST <= every <= PERIODS[schedule.purpose]:
            raise invalid_field("schedule.every", f"1 minute to {PERIODS[schedule.purpose].days} days")
        if not 0 <= schedule.max_wraps <= WORN_OUT:
            raise invalid_field("schedule.max_wraps", f"at most {WORN_OUT}")
        if schedule.rewrap and schedule.purpose is not KeyPurpose.KEK:
            raise invalid_field("schedule.rewrap", "is for key-encryption keys")
        await self._keyring.active(tenant, schedule.purpose)
        own = RowKey("key_schedules", (tenant, schedule.purpose.value))
        draft = audit.granted(caller, SCHEDULE, f"{tenant}/keys")

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            row = rows.get(own.table, *own.key)
            new = dataclasses.replace(schedule, update_time=now, updated_by=caller.identity)
            before = _said(store.schedule_from(row)) if row else ""
            if validate_only:
                after = canonical_json({**json.loads(_said(new)), "validate_only": True})
                return Commit((draft._replace(before_state=before, after_state=after),), (), new)
            record = draft._replace(before_state=before, after_state=_said(new))
            return Commit((record,), (Write("key_schedules", store.schedule_row(new)),), new)

        done: KeySchedule = await self._log.commit(Unit((own,), decide))
        return done

    async def status(self, caller: Caller, tenant: str) -> Status:
        """How a tenant's keys stand. Raises `TENANT_NOT_FOUND`."""
        requests.tenant_name(tenant)
        requests.require(caller, "key.read", f"{tenant}/keys")
        now = self._clock.now()
        wanted = OWN if tenant == SYSTEM_TENANT else (KeyPurpose.KEK,)
        async with self._database.read(with_system()) as connection:
            found = [key for one in wanted for key in await store.list_keys(connection, tenant, one)]
            uses = await jobs_store.key_uses(connection, tenant)
            endings = {
                (order.purpose, order.version): order.destroy_time
                for order in await store.list_destructions(connection, tenant=tenant)
            }
            schedules = await store.list_schedules(connection, tenant)
            wraps = await store.usage(connection, [key.object_id for key in found])
            recent = await jobs_store.list_progress(connection, tenant, now, before=("", ""), limit=50)
        if not found:
            raise VaultError(Reason.TENANT_NOT_FOUND, "no such tenant")
        await self._log.record(audit.granted(caller, "key.get_status", f"{tenant}/keys"))
        by_purpose = {schedule.purpose: schedule for schedule in schedules}
        versions = [
            KeyStatus(
                key,
                tuple(
                    use for use in uses if key.purpose is KeyPurpose.KEK and use.kek_version == key.version
                ),
                wraps.get(key.object_id, 0),
                due_time(key, by_purpose.get(key.purpose)),
                endings.get((key.purpose, key.version)),
            )
            for key in found
        ]
        running = [job for job in recent if job.job.state in (JobState.RUNNING, JobState.PAUSED)]
        old = sum(
            use.versions
            for version in versions
            for use in version.uses
            if version.key.state is not KeyState.ACTIVE
        )
        return Status(versions, running, _remaining(running, recent, old, now), schedules)

    async def _rotate(self, key: Key, schedule: KeySchedule | None, reason: str) -> None:
        draft = AuditDraft(key.tenant, ACTOR, "key.rotate", "", Outcome.GRANTED, Origin())
        try:
            await self._keyring.renew(key.tenant, key.purpose, draft, instead_of=key.version)
        except VaultError as error:
            # Another worker was first.
            if error.reason is not Reason.KEY_CHANGED:
                raise
            return
        log.info("a key was rotated as scheduled", extra={"tenant": key.tenant, "reason": reason})
        if schedule is not None and schedule.rewrap:
            starting = draft._replace(action="job.start", resource=f"{key.tenant}/keys")
            order = Order(key.tenant, JobKind.REWRAP)
            try:
                await self._jobs.begin(starting, order, None, validate_only=False)
            except VaultError as error:
                if error.reason is not Reason.JOB_RUNNING:
                    raise


def purpose(tenant: str, value: KeyPurpose | None) -> KeyPurpose:
    """The purpose of a key that can be rotated for this tenant. Raises `FIELD_INVALID`."""
    if value not in PERIODS:
        raise invalid_field("purpose", "must be one that can be rotated")
    if value is KeyPurpose.KEK:
        requests.customer_tenant(tenant)
    elif tenant != SYSTEM_TENANT:
        raise invalid_field("tenant", "must be the vault's own for this key")
    return value


def due_time(key: Key, schedule: KeySchedule | None) -> datetime.datetime | None:
    """When a key's cryptoperiod ends; None if it is not in use, or is of a purpose that has none."""
    if key.state is not KeyState.ACTIVE or key.purpose not in PERIODS:
        return None
    if schedule is not None and schedule.every_seconds:
        return key.create_time + datetime.timedelta(seconds=schedule.every_seconds)
    return key.create_time + PERIODS[key.purpose]


def _remaining(
    running: Sequence[JobProgress], recent: Sequence[JobProgress], old: int, now: datetime.datetime
) -> datetime.timedelta | None:
    """How long it takes until nothing is under an old key; None if that cannot be told.

    Jobs that run go on at their own pace so far; what has not begun, be there a job for it or not, at that of the
    last one that ended.
    """
    ended = (job for job in recent if job.job.end_time is not None and job.done)
    usual = next((_pace(job.done, job.job, job.job.end_time or now) for job in ended), 0.0)
    left: list[tuple[int, float]] = []
    for progress in running:
        done = progress.done + progress.skipped + progress.failed
        left.append((max(progress.job.total - done, 0), _pace(done, progress.job, now) if done else usual))
    if not running:
        left.append((old, usual))
    if any(count and not pace for count, pace in left):
        return None
    return datetime.timedelta(seconds=sum(count / pace for count, pace in left if count))


def _pace(done: int, job: Job, until: datetime.datetime) -> float:
    """How many a second a job did until then."""
    return done / max((until - job.create_time).total_seconds(), 0.001)


def _said(schedule: KeySchedule) -> str:
    return canonical_json(
        {
            "purpose": schedule.purpose.value,
            "every_seconds": schedule.every_seconds,
            "max_wraps": schedule.max_wraps,
            "rewrap": schedule.rewrap,
        }
    )
