"""Archives of the audit log: where its beginning lies, and the one function that removes what was archived."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"

_POSTGRESQL = (
    # The server's role may neither delete a record nor drop a month. This does, as their owner: only what lies before
    # the end of an archive that the database knows of, where a checkpoint stands, and never of the last twelve months.
    """
    CREATE FUNCTION remove_archived_records(cut bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
      floor timestamptz := (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '12 months') AT TIME ZONE 'UTC';
      part regclass;
      kept boolean;
    BEGIN
      IF NOT EXISTS (SELECT FROM audit_archives WHERE end_sequence = cut)
         OR NOT EXISTS (SELECT FROM checkpoints WHERE size = cut)
         OR EXISTS (SELECT FROM audit_records WHERE sequence < cut AND created_at >= floor) THEN
        RETURN false;
      END IF;
      DELETE FROM tree_nodes WHERE level = 0 AND position < cut - cut % 256;
      INSERT INTO tree_nodes (level, position, hash)
        SELECT 0, sequence, leaf_hash FROM audit_records WHERE sequence >= cut - cut % 256 AND sequence < cut;
      FOR part IN
        SELECT c.oid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'audit_records'::regclass
          AND c.relname < 'audit_records_' || to_char(floor AT TIME ZONE 'UTC', 'YYYY_MM')
      LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE sequence >= $1)', part) INTO kept USING cut;
        IF NOT kept THEN
          EXECUTE format('DROP TABLE %s', part);
        END IF;
      END LOOP;
      -- What lies in no month of its own, or in one that holds younger records too.
      DELETE FROM audit_records WHERE sequence < cut;
      DELETE FROM checkpoints WHERE size < cut;
      DELETE FROM cosignatures WHERE size < cut;
      RETURN true;
    END $$
    """,
    """
    DO $$ BEGIN
      EXECUTE format(
        'ALTER FUNCTION remove_archived_records SET search_path = %I, pg_temp', current_schema());
    END $$
    """,
    "ALTER FUNCTION remove_archived_records SET lock_timeout = '2s'",
    "REVOKE ALL ON FUNCTION remove_archived_records FROM PUBLIC",
)


def upgrade() -> None:
    """Make the table; on PostgreSQL the function."""
    op.create_table(
        "audit_archives",
        sa.Column(
            "end_sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("first_sequence", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("end_sequence"),
    )
    if op.get_context().dialect.name == "postgresql":
        for statement in _POSTGRESQL:
            op.execute(statement)
