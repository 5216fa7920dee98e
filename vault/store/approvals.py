"""Look-ups of approvals. Writes go through `ledger.py`."""

from __future__ import annotations

import base64
import datetime
import json
from typing import TYPE_CHECKING

from sqlalchemy import select, tuple_

from vault.crypto.approvals import Operation
from vault.model import Approval, ApprovalSignature, ApprovalState
from vault.store.rows import canonical_json
from vault.store.tables import approvals

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from vault.store.rows import Row


def approval_from(row: Row) -> Approval:
    """An approval from its row."""
    return Approval(
        approval_id=row["approval_id"],
        operation=Operation(row["action"], row["resource"], json.loads(row["arguments"])),
        requested_by=row["requested_by"],
        purpose=row["purpose"],
        required=row["required"],
        state=ApprovalState(row["state"]),
        signatures=tuple(
            ApprovalSignature(
                identity=item["identity"],
                certificate=base64.b64decode(item["certificate"]),
                signature=base64.b64decode(item["signature"]),
                create_time=datetime.datetime.fromisoformat(item["create_time"]),
            )
            for item in json.loads(row["signatures"])
        ),
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        document=row.get("document") or "",
    )


def approval_row(approval: Approval) -> Row:
    """An approval's row."""
    operation = approval.operation
    return {
        "approval_id": approval.approval_id,
        "tenant": operation.tenant,
        "action": operation.action,
        "resource": operation.resource,
        "arguments": canonical_json(dict(operation.arguments)),
        "requested_by": approval.requested_by,
        "purpose": approval.purpose,
        "required": approval.required,
        "state": approval.state.value,
        "signatures": canonical_json(
            [
                {
                    "identity": item.identity,
                    "certificate": base64.b64encode(item.certificate).decode(),
                    "signature": base64.b64encode(item.signature).decode(),
                    "create_time": item.create_time.isoformat(),
                }
                for item in approval.signatures
            ]
        ),
        "create_time": approval.create_time,
        "expire_time": approval.expire_time,
        "document": approval.document or None,
    }


async def get_approval(connection: AsyncConnection, tenant: str, approval_id: str) -> Approval | None:
    """The approval of this id, if it is this tenant's."""
    statement = select(approvals).where(approvals.c.approval_id == approval_id, approvals.c.tenant == tenant)
    row = (await connection.execute(statement)).mappings().first()
    return None if row is None else approval_from(dict(row))


async def list_approvals(
    connection: AsyncConnection,
    tenant: str,
    *,
    before: tuple[datetime.datetime, str] | None,
    open_at: datetime.datetime | None,
    limit: int,
) -> list[Approval]:
    """A tenant's approvals, newest first, beginning behind `before` (time and id); only those open at a moment.

    Without their documents: a thousand of them would be much.
    """
    table = approvals
    columns = [column for column in table.c if column.name != "document"]
    statement = select(*columns).where(table.c.tenant == tenant)
    if before is not None:
        statement = statement.where(tuple_(table.c.create_time, table.c.approval_id) < before)
    if open_at is not None:
        statement = statement.where(table.c.state == ApprovalState.OPEN.value, table.c.expire_time > open_at)
    ordered = statement.order_by(table.c.create_time.desc(), table.c.approval_id.desc()).limit(limit)
    return [approval_from(dict(row)) for row in (await connection.execute(ordered)).mappings()]
