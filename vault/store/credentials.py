"""Look-ups of credentials. Writes go through `ledger.py`."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, String, and_, any_, bindparam, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY, asyncpg

from vault.model import Credential, CredentialState, Standing, StoredVersion, Version, VersionState
from vault.store.engine import driver_of
from vault.store.rows import canonical_json
from vault.store.tables import credential_versions, credentials

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row

_ACTIVE = Standing.ACTIVE.value
# As `_stored_from` takes them apart.
_STORED = (
    credential_versions.c.name,
    credential_versions.c.version,
    credential_versions.c.tenant,
    credentials.c.kind,
    credential_versions.c.state,
    credentials.c.state.label("credential_state"),
    credentials.c.standing,
    credential_versions.c.suite,
    credential_versions.c.kek_version,
    credential_versions.c.field_names,
    credential_versions.c.envelope,
)
# A look-up in a table costs a fifth of what the enumeration's own takes.
_STATES = {state.value: state for state in CredentialState}
_VERSION_STATES = {state.value: state for state in VersionState}
_STANDINGS: dict[str | None, Standing] = {None: Standing.ACTIVE, **{each.value: each for each in Standing}}


def credential_from(row: Row) -> Credential:
    """A credential from its row."""
    return Credential(
        name=row["name"],
        kind=row["kind"],
        labels=json.loads(row["labels"]),
        state=_STATES[row["state"]],
        latest_version=row["latest_version"],
        field_names=tuple(json.loads(row["field_names"])),
        etag=row["etag"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        delete_time=row["delete_time"],
        created_by=row["created_by"],
        updated_by=row["updated_by"],
        subject_id=row["subject_id"] or "",
        standing=_STANDINGS[row["standing"]],
        standing_note=row["standing_note"] or "",
        standing_by=row["standing_by"] or "",
        standing_time=row["standing_time"],
        expire_time=row["expire_time"],
        rotation_days=row["rotation_days"] or 0,
        rotation_due_time=row["rotation_due_time"],
    )


def credential_row(credential: Credential) -> Row:
    """A credential's row."""
    return {
        "name": credential.name,
        "tenant": credential.name.partition("/")[0],
        "kind": credential.kind,
        "labels": canonical_json(credential.labels),
        "state": credential.state.value,
        "latest_version": credential.latest_version,
        "field_names": canonical_json(credential.field_names),
        "etag": credential.etag,
        "create_time": credential.create_time,
        "update_time": credential.update_time,
        "delete_time": credential.delete_time,
        "created_by": credential.created_by,
        "updated_by": credential.updated_by,
        "subject_id": credential.subject_id or None,
        "standing": credential.standing.value if credential.standing_time else None,
        "standing_note": credential.standing_note or None,
        "standing_by": credential.standing_by or None,
        "standing_time": credential.standing_time,
        "expire_time": credential.expire_time,
        "rotation_days": credential.rotation_days or None,
        "rotation_due_time": credential.rotation_due_time,
    }


def version_from(row: Mapping[str, Any]) -> Version:
    """A version from its row."""
    return Version(
        name=row["name"],
        version=row["version"],
        state=_VERSION_STATES[row["state"]],
        suite=row["suite"],
        kek_version=row["kek_version"],
        field_names=_field_names(row["field_names"]),
        create_time=row["create_time"],
        created_by=row["created_by"],
        destroy_time=row["destroy_time"],
    )


