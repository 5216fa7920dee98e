"""What the vault speaks of. Frozen, free of protobuf and of SQL; nothing here ever holds a secret."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import datetime

    from vault.crypto.approvals import Operation
    from vault.crypto.scopes import Scope

SYSTEM_TENANT = "system"
"""The tenant of the vault's own operators. No credential ever belongs to it."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What an accepted client certificate says: who, until when, and the thumbprint tokens are bound to."""

    identity: str
    thumbprint: str
    """SHA-256 of the DER form, base64url without padding (RFC 8705, `x5t#S256`)."""
    not_before: datetime.datetime
    not_after: datetime.datetime
    der: bytes = field(default=b"", repr=False)
    """The certificate itself."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call came from. Only the address is observed; the rest is what the caller says."""

    ip_address: str = ""
    device_id: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A token that another was made from. `max_sessions` is how many sessions it is good for; 0: no limit."""

    token_id: str
    issue_time: datetime.datetime
    max_sessions: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """A verified token's claims.

    `identity` is whom it was issued to, as may be written: a person's pseudonym.
    """

    token_id: str
    identity: str
    tenant: str
    scopes: tuple[Scope, ...]
    thumbprint: str
    issue_time: datetime.datetime
    expire_time: datetime.datetime
    policy: str = ""
    """The version of the policy that granted it."""
    max_sessions: int = 0
    """How many sessions it may open; 0: no limit."""
    ancestors: tuple[Ancestor, ...] = ()
    """The tokens it comes from, the one that was issued first before all others."""
    narrowing_key: str = ""
    """The public key that it can be narrowed by without the vault; empty if it cannot."""
    narrowed: int = 0
    """How many times it was narrowed without the vault."""
    principal: str = ""
    """Who it was issued to, by true identity: for policy to judge, never to be written."""

    @property
    def issued_id(self) -> str:
        """The id of the token that the vault itself issued last: by it the log knows this one."""
        return self.ancestors[-self.narrowed].token_id if self.narrowed else self.token_id

    @property
    def lineage(self) -> tuple[str, ...]:
        """Its id and those of the tokens it comes from: to revoke one of them revokes it."""
        if not self.ancestors:
            return (self.token_id,)
        return (self.token_id, *(ancestor.token_id for ancestor in self.ancestors))

    @property
    def parent_id(self) -> str:
        """The id of the token it was made from; empty if it was issued."""
        return self.ancestors[-1].token_id if self.ancestors else ""

    @property
    def root_id(self) -> str:
        """The id of the token that was issued first; empty if that is itself."""
        return self.ancestors[0].token_id if self.ancestors else ""

    @property
    def session_limits(self) -> dict[str, int]:
        """By the token's id, how many sessions each may open of those that have a limit: every one of them counts."""
        limits = {a.token_id: a.max_sessions for a in self.ancestors if a.max_sessions}
        if self.max_sessions:
            limits[self.token_id] = self.max_sessions
        return limits


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, from where, and with which token, all verified.

    `identity` and `origin` are what may be written; of a person they are a pseudonym, and what is kept of the rest
    (`core/people.py`). For policy to judge there are `certificate.identity` and `observed`.
    """

    certificate: Certificate
    origin: Origin
    token: Token | None = None
    pseudonym: str = ""
    """Of a person; empty for what is none."""
    unwritten: Origin | None = None
    """Where a person's call came from."""

    @property
    def identity(self) -> str:
        """Who calls, as may be written."""
        return self.pseudonym or self.certificate.identity

    @property
    def observed(self) -> Origin:
        """Where the call came from, never to be written of a person."""
        return self.unwritten or self.origin


class CredentialState(enum.StrEnum):
    """Whether a credential can be revealed and used."""

    ACTIVE = "active"
    DELETED = "deleted"


