"""Threats: findings of the rules in `suspicions.py`, recorded once, told by webhook, and able to freeze an identity.

Each worker follows the log on its own. A finding is a row whose key follows from what was found; the ledger's lock lets
one worker insert it, and that one freezes and tells. A frozen identity is refused at every call until the finding is
released; its tokens are revoked everywhere, so its sessions end.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import json
import logging
import re
from collections import deque
from typing import TYPE_CHECKING, Any

from vault.core import audit, requests
from vault.core.revocations import EVERY_TENANT, REVOKE, Kind
from vault.core.suspicions import RULES, Watcher
from vault.core.tokens import Target
from vault.errors import Reason, VaultError, invalid_field
from vault.model import SYSTEM_TENANT, AuditDraft, Origin, Outcome, Threat, ThreatState
from vault.store import threats
from vault.store.ledger import Commit, Unit, read_head
from vault.store.reach import ALL_TENANTS, declare
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Mapping, Sequence

    from vault.clock import Clock
    from vault.core.audit import AuditLog
    from vault.core.people import People
    from vault.core.suspicions import Suspicion, Thresholds
    from vault.core.tokens import Tokens
    from vault.model import AuditRecord, Caller
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.threats")

FIND, RELEASE = "threat.find", "threat.release"
ACTOR = "strongroom"
MAX_TOUCHES = 10_000
_LOOK_SECONDS = 0.5
_PAGE = 2000
_WARM_UP = 20_000
_TELL_SECONDS = 5.0
_TRIES = 3
_LOOKING = ("credential.get", "credential.list", "credential.watch")
_ID = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclasses.dataclass(frozen=True)
class ThreatSettings:
    """The thresholds, which rules freeze in which tenant (`*`: in all), and where findings are told."""

    thresholds: Thresholds
    freeze: Mapping[str, Sequence[str]]
    webhook_url: str = ""
    webhook_secret: bytes = dataclasses.field(default=b"", repr=False)


class Threats:
    """Watches the log, and keeps what was found."""

    def __init__(
        self,
        settings: ThreatSettings,
        database: Database,
        audit_log: AuditLog,
        tokens: Tokens,
        people: People,
        clock: Clock,
        watch: Callable[[str], None],
    ) -> None:
        """`watch` is told the rule of every finding that this worker was the first to record."""
        self._people = people
        self._settings = settings
        self._database = database
        self._log = audit_log
        self._tokens = tokens
        self._clock = clock
        self._watch = watch
        self._watcher = Watcher(settings.thresholds)
        self._next = 0
        self._found: deque[Suspicion] = deque()
        """What is to be recorded yet."""
        self._frozen: dict[str, set[str]] = {}
        self._telling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Learn who is frozen, and where to begin. Raises `STORAGE_UNAVAILABLE`."""
        async with self._database.read() as connection:
            self._frozen = await threats.frozen(connection)
            self._next = max(0, (await read_head(connection)).size - _WARM_UP)
            self._watcher.canaries = await threats.canaries(connection)

    def notice(self, record: AuditRecord) -> None:
        """Take note of a change in the log: who is frozen, and who no longer."""
        if record.action not in (FIND, RELEASE):
            return
        said = json.loads(record.after_state)
        findings = self._frozen.setdefault(said["identity"], set())
        if said["state"] == ThreatState.FROZEN.value:
            findings.add(record.resource)
        else:
            findings.discard(record.resource)
        if not findings:
            del self._frozen[said["identity"]]

    def refuse_frozen(self, identity: str) -> None:
        """Raise `IDENTITY_FROZEN` for an identity that a finding froze."""
        if identity in self._frozen:
            raise VaultError(Reason.IDENTITY_FROZEN, "a threat rule froze this identity")

    async def run(self) -> None:
        """Look at the log again and again, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except VaultError as error:
                log.warning("cannot look for threats", extra={"reason": error.reason.value})

    async def look(self) -> None:
        """Hold what was committed since the last look against the rules.

        What was found is recorded before the log is read on. If that fails, the next look begins with it: the rules,
        which have seen the record, would not find it again.
        """
        while True:
            while self._found:
                await self._find(self._found[0])
                self._found.popleft()
            async with self._database.read() as connection:
                page = await threats.sightings(connection, self._next, _PAGE)
                if any(_may_label(row["action_type"]) for row in page):
                    self._watcher.canaries = await threats.canaries(connection)
            now = self._clock.now()
            for row in page:
                if threats.is_readable(row):
                    self._found += self._watcher.see(row.values(), now)
                self._next = row["sequence"] + 1
            if not self._found and len(page) < _PAGE:
                return

    async def list_threats(self, caller: Caller, *, only_open: bool, before: int, limit: int) -> list[Threat]:
        """Findings that the caller may see, newest first."""
        token = requests.token_of(caller)
        requests.require(caller, "threat.read", f"{token.tenant}/threats")
        _declare(token.tenant)
        async with self._database.read() as connection:
            found = await threats.list_threats(
                connection, _of(token.tenant), only_open=only_open, before=before, limit=limit
            )
        await self._log.record(audit.granted(caller, "threat.list", f"{token.tenant}/threats"))
        return found

    async def explain(self, caller: Caller, threat_id: str) -> Threat:
        """One finding. Raises `THREAT_NOT_FOUND`."""
        token = requests.token_of(caller)
        requests.require(caller, "threat.read", f"{token.tenant}/threats")
        _declare(token.tenant)
        found = await self._get(token.tenant, threat_id)
        await self._log.record(audit.granted(caller, "threat.explain", threat_id))
        return found

    async def release(self, caller: Caller, threat_id: str, purpose: str) -> Threat:
        """Close a finding, and thaw what it froze. Raises `THREAT_NOT_FOUND`, `SCOPE_DENIED`."""
        token = requests.token_of(caller)
        requests.require(caller, "threat.release", f"{token.tenant}/threats")
        _declare(token.tenant)
        requests.printable("purpose", purpose, required=True)
        found = await self._get(token.tenant, threat_id)
        if found.identity in (caller.identity, token.identity):
            raise VaultError(Reason.SCOPE_DENIED, "nobody releases what was found of themselves")

        def decide(rows: Rows, _now: datetime.datetime) -> Commit:
            row = rows.get("threats", threat_id)
            if row is None:
                raise _not_found()
            after = dataclasses.replace(threats.threat_from(row), state=ThreatState.RELEASED)
            record = audit.granted(caller, RELEASE, threat_id, after=_state(after, purpose=purpose))
            return Commit((record,), (Write("threats", threats.threat_row(after)),), after)

        released: Threat = await self._log.commit(Unit((RowKey("threats", (threat_id,)),), decide))
        return released

    async def blast_radius(
        self, caller: Caller, *, identity: str, token_id: str, certificate: str
    ) -> Sequence[Any]:
        """Everything that an identity, a token or a certificate touched. A person's name needs `audit.identify`."""
        token = requests.token_of(caller)
        requests.require(caller, "audit.read", f"{token.tenant}/audit")
        _declare(token.tenant)
        certificates: list[str] = []
        if token_id:
            requests.token_id(token_id)
        elif certificate:
            certificates = self._people.certificates(requests.thumbprint(certificate))
        else:
            identity = await self._people.sought_by(caller, requests.identity(identity))
        async with self._database.read() as connection:
            found = await threats.touches(
                connection,
                _of(token.tenant),
                identity=identity,
                token_id=token_id,
                certificates=certificates,
                limit=MAX_TOUCHES + 1,
            )
        await self._log.record(audit.granted(caller, "threat.blast_radius", token_id))
        return found

    async def _get(self, tenant: str, threat_id: str) -> Threat:
        if not _ID.fullmatch(threat_id):
            raise invalid_field("threat_id", "must be 22 characters of base64url")
        async with self._database.read() as connection:
            found = await threats.get_threat(connection, threat_id)
        if found is None or (_of(tenant) and found.tenant != tenant):
            raise _not_found()
        return found

    async def _find(self, suspicion: Suspicion) -> None:
        seen = suspicion.sighting
        freezes = {*self._settings.freeze.get(seen.tenant, ()), *self._settings.freeze.get("*", ())}
        state = ThreatState.FROZEN if suspicion.rule in freezes and seen.identity else ThreatState.OPEN

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            if rows.get("threats", suspicion.threat_id) is not None:
                return Commit(())
            found = Threat(
                threat_id=suspicion.threat_id,
                rule=suspicion.rule,
                tenant=seen.tenant,
                identity=seen.identity,
                state=state,
                evidence=canonical_json(suspicion.evidence),
                sequence=seen.sequence,
                create_time=now,
            )
            record = AuditDraft(
                seen.tenant or SYSTEM_TENANT, ACTOR, FIND, found.threat_id, Outcome.GRANTED, Origin(),
                after_state=_state(found, rule=found.rule, evidence=suspicion.evidence, sequence=found.sequence),
            )  # fmt: skip
            return Commit((record,), (Write("threats", threats.threat_row(found)),), found)

        key = RowKey("threats", (suspicion.threat_id,))
        found: Threat | None = await self._log.commit(Unit((key,), decide))
        if found is None:
            return
        self._watch(found.rule)
        log.warning("threat found", extra={"rule": found.rule, "threat_id": found.threat_id})
        if found.state is ThreatState.FROZEN:
            draft = AuditDraft(SYSTEM_TENANT, ACTOR, REVOKE, found.identity, Outcome.GRANTED, Origin())
            await self._tokens.withdraw(draft, Target(Kind.IDENTITY, found.identity, EVERY_TENANT))
        if self._settings.webhook_url:
            task = asyncio.create_task(self._tell(found))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, found: Threat) -> None:
        """Send a finding, signed as Standard Webhooks says (https://www.standardwebhooks.com)."""
        body = canonical_json(
            {
                "type": "threat.found",
                "timestamp": found.create_time.isoformat(),
                "data": {
                    "threat_id": found.threat_id,
                    "rule": found.rule,
                    "tenant": found.tenant,
                    "identity": found.identity,
                    "state": found.state.value,
                    "evidence": json.loads(found.evidence),
                },
            }
        ).encode()
        stamp = str(int(found.create_time.timestamp()))
        signed = f"{found.threat_id}.{stamp}.".encode() + body
        mac = base64.b64encode(hmac.digest(self._settings.webhook_secret, signed, hashlib.sha256)).decode()
        headers = {
            "content-type": "application/json",
            "webhook-id": found.threat_id,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{mac}",
        }
        import httpx  # noqa: PLC0415 - only where somebody is to be told

        async with httpx.AsyncClient(timeout=_TELL_SECONDS, trust_env=False) as client:
            for attempt in range(_TRIES):
                try:
                    answer = await client.post(self._settings.webhook_url, content=body, headers=headers)
                    if answer.is_success:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(2**attempt)
        log.error("a finding could not be told", extra={"threat_id": found.threat_id})


def explanation(threat: Threat) -> str:
    """What a finding's rule looks for."""
    return RULES[threat.rule]


def _may_label(action: str) -> bool:
    """Whether it may have made a canary of a credential, or no longer one."""
    return str(action).startswith("credential.") and not action.startswith(_LOOKING)


def _of(tenant: str) -> str:
    """Whose findings a token of this tenant sees; empty for all."""
    return "" if tenant == SYSTEM_TENANT else tenant


def _declare(tenant: str) -> None:
    """Operators of the vault see what was found of everybody."""
    if not _of(tenant):
        declare(ALL_TENANTS)


def _state(threat: Threat, **more: object) -> str:
    return canonical_json({"identity": threat.identity, "state": threat.state.value, **more})


def _not_found() -> VaultError:
    return VaultError(Reason.THREAT_NOT_FOUND, "no such finding")
