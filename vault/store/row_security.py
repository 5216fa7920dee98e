"""PostgreSQL's row-level security: the second wall between tenants, behind the checks of the code.

Every table whose rows belong to tenants (`owners.py`) has one policy: a row is seen and written only in a transaction
that declared its tenant (`reach.py`), or all of them. Nothing declared, nothing there. The policies bind every role but
the tables' owner, superusers and roles with BYPASSRLS; so a server under one of those is refused at start.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from vault.errors import StartError
from vault.store import grants
from vault.store.engine import SETTING
from vault.store.owners import COLUMNS
from vault.store.reach import NOBODY

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.engine import Database

POLICY = "tenants_declared"
_MIGRATE = "`strongroom migrate` with database.owner_url mends it"
_ANOTHER_ROLE = (
    "take that from it (ALTER ROLE, REVOKE), or make another by what `strongroom database grants` prints"
)

# A subselect, so that the setting is read and parsed once for each statement and not for each row.
_DECLARED = f"(SELECT nullif(current_setting('{SETTING}', true), '')::text[])::text[]"

_PROTECTED = """
SELECT c.relname, obj_description(p.oid, 'pg_policy') AS mark, c.relrowsecurity
FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid AND p.polname = :policy
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
"""

_ROLE = """
SELECT session_user::text AS name,
  pg_has_role(session_user, c.relowner, 'MEMBER') AS owns,
  EXISTS (SELECT FROM pg_roles r WHERE r.rolsuper AND pg_has_role(session_user, r.oid, 'MEMBER')) AS is_superuser,
  EXISTS (SELECT FROM pg_roles r WHERE r.rolbypassrls AND pg_has_role(session_user, r.oid, 'MEMBER')) AS bypasses,
  EXISTS (SELECT FROM pg_roles r WHERE r.rolcreaterole AND pg_has_role(session_user, r.oid, 'MEMBER')) AS makes_roles,
  has_schema_privilege(session_user, current_schema(), 'CREATE') AS makes_tables
FROM pg_class c WHERE c.oid = 'audit_records'::regclass
"""

_RELATIONS = """
SELECT c.relname, row_security_active(c.oid) AS active,
  (SELECT array_agg(p.polname::text) FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
  has_any_column_privilege(session_user, c.oid, 'SELECT') AS reads,
  has_any_column_privilege(session_user, c.oid, 'UPDATE') OR has_table_privilege(session_user, c.oid, 'DELETE')
    OR has_table_privilege(session_user, c.oid, 'TRUNCATE') AS changes
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname
"""


def condition(table: str) -> str:
    """When a row of a table may be seen."""
    column = COLUMNS[table]
    owner = column if column == "tenant" else f"split_part({column}, '/', 1)"
    return f"{owner}::text = ANY ({_DECLARED}) OR '*' = ANY ({_DECLARED})"


def _policy(table: str) -> tuple[str, ...]:
    seen = condition(table)
    # A call that is refused before it is known whose it is has its record all the same, of no tenant.
    written = f"tenant = '' OR {seen}" if table == "audit_records" else seen
    return (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS {POLICY} ON {table}",
        f"CREATE POLICY {POLICY} ON {table} USING ({seen}) WITH CHECK ({written})",
    )


async def protect(connection: AsyncConnection, server_role: str) -> None:
    """Bring policies, and the grants of the server's role if one is named, to what this code needs.

    For the tables' owner, within the caller's transaction. A table that is as it should be is not touched.
    Raises `StartError` if there is no such role.
    """
    rows = await connection.execute(text(_PROTECTED), {"policy": POLICY})
    found = {row.relname: row.mark if row.relrowsecurity else None for row in rows}
    for table in COLUMNS:
        wanted = _policy(table)
        mark = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
        if found[table] != mark:
            for statement in (*wanted, f"COMMENT ON POLICY {POLICY} ON {table} IS '{mark}'"):
                await connection.exec_driver_sql(statement)
    if not server_role:
        return
    exists = await connection.execute(
        text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": server_role}
    )
    if exists.first() is None:
        raise StartError(
            f"database.url: there is no role {server_role}: make it by what `strongroom database grants` prints"
        )
    schema = (await connection.execute(text("SELECT current_schema()"))).scalar_one()
    for statement in grants.statements(server_role, schema):
        await connection.exec_driver_sql(statement)


class Unsafe(NamedTuple):
    """Why a role is not behind the wall, and what its owner does about it."""

    why: str
    mend: str


async def why_unsafe(database: Database) -> Unsafe | None:
    """Why the role that the server connects as is not behind the wall; none if it is. PostgreSQL only."""
    async with database.read(NOBODY) as connection:
        role = (await connection.execute(text(_ROLE))).one()
        relations = (await connection.execute(text(_RELATIONS))).all()
    for wrong, why, mend in (
        (role.is_superuser, "is a superuser", _ANOTHER_ROLE),
        (role.bypasses, "has BYPASSRLS", _ANOTHER_ROLE),
        (role.owns, "owns the tables", _ANOTHER_ROLE),
        (role.makes_roles, "may make roles", _ANOTHER_ROLE),
        (role.makes_tables, "may make tables", _MIGRATE),
    ):
        if wrong:
            return Unsafe(f"the role {role.name} {why}, itself or by a role that it is a member of", mend)
    return next((found for row in relations if (found := _why_open(row))), None)


def _why_open(relation: Row[tuple[str, bool, list[str] | None, bool, bool]]) -> Unsafe | None:
    name, policies = relation.relname, set(relation.policies or ())
    if name in COLUMNS and not relation.active:
        return Unsafe(f"row-level security does not hold for {name}", _MIGRATE)
    if name in COLUMNS and POLICY not in policies:
        return Unsafe(f"{name} lacks its policy", _MIGRATE)
    if name in COLUMNS and (others := policies - {POLICY}):
        drop = f"as the owner of the tables: DROP POLICY {grants.quoted(min(others))} ON {name}"
        return Unsafe(f"{name} has other policies beside its own", drop)
    if relation.reads and name not in grants.privileges():
        return Unsafe(f"the role may read {name}, past the policies", _MIGRATE)
    if relation.changes and name in grants.APPEND_ONLY:
        return Unsafe(f"the role may change {name}", _MIGRATE)
    return None