@functools.lru_cache(maxsize=4096)
def _field_names(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def version_row(version: Version, envelope: bytes) -> Row:
    """A version's row. The envelope of a destroyed version is empty."""
    return {
        "name": version.name,
        "version": version.version,
        "tenant": version.name.partition("/")[0],
        "state": version.state.value,
        "suite": version.suite,
        "kek_version": version.kek_version,
        "field_names": canonical_json(version.field_names),
        "envelope": envelope,
        "create_time": version.create_time,
        "created_by": version.created_by,
        "destroy_time": version.destroy_time,
    }


async def get_stored(
    connection: AsyncConnection, wanted: Sequence[tuple[str, int]]
) -> list[StoredVersion | Credential | None]:
    """What is stored under each name and version (0: the newest), in at most three statements.

    The stored version; the credential if only the version is missing; None if there is no such credential.
    """
    if all(version == 0 for _, version in wanted):
        return await _get_newest(connection, [name for name, _ in wanted])
    newest = [name for name, version in wanted if version == 0]
    exact = [pair for pair in wanted if pair[1] != 0]
    found: dict[tuple[str, int], StoredVersion] = {}
    joined = select(*_STORED).join(credentials, credentials.c.name == credential_versions.c.name)
    if newest:
        latest = joined.where(
            credentials.c.name.in_(newest), credential_versions.c.version == credentials.c.latest_version
        )
        for stored in map(_stored_from, await connection.execute(latest)):
            found[stored.name, 0] = stored
    missing: dict[str, Credential] = {}
    if exact:
        pair = tuple_(credential_versions.c.name, credential_versions.c.version)
        for stored in map(_stored_from, await connection.execute(joined.where(pair.in_(exact)))):
            found[stored.name, stored.version] = stored
        absent = {name for name, version in exact if (name, version) not in found}
        missing = {credential.name: credential for credential in await get_many(connection, sorted(absent))}
    return [found.get(key) or missing.get(key[0]) for key in wanted]


async def _get_newest(
    connection: AsyncConnection, names: Sequence[str]
) -> list[StoredVersion | Credential | None]:
    """The look-up that nearly every reveal makes: one statement, compiled once, straight to the driver if it can be."""
    if connection.dialect.name == "postgresql":
        rows = await driver_of(connection).fetch(_NEWEST_SQL, names)
    else:
        rows = await connection.execute(_NEWEST.where(credentials.c.name.in_(names)))
    found = {stored.name: stored for stored in map(_stored_from, rows)}
    return [found.get(name) for name in names]


async def get_many(connection: AsyncConnection, names: Sequence[str]) -> list[Credential]:
    """The credentials of these names, as far as they exist. Every put asks: as `_get_newest`."""
    if not names:
        return []
    if connection.dialect.name == "postgresql":
        rows = await driver_of(connection).fetch(_MANY_SQL, names)
    else:
        rows = (await connection.execute(select(credentials).where(credentials.c.name.in_(names)))).mappings()
    return [credential_from(dict(row)) for row in rows]


async def list_credentials(
    connection: AsyncConnection, *, prefix: str, after: str, limit: int, show_deleted: bool
) -> list[Credential]:
    """Credentials whose name is `prefix` or lies under it, by name, beginning after the name `after`."""
    # "0" is the character after "/": between the two lies exactly what lies under the prefix.
    under: ColumnElement[bool] = or_(
        credentials.c.name == prefix,
        and_(credentials.c.name >= prefix + "/", credentials.c.name < prefix + "0"),
    )
    statement = select(credentials).where(under, credentials.c.name > after)
    if not show_deleted:
        statement = statement.where(credentials.c.state == CredentialState.ACTIVE.value)
    result = await connection.execute(statement.order_by(credentials.c.name).limit(limit))
    return [credential_from(dict(row)) for row in result.mappings()]


async def due(
    connection: AsyncConnection, warn: datetime.datetime, now: datetime.datetime, limit: int
) -> list[Credential]:
    """Credentials of which one has yet to say: they expire by `warn`, have expired by `now`, or are to be rotated."""
    table = credentials
    active = func.coalesce(table.c.standing, _ACTIVE) == _ACTIVE
    unsaid = or_(
        and_(table.c.expire_time <= warn, active),
        and_(table.c.expire_time <= now, table.c.standing == Standing.EXPIRING.value),
        and_(table.c.rotation_due_time <= now, active),
    )
    live = table.c.state == CredentialState.ACTIVE.value
    statement = select(table).where(unsaid, live).limit(limit)
    return [credential_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def list_versions(connection: AsyncConnection, name: str, *, before: int, limit: int) -> list[Version]:
    """A credential's versions, newest first, beginning below the version `before`."""
    table = credential_versions
    columns = [column for column in table.columns if column is not table.c.envelope]
    statement = (
        select(*columns)
        .where(table.c.name == name, table.c.version < before)
        .order_by(table.c.version.desc())
        .limit(limit)
    )
    return [version_from(dict(row)) for row in (await connection.execute(statement)).mappings()]


async def count_by_kek(connection: AsyncConnection, tenant: str, kek_version: int) -> int:
    """How many versions that still hold a secret are wrapped by this key version."""
    table = credential_versions
    statement = select(func.count()).where(
        table.c.tenant == tenant,
        table.c.kek_version == kek_version,
        table.c.state == VersionState.ENABLED.value,
    )
    return int((await connection.execute(statement)).scalar_one())


_NEWEST = (
    select(*_STORED)
    .join(credentials, credentials.c.name == credential_versions.c.name)
    .where(credential_versions.c.version == credentials.c.latest_version)
)


def _sql_by_names(statement: Select[Any]) -> str:
    """A selection of the credentials of these names, for PostgreSQL's driver."""
    named = statement.where(credentials.c.name == any_(bindparam("names", type_=ARRAY(String))))
    return str(named.compile(dialect=asyncpg.dialect()))  # type: ignore[no-untyped-call]


_NEWEST_SQL, _MANY_SQL = _sql_by_names(_NEWEST), _sql_by_names(select(credentials))


def _stored_from(row: Iterable[Any]) -> StoredVersion:
    name, version, tenant, kind, state, credential_state, standing, suite, kek_version, names, envelope = row
    return StoredVersion(
        name,
        version,
        tenant,
        kind,
        _VERSION_STATES[state],
        _STATES[credential_state],
        _STANDINGS[standing],
        suite,
        kek_version,
        _field_names(names),
        envelope,
    )
