"""Rates: how many calls a second an identity and a tenant may make, over all workers and replicas together.

A worker takes a share of the second's budget from the database at a time, and spends it without asking again. So the
limit is never exceeded, and the hot path asks the database a few times a second for each subject, not at each call.
What a worker has taken and not spent is lost to the others until the second is over: at most its share.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vault.errors import Reason, VaultError
from vault.store import rates

if TYPE_CHECKING:
    from vault.clock import Clock
    from vault.store.engine import Database

_SHARE = 20
_SUBJECTS = 50_000


@dataclass(slots=True)
class _Purse:
    """What a worker has left of a subject's budget for a second."""

    second: int = 0
    calls: int = 0
    empty: bool = False
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Rates:
    """Lets calls pass as far as the budgets reach. A limit of 0 is none."""

    def __init__(self, database: Database, clock: Clock, *, per_identity: int, per_tenant: int) -> None:
        self._database = database
        self._clock = clock
        self._limits = {"identity": per_identity, "tenant": per_tenant}
        self._purses: OrderedDict[str, _Purse] = OrderedDict()

    async def spend(self, kind: str, name: str) -> None:
        """Count a call of an `identity` or a `tenant`. Raises `LIMIT_REACHED`, `STORAGE_UNAVAILABLE`."""
        limit = self._limits[kind]
        if not limit:
            return
        subject = f"{kind}:{name}"
        purse = self._purses.get(subject)
        if purse is None:
            purse = self._purses[subject] = _Purse()
            if len(self._purses) > _SUBJECTS:
                self._purses.popitem(last=False)
        if not self._pay(purse):
            async with purse.asking:
                # Again, if the second ended while its budget was asked for.
                while not self._pay(purse):
                    await self._fill(purse, subject, limit)
                    if purse.empty:
                        raise VaultError(
                            Reason.LIMIT_REACHED, "too many calls in this second", limit=f"{kind}_rate"
                        )

    def _pay(self, purse: _Purse) -> bool:
        if purse.second != int(self._clock.now().timestamp()) or not purse.calls:
            return False
        purse.calls -= 1
        return True

    async def _fill(self, purse: _Purse, subject: str, limit: int) -> None:
        second = int(self._clock.now().timestamp())
        if purse.second == second and purse.empty:
            return
        purse.second, purse.calls, purse.empty = second, 0, False
        share = max(1, limit // _SHARE)
        for calls in dict.fromkeys((share, 1)):
            if await rates.take(self._database, subject, second, calls, limit):
                purse.calls = calls
                return
        purse.empty = True
