"""The policy in force: stored in versions, validated before, the same on every worker.

The version stored last is in force; as long as none is stored, the files of the configuration are. Each version is
authenticated by a MAC from the HSM, so that who can write to the database cannot write policy. A worker learns of a
new version from the log, and issues nothing between hearing of it and having it.
"""

from __future__ import annotations

import asyncio
import datetime
import hmac
import itertools
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from vault.core import approvals, audit, requests
from vault.core.people import ERASE
from vault.core.policy import Circumstances, Policy, problems
from vault.crypto import scopes
from vault.crypto.approvals import Operation
from vault.crypto.encoding import encode
from vault.crypto.scopes import Scope
from vault.errors import Reason, StartError, VaultError, invalid_field
from vault.model import SYSTEM_TENANT, KeyPurpose, StoredPolicy
from vault.store import policies
from vault.store.ledger import Commit, Unit, read_head
from vault.store.reach import of
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vault.clock import Clock
    from vault.core.approvals import Approvals
    from vault.core.audit import AuditLog
    from vault.core.hsm import Hsm
    from vault.core.keys import Keyring
    from vault.core.people import People
    from vault.core.policy import Judgement, Rule
    from vault.model import AuditRecord, Caller, Origin, Token
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.policies")

APPLY = "policy.apply"
RESOURCE = f"{SYSTEM_TENANT}/policy"
MAX_IDENTITIES = 100
_RECENT_RECORDS = 100_000
_MAX_REACHERS = 200
_RETRY_SECONDS = 0.5
_STALE_SECONDS = 1.0
_CACHED = 10_000
_CREDENTIAL_ACTIONS = tuple(
    sorted(
        action for action in scopes.ACTIONS if action.split(".")[0] in ("credential", "session", "handover")
    )
)


class InForce(NamedTuple):
    """What decides now. Version 0 is the files'."""

    version: int
    policy: Policy


class Reacher(NamedTuple):
    """An identity that could be granted something on a credential."""

    identity: str
    actions: tuple[str, ...]
    rules: tuple[str, ...]


