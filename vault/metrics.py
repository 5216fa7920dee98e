"""What a worker counts and measures, in the terms of Prometheus; `docs/operations.md` lists it for people.

Every worker has a slot, and writes into memory-mapped files of that slot, which the supervisor adds up
(`server/exposition.py`). A worker that takes a dead one's slot goes on where that one ended, so a counter never falls.
Without a slot the same numbers lie in the process, and nobody sees them.

No label has a value that a caller can choose. What can be one is in this file, in an enumeration of the vault's
(actions, reasons, rules, operations of the HSM), or in the configuration (sinks, anchors, the tenants of `[metrics]`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OK = "OK"
CANCELLED = "CANCELLED"
"""The caller went away before there was an answer."""

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HSM_LATENCY = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def take_slot(folder: Path, slot: int) -> None:
    """Have all `Metrics` that are made from now on written to the files of a slot. No two processes share one."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of a worker."""

    def __init__(self) -> None:
        registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"strongroom_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"strongroom_{name}", text, labels, registry=registry, buckets=buckets)

        def gauge(name: str, text: str, mode: Any, *labels: str) -> Gauge:
            return Gauge(f"strongroom_{name}", text, labels, registry=registry, multiprocess_mode=mode)

        def shared(name: str, text: str, *labels: str) -> Gauge:
            """Of what is the same for all workers: whoever looked last is right."""
            return gauge(name, text, "mostrecent", *labels)

        self._calls = counter("calls", "Calls that ended, by action and reason.", "action", "reason")
        self._call_seconds = histogram(
            "call_seconds", "From a call's arrival to its answer; streams are left out.", _LATENCY, "action"
        )
        self._operations = counter(
            "session_operations", "Operations on open sessions that ended.", "operation", "reason"
        )
        self._operation_seconds = histogram(
            "session_operation_seconds", "From an operation to its answer.", _LATENCY, "operation"
        )
        self._limits = counter("limits_reached", "What was refused because a limit was reached.", "limit")
        self._hsm_operations = counter(
            "hsm_operations", "Operations in an HSM that ended.", "hsm", "operation", "reason"
        )
        self._hsm_seconds = histogram(
            "hsm_seconds",
            "Time in an HSM, of one hop of one or more operations.",
            _HSM_LATENCY,
            "hsm",
            "operation",
        )
        self._hsm_wait = histogram(
            "hsm_wait_seconds", "Time a hop waited for a free thread and session.", _HSM_LATENCY, "hsm"
        )
        self._batch = histogram("audit_batch_units", "Units in a commit of the audit log.", _BATCH)
        self._commit_seconds = histogram(
            "audit_commit_seconds", "Time of a commit of the audit log.", _LATENCY
        )
        self._commit_failures = counter("audit_commit_failures", "Commits of the audit log that failed.")
        self._threats = counter("threats", "Findings of the threat rules.", "rule")

        self.calls_in_flight = gauge("calls_in_flight", "Unary calls in flight.", "livesum")
        self.sessions_open = gauge("sessions_open", "Open sessions.", "livesum")
        self.part_ready = gauge("part_ready", "1: every worker finds this part ready.", "livemin", "part")
        self.log_records = shared("audit_records", "Records in the audit log.")
        self.checkpoint_records = shared("checkpoint_records", "Records covered by the newest checkpoint.")
        self.checkpoint_time = shared(
            "checkpoint_timestamp_seconds", "When the newest checkpoint was signed."
        )
        self.anchor_records = gauge(
            "anchor_records", "Records covered by what an anchor took last.", "max", "anchor"
        )
        self.anchor_failing = gauge(
            "anchor_failing", "1: an anchor does not take checkpoints.", "livemax", "anchor"
        )
        self.sink_lag = shared("sink_lag_records", "Records that a sink still has to get.", "sink")
        self.sink_failing = shared("sink_failing", "1: a sink does not take records.", "sink")
        self.jobs = shared("jobs", "Jobs, by kind and state.", "kind", "state")
        self.job_versions = shared(
            "job_versions", "Versions in all jobs, by kind and what became of them.", "kind", "outcome"
        )
        self.key_time = shared(
            "key_created_timestamp_seconds", "When the oldest key in use for a purpose was made.", "purpose"
        )
        self.most_wraps = shared("kek_wraps_max", "Wraps of the most used active key-encryption key.")
        self.wraps = shared("kek_wraps", "Wraps by a version of a tenant's key.", "tenant", "version")
        self.certificate_end = gauge(
            "certificate_not_after_timestamp_seconds", "When a certificate ends.", "livemin", "certificate"
        )
        self.crl_update = gauge(
            "crl_next_update_timestamp_seconds", "When the first revocation list is out of date.", "livemin"
        )
        self._children: dict[tuple[int, tuple[str, ...]], Any] = {}

    def call_ended(self, action: str, reason: str, seconds: float | None) -> None:
        """Count a call; `seconds` None for a stream, which lasts as long as its caller likes."""
        self._of(self._calls, action, reason).inc()
        if seconds is not None:
            self._of(self._call_seconds, action).observe(seconds)

    def operation_ended(self, operation: str, reason: str, seconds: float) -> None:
        """Count an operation on an open session."""
        self._of(self._operations, operation, reason).inc()
        self._of(self._operation_seconds, operation).observe(seconds)

    def limit_reached(self, limit: str) -> None:
        """Count a refusal for a limit."""
        self._of(self._limits, limit).inc()

    def hsm_called(
        self, hsm: str, operation: str, waited: float, took: float, outcomes: Mapping[str, int]
    ) -> None:
        """Count a hop to an HSM: how long it waited, how long it took (seconds), and how its operations ended."""
        for reason, times in outcomes.items():
            self._of(self._hsm_operations, hsm, operation, reason).inc(times)
        self._of(self._hsm_wait, hsm).observe(waited)
        self._of(self._hsm_seconds, hsm, operation).observe(took)

    def committed(self, units: int, seconds: float, *, ok: bool) -> None:
        """Count a commit of the audit log."""
        if not ok:
            self._commit_failures.inc()
            return
        self._batch.observe(units)
        self._commit_seconds.observe(seconds)

    def threat_found(self, rule: str) -> None:
        """Count a finding."""
        self._of(self._threats, rule).inc()

    def _of(self, family: Any, *labels: str) -> Any:
        """The metric of these labels: `labels` of the library costs more than what is counted."""
        child = self._children.get((id(family), labels))
        if child is None:
            child = self._children[id(family), labels] = family.labels(*labels)
        return child
