"""The rules of threat detection: what in the audit log is suspicious. Does no IO; each record is seen once, in order.

Every worker sees the same log and comes to the same findings: a finding's id follows from what was found, so that it is
made once, whoever is first.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import ipaddress
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from vault.crypto.encoding import encode

RULES = {
    "canary": "A credential that nobody has a reason to touch was touched. Take it for a break-in.",
    "denied-burst": "One identity was refused again and again within a minute: somebody tries what it may do.",
    "reveal-burst": "One identity revealed far more within a minute than it usually does: somebody takes what it can.",
    "new-network": "An identity with a history called from a network that it never called from.",
    "new-device": "An identity with a history called with a device id that it never used.",
    "clock": "A record is older than the one before it, or from the future: a host's clock is wrong or was turned.",
}
_DENIALS = frozenset(
    {
        "SCOPE_DENIED", "POLICY_DENIED", "TOKEN_INVALID", "TOKEN_REVOKED", "TOKEN_CERTIFICATE_MISMATCH",
        "CERTIFICATE_REJECTED", "APPROVAL_MISMATCH", "SIGNATURE_INVALID", "IDENTITY_FROZEN",
    }
)  # fmt: skip
_REVEALS = ("session.reveal", "session.break_glass")
_TOUCHES = ("session.", "credential.get", "credential.delete", "credential.destroy", "handover.")
_MINUTE = datetime.timedelta(minutes=1)
_CLOCK_BACK = datetime.timedelta(seconds=5)
_CLOCK_AHEAD = datetime.timedelta(seconds=60)
_HISTORY = 20
_MAX_IDENTITIES = 50_000
_MAX_KNOWN = 64
_SMOOTHING = 0.2


@dataclass(frozen=True)
class Thresholds:
    """From when on something is a burst. `reveal_factor`: how many times the identity's own rate a minute."""

    denied_per_minute: int
    reveals_per_minute: int
    reveal_factor: float


class Sighting(NamedTuple):
    """What the rules look at of a record."""

    sequence: int
    created_at: datetime.datetime
    tenant: str
    identity: str
    action: str
    resource: str
    granted: bool
    reason: str
    ip_address: str
    device_id: str


class Suspicion(NamedTuple):
    """A finding: which rule, about whom, and what it saw."""

    threat_id: str
    rule: str
    sighting: Sighting
    evidence: dict[str, object]


@dataclass
class _Habits:
    """What is known of an identity."""

    records: int = 0
    networks: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    denied: deque[datetime.datetime] = field(default_factory=deque)
    minute: datetime.datetime | None = None
    reveals: int = 0
    rate: float = 0.0
    """Reveals a minute, smoothed over the minutes in which there was one."""


class Watcher:
    """Holds records against the rules."""

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._habits: OrderedDict[str, _Habits] = OrderedDict()
        self._last: datetime.datetime | None = None
        self.canaries: frozenset[str] = frozenset()
        """The credentials that nobody has a reason to touch."""

    def see(self, sighting: Sighting, now: datetime.datetime) -> list[Suspicion]:
        """What this record gives rise to."""
        found = [*self._clock(sighting, now), *self._canary(sighting)]
        if sighting.identity and not sighting.action.startswith("threat."):
            habits = self._habits_of(sighting.identity)
            found += self._firsts(sighting, habits)
            found += self._denials(sighting, habits)
            found += self._reveals(sighting, habits)
            habits.records += 1
        return found

    def _habits_of(self, identity: str) -> _Habits:
        habits = self._habits.get(identity)
        if habits is None:
            habits = self._habits[identity] = _Habits()
            if len(self._habits) > _MAX_IDENTITIES:
                self._habits.popitem(last=False)
        return habits

    def _clock(self, sighting: Sighting, now: datetime.datetime) -> list[Suspicion]:
        before, self._last = self._last, sighting.created_at
        back = before - sighting.created_at if before else datetime.timedelta(0)
        ahead = sighting.created_at - now
        if back <= _CLOCK_BACK and ahead <= _CLOCK_AHEAD:
            return []
        evidence: dict[str, object] = {
            "seconds_back": back.total_seconds(),
            "seconds_ahead": ahead.total_seconds(),
        }
        return [_suspicion("clock", sighting, evidence, sighting.sequence)]

    def _canary(self, sighting: Sighting) -> list[Suspicion]:
        if sighting.resource not in self.canaries or not sighting.action.startswith(_TOUCHES):
            return []
        evidence: dict[str, object] = {
            "credential": sighting.resource,
            "granted": sighting.granted,
        }
        return [_suspicion("canary", sighting, evidence, sighting.sequence)]

    def _firsts(self, sighting: Sighting, habits: _Habits) -> list[Suspicion]:
        found = []
        seen_in = network(sighting.ip_address)
        for rule, value, known in (
            ("new-network", seen_in, habits.networks),
            ("new-device", sighting.device_id, habits.devices),
        ):
            if not value or value in known:
                continue
            if known and habits.records >= _HISTORY:
                evidence: dict[str, object] = {"new": value, "known": sorted(known)[:10]}
                found.append(_suspicion(rule, sighting, evidence, value))
            if len(known) < _MAX_KNOWN:
                known.add(value)
        return found

    def _denials(self, sighting: Sighting, habits: _Habits) -> list[Suspicion]:
        if sighting.granted or sighting.reason not in _DENIALS:
            return []
        habits.denied.append(sighting.created_at)
        while habits.denied and sighting.created_at - habits.denied[0] > _MINUTE:
            habits.denied.popleft()
        if len(habits.denied) < self._thresholds.denied_per_minute:
            return []
        count = len(habits.denied)
        habits.denied.clear()
        evidence: dict[str, object] = {"refusals_within_a_minute": count, "last_reason": sighting.reason}
        return [_suspicion("denied-burst", sighting, evidence, _minute(sighting.created_at).isoformat())]

    def _reveals(self, sighting: Sighting, habits: _Habits) -> list[Suspicion]:
        if not sighting.granted or sighting.action not in _REVEALS:
            return []
        minute = _minute(sighting.created_at)
        if habits.minute != minute:
            if habits.minute is not None:
                habits.rate += _SMOOTHING * (habits.reveals - habits.rate) if habits.rate else habits.reveals
            habits.minute, habits.reveals = minute, 0
        habits.reveals += 1
        limit = max(self._thresholds.reveals_per_minute, habits.rate * self._thresholds.reveal_factor)
        if habits.reveals != int(limit) + 1:
            return []
        evidence: dict[str, object] = {
            "reveals_this_minute": habits.reveals, "usual_a_minute": round(habits.rate, 1), "limit": int(limit),
        }  # fmt: skip
        return [_suspicion("reveal-burst", sighting, evidence, minute.isoformat())]


def _suspicion(rule: str, sighting: Sighting, evidence: dict[str, object], occasion: str | int) -> Suspicion:
    digest = hashlib.sha256(
        encode("strongroom/threat/v1", rule, sighting.tenant, sighting.identity, occasion)
    ).digest()
    threat_id = base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
    told = {"ip_address": sighting.ip_address, "device_id": sighting.device_id, "action": sighting.action}
    return Suspicion(threat_id, rule, sighting, {**told, **evidence})


def _minute(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(second=0, microsecond=0)


@functools.lru_cache(maxsize=16_384)
def network(address: str) -> str:
    """The network that an address is taken to be in: /24, or /48 for IPv6, which is all that is kept of a person's."""
    try:
        parsed = ipaddress.ip_interface(address).ip
    except ValueError:
        return ""
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))  # noqa: PLR2004
