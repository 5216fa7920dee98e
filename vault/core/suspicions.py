"""The rules of threat detection: what in the audit log is suspicious. Does no IO; each record is seen once, in order.

Every worker sees the same log and comes to the same findings: a finding's id follows from what was found, so that it is
made once, whoever is first.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import ipaddress
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from vault.core import requests
from vault.crypto.encoding import encode

if TYPE_CHECKING:
    from collections.abc import Iterable

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
_CLOCK_BACK_SECONDS = 5
_CLOCK_AHEAD_SECONDS = 60
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


class _Found(NamedTuple):
    """What a rule found. `occasion`: what makes it the same finding on every worker."""

    rule: str
    evidence: dict[str, object]
    occasion: str | int


@dataclass
class _Habits:
    """What is known of an identity."""

    records: int = 0
    place: list[str] = field(default_factory=list)
    """The address and device of the last record: mostly those of the next."""
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

    def see(self, values: Iterable[Any], now: datetime.datetime) -> list[Suspicion]:
        """What a record gives rise to, from the values of its `Sighting`.

        Every worker asks this of every record. So a rule is asked only where it may apply, and a sighting made only of
        what is found.
        """
        sequence, created_at, tenant, identity, action, resource, granted, reason, *place = values
        found: list[_Found] = []
        before, self._last = self._last or created_at, created_at
        if not before <= created_at <= now:
            found += _clock(
                sequence, (before - created_at).total_seconds(), (created_at - now).total_seconds()
            )
        if resource in self.canaries and action.startswith(_TOUCHES):
            found.append(_Found("canary", {"credential": resource, "granted": granted}, sequence))
        if identity and not action.startswith("threat."):
            habits = self._habits_of(identity)
            if place != habits.place:
                found += _firsts(place, habits)
                habits.place = place
            if not granted:
                found += self._denials(created_at, reason, habits)
            elif action in _REVEALS:
                found += self._reveals(created_at, habits)
            habits.records += 1
        if not found:
            return []
        sighting = Sighting(sequence, created_at, tenant, identity, action, resource, granted, reason, *place)
        return [_suspicion(one, sighting) for one in found]

    def _habits_of(self, identity: str) -> _Habits:
        habits = self._habits.get(identity)
        if habits is None:
            habits = self._habits[identity] = _Habits()
            if len(self._habits) > _MAX_IDENTITIES:
                self._habits.popitem(last=False)
        return habits

    def _denials(self, created_at: datetime.datetime, reason: str, habits: _Habits) -> list[_Found]:
        if reason not in _DENIALS:
            return []
        habits.denied.append(created_at)
        while habits.denied and created_at - habits.denied[0] > _MINUTE:
            habits.denied.popleft()
        if len(habits.denied) < self._thresholds.denied_per_minute:
            return []
        count = len(habits.denied)
        habits.denied.clear()
        evidence: dict[str, object] = {"refusals_within_a_minute": count, "last_reason": reason}
        return [_Found("denied-burst", evidence, _minute(created_at).isoformat())]

    def _reveals(self, created_at: datetime.datetime, habits: _Habits) -> list[_Found]:
        minute = _minute(created_at)
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
        return [_Found("reveal-burst", evidence, minute.isoformat())]


def _clock(sequence: int, back: float, ahead: float) -> list[_Found]:
    if back <= _CLOCK_BACK_SECONDS and ahead <= _CLOCK_AHEAD_SECONDS:
        return []
    return [_Found("clock", {"seconds_back": back, "seconds_ahead": ahead}, sequence)]


def _firsts(place: list[str], habits: _Habits) -> list[_Found]:
    found = []
    address, device = place
    for rule, value, known in (
        ("new-network", network(address), habits.networks),
        ("new-device", device, habits.devices),
    ):
        if not value or value in known:
            continue
        if known and habits.records >= _HISTORY:
            found.append(_Found(rule, {"new": value, "known": sorted(known)[:10]}, value))
        if len(known) < _MAX_KNOWN:
            known.add(value)
    return found


def _suspicion(found: _Found, sighting: Sighting) -> Suspicion:
    rule, evidence, occasion = found
    digest = hashlib.sha256(
        encode("strongroom/threat/v1", rule, sighting.tenant, sighting.identity, occasion)
    ).digest()
    threat_id = requests.id_of(digest)
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
