"""What the HSMs were when the vault came to rely on them, held against what they are at each start.

An HSM whose firmware, configuration or slot was changed may still answer, and do otherwise than what is stored needs.
So each HSM is recorded when it is first seen, and one that is not what was recorded is refused until an operator
accepts it. Which difference matters is `hsm.drift`'s to say.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Final

from hsm import HsmError
from hsm.drift import drift, record_of
from vault.core.audit import by_vault
from vault.errors import StartError
from vault.model import SYSTEM_TENANT
from vault.store import capabilities as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import RowKey, Write, canonical_json

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from hsm import HsmBackend
    from vault.core.audit import AuditLog
    from vault.store.engine import Database
    from vault.store.ledger import Rows

log = logging.getLogger("strongroom.hsm")

RECORD, ACCEPT = "hsm.record", "hsm.accept"
_TABLE: Final = "hsm_capabilities"


class HsmCapabilities:
    """The records of the HSMs, by their places: `hsm` and `second_hsm`, as in the configuration."""

    def __init__(self, database: Database, log_: AuditLog) -> None:
        self._database = database
        self._log = log_

    async def check(self, place: str, backend: HsmBackend) -> None:
        """Hold an HSM against its record, if it has one. Raises `StartError`, `STORAGE_UNAVAILABLE`."""
        recorded = await store.get(self._database, place)
        if recorded is None:
            return
        differences = drift(json.loads(recorded), await look(place, backend))
        if differences.grave:
            raise StartError(
                f"{place}: the HSM is not what it was recorded to be: {'; '.join(differences.grave)}. "
                "If that is intended: `strongroom hsm accept`"
            )
        if differences.slight:
            log.warning(
                "an HSM is not quite what it was recorded to be",
                extra={"place": place, "differences": "; ".join(differences.slight)},
            )

    async def admit(self, place: str, backend: HsmBackend) -> None:
        """Check an HSM, and record one that has no record yet. Raises as `check`, and `AUDIT_UNAVAILABLE`."""
        await self.check(place, backend)
        await self.record(place, backend)

    async def record(self, place: str, backend: HsmBackend) -> None:
        """Record an HSM that has no record yet. Raises as `admit`."""
        if await store.get(self._database, place) is None:
            await self.write(place, await look(place, backend), RECORD, "strongroom")
            # Of several that come here at once one records, and perhaps another HSM.
            await self.check(place, backend)

    async def accept(self, place: str, backend: HsmBackend, operator: str) -> list[str]:
        """Record an HSM as it is now, in the operator's name; return in what it differs from its record.

        Raises `StartError` if it does not answer, `STORAGE_UNAVAILABLE`, `AUDIT_UNAVAILABLE`.
        """
        now = await look(place, backend)
        recorded = await store.get(self._database, place)
        differences = ["it had no record"]
        if recorded is not None:
            found = drift(json.loads(recorded), now)
            differences = [*found.grave, *found.slight]
        if differences:
            await self.write(place, now, ACCEPT, operator, differences)
        return differences

    async def write(
        self, place: str, now: dict[str, Any], action: str, actor: str, differences: Sequence[str] = ()
    ) -> None:
        """Write what an HSM is. `RECORD` leaves a record that is there as it is. Raises `AUDIT_UNAVAILABLE`."""
        draft = by_vault(SYSTEM_TENANT, action, f"{SYSTEM_TENANT}/{place}")._replace(
            identity=actor,
            after_state=canonical_json({"capabilities": now, "differences": list(differences)}),
        )

        def decide(rows: Rows, moment: datetime.datetime) -> Commit:
            old = rows.get(_TABLE, place)
            if old is not None and action == RECORD:
                return Commit(())
            before = "" if old is None else old["capabilities"]
            row = {
                "place": place,
                "capabilities": canonical_json(now),
                "update_time": moment,
                "updated_by": actor,
            }
            return Commit((draft._replace(before_state=before),), (Write(_TABLE, row),))

        await self._log.commit(Unit((RowKey(_TABLE, (place,)),), decide))


async def look(place: str, backend: HsmBackend) -> dict[str, Any]:
    """An HSM as it is now, as it would come out of the database. Raises `StartError`."""
    try:
        found: dict[str, Any] = json.loads(canonical_json(await asyncio.to_thread(record_of, backend)))
    except HsmError as error:
        raise StartError(f"{place}: {error}") from None
    return found
