"""Look-ups of keys and of ingest keys. Writes go through `ledger.py`."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from vault.model import (
    SYSTEM_TENANT,
    CheckpointKey,
    IngestKey,
    Key,
    KeyDestruction,
    KeyHome,
    KeyPurpose,
    KeySchedule,
    KeyState,
    VersionState,
)
from vault.store.tables import (
    checkpoint_keys,
    credential_versions,
    handovers,
    ingest_keys,
    key_destructions,
    key_homes,
    key_schedules,
    key_usage,
    keys,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.engine import Database
    from vault.store.rows import Row


_AT_ONCE = 1000
_roots = keys.alias("roots")
_ROOT_OF_HOME = (
    (_roots.c.tenant == SYSTEM_TENANT)
    & (_roots.c.purpose == KeyPurpose.ROOT.value)
    & (_roots.c.version == key_homes.c.root_version)
)


def key_from(row: Row, homes: Sequence[KeyHome] = ()) -> Key:
    """A key from its row, and the places that it lies in."""
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
        homes=tuple(sorted(homes, key=lambda home: (home.backend != row["backend"], home.backend))),
    )


def home_rows(key: Key) -> list[Row]:
    """The rows of the places that a key lies in."""
    return [
        {
            "tenant": key.tenant,
            "purpose": key.purpose.value,
            "version": key.version,
            "backend": home.backend,
            "root_version": home.root_version,
            "wrapped": home.wrapped,
        }
        for home in key.homes
    ]


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
    # In one statement, so that a key is never seen with the places of another moment.
    page = statement.subquery()
    here = (
        (key_homes.c.tenant == page.c.tenant)
        & (key_homes.c.purpose == page.c.purpose)
        & (key_homes.c.version == page.c.version)
    )
    joined = (
        select(
            page,
            key_homes.c.backend.label("home"),
            key_homes.c.root_version,
            key_homes.c.wrapped,
            _roots.c.label.label("root_label"),
            _roots.c.object_id.label("root_object_id"),
        )
        .select_from(page.outerjoin(key_homes, here).outerjoin(_roots, _ROOT_OF_HOME))
        .order_by(page.c.version.desc())
    )
    rows: dict[int, Row] = {}
    homes: dict[int, list[KeyHome]] = {}
    for found in (await connection.execute(joined)).mappings():
        row = dict(found)
        rows[row["version"]] = row
        if row["home"] is not None:
            homes.setdefault(row["version"], []).append(_home_from(row))
    return [key_from(row, homes.get(version, ())) for version, row in rows.items()]


def _home_from(row: Row) -> KeyHome:
    if row["root_version"] and row["root_label"] is None:
        raise LookupError("the root of a wrapped key is not among the rows that may be seen")
    return KeyHome(
        backend=row["home"],
        root_version=row["root_version"],
        wrapped=row["wrapped"],
        root_label=row["root_label"] or "",
        root_object_id=row["root_object_id"] or b"",
    )


async def homes_not_under(
    connection: AsyncConnection, root_version: int, *, limit: int
) -> list[tuple[str, KeyPurpose, int]]:
    """Keys that are wrapped under another root than this one: tenant, purpose and version, in order."""
    statement = (
        select(key_homes.c.tenant, key_homes.c.purpose, key_homes.c.version)
        .where(key_homes.c.root_version != 0, key_homes.c.root_version != root_version)
        .distinct()
        .order_by(key_homes.c.tenant, key_homes.c.purpose, key_homes.c.version)
        .limit(limit)
    )
    found = await connection.execute(statement)
    return [(row.tenant, KeyPurpose(row.purpose), row.version) for row in found]


async def count_homes_not_under(connection: AsyncConnection, root_version: int) -> int:
    """How many keys are wrapped under another root than this one."""
    found = (
        select(key_homes.c.tenant, key_homes.c.purpose, key_homes.c.version)
        .where(key_homes.c.root_version != 0, key_homes.c.root_version != root_version)
        .distinct()
        .subquery()
    )
    return int((await connection.execute(select(func.count()).select_from(found))).scalar_one())


async def count_homes(connection: AsyncConnection) -> dict[int, int]:
    """How many keys lie wrapped under each version of the root key."""
    statement = (
        select(key_homes.c.root_version, func.count())
        .where(key_homes.c.root_version != 0)
        .group_by(key_homes.c.root_version)
    )
    return dict((await connection.execute(statement)).tuples().all())


def schedule_from(row: Row) -> KeySchedule:
    """A schedule from its row."""
    return KeySchedule(**{**row, "purpose": KeyPurpose(row["purpose"]), "rewrap": bool(row["rewrap"])})


def schedule_row(schedule: KeySchedule) -> Row:
    """A schedule's row."""
    row: Row = {column.name: getattr(schedule, column.name) for column in key_schedules.columns}
    return {**row, "purpose": schedule.purpose.value, "rewrap": int(schedule.rewrap)}