class Policies:
    """Holds the policy in force, and the versions before it."""

    def __init__(
        self,
        files: Policy,
        database: Database,
        hsm: Hsm,
        keyring: Keyring,
        audit_log: AuditLog,
        approvals_: Approvals,
        people: People,
        clock: Clock,
        *,
        ignore_stored: bool,
    ) -> None:
        self._people = people
        self._in_force = InForce(0, files)
        self._database = database
        self._hsm = hsm
        self._keyring = keyring
        self._log = audit_log
        self._approvals = approvals_
        self._clock = clock
        self._ignore_stored = ignore_stored
        self._behind = asyncio.Event()
        self._loading = asyncio.Lock()
        self._heard = clock.monotonic()
        self._judged: OrderedDict[tuple[str, str, str], bool] = OrderedDict()
        self._listeners: list[Callable[[Policy], None]] = []

    def listen(self, listener: Callable[[Policy], None]) -> None:
        """Have `listener` called with each policy that comes into force. It must not block."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Learn what is in force. Raises `StartError` if what is stored is not what this vault stored."""
        if self._ignore_stored:
            log.warning("policy.ignore_stored is set: the files decide, and no stored policy")
        self._behind.set()
        try:
            await self.in_force()
        except VaultError as error:
            raise StartError(f"policy: {error.message}") from None

    def notice(self, record: AuditRecord) -> None:
        """Take note of a change in the log: nothing is judged by the old policy any more."""
        if record.action in (APPLY, ERASE):
            self._fall_behind()

    async def run(self) -> None:
        """Load each new version as it comes, until cancelled."""
        while True:
            await self._behind.wait()
            try:
                await self.in_force()
            except VaultError as error:
                log.error("the policy cannot be loaded", extra={"reason": error.reason.value})  # noqa: TRY400
                await asyncio.sleep(_RETRY_SECONDS)

    @property
    def current(self) -> Policy:
        """What this worker believes to be in force. To decide on it, ask `in_force`."""
        return self._in_force.policy

    async def in_force(self) -> InForce:
        """What decides now. Raises `STORAGE_UNAVAILABLE`, `HSM_UNAVAILABLE`, `STORED_DATA_DAMAGED`."""
        if not self._behind.is_set():
            return self._in_force
        async with self._loading:
            if self._behind.is_set():
                self._behind.clear()
                try:
                    found = await self._load()
                except BaseException:
                    self._behind.set()
                    raise
                if found != self._in_force:
                    self._in_force = found
                    self._judged.clear()
                    for listener in self._listeners:
                        listener(found.policy)
        return self._in_force

    def reads(self, used: InForce) -> tuple[RowKey, ...]:
        """The row that a unit must see to be sure that this policy is still in force."""
        return () if self._ignore_stored else (RowKey("policies", (used.version + 1,)),)

    def is_current(self, rows: Rows, used: InForce) -> bool:
        """Within a unit's decision: whether the policy that was used is still in force."""
        if self._ignore_stored or rows.get("policies", used.version + 1) is None:
            return True
        self._fall_behind()
        return False

    def _fall_behind(self) -> None:
        if not self._behind.is_set():
            self._heard = self._clock.monotonic()
            self._behind.set()

    def refuse_outdated(self, token: Token, origin: Origin) -> None:
        """Raise `TOKEN_REVOKED` for a token of an older policy that the policy in force would not grant.

        It is judged as of its issue, and from where it is used now; its purpose and approvals are not known any more.
        A token of the policy in force costs a comparison. Raises `REVOCATIONS_UNKNOWN` while this worker cannot
        load what it knows to be in force.
        """
        if self._behind.is_set() and self._clock.monotonic() - self._heard > _STALE_SECONDS:
            raise VaultError(Reason.REVOCATIONS_UNKNOWN, "this worker cannot load the policy in force")
        if token.policy == self._in_force.policy.version:
            return
        seen = (token.token_id, origin.device_id, origin.ip_address)
        granted = self._judged.get(seen)
        if granted is None:
            granted = grants(self._in_force.policy, token, origin)
            self._judged[seen] = granted
            if len(self._judged) > _CACHED:
                self._judged.popitem(last=False)
        if not granted:
            raise VaultError(Reason.TOKEN_REVOKED, "the policy was changed and does not grant this token")

    async def apply(
        self, caller: Caller, text: str, base_version: int, comment: str, approval_id: str, request_id: str
    ) -> StoredPolicy:
        """Put a policy in force. Raises `POLICY_INVALID`, `POLICY_CHANGED`, `APPROVAL_*`."""
        token = requests.require(caller, approvals.CHANGE_POLICY, RESOURCE)
        requests.printable("comment", comment, required=True)
        if found := self._problems(text):
            raise VaultError(Reason.POLICY_INVALID, f"{len(found)} problems; Validate says which")
        # What is stored, and what is approved, names people by pseudonym.
        policy, text = Policy(text), await self._people.hide(text)
        digest = Policy(text).digest
        life = token.expire_time - token.issue_time
        circumstances = Circumstances(
            "",
            int(life.total_seconds()),
            caller.observed.device_id,
            caller.observed.ip_address,
            self._clock.now(),
        )
        own = Scope(approvals.CHANGE_POLICY, tuple(RESOURCE.split("/")))
        if not policy.judge(caller.certificate.identity, [own], circumstances)[0].allowed:
            raise VaultError(Reason.POLICY_INVALID, "it would not let you change the policy again")
        repeat = requests.repeat(caller, APPLY, request_id, digest, base_version, comment)
        operation = change(base_version, digest)
        if base_version >= requests.MAX_VERSION:
            raise VaultError(Reason.POLICY_CHANGED, "another version is in force")
        version = base_version + 1
        key = await self._keyring.active(SYSTEM_TENANT, KeyPurpose.PAGE)
        mac = await self._mac(key.version, version, digest)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            if (earlier := repeat.earlier(rows)) is not None:
                row = rows.get("policies", int(earlier))
                record = audit.repeated(audit.granted(caller, APPLY, RESOURCE))
                return Commit((record,), (), None if row is None else policies.policy_from(row))
            before = rows.get("policies", base_version) if base_version else None
            if (base_version and before is None) or rows.get("policies", version) is not None:
                raise VaultError(Reason.POLICY_CHANGED, "another version is in force")
            used = self._approvals.consume(rows, caller, operation, approval_id, now)
            new = StoredPolicy(
                version=version,
                text=text,
                digest=digest,
                mac=mac,
                mac_key_version=key.version,
                comment=comment,
                created_by=caller.identity,
                create_time=now,
            )
            after = canonical_json(
                {
                    "version": version,
                    "sha256": digest.hex(),
                    "comment": comment,
                    "approval": approval_id,
                }
            )
            record = audit.granted(
                caller, APPLY, RESOURCE, before=canonical_json({"version": base_version}), after=after
            )
            writes = (Write("policies", policies.policy_row(new)), *used, *repeat.remember(str(version), now))
            return Commit((record,), writes, new)

        reads = (
            *(RowKey("policies", (n,)) for n in (base_version, version) if n),
            *self._approvals.reads(approval_id),
            *repeat.reads,
        )
        stored: StoredPolicy | None = await self._log.commit(Unit(reads, decide))
        self._fall_behind()
        await self.in_force()
        return stored or await self.get(caller, version)

    async def get(self, caller: Caller, version: int) -> StoredPolicy:
        """One version; 0 is what is in force. Raises `POLICY_NOT_FOUND`."""
        requests.require(caller, "policy.read", RESOURCE)
        in_force = await self.in_force()
        found: StoredPolicy | None
        if version == 0 and in_force.version == 0:
            epoch = datetime.datetime.fromtimestamp(0, datetime.UTC)
            files = Policy(await self._people.hide(in_force.policy.text))
            found = StoredPolicy(0, files.text, files.digest, b"", 0, "the server's files", "", epoch)
        else:
            async with self._database.read() as connection:
                found = await policies.get_policy(connection, requests.version(version) or in_force.version)
        if found is None:
            raise VaultError(Reason.POLICY_NOT_FOUND, "no such version of the policy")
        await self._log.record(audit.granted(caller, "policy.get", RESOURCE))
        return found

    async def list_policies(self, caller: Caller, *, before: int, limit: int) -> list[StoredPolicy]:
        """The stored versions, newest first."""
        requests.require(caller, "policy.read", RESOURCE)
        async with self._database.read() as connection:
            found = await policies.list_policies(connection, before=before, limit=limit)
        await self._log.record(audit.granted(caller, "policy.list", RESOURCE))
        return found

    async def validate(self, caller: Caller, text: str) -> tuple[list[str], str]:
        """What is wrong with a policy; and if nothing is, for who may change it, the text that would be stored."""
        token = requests.require(caller, "policy.read", RESOURCE)
        await self._log.record(audit.granted(caller, "policy.validate", RESOURCE))
        found = self._problems(text)
        may_change = any(scopes.covers(scope, approvals.CHANGE_POLICY, RESOURCE) for scope in token.scopes)
        return found, "" if found or not may_change else await self._people.hide(text)

    async def written(self, rule: Rule) -> str:
        """A rule's text as it may be told: people by pseudonym."""
        return await self._people.hide(rule.text)

    def _problems(self, text: str) -> list[str]:
        """What is wrong with a policy, also as far as it names people."""
        found = problems(text)
        if not found and self._people.alluded(text):
            found = [
                "it names a person by the path alone: write the whole SPIFFE ID, so that a pseudonym can be stored"
            ]
        return found

    async def explain(
        self, caller: Caller, identity: str, wanted: str, circumstances: Circumstances
    ) -> tuple[InForce, Judgement]:
        """What the policy in force says of one identity and one scope."""
        scope = _scope(wanted)
        _require_read(caller, scope.segments[0])
        _check_identity(identity)
        in_force = await self.in_force()
        (judged,) = in_force.policy.judge(identity, [scope], circumstances)
        named = await self._people.written(identity)
        after = canonical_json({"identity": named, "scope": wanted, "allowed": judged.allowed})
        await self._log.record(audit.granted(caller, "policy.explain", scope.segments[0], after=after))
        return in_force, judged

    async def reachers(
        self, caller: Caller, name: str, further: Sequence[str], circumstances: Circumstances
    ) -> tuple[list[Reacher], list[Rule]]:
        """Who could be granted something on a credential, and the rules that are open to whoever meets them."""
        requests.credential_name(name)
        tenant = name.partition("/")[0]
        _require_read(caller, tenant)
        if len(further) > MAX_IDENTITIES:
            raise invalid_field("identities", f"at most {MAX_IDENTITIES}")
        for identity in further:
            _check_identity(identity)
        in_force = await self.in_force()
        async with self._database.read(of(tenant)) as connection:
            head = await read_head(connection)
            recent = await policies.recent_identities(
                connection, tenant, "token.issue", head.size - _RECENT_RECORDS, _MAX_REACHERS
            )
        rules = in_force.policy.rules
        named = {identity for rule in rules for identity in rule.identities}
        # Whom the log knows by pseudonym is judged by name, as long as there is one, and told by pseudonym.
        who = {identity: await self._people.written(identity) for identity in (*further, *named) if identity}
        for pseudonym in recent:
            if behind := await self._people.named(pseudonym):
                who[behind] = pseudonym
        reached = await asyncio.to_thread(_reach, in_force.policy, name, sorted(who), circumstances)
        found = [item._replace(identity=who[item.identity]) for item in reached]
        await self._log.record(audit.granted(caller, "policy.list_reachers", name))
        opened = [rule for rule in rules if rule.permits and rule.open and _concerns_credentials(rule)]
        return found, opened

    async def _load(self) -> InForce:
        if self._ignore_stored:
            return self._in_force
        async with self._database.read() as connection:
            newest = await policies.list_policies(connection, before=requests.MAX_VERSION, limit=1)
        if not newest:
            return self._in_force
        (stored,) = newest
        text = await self._people.show(stored.text)
        if stored.version == self._in_force.version and text == self._in_force.policy.text:
            return self._in_force
        expected = await self._mac(stored.mac_key_version, stored.version, stored.digest)
        policy = None
        if hmac.compare_digest(expected, stored.mac) and not problems(stored.text):
            policy = Policy(stored.text)
        # What is older than what was in force was not stored by this vault as the newest.
        if policy is None or policy.digest != stored.digest or stored.version < self._in_force.version:
            raise VaultError(Reason.STORED_DATA_DAMAGED, "the stored policy is not what this vault stored")
        return InForce(stored.version, Policy(text))

    async def _mac(self, key_version: int, version: int, digest: bytes) -> bytes:
        key = await self._keyring.version(SYSTEM_TENANT, KeyPurpose.PAGE, key_version)
        message = encode("strongroom/policy/v1", version, digest)
        mac: bytes = await self._hsm.mac(key, message)
        return mac


