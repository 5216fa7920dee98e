"""From the vault's model to its protobufs and back. Nothing here decides anything."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from vault.clock import micros
from vault.core import credential_keys
from vault.core.keys import Homes
from vault.crypto import suites
from vault.errors import invalid_field
from vault.model import (
    CredentialState,
    JobKind,
    JobState,
    KeyPurpose,
    KeyState,
    Outcome,
    Placement,
    Standing,
    VersionState,
)
from vault.v1 import audit_pb2, credential_pb2, job_pb2, key_pb2, session_pb2

if TYPE_CHECKING:
    from vault.core.schedules import KeyStatus
    from vault.core.session import Opened
    from vault.core.watches import Change
    from vault.model import (
        Activity,
        AuditRecord,
        Checkpoint,
        Credential,
        CredentialKey,
        JobFailure,
        JobProgress,
        Key,
        KeySchedule,
        Version,
    )
    from vault.store.sinks import SinkState

_MAX_SECONDS = 10 * 366 * 86_400

_CREDENTIAL_STATES = {
    CredentialState.ACTIVE: credential_pb2.CREDENTIAL_STATE_ACTIVE,
    CredentialState.DELETED: credential_pb2.CREDENTIAL_STATE_DELETED,
}
_VERSION_STATES = {
    VersionState.ENABLED: credential_pb2.VERSION_STATE_ENABLED,
    VersionState.DESTROYED: credential_pb2.VERSION_STATE_DESTROYED,
}
_CHANGES = {
    "credential.put": credential_pb2.CREDENTIAL_CHANGE_PUT,
    "credential.delete": credential_pb2.CREDENTIAL_CHANGE_DELETED,
    "credential.undelete": credential_pb2.CREDENTIAL_CHANGE_UNDELETED,
    "credential.destroy_version": credential_pb2.CREDENTIAL_CHANGE_VERSION_DESTROYED,
    "credential.set_standing": credential_pb2.CREDENTIAL_CHANGE_STANDING,
}
_STANDINGS = {
    Standing.ACTIVE: credential_pb2.STANDING_ACTIVE,
    Standing.EXPIRING: credential_pb2.STANDING_EXPIRING,
    Standing.UPDATE_REQUIRED: credential_pb2.STANDING_UPDATE_REQUIRED,
    Standing.SUSPENDED: credential_pb2.STANDING_SUSPENDED,
    Standing.REVOKED: credential_pb2.STANDING_REVOKED,
}
_KEY_STATES = {
    KeyState.PENDING: key_pb2.KEY_STATE_PENDING,
    KeyState.ACTIVE: key_pb2.KEY_STATE_ACTIVE,
    KeyState.DECRYPT_ONLY: key_pb2.KEY_STATE_DECRYPT_ONLY,
    KeyState.QUARANTINED: key_pb2.KEY_STATE_QUARANTINED,
    KeyState.SEALED_OFF: key_pb2.KEY_STATE_SEALED_OFF,
    KeyState.RETIRED: key_pb2.KEY_STATE_RETIRED,
    KeyState.DESTROY_SCHEDULED: key_pb2.KEY_STATE_DESTROY_SCHEDULED,
    KeyState.DESTROYED: key_pb2.KEY_STATE_DESTROYED,
}
_KEY_PURPOSES = {
    KeyPurpose.KEK: key_pb2.KEY_PURPOSE_KEK,
    KeyPurpose.TOKEN: key_pb2.KEY_PURPOSE_TOKEN,
    KeyPurpose.CHECKPOINT: key_pb2.KEY_PURPOSE_CHECKPOINT,
    KeyPurpose.INGEST: key_pb2.KEY_PURPOSE_INGEST,
}
_JOB_KINDS = {
    JobKind.REWRAP: job_pb2.JOB_KIND_REWRAP,
    JobKind.REENCRYPT: job_pb2.JOB_KIND_REENCRYPT,
}
_JOB_STATES = {
    JobState.RUNNING: job_pb2.JOB_STATE_RUNNING,
    JobState.PAUSED: job_pb2.JOB_STATE_PAUSED,
    JobState.CANCELLED: job_pb2.JOB_STATE_CANCELLED,
    JobState.SUCCEEDED: job_pb2.JOB_STATE_SUCCEEDED,
    JobState.FAILED: job_pb2.JOB_STATE_FAILED,
}
_OUTCOMES = {
    Outcome.GRANTED: audit_pb2.OUTCOME_GRANTED,
    Outcome.REFUSED: audit_pb2.OUTCOME_REFUSED,
}


def timestamp(moment: datetime.datetime | None) -> Timestamp | None:
    """A moment; None stays None, which leaves the field unset."""
    if moment is None:
        return None
    # Not by `FromDatetime`, which takes ten times as long.
    seconds, rest = divmod(micros(moment), 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def moment(field: str, stamp: Timestamp) -> datetime.datetime:
    """A moment from a request. Raises `FIELD_INVALID` for one that no calendar has."""
    try:
        return stamp.ToDatetime(datetime.UTC)
    except (ValueError, OverflowError):
        raise invalid_field(field, "is out of range") from None


def span(field: str, duration: Duration) -> datetime.timedelta:
    """A duration from a request. Raises `FIELD_INVALID` for one that is no span of time a vault deals in."""
    if not -_MAX_SECONDS <= duration.seconds <= _MAX_SECONDS or not -(10**9) < duration.nanos < 10**9:
        raise invalid_field(field, "is out of range")
    return datetime.timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)


def duration(value: datetime.timedelta | None) -> Duration | None:
    """A span of time; None stays None."""
    if value is None:
        return None
    made = Duration()
    made.FromTimedelta(value)
    return made


def credential(value: Credential) -> credential_pb2.Credential:
    """A credential's metadata."""
    return credential_pb2.Credential(
        name=value.name,
        kind=value.kind,
        labels=value.labels,
        state=_CREDENTIAL_STATES[value.state],
        latest_version=value.latest_version,
        field_names=value.field_names,
        etag=value.etag,
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
        delete_time=timestamp(value.delete_time),
        created_by=value.created_by,
        updated_by=value.updated_by,
        standing=_STANDINGS[value.standing],
        standing_note=value.standing_note,
        standing_by=value.standing_by,
        standing_time=timestamp(value.standing_time),
        expire_time=timestamp(value.expire_time),
        subject_id=value.subject_id,
        rotation_period=duration(datetime.timedelta(days=value.rotation_days) or None),
        rotation_due_time=timestamp(value.rotation_due_time),
        **_activity(value.activity),
    )


