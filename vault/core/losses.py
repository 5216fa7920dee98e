"""Records whose content is lost: the way on when one was damaged before a checkpoint covered it.

Nothing is signed over a record that does not hash to its leaf. If its content cannot be restored, enough people may
accept the loss: the acceptance is itself a record, names the leaf hash that is in the tree, and the next checkpoint
covers both. `audit verify` shows it for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.core import approvals, audit, requests
from vault.core.verification import ACCEPT_LOSS, computed_leaf, stored_leaf
from vault.crypto.approvals import Operation
from vault.errors import Reason, VaultError, invalid_field
from vault.model import SYSTEM_TENANT
from vault.store.audit import get_row
from vault.store.ledger import Commit, Unit
from vault.store.reach import ALL_TENANTS
from vault.store.rows import canonical_json

if TYPE_CHECKING:
    import datetime

    from vault.core.approvals import Approvals
    from vault.core.audit import AuditLog
    from vault.core.checkpoints import Checkpoints
    from vault.model import Caller, Checkpoint
    from vault.store.engine import Database
    from vault.store.ledger import Rows

_RESOURCE = f"{SYSTEM_TENANT}/audit"


class Losses:
    """Accepts the loss of records."""

    def __init__(
        self, database: Database, log: AuditLog, checkpoints: Checkpoints, people: Approvals
    ) -> None:
        self._database = database
        self._log = log
        self._checkpoints = checkpoints
        self._people = people

    async def accept(self, caller: Caller, sequence: int, approval_id: str) -> Checkpoint:
        """Accept that a record's content is lost, by an approval of `operation`, and sign a checkpoint over it.

        Raises `SCOPE_DENIED`, `RECORD_NOT_FOUND`, `FIELD_INVALID` if the record is whole, what the approval is
        refused for, and `STORED_DATA_DAMAGED` if more than this keeps a checkpoint from being signed.
        """
        requests.require(caller, approvals.RECOVER_DATABASE, _RESOURCE)
        async with self._database.read(ALL_TENANTS) as connection:
            row = await get_row(connection, sequence)
        if row is None:
            raise VaultError(Reason.RECORD_NOT_FOUND, "no such record")
        stored = stored_leaf(row)
        if stored and computed_leaf(row) == stored:
            raise invalid_field("sequence", "must be that of a damaged record; this one is whole")
        after = canonical_json({"sequence": sequence, "leaf_hash": stored.hex(), "approval_id": approval_id})
        draft = audit.granted(caller, ACCEPT_LOSS, _RESOURCE, after=after)

        def decide(rows: Rows, now: datetime.datetime) -> Commit:
            consumed = self._people.consume(rows, caller, operation(sequence), approval_id, now)
            return Commit((draft,), consumed)

        await self._log.commit(Unit(self._people.reads(approval_id), decide))
        return await self._checkpoints.sign()


def operation(sequence: int) -> Operation:
    """What has to be approved before the loss of a record is accepted."""
    return Operation(approvals.RECOVER_DATABASE, _RESOURCE, {"sequence": str(sequence)})
