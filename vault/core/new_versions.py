"""New versions of credentials: what is asked for, and what must still hold when one is stored."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, NamedTuple

from vault.core import audit, requests, standing
from vault.core.credential_records import answer_of, deleted, of_answer, state_of
from vault.crypto import envelope
from vault.errors import Reason, VaultError, invalid_field
from vault.model import (
    Credential,
    CredentialState,
    SubjectState,
    Version,
    VersionState,
)
from vault.store import credentials as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    from vault.core.fields import Checked
    from vault.model import Caller, Key, Subject
    from vault.store.ledger import Rows
    from vault.store.rows import Row

MAX_SEALED = 98_304
NEW = "new"


@dataclasses.dataclass(frozen=True)
class Put:
    """A request to store a version."""

    name: str
    kind: str
    labels: dict[str, str]
    sealed: bytes = dataclasses.field(repr=False)
    ingest_key_id: str
    etag: str
    request_id: str
    subject: str = ""
    """Whose data it is, by a name of the tenant's own."""
    rotation_period: datetime.timedelta | None = None
    """How long until it is to be rotated; zero: never; None: as before."""


class Beside(NamedTuple):
    """What else to write in the transaction of a new version."""

    reads: tuple[RowKey, ...]
    writes: tuple[Write, ...]


class Moved(Exception):  # noqa: N818 - not an error: somebody else was first
    """Another write came between the look and the commit: look again."""


@dataclasses.dataclass(frozen=True)
class NewVersion:
    """A version that is sealed, and not yet stored."""

    put: Put
    kind: str
    number: int
    kek: Key
    told: Checked
    envelope: bytes = dataclasses.field(repr=False)
    subject: Subject | None


def put_unit(caller: Caller, new: NewVersion, repeat: requests.Repeat, beside: Beside | None = None) -> Unit:
    """The unit that stores a new version, if what was sealed still fits what is stored. Raises `Moved`."""
    name = new.put.name
    tenant = name.partition("/")[0]

    def decide(rows: Rows, now: datetime.datetime) -> Commit:
        row = rows.get("credentials", name)
        before = store.credential_from(row) if row else None
        record = audit.granted(caller, "credential.put", name)
        earlier = repeat.earlier(rows)
        if earlier is not None:
            return Commit((audit.repeated(record),), (), of_answer(earlier, now))
        _check_current(new, before, rows.get("tenants", tenant))
        if new.subject is not None:
            _check_subject(new.subject, rows.get("subjects", tenant, new.subject.subject_id))
        period = new.put.rotation_period
        days = period.days if period is not None else before.rotation_days if before else 0
        after = Credential(
            name=name,
            kind=new.kind,
            labels=new.put.labels,
            state=CredentialState.ACTIVE,
            latest_version=new.number,
            field_names=new.told.field_names,
            etag=requests.new_etag(),
            create_time=before.create_time if before else now,
            update_time=now,
            delete_time=None,
            created_by=before.created_by if before else caller.identity,
            updated_by=caller.identity,
            subject_id=new.subject.subject_id if new.subject else "",
            rotation_days=days,
            rotation_due_time=now + datetime.timedelta(days=days) if days else None,
            expire_time=new.told.expire_time,
        )
        after = standing.mend(before, after, caller.identity, now)
        version = Version(
            name=name,
            version=new.number,
            state=VersionState.ENABLED,
            suite=envelope.parse(new.envelope).suite,
            kek_version=new.kek.version,
            field_names=new.told.field_names,
            create_time=now,
            created_by=caller.identity,
            destroy_time=None,
        )
        record = record._replace(
            before_state=state_of(before) if before else "",
            after_state=state_of(after, suite=version.suite, kek_version=version.kek_version),
        )
        stored = store.credential_row(after)
        writes = (
            Write("credentials", stored),
            Write("credential_versions", store.version_row(version, new.envelope)),
            *repeat.remember(answer_of(stored), now),
            *(beside.writes if beside else ()),
        )
        return Commit((record,), writes, after)

    reads = [RowKey("credentials", (name,)), RowKey("tenants", (tenant,)), *repeat.reads]
    if new.subject is not None:
        reads.append(RowKey("subjects", (tenant, new.subject.subject_id)))
    if beside is not None:
        reads.extend(beside.reads)
    return Unit(tuple(reads), decide)


def _check_subject(sealed_for: Subject, row: Row | None) -> None:
    """Refuse what was sealed under a key that is gone: the subject was erased since, and may have come back."""
    state, made = (row["state"], row["create_time"]) if row else ("", None)
    if state != SubjectState.ACTIVE.value or made != sealed_for.create_time:
        raise Moved


def check_put(caller: Caller, put: Put) -> requests.Repeat:
    """Whether a request to store is well-formed. Raises `FIELD_INVALID`."""
    if put.kind:
        requests.kind(put.kind)
    requests.labels(put.labels)
    if not 0 < len(put.sealed) <= MAX_SEALED:
        raise invalid_field("sealed", f"1 to {MAX_SEALED} bytes")
    if not put.ingest_key_id:
        raise invalid_field("ingest_key_id", "is required")
    days = () if put.rotation_period is None else (requests.rotation_days(put.rotation_period),)
    return requests.repeat(
        caller,
        "credential.put",
        put.request_id,
        put.name,
        put.kind,
        canonical_json(put.labels),
        put.subject,
        put.sealed,
        put.ingest_key_id,
        put.etag,
        *days,
    )


def _check_current(new: NewVersion, before: Credential | None, tenant: dict[str, object] | None) -> None:
    """Whether what was sealed still fits what is stored."""
    if tenant is None:
        raise VaultError(Reason.TENANT_NOT_FOUND, "no such tenant")
    if before and before.state is CredentialState.DELETED:
        raise deleted()
    if new.put.etag == NEW:
        if before:
            raise requests.etag_mismatch()
    elif new.put.etag:
        requests.check_etag(new.put.etag, before.etag if before else "")
    if before and before.kind != new.kind:
        raise invalid_field("kind", "a credential's kind never changes")
    if new.number != (before.latest_version if before else 0) + 1 or tenant["kek_version"] != new.kek.version:
        raise Moved
