"""Which tenant each row belongs to. What is written here is what PostgreSQL is told to hold to (`row_security.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vault.store.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

BY_NAME: Mapping[str, str] = {"refreshes": "name", "job_ranges": "last_name", "job_failures": "name"}
"""Tables without a column `tenant`: the column whose first segment is the tenant."""

SHARED: Mapping[str, str] = {
    "audit_archives": "parts of the one log",
    "audit_head": "the size and frontier of the one log",
    "audit_sinks": "how far each sink of the one log has come",
    "checkpoints": "heads of the one log",
    "checkpoint_keys": "the vault's own",
    "cosignatures": "of checkpoints",
    "tree_nodes": "hashes over the one log",
    "hsm_capabilities": "of the vault's HSMs",
    "ingest_keys": "the vault's own, offered to everybody",
    "key_usage": "counters by the random ids of HSM objects",
    "people": "the vault's own: sealed identities of callers, of whatever tenant",
    "policies": "of the whole vault",
    "rates": "counters that last a second",
    "requests": "by identity, whichever tenants it works for",
}
"""Tables whose rows belong to no tenant, and why."""

COLUMNS: Mapping[str, str] = {
    name: BY_NAME.get(name, "tenant") for name in metadata.tables if name not in SHARED
}
"""The column that says whose a row is, by table; all other tables are `SHARED`."""


def tenant_of(table: str, row: Mapping[str, Any]) -> str | None:
    """The tenant that a row belongs to; None if it belongs to nobody."""
    column = COLUMNS.get(table)
    if column is None:
        return None
    value: str = row[column]
    return value.partition("/")[0]
