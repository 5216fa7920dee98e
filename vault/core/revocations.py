"""What is revoked, as far as a worker must remember it. Does no IO.

A revocation concerns one token, or many: those made from a token, those of an identity, those of a tenant, each as
far as they were issued until a moment. Whatever is made from a revoked token is revoked with it. None is remembered
longer than a token can live.
"""

from __future__ import annotations

import datetime
import enum
import json
from array import array
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vault.store.rows import canonical_json

if TYPE_CHECKING:
    from vault.model import AuditRecord, Token

MAX_TOKEN_LIFE = datetime.timedelta(hours=24)
"""No token outlives this, whatever the configuration says."""
SKEW = datetime.timedelta(seconds=60)
"""How far the clocks of two workers may differ."""

REVOKE = "token.revoke"
EVERY_TENANT = "*"


class Kind(enum.StrEnum):
    """Which tokens a revocation concerns."""

    TOKEN = "token"  # noqa: S105 - a kind, not a token
    CHILDREN = "children"
    IDENTITY = "identity"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Revocation:
    """What is revoked. `subject` is a token's id or an identity; empty for a whole tenant."""

    kind: Kind
    tenant: str
    subject: str
    issued_until: datetime.datetime
    """For a kind of many: what was issued until then, to the second."""
    forget_time: datetime.datetime
    """From then on no token that it concerns can be alive."""


class Revocations:
    """Every revocation that still matters."""

    def __init__(self) -> None:
        self._ids = RevokedIds()
        self._groups: dict[tuple[str, str, str], Revocation] = {}

    def __len__(self) -> int:
        return len(self._ids) + len(self._groups)

    def add(self, revocation: Revocation) -> None:
        """Take a revocation in. Of two of the same group the later stands."""
        if revocation.kind is Kind.TOKEN:
            self._ids.add(revocation.tenant, revocation.subject, revocation.forget_time)
            return
        key = (revocation.kind, revocation.tenant, revocation.subject)
        known = self._groups.get(key)
        if known is None or known.issued_until < revocation.issued_until:
            self._groups[key] = revocation

    def cover(self, token: Token, holder: str) -> bool:
        """Whether a token that this identity shows is revoked."""
        if self._ids and any(self._ids.has(token.tenant, token_id) for token_id in token.lineage):
            return True
        return bool(self._groups) and self._in_group(token, holder)

    def forget(self, now: datetime.datetime) -> None:
        """Drop what concerns no living token any more."""
        self._ids.forget(now)
        self._groups = {key: group for key, group in self._groups.items() if group.forget_time > now}

    def _in_group(self, token: Token, holder: str) -> bool:
        # What it comes from was issued before it: if that is revoked, so is this.
        first = token.ancestors[0].issue_time if token.ancestors else token.issue_time
        for tenant in (token.tenant, EVERY_TENANT):
            for kind, subject in ((Kind.ALL, ""), (Kind.IDENTITY, token.identity), (Kind.IDENTITY, holder)):
                group = self._groups.get((kind, tenant, subject))
                if group is not None and first <= group.issued_until:
                    return True
        issued = [*(ancestor.issue_time for ancestor in token.ancestors[1:]), token.issue_time]
        for ancestor, child_issued in zip(token.ancestors, issued, strict=False):
            group = self._groups.get((Kind.CHILDREN, token.tenant, ancestor.token_id))
            if group is not None and child_issued <= group.issued_until:
                return True
        return False


class RevokedIds:
    """A set of token ids, each kept until a moment, in 12 bytes a member.

    256 sorted arrays of 64-bit hashes. The hash is the interpreter's own, keyed anew in every process: nobody can
    choose two ids that collide, and if two do, a token too many is refused, never one too few.
    """

    _BUCKETS = 256
    _MINUTE = 60

    def __init__(self) -> None:
        self._hashes = [array("Q") for _ in range(self._BUCKETS)]
        self._minutes = [array("I") for _ in range(self._BUCKETS)]
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, tenant: str, token_id: str, until: datetime.datetime) -> None:
        """Remember an id until at least this moment."""
        key = _hash(tenant, token_id)
        hashes, minutes = self._hashes[key >> 56], self._minutes[key >> 56]
        minute = int(until.timestamp()) // self._MINUTE + 1
        place = bisect_left(hashes, key)
        if place < len(hashes) and hashes[place] == key:
            minutes[place] = max(minutes[place], minute)
            return
        hashes.insert(place, key)
        minutes.insert(place, minute)
        self._size += 1

    def has(self, tenant: str, token_id: str) -> bool:
        """Whether the id is among them."""
        key = _hash(tenant, token_id)
        hashes = self._hashes[key >> 56]
        place = bisect_left(hashes, key)
        return place < len(hashes) and hashes[place] == key

    def forget(self, now: datetime.datetime) -> None:
        """Drop those whose moment is past."""
        minute = int(now.timestamp()) // self._MINUTE
        for bucket, minutes in enumerate(self._minutes):
            if minutes and min(minutes) <= minute:
                kept = [place for place, until in enumerate(minutes) if until > minute]
                self._size -= len(minutes) - len(kept)
                self._hashes[bucket] = array("Q", (self._hashes[bucket][place] for place in kept))
                self._minutes[bucket] = array("I", (minutes[place] for place in kept))


def state_of(revocation: Revocation) -> str:
    """What the record of a revocation says, for other workers to take in."""
    said = {"kind": revocation.kind.value, "tenant": revocation.tenant, "subject": revocation.subject}
    if revocation.kind is not Kind.TOKEN:
        said["issued_until"] = revocation.issued_until.isoformat()
    return canonical_json(said)


def from_record(record: AuditRecord) -> Revocation:
    """The revocation that a record tells of."""
    said = json.loads(record.after_state)
    until = said.get("issued_until")
    return Revocation(
        kind=Kind(said["kind"]),
        tenant=said["tenant"],
        subject=said["subject"],
        issued_until=datetime.datetime.fromisoformat(until) if until else record.created_at,
        forget_time=record.created_at + MAX_TOKEN_LIFE + SKEW,
    )


def _hash(tenant: str, token_id: str) -> int:
    return hash((tenant, token_id)) & 0xFFFF_FFFF_FFFF_FFFF