class Standing(enum.StrEnum):
    """Whether what a credential holds still works at its provider (`core/standing.py`)."""

    ACTIVE = "active"
    EXPIRING = "expiring"
    UPDATE_REQUIRED = "update-required"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class VersionState(enum.StrEnum):
    """Whether a version still holds its secret."""

    ENABLED = "enabled"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class Activity:
    """What a credential was last touched by: new versions, uses, reveals. No time: never."""

    last_written_time: datetime.datetime
    last_written_by: str
    last_used_time: datetime.datetime | None
    last_used_by: str
    last_revealed_time: datetime.datetime | None
    last_revealed_by: str


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential's metadata."""

    name: str
    kind: str
    labels: dict[str, str]
    state: CredentialState
    latest_version: int
    field_names: tuple[str, ...]
    etag: str
    create_time: datetime.datetime
    update_time: datetime.datetime
    delete_time: datetime.datetime | None
    created_by: str
    updated_by: str
    subject_id: str = ""
    standing: Standing = Standing.ACTIVE
    standing_note: str = ""
    standing_by: str = ""
    standing_time: datetime.datetime | None = None
    expire_time: datetime.datetime | None = None
    rotation_days: int = 0
    """After how many days it is to be rotated; 0: nobody asked for it."""
    rotation_due_time: datetime.datetime | None = None
    activity: Activity | None = None
    """Looked up for those who ask what a credential is; no column of its row."""

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Version:
    """The metadata of one version of a credential."""

    name: str
    version: int
    state: VersionState
    suite: int
    kek_version: int
    field_names: tuple[str, ...]
    create_time: datetime.datetime
    created_by: str
    destroy_time: datetime.datetime | None


class StoredVersion(NamedTuple):
    """A version with its envelope, as a reveal needs it."""

    name: str
    version: int
    tenant: str
    kind: str
    state: VersionState
    credential_state: CredentialState
    standing: Standing
    suite: int
    kek_version: int
    field_names: tuple[str, ...]
    envelope: bytes

    def __repr__(self) -> str:
        return f"StoredVersion(name={self.name!r}, version={self.version})"


@dataclass(frozen=True, slots=True)
class HsmObject:
    """Where an object of an HSM is found."""

    backend: str
    label: str
    object_id: bytes


class CredentialKeyState(enum.StrEnum):
    """Whether the key pair of a credential's version is in the HSM."""

    PENDING = "pending"
    ACTIVE = "active"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class CredentialKey:
    """A key pair that was made in the HSM for one version of a credential; the private half stays there."""

    key_id: str
    """The id of its object in the HSM, in hex."""
    tenant: str
    name: str
    version: int
    state: CredentialKeyState
    algorithm: str
    kid: str
    backend: str
    label: str
    public_key: bytes
    """SubjectPublicKeyInfo in DER; empty while it is pending."""
    create_time: datetime.datetime
    created_by: str
    destroy_time: datetime.datetime | None

    @property
    def place(self) -> HsmObject:
        """Where it is found."""
        return HsmObject(self.backend, self.label, bytes.fromhex(self.key_id))


class HandoverState(enum.StrEnum):
    """Whether a hand-over still holds its secret. It does while it waits, and only then."""

    WAITING = "waiting"
    OPENED = "opened"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Handover:
    """A secret wrapped for one identity."""

    name: str
    handover_id: str
    sender: str
    recipient: str
    state: HandoverState
    suite: int
    kek_version: int
    field_names: tuple[str, ...]
    create_time: datetime.datetime
    expire_time: datetime.datetime
    end_time: datetime.datetime | None
    envelope: bytes = field(repr=False)

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.name.partition("/")[0]


class EndpointState(enum.StrEnum):
    """Whether a webhook endpoint is told of events."""

    ACTIVE = "active"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """Where a tenant is told what happened, and what it is told of."""

    tenant: str
    endpoint_id: str
    url: str
    events: tuple[str, ...]
    credential: str
    state: EndpointState
    create_time: datetime.datetime
    created_by: str


class KeyState(enum.StrEnum):
    """Where a key version is in its life."""

    PENDING = "pending"
    ACTIVE = "active"
    DECRYPT_ONLY = "decrypt-only"
    QUARANTINED = "quarantined"
    """Suspected of compromise; what it wraps still opens."""
    SEALED_OFF = "sealed-off"
    """Suspected of compromise; what it wraps opens only to be re-encrypted."""
    RETIRED = "retired"
    """Nothing depends on it, and it is switched off in the HSM."""
    DESTROY_SCHEDULED = "doomed"
    """Retired, and about to be destroyed."""
    DESTROYED = "destroyed"

    @property
    def opens(self) -> bool:
        """Whether callers may open what it wraps."""
        return self in (KeyState.ACTIVE, KeyState.DECRYPT_ONLY, KeyState.QUARANTINED)


