"""Look-ups of hand-overs. Writes go through `ledger.py`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import select

from vault.model import Handover, HandoverState
from vault.store.rows import canonical_json
from vault.store.tables import handovers

if TYPE_CHECKING:
    import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


def handover_from(row: Row) -> Handover:
    """A hand-over from its row."""
    return Handover(
        name=row["name"],
        handover_id=row["handover_id"],
        sender=row["sender"],
        recipient=row["recipient"],
        state=HandoverState(row["state"]),
        suite=row["suite"],
        kek_version=row["kek_version"],
        field_names=tuple(json.loads(row["field_names"])),
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        end_time=row["end_time"],
        envelope=row["envelope"],
    )


def handover_row(handover: Handover) -> Row:
    """A hand-over's row."""
    return {
        "name": handover.name,
        "handover_id": handover.handover_id,
        "tenant": handover.tenant,
        "sender": handover.sender,
        "recipient": handover.recipient,
        "state": handover.state.value,
        "suite": handover.suite,
        "kek_version": handover.kek_version,
        "field_names": canonical_json(handover.field_names),
        "create_time": handover.create_time,
        "expire_time": handover.expire_time,
        "end_time": handover.end_time,
        "envelope": handover.envelope,
    }


async def get(connection: AsyncConnection, name: str, handover_id: str) -> Handover | None:
    """One hand-over."""
    wanted = (handovers.c.name == name) & (handovers.c.handover_id == handover_id)
    row = (await connection.execute(select(handovers).where(wanted))).mappings().one_or_none()
    return handover_from(dict(row)) if row else None


async def overdue(connection: AsyncConnection, now: datetime.datetime, limit: int) -> list[Handover]:
    """Hand-overs that nobody opened in time and that still hold their secret."""
    waiting = handovers.c.state == HandoverState.WAITING.value
    statement = select(handovers).where(waiting, handovers.c.expire_time <= now).limit(limit)
    return [handover_from(dict(row)) for row in (await connection.execute(statement)).mappings()]
