"""What is measured by looking, every few seconds: levels, ages and places, beside what is counted as it happens."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from vault.core.health import PARTS
from vault.model import JobKind, JobState
from vault.store import audit, measures
from vault.store.ledger import read_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vault.core.anchors import Anchors
    from vault.core.batch import Load
    from vault.core.health import Health
    from vault.core.sessions import Sessions
    from vault.core.sinks import Sinks
    from vault.metrics import Metrics
    from vault.server.tls import TlsFiles
    from vault.store.engine import Database

log = logging.getLogger("strongroom.measures")

_LOOK_SECONDS = 2.0
_PARTS = (*PARTS, "checkpoints", "second_hsm")


class Measures:
    """Looks at the parts of a worker and at the database, and sets the gauges."""

    def __init__(
        self,
        metrics: Metrics,
        database: Database,
        health: Health,
        load: Load,
        sessions: Sessions,
        anchors: Anchors,
        sinks: Sinks,
        tls: TlsFiles,
        *,
        tenants: Sequence[str],
    ) -> None:
        self._metrics = metrics
        self._database = database
        self._health = health
        self._load = load
        self._sessions = sessions
        self._anchors = anchors
        self._sinks = sinks
        self._tls = tls
        self._tenants = tenants

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                log.warning("cannot measure", extra={"error": type(error).__name__})
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Set every gauge; those of this worker first, which need no database. Raises `STORAGE_UNAVAILABLE`."""
        metrics = self._metrics
        metrics.calls_in_flight.set(self._load.in_flight)
        metrics.sessions_open.set(len(self._sessions))
        for name, end in self._tls.ends().items():
            metrics.certificate_end.labels(name).set(end.timestamp())
        lists = self._tls.trust.lists
        if lists:
            metrics.crl_update.set(min(one.next_update for one in lists).timestamp())
        for place, (name, health) in enumerate(self._anchors.health.items(), 1):
            # Its name may hold a path or an address: its place in the configuration and its kind say enough.
            label = f"{place} {name.partition(' ')[0]}"
            metrics.anchor_failing.labels(label).set(bool(health.reason))
            if health.size:
                metrics.anchor_records.labels(label).set(health.size)
        parts = await self._health.parts()
        for part in _PARTS:
            if part in parts:
                metrics.part_ready.labels(part).set(parts[part].ready)
        await self._look_at_log()
        await self._look_at_keys_and_jobs()

    async def _look_at_log(self) -> None:
        metrics = self._metrics
        async with self._database.read() as connection:
            metrics.log_records.set((await read_head(connection)).size)
            checkpoint = await audit.latest_checkpoint(connection)
        if checkpoint is not None:
            metrics.checkpoint_records.set(checkpoint.size)
            metrics.checkpoint_time.set(checkpoint.create_time.timestamp())
        for state, _required, lag in await self._sinks.states():
            metrics.sink_lag.labels(state.name).set(lag)
            metrics.sink_failing.labels(state.name).set(bool(state.error))

    async def _look_at_keys_and_jobs(self) -> None:
        metrics = self._metrics
        async with self._database.read() as connection:
            oldest = await measures.oldest_active(connection)
            most_wraps = await measures.most_wraps(connection)
            wraps = await measures.wraps_of(connection, self._tenants) if self._tenants else []
            states = {(kind, state): count for kind, state, count in await measures.job_states(connection)}
            counts = await measures.job_counts(connection)
            totals = await measures.job_totals(connection)
        for purpose, created in oldest:
            metrics.key_time.labels(purpose).set(created.timestamp())
        metrics.most_wraps.set(most_wraps)
        for tenant, version, count in wraps:
            metrics.wraps.labels(tenant, str(version)).set(count)
        for kind in JobKind:
            for state in JobState:
                # Nought too: what is not said again would stay as it was said last.
                metrics.jobs.labels(kind.value, state.value).set(states.get((kind.value, state.value), 0))
        for one in counts:
            metrics.job_versions.labels(one.kind, "done").set(one.done)
            metrics.job_versions.labels(one.kind, "skipped").set(one.skipped)
            metrics.job_versions.labels(one.kind, "failed").set(one.failed)
        for kind_, total in totals:
            metrics.job_versions.labels(kind_, "total").set(total)