def change(base_version: int, digest: bytes) -> Operation:
    """The operation that is approved when the policy is changed."""
    return Operation(
        approvals.CHANGE_POLICY, RESOURCE, {"base_version": str(base_version), "sha256": digest.hex()}
    )


def grants(policy: Policy, token: Token, origin: Origin) -> bool:
    """Whether a policy would grant this token today: as of its issue, from where it is used now."""
    life = int((token.expire_time - token.issue_time).total_seconds())
    circumstances = Circumstances("", life, origin.device_id, origin.ip_address, token.issue_time)
    return all(item.allowed for item in policy.judge(token.principal, token.scopes, circumstances))


def sees_rules(caller: Caller) -> bool:
    """Whether the caller may read the rules themselves, which name other tenants too."""
    own = requests.token_of(caller).scopes
    return any(scopes.covers(scope, "policy.read", RESOURCE) for scope in own)


def _require_read(caller: Caller, tenant: str) -> None:
    own = requests.token_of(caller).tenant
    requests.require(caller, "policy.read", f"{own if own == SYSTEM_TENANT else tenant}/policy")


def _scope(text: str) -> Scope:
    try:
        return scopes.parse(text)
    except scopes.ScopeError:
        raise invalid_field("scope", "must be action:tenant/segment/...") from None


