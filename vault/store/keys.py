"""Look-ups of keys and of ingest keys. Writes go through `ledger.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from vault.model import CheckpointKey, IngestKey, Key, KeyPurpose, KeyState
from vault.store.tables import checkpoint_keys, ingest_keys, keys

if TYPE_CHECKING:
    import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


def key_from(row: Row) -> Key:
    """A key from its row."""
    return Key(
        tenant=row["tenant"],
        purpose=KeyPurpose(row["purpose"]),
        version=row["version"],
        state=KeyState(row["state"]),
        algorithm=row["algorithm"],
        backend=row["backend"],
        label=row["label"],
        object_id=row["object_id"],
        create_time=row["create_time"],
        created_by=row["created_by"],
    )


def key_row(key: Key) -> Row:
    """A key's row."""
    return {
        "tenant": key.tenant,
        "purpose": key.purpose.value,
        "version": key.version,
        "state": key.state.value,
        "algorithm": key.algorithm,
        "backend": key.backend,
        "label": key.label,
        "object_id": key.object_id,
        "create_time": key.create_time,
        "created_by": key.created_by,
    }


async def list_keys(
    connection: AsyncConnection,
    tenant: str,
    purpose: KeyPurpose,
    *,
    before: int = 2**31 - 1,
    limit: int = 1000,
) -> list[Key]:
    """A key's versions, newest first, beginning below the version `before`."""
    statement = (
        select(keys)
        .where(keys.c.tenant == tenant, keys.c.purpose == purpose.value, keys.c.version < before)
        .order_by(keys.c.version.desc())
        .limit(limit)
    )
    return [key_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


def ingest_key_from(row: Row) -> IngestKey:
    """An ingest key from its row."""
    return IngestKey(**row)


def ingest_key_row(key: IngestKey) -> Row:
    """An ingest key's row."""
    return {name: getattr(key, name) for name in (column.name for column in ingest_keys.columns)}


async def get_ingest_key(connection: AsyncConnection, key_id: str) -> IngestKey | None:
    """The ingest key of this id."""
    row = (
        (await connection.execute(select(ingest_keys).where(ingest_keys.c.key_id == key_id)))
        .mappings()
        .first()
    )
    return None if row is None else ingest_key_from(dict(row))


async def newest_ingest_key(
    connection: AsyncConnection, hpke_suite: int, alive_at: datetime.datetime
) -> IngestKey | None:
    """The ingest key of this suite that lives longest, if one lives beyond `alive_at`."""
    statement = (
        select(ingest_keys)
        .where(ingest_keys.c.hpke_suite == hpke_suite, ingest_keys.c.expire_time > alive_at)
        .order_by(ingest_keys.c.expire_time.desc(), ingest_keys.c.key_id)
        .limit(1)
    )
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else ingest_key_from(dict(row))


async def get_checkpoint_key(connection: AsyncConnection, version: int) -> CheckpointKey | None:
    """The ML-DSA key of checkpoints of this version."""
    statement = select(checkpoint_keys).where(checkpoint_keys.c.version == version)
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else CheckpointKey(**row)


def checkpoint_key_row(key: CheckpointKey) -> Row:
    """Its row."""
    return {column.name: getattr(key, column.name) for column in checkpoint_keys.columns}
