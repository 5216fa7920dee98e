"""`/metrics` says what all workers did together, goes on when one dies, and names nobody and nothing secret."""

from __future__ import annotations

import contextlib
import os
import signal
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.wire import Wire, until
from tests.support.postgres import free_port
from tests.support.vault import VaultSite
from vault.client import StrongroomError
from vault.client.health import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

NAME = "acme/canary-name-7d1f/login"
SECRET = "canary-secret-9b2e61c0"
GET = "/vault.v1.CredentialService/Get"
REVEAL = "strongroom_calls_total", {"action": "session.reveal", "reason": "OK"}


class Scrape:
    """One answer of the endpoint."""

    def __init__(self, url: str) -> None:
        with urllib.request.urlopen(url, timeout=10) as answer:
            self.text = answer.read().decode()
        self.samples = [
            sample for family in text_string_to_metric_families(self.text) for sample in family.samples
        ]

    def value(self, name: str, labels: dict[str, str] | None = None) -> float:
        """The sum of all samples of this name that have these labels."""
        wanted = (labels or {}).items()
        return sum(item.value for item in self.samples if item.name == name and wanted <= item.labels.items())

    def labels(self, name: str) -> set[str]:
        return {label for item in self.samples if item.name == name for label in item.labels}


@pytest.fixture(scope="module")
def measured(
    softhsm: tuple[str, Path], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VaultSite]:
    folder = tmp_path_factory.mktemp("measured")
    settings: dict[str, dict[str, object]] = {
        "server": {"workers": 2},
        "metrics": {"listen": f"127.0.0.1:{free_port()}", "tenants": ["acme"]},
        "threats": {"denied_per_minute": 5},
        "audit": {
            "checkpoint_seconds": 1.0,
            "sinks": [{"name": "archive", "kind": "file", "file": str(folder / "audit.jsonl")}],
        },
    }
    site = VaultSite(folder / "vault", postgres.create_database("measured"), *softhsm, settings)
    site.prepare()
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
        system.create_tenant("globex")
    with site.client() as client:
        client.put(NAME, {"password": SECRET}, kind="bank_login")
    yield site
    site.stop()


@pytest.fixture
def scrape(measured: VaultSite) -> Callable[[], Scrape]:
    return lambda: Scrape(f"http://{measured.settings['metrics']['listen']}/metrics")


def reveals(site: VaultSite, times: int) -> None:
    """Each on a connection of its own, so that both workers get some."""
    for _ in range(times):
        with site.client() as client:
            for secrets in client.reveal(NAME, purpose="test"):
                secrets.close()


def test_refusals_limits_findings_sessions_and_levels_are_seen(
    measured: VaultSite, scrape: Callable[[], Scrape]
) -> None:
    site = measured
    with Wire(site.profile("payments"), "acme") as wire:
        for _ in range(8):
            assert wire.call(GET, name="globex/a/b").reason == "SCOPE_DENIED"
        assert wire.call(GET, bearer="nonsense", name=NAME).reason == "TOKEN_INVALID"
    refused = scrape()
    calls = "strongroom_calls_total"
    assert refused.value(calls, {"action": "credential.get", "reason": "SCOPE_DENIED"}) == 8
    assert refused.value(calls, {"action": "credential.get", "reason": "TOKEN_INVALID"}) == 1
    assert refused.value(calls, {"action": "token.issue", "reason": "OK"}) >= 2
    until(lambda: scrape().value("strongroom_threats_total", {"rule": "denied-burst"}) == 1)

    with site.client() as client, client.session(NAME, purpose="test") as session:
        session.reveal().close()
        until(lambda: scrape().value("strongroom_sessions_open") == 1)
        operations = "strongroom_session_operations_total"
        assert scrape().value(operations, {"operation": "reveal", "reason": "OK"}) == 1
    until(lambda: scrape().value("strongroom_sessions_open") == 0)
    until(lambda: scrape().value(calls, {"action": "session.open"}) == 1)

    found = until(lambda: (one := scrape()).value("strongroom_checkpoint_records") > 10 and one)
    until(lambda: scrape().value("strongroom_anchor_records") > 10)
    assert found.value("strongroom_audit_records") >= found.value("strongroom_checkpoint_records")
    assert found.value("strongroom_anchor_failing", {"anchor": "1 file"}) == 0
    assert found.value("strongroom_sink_failing", {"sink": "archive"}) == 0
    assert "sink" in found.labels("strongroom_sink_lag_records")
    for part in ("hsm", "database", "audit", "revocations", "server", "checkpoints"):
        assert found.value("strongroom_part_ready", {"part": part}) == 1
    for purpose in ("kek", "token", "checkpoint", "ingest"):
        assert found.value("strongroom_key_created_timestamp_seconds", {"purpose": purpose}) > 1.7e9
    assert (
        found.value("strongroom_certificate_not_after_timestamp_seconds", {"certificate": "server"}) > 1.7e9
    )
    wraps = "strongroom_kek_wraps", {"tenant": "acme", "version": "1"}
    until(lambda: scrape().value(*wraps) >= 1)
    until(lambda: scrape().value("strongroom_kek_wraps_max") >= 1)
    with site.operator() as operator:
        operator.rotate_key("acme")
        operator.start_job("acme", "rewrap")
    done = "strongroom_job_versions", {"kind": "rewrap", "outcome": "done"}
    until(lambda: scrape().value(*done) >= 1)
    until(lambda: scrape().value("strongroom_jobs", {"kind": "rewrap", "state": "succeeded"}) == 1)