def _check_identity(identity: str) -> None:
    if not 0 < len(identity) <= requests.MAX_IDENTITY or not identity.isascii() or not identity.isprintable():
        raise invalid_field("identity", f"1 to {requests.MAX_IDENTITY} printable ASCII characters")


def _concerns_credentials(rule: Rule) -> bool:
    return not rule.actions or bool(rule.actions & set(_CREDENTIAL_ACTIONS))


def _reach(
    policy: Policy, name: str, identities: Sequence[str], circumstances: Circumstances
) -> list[Reacher]:
    patterns = _patterns(name)
    wanted = [Scope(action, pattern) for action in _CREDENTIAL_ACTIONS for pattern in patterns]
    found = []
    for identity in identities:
        judged = policy.judge(identity, wanted, circumstances)
        granted = [(scope, item) for scope, item in zip(wanted, judged, strict=True) if item.allowed]
        if granted:
            found.append(
                Reacher(
                    identity,
                    tuple(sorted({scope.action for scope, _ in granted})),
                    tuple(sorted({rule.name for _, item in granted for rule in item.rules})),
                )
            )
    return found


def _patterns(name: str) -> list[tuple[str, ...]]:
    """Every pattern that covers the name: a policy may grant a pattern and not the name itself."""
    tenant, *rest = name.split("/")
    tails = list(itertools.product(*((segment, "*") for segment in rest)))
    for length in range(len(rest)):
        tails.extend(
            (*choice, "**") for choice in itertools.product(*((segment, "*") for segment in rest[:length]))
        )
    return [(tenant, *tail) for tail in tails]
