"""What a use needs to reach a provider and to keep what the provider gave."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, TypeVar

from vault.crypto import memory

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from vault.core.audit import AuditLog
    from vault.core.credentials import Credentials
    from vault.core.egress.calls import Calls
    from vault.core.egress.connectors import Connectors
    from vault.core.standing import Standings
    from vault.core.uses.material import Material
    from vault.core.uses.webhook_keys import WebhookKeys
    from vault.crypto.memory import LockedBuffer

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Outside:
    """The way out, and the way of what comes back into the store."""

    calls: Calls
    connectors: Connectors
    credentials: Credentials
    standings: Standings
    log: AuditLog
    webhook_keys: WebhookKeys
    _running: set[asyncio.Task[object]] = dataclasses.field(default_factory=set)

    async def finish(self, work: Coroutine[object, object, T]) -> T:
        """Do what must not stop half-way, whatever becomes of the session that asked for it."""
        return await asyncio.shield(self.begin(work))

    def begin(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Have something done to its end. Whoever waits for it must not cancel it: shield it."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # If nobody waits for it by then: what it raises has been dealt with where it was raised.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def drain(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._running, return_exceptions=True)


class OwnCopy:
    """A credential, and the one that lends it fields, in locked buffers that outlive the session they came from."""

    def __init__(self, material: Material) -> None:
        self._buffers: list[LockedBuffer] = []
        lender = self._copy(material.companion) if material.companion else None
        self.material = dataclasses.replace(self._copy(material), companion=lender)

    def _copy(self, material: Material) -> Material:
        buffer = memory.allocate(len(material.view))
        self._buffers.append(buffer)
        buffer.view[:] = material.view
        return dataclasses.replace(material, view=buffer.view)

    def __enter__(self) -> Material:
        return self.material

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for buffer in self._buffers:
            buffer.close()