def destruction_from(row: Row) -> KeyDestruction:
    """An order to destroy from its row."""
    return KeyDestruction(**{**row, "purpose": KeyPurpose(row["purpose"])})


def destruction_row(order: KeyDestruction) -> Row:
    """The row of an order to destroy."""
    row: Row = {column.name: getattr(order, column.name) for column in key_destructions.columns}
    return {**row, "purpose": order.purpose.value}


async def list_schedules(connection: AsyncConnection, tenant: str = "") -> list[KeySchedule]:
    """The schedules of a tenant, or all."""
    statement = select(key_schedules).order_by(key_schedules.c.tenant, key_schedules.c.purpose)
    if tenant:
        statement = statement.where(key_schedules.c.tenant == tenant)
    return [schedule_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def list_destructions(
    connection: AsyncConnection, *, tenant: str = "", due: datetime.datetime | None = None
) -> list[KeyDestruction]:
    """Orders to destroy that stand: a tenant's, or those that are due at a moment."""
    statement = select(key_destructions).where(key_destructions.c.destroy_time.is_not(None))
    if tenant:
        statement = statement.where(key_destructions.c.tenant == tenant)
    if due is not None:
        statement = statement.where(key_destructions.c.destroy_time <= due)
    return [destruction_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def announced(
    connection: AsyncConnection, before: datetime.datetime, *, purposes: Sequence[KeyPurpose], limit: int
) -> list[Key]:
    """Keys of these purposes that were announced before a moment and are not in use."""
    statement = (
        select(keys)
        .where(
            keys.c.state == KeyState.PENDING.value,
            keys.c.purpose.in_([purpose.value for purpose in purposes]),
            keys.c.create_time < before,
        )
        .limit(limit)
    )
    return [key_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def due_keys(
    connection: AsyncConnection, now: datetime.datetime, *, worn_out: int
) -> list[tuple[Key, bool]]:
    """Every active key that is to be rotated, by its schedule or because it is worn out; and if by number of wraps."""
    periods = select(key_schedules.c.every_seconds).where(key_schedules.c.every_seconds > 0).distinct()
    aged = [
        (key_schedules.c.every_seconds == seconds)
        & (keys.c.create_time <= now - datetime.timedelta(seconds=seconds))
        for seconds in (await connection.execute(periods)).scalars()
    ]
    used_up = (key_usage.c.wraps >= worn_out) | (
        (key_schedules.c.max_wraps > 0) & (key_usage.c.wraps >= key_schedules.c.max_wraps)
    )
    of_schedule = (key_schedules.c.tenant == keys.c.tenant) & (key_schedules.c.purpose == keys.c.purpose)
    statement = (
        select(keys, used_up.label("used_up"))
        .outerjoin(key_usage, key_usage.c.object_id == keys.c.object_id)
        .outerjoin(key_schedules, of_schedule)
        .where(keys.c.state == KeyState.ACTIVE.value, or_(used_up, *aged))
    )
    found = (await connection.execute(statement)).mappings()
    return [(key_from(dict(row)), bool(row["used_up"])) for row in found]


async def dependants(connection: AsyncConnection, tenant: str, version: int) -> int:
    """How many versions of credentials and open hand-overs a version of the tenant's key wraps."""
    of_credentials = select(func.count()).where(
        credential_versions.c.tenant == tenant,
        credential_versions.c.kek_version == version,
        credential_versions.c.state == VersionState.ENABLED.value,
    )
    of_handovers = select(func.count()).where(
        handovers.c.tenant == tenant, handovers.c.kek_version == version, handovers.c.envelope != b""
    )
    counts = [int((await connection.execute(one)).scalar_one()) for one in (of_credentials, of_handovers)]
    return sum(counts)


async def usage(connection: AsyncConnection, object_ids: Iterable[bytes]) -> dict[bytes, int]:
    """How often keys have wrapped, by their objects' ids."""
    wanted = list(object_ids)
    found: dict[bytes, int] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        statement = select(key_usage).where(key_usage.c.object_id.in_(wanted[start : start + _AT_ONCE]))
        found.update({row.object_id: row.wraps for row in await connection.execute(statement)})
    return found


async def add_usage(database: Database, more: dict[bytes, int]) -> None:
    """Count further wraps of keys."""
    async with database.write() as connection:
        insert_ = postgresql.insert if database.is_postgresql else sqlite.insert
        # In one order everywhere, so that two workers never wait for each other.
        for object_id, wraps in sorted(more.items()):
            statement = insert_(key_usage).values(object_id=object_id, wraps=wraps)
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["object_id"], set_={"wraps": key_usage.c.wraps + wraps}
                )
            )


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