class KeyPurpose(enum.StrEnum):
    """What a key in the HSM is for."""

    KEK = "kek"
    TOKEN = "token"  # noqa: S105 - a purpose, not a token
    CHECKPOINT = "checkpoint"
    INGEST = "ingest"
    PAGE = "page"
    ROOT = "root"
    SUBJECT = "subject"
    SUBJECT_INDEX = "index"
    BACKUP = "backup"


class Placement(enum.StrEnum):
    """Where a key-encryption key lies."""

    TOKEN = "token"  # noqa: S105 - a place
    """An object of its own in the HSM."""
    WRAPPED = "wrapped"
    """In the database, wrapped under a root key of the HSM."""


@dataclass(frozen=True, slots=True)
class KeyHome:
    """A place of a key beside, or instead of, an object in the first HSM."""

    backend: str
    root_version: int = 0
    """The root key that it is wrapped under; 0 for an object in the HSM."""
    wrapped: bytes = field(default=b"", repr=False)
    root_label: str = ""
    root_object_id: bytes = b""


@dataclass(frozen=True, slots=True)
class Key:
    """One version of a key in the HSM."""

    tenant: str
    purpose: KeyPurpose
    version: int
    state: KeyState
    algorithm: str
    backend: str
    label: str
    object_id: bytes
    create_time: datetime.datetime
    created_by: str
    homes: tuple[KeyHome, ...] = ()
    """Where it lies, the first HSM first; empty for an object in that HSM and nowhere else."""

    @property
    def backends(self) -> tuple[str, ...]:
        """Every HSM that it lies in, or is wrapped by, in the order of the copies of what it wraps."""
        return tuple(home.backend for home in self.homes) or (self.backend,)

    @property
    def placement(self) -> Placement:
        """Where it lies."""
        return Placement.WRAPPED if any(home.root_version for home in self.homes) else Placement.TOKEN


class SubjectState(enum.StrEnum):
    """Whether a data subject has a key."""

    ACTIVE = "active"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Subject:
    """A data subject of a tenant, known by a pseudonym, and its key, wrapped by the tenant's subject key."""

    tenant: str
    subject_id: str
    state: SubjectState
    key_version: int
    wrapped_key: bytes = field(repr=False)
    create_time: datetime.datetime
    erase_time: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class KeySchedule:
    """When the vault rotates a key by itself: by age, by number of wraps, or not."""

    tenant: str
    purpose: KeyPurpose
    every_seconds: int
    max_wraps: int
    rewrap: bool
    update_time: datetime.datetime
    updated_by: str


@dataclass(frozen=True, slots=True)
class KeyDestruction:
    """An order to destroy a key version."""

    tenant: str
    purpose: KeyPurpose
    version: int
    destroy_time: datetime.datetime | None
    ordered_by: str
    approval_id: str
    order_time: datetime.datetime


class JobKind(enum.StrEnum):
    """What a job does to every version of a credential that it meets."""

    REWRAP = "rewrap"
    """The same data key, under the newest key-encryption key."""
    REENCRYPT = "reencrypt"
    """A new data key, and the suite that was asked for."""


class JobState(enum.StrEnum):
    """Where a job is. It works only while it is running."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Everything was tried, and something could not be done; the report says what and why."""


@dataclass(frozen=True, slots=True)
class Job:
    """Work on all of a tenant's versions of credentials, done in ranges by every worker."""

    job_id: str
    tenant: str
    kind: JobKind
    state: JobState
    source_version: int
    """Only what this version of the key wraps; 0 for all that are not under the newest (rewrap), or all."""
    suite: int
    """The suite to re-encrypt with; 0 for a rewrap."""
    urgent: bool
    """Whether it goes before others: what a quarantine starts."""
    max_per_second: int
    """At most so many versions a second, all workers together; 0 for no limit."""
    total: int
    before: str
    """JSON: how many versions each key version wrapped at the start."""
    report: str
    """The signed report, once it has ended."""
    create_time: datetime.datetime
    created_by: str
    approved_by: str
    update_time: datetime.datetime
    end_time: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class JobRange:
    """A part of a job: the versions behind the cursor, up to and with the last. One worker has it at a time."""

    job_id: str
    number: int
    cursor_name: str
    cursor_version: int
    last_name: str
    last_version: int
    done: int
    skipped: int
    """Versions that were moved or destroyed by somebody else meanwhile."""
    failed: int
    finished: bool
    holder: str
    lease_time: datetime.datetime | None
    """Until when it is the holder's."""


