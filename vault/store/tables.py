"""The tables. No column ever holds a secret, a token or key material in the clear.

Every table that the log vouches for has one primary key and is written through `ledger.py` alone, row by
whole row, so that each write's record carries the digest of the very row that it wrote.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy import Column as C  # noqa: N817 - a table reads best with short columns

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


class UtcDateTime(TypeDecorator[datetime.datetime]):
    """A moment in UTC, to the microsecond. SQLite forgets the zone; this gives it back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, _dialect: Dialect) -> Any:
        """To the database: refuse a moment without a zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment needs a zone")
        return value

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime.datetime | None:
        """From the database: always UTC."""
        if value is None:
            return None
        moment: datetime.datetime = value
        return (
            moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)
        )


metadata = MetaData()

# A column that a table did not have at first: it stands at the end, may be NULL, and as long as it is, a row's digest
# is what it was before (`rows.py`).
LATER = {"later": True}

tenants = Table(
    "tenants",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("kek_version", Integer, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("created_by", String(512), nullable=False),
)

keys = Table(
    "keys",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("purpose", String(16), primary_key=True),
    C("version", Integer, primary_key=True),
    C("state", String(16), nullable=False),
    C("algorithm", String(32), nullable=False),
    C("backend", String(128), nullable=False),
    C("label", String(64), nullable=False),
    C("object_id", LargeBinary(16), nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("created_by", String(512), nullable=False),
)
# Exactly one active version of each key: held here, whatever the code above believes.
Index(
    "one_active_version",
    keys.c.tenant,
    keys.c.purpose,
    unique=True,
    postgresql_where=text("state = 'active'"),
    sqlite_where=text("state = 'active'"),
)

# Key pairs that were made in the HSM for a credential's version.
credential_keys = Table(
    "credential_keys",
    metadata,
    C("key_id", String(32), primary_key=True),
    C("tenant", String(63), nullable=False),
    C("name", String(512), nullable=False),
    C("version", Integer, nullable=False),
    C("state", String(16), nullable=False),
    C("algorithm", String(16), nullable=False),
    C("kid", String(128), nullable=False),
    C("backend", String(128), nullable=False),
    C("label", String(64), nullable=False),
    C("public_key", LargeBinary, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("created_by", String(512), nullable=False),
    C("destroy_time", UtcDateTime),
)
Index("credential_keys_by_name", credential_keys.c.name, credential_keys.c.version)
Index(
    "credential_keys_alive",
    credential_keys.c.tenant,
    postgresql_where=text("state != 'destroyed'"),
    sqlite_where=text("state != 'destroyed'"),
)

# Data subjects by pseudonym. An erased one has no key.
subjects = Table(
    "subjects",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("subject_id", String(22), primary_key=True),
    C("state", String(16), nullable=False),
    C("key_version", Integer, nullable=False),
    C("wrapped_key", LargeBinary, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("erase_time", UtcDateTime),
)
Index("subjects_by_key", subjects.c.tenant, subjects.c.key_version)

# The people who call, in the order in which they came. Each is a subject of the vault's own tenant, whose key seals the
# identity here; of an erased one nothing is left but the pseudonym.
people = Table(
    "people",
    metadata,
    C("number", Integer, primary_key=True, autoincrement=False),
    C("subject_id", String(22), nullable=False),
    C("sealed", LargeBinary, nullable=False),
)

# The erasure of a subject, or with an empty subject of the whole tenant.
erasures = Table(
    "erasures",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("subject_id", String(22), primary_key=True),
    C("state", String(16), nullable=False),
    C("key_version", Integer, nullable=False),
    C("requested_by", String(512), nullable=False),
    C("approved_by", Text, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("end_time", UtcDateTime),
    C("certificate", Text, nullable=False),
)

# Where a key lies, unless that is an object in the HSM of its row and nowhere else.
key_homes = Table(
    "key_homes",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("purpose", String(16), primary_key=True),
    C("version", Integer, primary_key=True),
    C("backend", String(128), primary_key=True),
    C("root_version", Integer, nullable=False),
    C("wrapped", LargeBinary, nullable=False),
)
Index("homes_by_root", key_homes.c.root_version)

# What each HSM of the configuration was recorded to be: canonical JSON of `hsm.drift.record_of`.
hsm_capabilities = Table(
    "hsm_capabilities",
    metadata,
    C("place", String(16), primary_key=True),
    C("capabilities", Text, nullable=False),
    C("update_time", UtcDateTime, nullable=False),
    C("updated_by", String(512), nullable=False),
)

ingest_keys = Table(
    "ingest_keys",
    metadata,
    C("key_id", String(43), primary_key=True),
    C("hpke_suite", Integer, nullable=False),
    C("signed_key", Text, nullable=False),
    C("wrapped_seed", LargeBinary, nullable=False),
    C("kek_version", Integer, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("expire_time", UtcDateTime, nullable=False),
)

credentials = Table(
    "credentials",
    metadata,
    C("name", String(511), primary_key=True),
    C("tenant", String(63), nullable=False),
    C("kind", String(63), nullable=False),
    C("labels", Text, nullable=False),
    C("state", String(16), nullable=False),
    C("latest_version", Integer, nullable=False),
    C("field_names", Text, nullable=False),
    C("etag", String(32), nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("update_time", UtcDateTime, nullable=False),
    C("delete_time", UtcDateTime),
    C("created_by", String(512), nullable=False),
    C("updated_by", String(512), nullable=False),
    C("subject_id", String(22), info=LATER),
    C("standing", String(16), info=LATER),
    C("standing_note", String(128), info=LATER),
    C("standing_by", String(512), info=LATER),
    C("standing_time", UtcDateTime, info=LATER),
    C("expire_time", UtcDateTime, info=LATER),
    C("rotation_days", Integer, info=LATER),
    C("rotation_due_time", UtcDateTime, info=LATER),
)
Index("credentials_by_expiry", credentials.c.expire_time)
Index("credentials_by_rotation", credentials.c.rotation_due_time)
Index("credentials_by_subject", credentials.c.tenant, credentials.c.subject_id)
# The few among many, for the threat rules. A database answers from it only who asks in these words, without parameters.
IS_CANARY = """labels LIKE '%"canary":"true"%'"""
Index(
    "credentials_canary",
    credentials.c.name,
    postgresql_where=text(IS_CANARY),
    sqlite_where=text(IS_CANARY),
)

# Who last used and last revealed a credential. Follows from the log, which does not vouch for it (`core/activity.py`).
credential_activity = Table(
    "credential_activity",
    metadata,
    C("name", String(511), primary_key=True),
    C("tenant", String(63), nullable=False),
    C("last_used_time", UtcDateTime),
    C("last_used_by", String(512)),
    C("last_revealed_time", UtcDateTime),
    C("last_revealed_by", String(512)),
)

credential_versions = Table(
    "credential_versions",
    metadata,
    C("name", String(511), primary_key=True),
    C("version", Integer, primary_key=True),
    C("tenant", String(63), nullable=False),
    C("state", String(16), nullable=False),
    C("suite", Integer, nullable=False),
    C("kek_version", Integer, nullable=False),
    C("field_names", Text, nullable=False),
    C("envelope", LargeBinary, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("created_by", String(512), nullable=False),
    C("destroy_time", UtcDateTime),
)
Index("versions_by_kek", credential_versions.c.tenant, credential_versions.c.kek_version)

handovers = Table(
    "handovers",
    metadata,
    C("name", String(511), primary_key=True),
    C("handover_id", String(22), primary_key=True),
    C("tenant", String(63), nullable=False),
    C("sender", String(512), nullable=False),
    C("recipient", String(512), nullable=False),
    C("state", String(16), nullable=False),
    C("suite", Integer, nullable=False),
    C("kek_version", Integer, nullable=False),
    C("field_names", Text, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("expire_time", UtcDateTime, nullable=False),
    C("end_time", UtcDateTime),
    C("envelope", LargeBinary, nullable=False),
)
Index("handovers_by_state", handovers.c.state, handovers.c.expire_time)

key_destructions = Table(
    "key_destructions",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("purpose", String(16), primary_key=True),
    C("version", Integer, primary_key=True),
    # None: it was taken back, or is done.
    C("destroy_time", UtcDateTime),
    C("ordered_by", String(512), nullable=False),
    C("approval_id", String(22), nullable=False),
    C("order_time", UtcDateTime, nullable=False),
)

key_schedules = Table(
    "key_schedules",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("purpose", String(16), primary_key=True),
    C("every_seconds", BigInteger, nullable=False),
    C("max_wraps", BigInteger, nullable=False),
    C("rewrap", Integer, nullable=False),
    C("update_time", UtcDateTime, nullable=False),
    C("updated_by", String(512), nullable=False),
)

# How often each key has wrapped. Counted beside the ledger, which vouches for no counter.
key_usage = Table(
    "key_usage",
    metadata,
    C("object_id", LargeBinary(16), primary_key=True),
    C("wraps", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    C("job_id", String(22), primary_key=True),
    C("tenant", String(63), nullable=False),
    C("kind", String(16), nullable=False),
    C("state", String(16), nullable=False),
    C("source_version", Integer, nullable=False),
    C("suite", Integer, nullable=False),
    C("urgent", Integer, nullable=False),
    C("max_per_second", Integer, nullable=False),
    C("total", Integer, nullable=False),
    C("before", Text, nullable=False),
    C("report", Text, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("created_by", String(512), nullable=False),
    C("approved_by", String(512), nullable=False),
    C("update_time", UtcDateTime, nullable=False),
    C("end_time", UtcDateTime),
)
Index("jobs_by_tenant", jobs.c.tenant, jobs.c.create_time)
# One job of a kind at a time for each tenant, beside those of quarantines.
Index(
    "one_unfinished_job",
    jobs.c.tenant,
    jobs.c.kind,
    jobs.c.urgent,
    unique=True,
    postgresql_where=text("state IN ('running', 'paused') AND urgent = 0"),
    sqlite_where=text("state IN ('running', 'paused') AND urgent = 0"),
)

job_ranges = Table(
    "job_ranges",
    metadata,
    C("job_id", String(22), primary_key=True),
    C("number", Integer, primary_key=True),
    C("cursor_name", String(511), nullable=False),
    C("cursor_version", Integer, nullable=False),
    C("last_name", String(511), nullable=False),
    C("last_version", Integer, nullable=False),
    C("done", Integer, nullable=False),
    C("skipped", Integer, nullable=False),
    C("failed", Integer, nullable=False),
    C("finished", Integer, nullable=False),
    C("holder", String(32), nullable=False),
    C("lease_time", UtcDateTime),
)

job_failures = Table(
    "job_failures",
    metadata,
    C("job_id", String(22), primary_key=True),
    C("name", String(511), primary_key=True),
    C("version", Integer, primary_key=True),
    C("reason", String(64), nullable=False),
    C("create_time", UtcDateTime, nullable=False),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("endpoint_id", String(22), primary_key=True),
    C("url", String(512), nullable=False),
    C("events", Text, nullable=False),
    C("credential", String(511), nullable=False),
    C("state", String(16), nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("created_by", String(512), nullable=False),
)

requests = Table(
    "requests",
    metadata,
    C("identity", String(512), primary_key=True),
    C("action", String(64), primary_key=True),
    C("request_id", String(64), primary_key=True),
    C("digest", LargeBinary(32), nullable=False),
    C("answer", Text, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
)
Index("requests_by_time", requests.c.create_time)

refreshes = Table(
    "refreshes",
    metadata,
    C("name", String(511), primary_key=True),
    # Who refreshes this grant now; empty if nobody does.
    C("holder", String(22), nullable=False),
    C("version", Integer, nullable=False),
    C("expire_time", UtcDateTime, nullable=False),
)

revocations = Table(
    "revocations",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("token_id", String(22), primary_key=True),
    C("revoked_by", String(512), nullable=False),
    C("revoke_time", UtcDateTime, nullable=False),
    # After this moment no token that the revocation could concern is alive, and the row may go.
    C("forget_time", UtcDateTime, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    C("approval_id", String(22), primary_key=True),
    C("tenant", String(63), nullable=False),
    C("action", String(64), nullable=False),
    C("resource", String(511), nullable=False),
    C("arguments", Text, nullable=False),
    C("requested_by", String(512), nullable=False),
    C("purpose", String(128), nullable=False),
    C("required", Integer, nullable=False),
    C("state", String(16), nullable=False),
    # Who signed, in order: small, bounded, and always read and written as a whole.
    C("signatures", Text, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
    C("expire_time", UtcDateTime, nullable=False),
    C("document", Text, info=LATER),
)
Index("approvals_by_tenant", approvals.c.tenant, approvals.c.create_time, approvals.c.approval_id)

# Many tokens at once: those of an identity, of a tenant, or made from a token, if they were issued until a moment.
group_revocations = Table(
    "group_revocations",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("kind", String(16), primary_key=True),
    C("subject", String(255), primary_key=True),
    C("issued_until", UtcDateTime, nullable=False),
    C("revoked_by", String(512), nullable=False),
    C("revoke_time", UtcDateTime, nullable=False),
    C("forget_time", UtcDateTime, nullable=False),
)

# How many sessions a token that is good for a number of them has opened.
token_uses = Table(
    "token_uses",
    metadata,
    C("tenant", String(63), primary_key=True),
    C("token_id", String(22), primary_key=True),
    C("sessions", Integer, nullable=False),
    C("forget_time", UtcDateTime, nullable=False),
)

# How much of a second's budget is taken. Lasts a second; not vouched for by the log.
rates = Table(
    "rates",
    metadata,
    C("subject", String(600), primary_key=True),
    C("second", BigInteger, nullable=False),
    C("used", Integer, nullable=False),
)

threats = Table(
    "threats",
    metadata,
    C("threat_id", String(22), primary_key=True),
    C("rule", String(32), nullable=False),
    C("tenant", String(63), nullable=False),
    C("identity", String(512), nullable=False),
    C("state", String(16), nullable=False),
    C("evidence", Text, nullable=False),
    C("sequence", BigInteger, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
)
Index("threats_by_sequence", threats.c.sequence)

policies = Table(
    "policies",
    metadata,
    C("version", Integer, primary_key=True, autoincrement=False),
    C("text", Text, nullable=False),
    C("digest", LargeBinary(32), nullable=False),
    C("mac", LargeBinary(32), nullable=False),
    C("mac_key_version", Integer, nullable=False),
    C("comment", String(128), nullable=False),
    C("created_by", String(512), nullable=False),
    C("create_time", UtcDateTime, nullable=False),
)

# On PostgreSQL one partition a month of `created_at`; there the primary key holds that column too.
audit_records = Table(
    "audit_records",
    metadata,
    C("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    C("id", String(36), nullable=False),
    C("created_at", UtcDateTime, nullable=False),
    C("tenant", String(63), nullable=False),
    C("user_id", String(512), nullable=False),
    C("action_type", String(64), nullable=False),
    C("resource", String(511), nullable=False),
    C("outcome", String(16), nullable=False),
    C("reason", String(64), nullable=False),
    C("ip_address", String(64), nullable=False),
    C("device_id", String(128), nullable=False),
    C("request_id", String(64), nullable=False),
    C("token_id", String(22), nullable=False),
    C("session_id", String(22), nullable=False),
    C("before_state", Text, nullable=False),
    C("after_state", Text, nullable=False),
    C("rows_written", Text, nullable=False),
    C("leaf_hash", LargeBinary(32), nullable=False),
)
Index("audit_by_tenant", audit_records.c.tenant, audit_records.c.sequence)

audit_head = Table(
    "audit_head",
    metadata,
    C("id", Integer, primary_key=True),
    C("size", BigInteger, nullable=False),
    C("frontier", LargeBinary, nullable=False),
)

# How far each sink of the log has come, and which worker serves it. The log does not vouch for it: it is about the log.
audit_sinks = Table(
    "audit_sinks",
    metadata,
    C("name", String(63), primary_key=True),
    C("next_sequence", BigInteger, nullable=False),
    C("holder", String(32), nullable=False),
    C("lease_time", UtcDateTime, nullable=False),
    C("error", String(128), nullable=False),
    C("failing_since", UtcDateTime),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    C("size", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    C("root", LargeBinary(32), nullable=False),
    C("frontier", LargeBinary, nullable=False),
    C("note", Text, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
)

# The archives that hold the beginning of the log: a signed statement about each (`core/archives.py`).
audit_archives = Table(
    "audit_archives",
    metadata,
    C("end_sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    C("first_sequence", BigInteger, nullable=False),
    C("note", Text, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
)

# The roots of the log's complete subtrees of 256, 65,536, ... records: level 1, 2, ... Written with the checkpoint that
# first covers them. At level 0 the last leaves of what was archived, which no whole subtree holds.
tree_nodes = Table(
    "tree_nodes",
    metadata,
    C("level", Integer, primary_key=True, autoincrement=False),
    C("position", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    C("hash", LargeBinary(32), nullable=False),
)

checkpoint_keys = Table(
    "checkpoint_keys",
    metadata,
    C("version", Integer, primary_key=True, autoincrement=False),
    C("verifier_key", Text, nullable=False),
    C("wrapped_seed", LargeBinary, nullable=False),
    C("kek_version", Integer, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
)

# What witnesses and other anchors answered: signature lines that belong to a checkpoint's note.
cosignatures = Table(
    "cosignatures",
    metadata,
    C("size", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    C("witness", String(128), primary_key=True),
    C("line", Text, nullable=False),
    C("create_time", UtcDateTime, nullable=False),
)
