"""Look-ups of the key pairs of credentials that are in the HSM. Writes go through `ledger.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, or_, select

from vault.model import CredentialKey, CredentialKeyState, VersionState
from vault.store.tables import credential_keys, credential_versions

if TYPE_CHECKING:
    import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


def key_from(row: Row) -> CredentialKey:
    """A key pair from its row."""
    return CredentialKey(**{**row, "state": CredentialKeyState(row["state"])})


def key_row(key: CredentialKey) -> Row:
    """A key pair's row."""
    row: Row = {column.name: getattr(key, column.name) for column in credential_keys.columns}
    return {**row, "state": key.state.value}


async def get_key(connection: AsyncConnection, name: str, version: int) -> CredentialKey | None:
    """The key pair of a version, unless it was only announced."""
    statement = select(credential_keys).where(
        credential_keys.c.name == name,
        credential_keys.c.version == version,
        credential_keys.c.public_key != b"",
    )
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else key_from(dict(row))


async def of_tenant(connection: AsyncConnection, tenant: str) -> list[CredentialKey]:
    """Every key pair that a tenant ever had."""
    statement = (
        select(credential_keys)
        .where(credential_keys.c.tenant == tenant)
        .order_by(credential_keys.c.name, credential_keys.c.version, credential_keys.c.key_id)
    )
    return [key_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def useless(
    connection: AsyncConnection, *, announced_before: datetime.datetime, limit: int, tenant: str = ""
) -> list[CredentialKey]:
    """Key pairs that no version needs: it was destroyed, or never came though they were announced before a moment."""
    versions = credential_versions
    statement = (
        select(credential_keys)
        .outerjoin(
            versions,
            and_(
                versions.c.name == credential_keys.c.name,
                versions.c.version == credential_keys.c.version,
                versions.c.state == VersionState.ENABLED.value,
            ),
        )
        .where(
            credential_keys.c.state != CredentialKeyState.DESTROYED.value,
            or_(
                and_(
                    credential_keys.c.state == CredentialKeyState.ACTIVE.value,
                    versions.c.version.is_(None),
                ),
                and_(
                    credential_keys.c.state == CredentialKeyState.PENDING.value,
                    credential_keys.c.create_time < announced_before,
                ),
            ),
        )
        .limit(limit)
    )
    if tenant:
        statement = statement.where(credential_keys.c.tenant == tenant)
    return [key_from(dict(row)) for row in (await connection.execute(statement)).mappings()]
