"""The rules of threat detection: what they find, what they leave alone, and that a finding is always the same one."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from vault.core.suspicions import Sighting, Suspicion, Thresholds, Watcher

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
THRESHOLDS = Thresholds(denied_per_minute=5, reveals_per_minute=10, reveal_factor=3)


@dataclasses.dataclass
class Log:
    """A log that is watched while it is written."""

    watcher: Watcher = dataclasses.field(default_factory=lambda: Watcher(THRESHOLDS))
    sequence: int = 0

    def record(self, seconds: float = 0, **changes: Any) -> list[Suspicion]:
        sighting = Sighting(
            self.sequence, NOW + datetime.timedelta(seconds=seconds), "acme", "payments", "session.reveal",
            "acme/a", True, "", "192.0.2.1", "device-1",
        )  # fmt: skip
        self.sequence += 1
        return self.watcher.see(sighting._replace(**changes), NOW + datetime.timedelta(days=1))

    def rules(self, *args: Any, **changes: Any) -> list[str]:
        return [item.rule for item in self.record(*args, **changes)]


def test_any_touch_of_a_canary_alarms_granted_or_not_and_no_other_credential_does() -> None:
    log = Log()
    log.watcher.canaries = frozenset({"acme/canary"})
    assert log.rules(resource="acme/canary") == ["canary"]
    assert log.rules(resource="acme/canary", granted=False, reason="SCOPE_DENIED") == ["canary"]
    assert log.rules(resource="acme/canary", action="credential.get") == ["canary"]
    assert log.rules(resource="acme/canary", action="credential.put") == []
    assert log.rules(resource="acme/canary2") == []


def test_refusals_within_a_minute_are_a_burst_and_spread_out_they_are_none() -> None:
    log = Log()
    denied = {"granted": False, "reason": "SCOPE_DENIED"}
    assert [log.rules(second, **denied) for second in range(5)][-1] == ["denied-burst"]
    other = Log()
    assert not any(other.rules(second * 20, **denied) for second in range(20))
    harmless = Log()
    assert not any(harmless.rules(0, granted=False, reason="CREDENTIAL_NOT_FOUND") for _ in range(20))


def test_refusals_of_many_are_not_a_burst_of_one() -> None:
    log = Log()
    found = [log.rules(0, identity=f"i{n}", granted=False, reason="SCOPE_DENIED") for n in range(20)]
    assert not any(found)


def test_a_reveal_burst_is_beyond_the_threshold_and_beyond_the_identitys_own_rate() -> None:
    log = Log()
    assert [log.rules() for _ in range(11)][-1] == ["reveal-burst"]
    assert log.rules() == []
    busy = Log()
    for minute in range(10):
        for _ in range(9):
            assert busy.rules(minute * 60) == []
    found = [busy.rules(600) for _ in range(40)]
    assert sum(map(len, found)) == 1
    assert found[27] == ["reveal-burst"]


def test_a_new_network_or_device_counts_only_for_an_identity_with_a_history() -> None:
    log = Log()
    assert log.rules(ip_address="198.51.100.1", device_id="other") == []
    assert not any(log.rules(minute * 60) for minute in range(25))
    assert log.rules(1500, ip_address="203.0.113.9") == ["new-network"]
    assert log.rules(1500, ip_address="203.0.113.77") == []
    assert log.rules(1500, device_id="device-2") == ["new-device"]
    assert log.rules(1500, device_id="device-2") == []
    assert log.rules(1500, ip_address="", device_id="") == []


def test_a_clock_that_was_turned_back_or_is_ahead_is_found() -> None:
    log = Log()
    assert log.rules(0) == []
    assert log.rules(-3) == []
    assert log.rules(-9) == ["clock"]
    assert log.rules(3 * 86_400) == ["clock"]


def test_the_same_log_gives_the_same_findings_to_every_worker() -> None:
    ids = []
    for _ in range(2):
        log = Log()
        log.watcher.canaries = frozenset({"acme/canary"})
        found = [item for n in range(30) for item in log.record(n, resource="acme/canary")]
        ids.append([item.threat_id for item in found])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(ids[0]) > 30