def _activity(value: Activity | None) -> dict[str, Any]:
    if value is None:
        return {}
    return {
        "last_written_time": timestamp(value.last_written_time),
        "last_written_by": value.last_written_by,
        "last_used_time": timestamp(value.last_used_time),
        "last_used_by": value.last_used_by,
        "last_revealed_time": timestamp(value.last_revealed_time),
        "last_revealed_by": value.last_revealed_by,
    }


def standing(value: int) -> Standing | None:
    """The standing that a request names; None if it names none. Raises `FIELD_INVALID`."""
    if value == credential_pb2.STANDING_UNSPECIFIED:
        return None
    for known, number in _STANDINGS.items():
        if number == value:
            return known
    raise invalid_field("standing", "must be one that the vault knows")


def version(value: Version) -> credential_pb2.CredentialVersion:
    """A version's metadata."""
    return credential_pb2.CredentialVersion(
        name=value.name,
        version=value.version,
        state=_VERSION_STATES[value.state],
        suite=suites.suite(value.suite).name,
        kek_version=value.kek_version,
        field_names=value.field_names,
        create_time=timestamp(value.create_time),
        created_by=value.created_by,
        destroy_time=timestamp(value.destroy_time),
    )


def public_key(value: CredentialKey) -> credential_pb2.PublicKey:
    """The public half of a key in the HSM."""
    return credential_pb2.PublicKey(
        name=value.name,
        version=value.version,
        algorithm=value.algorithm,
        kid=value.kid,
        pem=credential_keys.pem(value),
        jwk=credential_keys.jwk(value),
        create_time=timestamp(value.create_time),
        destroy_time=timestamp(value.destroy_time),
    )


def change(value: Change | None, cursor: str) -> credential_pb2.CredentialServiceWatchResponse:
    """A change, or a sign of life."""
    if value is None:
        return credential_pb2.CredentialServiceWatchResponse(cursor=cursor)
    return credential_pb2.CredentialServiceWatchResponse(
        cursor=cursor,
        change=_CHANGES[value.action],
        name=value.name,
        version=value.version,
        create_time=timestamp(value.time),
        changed_by=value.identity,
    )


def key(value: Key) -> key_pb2.Key:
    """A key version."""
    return key_pb2.Key(
        tenant=value.tenant,
        version=value.version,
        state=_KEY_STATES[value.state],
        algorithm=value.algorithm,
        backend=value.backend,
        label=value.label,
        create_time=timestamp(value.create_time),
        created_by=value.created_by,
        purpose=_KEY_PURPOSES.get(value.purpose, key_pb2.KEY_PURPOSE_UNSPECIFIED),
        placement=_PLACEMENTS[value.placement],
        backends=value.backends,
    )


def key_purpose(value: int) -> KeyPurpose | None:
    """What a key is for, of a request; None for what is not known."""
    if value == key_pb2.KEY_PURPOSE_UNSPECIFIED:
        return KeyPurpose.KEK
    return next((purpose for purpose, number in _KEY_PURPOSES.items() if number == value), None)


