"""What the server's role may do on PostgreSQL: as little as it needs, and to the log only to append.

The role owns nothing, makes nothing and is above no policy. `row_security.py` holds it to that at start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.store.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

APPEND_ONLY = frozenset(
    {
        "audit_records",
        "audit_archives",
        "checkpoints",
        "checkpoint_keys",
        "cosignatures",
        "tree_nodes",
        "policies",
    }
)
"""Tables of which the server's role changes and removes nothing."""
_CHANGED_ONLY = frozenset({"audit_head"})
_FORGOTTEN = frozenset({"requests", "revocations", "group_revocations", "token_uses", "audit_sinks"})
FUNCTIONS = ("make_audit_months(timestamptz, timestamptz)", "remove_archived_records(bigint)")
"""What the role may have done as the tables' owner."""


def privileges() -> Mapping[str, tuple[str, ...]]:
    """What the server's role may do with each table."""
    return {name: _privileges_of(name) for name in metadata.tables} | {"alembic_version": ("SELECT",)}


def _privileges_of(table: str) -> tuple[str, ...]:
    if table in APPEND_ONLY:
        return ("SELECT", "INSERT")
    if table in _CHANGED_ONLY:
        return ("SELECT", "UPDATE")
    return ("SELECT", "INSERT", "UPDATE", *(("DELETE",) if table in _FORGOTTEN else ()))


def statements(role: str, schema: str = "public") -> list[str]:
    """The SQL that gives a role what the server needs, and takes from it whatever else it has in this schema.

    To be run by the tables' owner.
    """
    name, place = quoted(role), quoted(schema)
    return [
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {place} FROM {name}",
        f"REVOKE CREATE ON SCHEMA {place} FROM PUBLIC, {name}",
        f"GRANT USAGE ON SCHEMA {place} TO {name}",
        *(f"GRANT {', '.join(what)} ON {table} TO {name}" for table, what in sorted(privileges().items())),
        *(f"GRANT EXECUTE ON FUNCTION {function} TO {name}" for function in FUNCTIONS),
    ]


def role_statements(role: str) -> list[str]:
    """The SQL that makes such a role, to be run by somebody who may make roles."""
    name = quoted(role)
    return [
        f"CREATE ROLE {name} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOINHERIT",
        # Whoever holds the lock on the head of the log holds up all.
        f"ALTER ROLE {name} SET idle_in_transaction_session_timeout = '10s'",
    ]


def quoted(identifier: str) -> str:
    """An identifier as SQL takes it, whatever is in it."""
    return '"' + identifier.replace('"', '""') + '"'