def test_nothing_secret_and_no_name_is_among_them(measured: VaultSite, scrape: Callable[[], Scrape]) -> None:
    site = measured
    reveals(site, 2)
    with Wire(site.profile("payments"), "acme") as wire:
        token = wire.token
        for name in (NAME, "globex/other-canary/x", 'a"} 1\nforged{x="', "\x00"):
            wire.call(GET, name=name, metadata=[("x-device-id", "device-canary-55")])
    text = until(lambda: "kek_wraps{" in (one := scrape().text) and one)
    pieces = (
        SECRET, NAME, "canary", "payments", "operator", "spiffe", "globex", "forged", "device-canary", token,
        token.split(".")[2], str(site.folder), "127.0.0.1",
    )  # fmt: skip
    for piece in pieces:
        assert piece not in text, piece
    assert "acme" in text, "a tenant that the configuration names"
    labels = {label for sample in scrape().samples for label in sample.labels}
    assert labels <= {
        "action", "reason", "operation", "limit", "hsm", "rule", "part", "anchor", "sink", "kind", "state", "outcome",
        "purpose", "tenant", "version", "certificate", "le",
    }  # fmt: skip


def test_only_metrics_are_served_there(measured: VaultSite) -> None:
    for path in ("/", "/metrics/../etc", "/healthz"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{measured.settings['metrics']['listen']}{path}", timeout=5)
        refused.value.close()
        assert refused.value.code == 404


def test_what_all_workers_did_is_added_up_and_outlives_a_worker(
    measured: VaultSite, scrape: Callable[[], Scrape]
) -> None:
    site = measured
    before = scrape()
    reveals(site, 12)
    between = scrape()
    assert between.value(*REVEAL) - before.value(*REVEAL) == 12
    seconds = "strongroom_call_seconds_count", {"action": "session.reveal"}
    assert between.value(*seconds) - before.value(*seconds) == 12
    unwraps = "strongroom_hsm_operations_total", {"operation": "unwrap", "reason": "OK", "hsm": "hsm"}
    assert between.value(*unwraps) - before.value(*unwraps) == 12
    assert (
        between.value("strongroom_audit_batch_units_sum")
        >= before.value("strongroom_audit_batch_units_sum") + 24
    )
    assert between.value("strongroom_workers") == 2

    victim, survivor = site.worker_pids()
    os.kill(victim, signal.SIGKILL)
    dead = scrape()
    assert dead.value(*REVEAL) == between.value(*REVEAL), "what the dead one counted stays"
    assert dead.value("strongroom_worker_deaths_total") <= 1
    (successor,) = until(lambda: set(site.worker_pids()) - {victim, survivor})
    # Only what the successor serves is counted from here on.
    os.kill(survivor, signal.SIGKILL)
    until(lambda: ready(site), seconds=60)
    reveals(site, 8)
    after = scrape()
    assert after.value(*REVEAL) - between.value(*REVEAL) == 8, "who takes its place goes on where it ended"
    assert after.value("strongroom_worker_deaths_total") == 2
    assert successor in site.worker_pids()


def ready(site: VaultSite) -> bool:
    with contextlib.suppress(StrongroomError):
        return check(site.profile("operator"), timeout=1)[0]
    return False