def key_status(value: KeyStatus) -> key_pb2.KeyStatus:
    """What depends on a key version, and what is due."""
    by_suite: dict[str, int] = {}
    for use in value.uses:
        name = suites.suite(use.suite).name
        by_suite[name] = by_suite.get(name, 0) + use.versions
    return key_pb2.KeyStatus(
        key=key(value.key),
        credential_versions=sum(by_suite.values()),
        oldest_create_time=timestamp(min((use.oldest for use in value.uses), default=None)),
        newest_create_time=timestamp(max((use.newest for use in value.uses), default=None)),
        suites=by_suite,
        wraps=value.wraps,
        rotate_due_time=timestamp(value.rotate_due_time),
        destroy_time=timestamp(value.destroy_time),
    )


def key_schedule(value: KeySchedule) -> key_pb2.KeySchedule:
    """A schedule."""
    return key_pb2.KeySchedule(
        purpose=_KEY_PURPOSES[value.purpose],
        every=Duration(seconds=value.every_seconds),
        max_wraps=value.max_wraps,
        rewrap=value.rewrap,
    )


def homes(value: key_pb2.KeyHomes) -> Homes:
    """Where a new key shall lie. Raises `FIELD_INVALID`."""
    placement = next((mine for mine, theirs in _PLACEMENTS.items() if theirs == value.placement), None)
    if placement is None and value.placement != key_pb2.KEY_PLACEMENT_UNSPECIFIED:
        raise invalid_field("homes.placement", "is not a known placement")
    if len(value.backends) > 2:  # noqa: PLR2004
        raise invalid_field("homes.backends", "names one HSM, or two different ones")
    return Homes(placement, tuple(value.backends))


_PLACEMENTS = {
    Placement.TOKEN: key_pb2.KEY_PLACEMENT_TOKEN,
    Placement.WRAPPED: key_pb2.KEY_PLACEMENT_WRAPPED,
}


def job(value: JobProgress) -> job_pb2.RewrapJob:
    """A job and how far it is."""
    of = value.job
    return job_pb2.RewrapJob(
        job_id=of.job_id,
        tenant=of.tenant,
        kind=_JOB_KINDS[of.kind],
        # What was only validated has no id, and no state.
        state=_JOB_STATES[of.state] if of.job_id else job_pb2.JOB_STATE_UNSPECIFIED,
        source_version=of.source_version,
        suite=suites.suite(of.suite).name if of.suite else "",
        urgent=of.urgent,
        max_per_second=of.max_per_second,
        total=of.total,
        done=value.done,
        skipped=value.skipped,
        failed=value.failed,
        workers=value.workers,
        report=of.report,
        create_time=timestamp(of.create_time),
        created_by=of.created_by,
        approved_by=of.approved_by,
        end_time=timestamp(of.end_time),
    )


def job_failure(value: JobFailure) -> job_pb2.JobFailure:
    """What a job could not do."""
    return job_pb2.JobFailure(
        name=value.name,
        version=value.version,
        reason=value.reason,
        create_time=timestamp(value.create_time),
    )


def opened(value: Opened) -> session_pb2.OpenedCredential:
    """What was opened."""
    return session_pb2.OpenedCredential(
        name=value.name, version=value.version, kind=value.kind, field_names=value.field_names
    )


def checkpoint(value: Checkpoint) -> audit_pb2.Checkpoint:
    """A checkpoint."""
    return audit_pb2.Checkpoint(
        size=value.size,
        note=value.note,
        frontier=value.frontier,
        create_time=timestamp(value.create_time),
    )


def record(value: AuditRecord) -> audit_pb2.AuditRecord:
    """An audit record."""
    return audit_pb2.AuditRecord(
        sequence=value.sequence,
        id=value.record_id,
        create_time=timestamp(value.created_at),
        tenant=value.tenant,
        identity=value.identity,
        action=value.action,
        resource=value.resource,
        outcome=_OUTCOMES[value.outcome],
        reason=value.reason,
        ip_address=value.ip_address,
        device_id=value.device_id,
        request_id=value.request_id,
        token_id=value.token_id,
        session_id=value.session_id,
        before_state=value.before_state,
        after_state=value.after_state,
        rows_written=value.rows_written,
        leaf_hash=value.leaf_hash,
    )


def sink(state: SinkState, required: bool, behind: int) -> audit_pb2.AuditSink:
    """A sink of the log."""
    return audit_pb2.AuditSink(
        name=state.name,
        required=required,
        next_sequence=state.next_sequence,
        behind=behind,
        error=state.error,
        failing_since=timestamp(state.failing_since),
    )
