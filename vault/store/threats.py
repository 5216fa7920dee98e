"""Look-ups for threat detection, and of findings. Writes go through `ledger.py`."""

from __future__ import annotations

import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, or_, select, text

from vault.model import Outcome, Threat, ThreatState
from vault.store.lenient import Prepared, given
from vault.store.tables import IS_CANARY, audit_records, credentials, threats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row

_ISSUING = ("token.issue", "token.exchange")


def threat_from(row: Row) -> Threat:
    """A finding from its row."""
    return Threat(**{**row, "state": ThreatState(row["state"])})


def threat_row(threat: Threat) -> Row:
    """A finding's row."""
    row = {column.name: getattr(threat, column.name) for column in threats.columns}
    return {**row, "state": threat.state.value}


async def sightings(connection: AsyncConnection, first: int, limit: int) -> Sequence[Mapping[str, Any]]:
    """What the rules look at, of the records from `first` on; `lenient.Unreadable` may be in it."""
    return await _SIGHTINGS.read(connection, first=first, most=limit)


def is_readable(row: Mapping[str, Any]) -> bool:
    """Whether what `sightings` gave can be a record's. If not, it is for verification to name."""
    if not isinstance(row, dict):
        return True  # PostgreSQL's driver has seen to it
    try:
        "".join(_TEXTS(row))
    except TypeError:
        return False
    return isinstance(row["created_at"], datetime.datetime)


_TEXTS = itemgetter("tenant", "user_id", "action_type", "resource", "reason", "ip_address", "device_id")
_SIGHTINGS = Prepared(
    select(
        audit_records.c.sequence,
        audit_records.c.created_at,
        audit_records.c.tenant,
        audit_records.c.user_id,
        audit_records.c.action_type,
        audit_records.c.resource,
        (audit_records.c.outcome == Outcome.GRANTED.value).label("granted"),
        audit_records.c.reason,
        audit_records.c.ip_address,
        audit_records.c.device_id,
    )
    .where(audit_records.c.sequence >= given("first"))
    .order_by(audit_records.c.sequence)
    .limit(given("most"))
)


async def canaries(connection: AsyncConnection) -> frozenset[str]:
    """The credentials that are labelled `canary=true`. They have an index: what it costs grows with them alone."""
    statement = select(credentials.c.name).where(text(IS_CANARY))
    return frozenset((await connection.execute(statement)).scalars())


async def frozen(connection: AsyncConnection) -> dict[str, set[str]]:
    """By identity, the findings that freeze it."""
    found: dict[str, set[str]] = {}
    statement = select(threats.c.identity, threats.c.threat_id).where(
        threats.c.state == ThreatState.FROZEN.value
    )
    for row in await connection.execute(statement):
        found.setdefault(row.identity, set()).add(row.threat_id)
    return found


async def list_threats(
    connection: AsyncConnection, tenant: str, *, only_open: bool, before: int, limit: int
) -> list[Threat]:
    """Findings, newest first, whose record lies below `before`; of every tenant for an empty one."""
    statement = select(threats).where(threats.c.sequence < before)
    if tenant:
        statement = statement.where(threats.c.tenant == tenant)
    if only_open:
        statement = statement.where(threats.c.state != ThreatState.RELEASED.value)
    ordered = statement.order_by(threats.c.sequence.desc(), threats.c.threat_id).limit(limit)
    return [threat_from(dict(row)) for row in (await connection.execute(ordered)).mappings()]


async def get_threat(connection: AsyncConnection, threat_id: str) -> Threat | None:
    """One finding."""
    row = (
        (await connection.execute(select(threats).where(threats.c.threat_id == threat_id))).mappings().first()
    )
    return None if row is None else threat_from(dict(row))


async def touches(
    connection: AsyncConnection,
    tenant: str,
    *,
    identity: str,
    token_id: str,
    certificates: Sequence[str],
    limit: int,
) -> Sequence[Any]:
    """What was touched: resource, action, whether granted, how often, first and last time.

    `certificates` are the spellings of one, as tokens issued for it may be recorded.
    """
    table = audit_records
    made = select(table.c.token_id).where(table.c.action_type.in_(_ISSUING))
    if identity:
        mine = table.c.user_id == identity
    elif token_id:
        children = made.where(
            or_(
                table.c.after_state.contains(f'"root":"{token_id}"', autoescape=True),
                table.c.after_state.contains(f'"parent":"{token_id}"', autoescape=True),
            )
        )
        mine = or_(
            table.c.token_id == token_id,
            table.c.token_id.in_(children),
            # A token made by exchange is recorded under its own id, as the resource.
            table.c.resource == token_id,
        )
    else:
        spelled = (f'"certificate":"{one}"' for one in certificates)
        bound = made.where(or_(*(table.c.after_state.contains(text, autoescape=True) for text in spelled)))
        mine = table.c.token_id.in_(bound)
    granted = table.c.outcome == Outcome.GRANTED.value
    statement = select(
        table.c.resource,
        table.c.action_type,
        granted.label("granted"),
        func.count().label("count"),
        func.min(table.c.created_at).label("first"),
        func.max(table.c.created_at).label("last"),
    ).where(mine)
    if tenant:
        statement = statement.where(table.c.tenant == tenant)
    grouped = statement.group_by(table.c.resource, table.c.action_type, granted)
    ordered = grouped.order_by(table.c.resource, table.c.action_type).limit(limit)
    return (await connection.execute(ordered)).all()
