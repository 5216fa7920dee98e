"""The audit records by month (PostgreSQL), the view `payment_audits`, and the look-up by network."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

_POSTGRESQL = (
    "ALTER TABLE audit_records RENAME TO audit_records_unpartitioned",
    "ALTER TABLE audit_records_unpartitioned DROP CONSTRAINT audit_records_pkey",
    "DROP INDEX audit_by_tenant",
    "CREATE TABLE audit_records (LIKE audit_records_unpartitioned) PARTITION BY RANGE (created_at)",
    # A unique key must hold the partition key. That a sequence is given once is held by the lock on the head.
    "ALTER TABLE audit_records ADD PRIMARY KEY (sequence, created_at)",
    "CREATE INDEX audit_by_tenant ON audit_records (tenant, sequence)",
    # Whatever no month takes lands here: a partition that was not made in time stops nothing.
    "CREATE TABLE audit_records_default PARTITION OF audit_records DEFAULT",
    # The vault's role may not make tables. This makes the months that are due, and nothing else, as their owner.
    """
    CREATE FUNCTION make_audit_months(since timestamptz, until timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
      month timestamp := date_trunc('month', since AT TIME ZONE 'UTC');
      name text;
    BEGIN
      WHILE month AT TIME ZONE 'UTC' <= until LOOP
        name := 'audit_records_' || to_char(month, 'YYYY_MM');
        IF to_regclass(name) IS NULL THEN
          EXECUTE format(
            'CREATE TABLE %I PARTITION OF audit_records FOR VALUES FROM (%L) TO (%L)',
            name, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
        END IF;
        month := month + interval '1 month';
      END LOOP;
    END $$
    """,
    # Whoever may call it: its names are looked up where the tables are, and it gives up instead of holding up the log.
    """
    DO $$ BEGIN
      EXECUTE format(
        'ALTER FUNCTION make_audit_months SET search_path = %I, pg_temp', current_schema());
    END $$
    """,
    "ALTER FUNCTION make_audit_months SET lock_timeout = '2s'",
    "REVOKE ALL ON FUNCTION make_audit_months FROM PUBLIC",
    """
    SELECT make_audit_months(
      coalesce((SELECT min(created_at) FROM audit_records_unpartitioned), now()), now() + interval '3 months')
    """,
    "INSERT INTO audit_records SELECT * FROM audit_records_unpartitioned",
    "DROP TABLE audit_records_unpartitioned",
    """
    CREATE FUNCTION in_network(address text, network text) RETURNS boolean LANGUAGE sql IMMUTABLE AS
    $$ SELECT CASE WHEN address = '' THEN false ELSE address::inet <<= network::inet END $$
    """,
    """
    CREATE VIEW payment_audits AS SELECT
      id::uuid AS id, user_id, action_type,
      nullif(before_state, '')::jsonb AS before_state, nullif(after_state, '')::jsonb AS after_state,
      nullif(ip_address, '')::inet AS ip_address, device_id, created_at
    FROM audit_records
    """,
)
_SQLITE = (
    """
    CREATE VIEW payment_audits AS SELECT
      id, user_id, action_type, nullif(before_state, '') AS before_state, nullif(after_state, '') AS after_state,
      nullif(ip_address, '') AS ip_address, device_id, created_at
    FROM audit_records
    """,
)


def upgrade() -> None:
    """Partition what is there; nothing is lost."""
    postgresql = op.get_context().dialect.name == "postgresql"
    for statement in _POSTGRESQL if postgresql else _SQLITE:
        op.execute(statement)