@dataclass(frozen=True, slots=True)
class JobFailure:
    """A version that a job could not do, and why."""

    job_id: str
    name: str
    version: int
    reason: str
    create_time: datetime.datetime


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A job and how far it is."""

    job: Job
    done: int = 0
    skipped: int = 0
    failed: int = 0
    workers: int = 0
    """How many lanes, over all workers, hold a part of it now."""


class ErasureState(enum.StrEnum):
    """How far an erasure is."""

    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Erasure:
    """The erasure of a tenant, or of one of its subjects, and its certificate once it is done."""

    tenant: str
    subject_id: str
    state: ErasureState
    key_version: int
    """Up to which version the keys go that the data hangs on."""
    requested_by: str
    approved_by: tuple[str, ...]
    create_time: datetime.datetime
    end_time: datetime.datetime | None
    certificate: str


@dataclass(frozen=True, slots=True)
class IngestKey:
    """A public key to seal new secrets to, signed in the HSM, and its private half wrapped by the HSM."""

    key_id: str
    hpke_suite: int
    signed_key: str
    wrapped_seed: bytes
    kek_version: int
    create_time: datetime.datetime
    expire_time: datetime.datetime


@dataclass(frozen=True, slots=True)
class CheckpointKey:
    """An ML-DSA key that signs checkpoints: its verifier key, and its seed wrapped by the HSM."""

    version: int
    verifier_key: str
    wrapped_seed: bytes
    kek_version: int
    create_time: datetime.datetime


class Outcome(enum.StrEnum):
    """How a call ended."""

    GRANTED = "granted"
    REFUSED = "refused"


class AuditDraft(NamedTuple):
    """A record before the log gives it its place: who did what, on what, and how it ended."""

    tenant: str
    identity: str
    action: str
    resource: str
    outcome: Outcome
    origin: Origin
    reason: str = ""
    token_id: str = ""
    session_id: str = ""
    before_state: str = ""
    after_state: str = ""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A record in its place in the log."""

    sequence: int
    record_id: str
    created_at: datetime.datetime
    tenant: str
    identity: str
    action: str
    resource: str
    outcome: Outcome
    reason: str
    ip_address: str
    device_id: str
    request_id: str
    token_id: str
    session_id: str
    before_state: str
    after_state: str
    rows_written: str
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which records: those that meet every condition given. Empty, or None, is no condition."""

    tenant: str = ""
    identity: str = ""
    action: str = ""
    resource: str = ""
    """A resource, or all beneath a prefix that ends in `/**`."""
    outcome: Outcome | None = None
    device_id: str = ""
    network: str = ""
    """In CIDR notation."""
    start_time: datetime.datetime | None = None
    end_time: datetime.datetime | None = None
    first: int = 0
    last: int | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed head of the log."""

    size: int
    root: bytes
    frontier: bytes
    note: str
    create_time: datetime.datetime


class ApprovalState(enum.StrEnum):
    """Where an approval is in its life. Whether enough people have signed, and whether it expired, is worked out."""

    OPEN = "open"
    CONSUMED = "consumed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ApprovalSignature:
    """One person's approval: the certificate (DER), and the signature by its key."""

    identity: str
    certificate: bytes
    signature: bytes
    create_time: datetime.datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval of one operation."""

    approval_id: str
    operation: Operation
    requested_by: str
    purpose: str
    required: int
    state: ApprovalState
    signatures: tuple[ApprovalSignature, ...]
    create_time: datetime.datetime
    expire_time: datetime.datetime
    document: str = ""
    """What a digest among the operation's arguments is of; left out of lists."""


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A version of the policy as it is stored, authenticated by a MAC from the HSM."""

    version: int
    text: str
    digest: bytes
    mac: bytes
    mac_key_version: int
    comment: str
    created_by: str
    create_time: datetime.datetime


class ThreatState(enum.StrEnum):
    """Where a finding is in its life."""

    OPEN = "open"
    FROZEN = "frozen"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Threat:
    """Something that a rule found in the audit log."""

    threat_id: str
    rule: str
    tenant: str
    identity: str
    state: ThreatState
    evidence: str
    sequence: int
    create_time: datetime.datetime
