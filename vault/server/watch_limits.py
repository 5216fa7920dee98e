"""So many streams that only listen, at once: what each costs is little, and nobody may have it without end."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from vault.errors import Reason, VaultError

if TYPE_CHECKING:
    from collections.abc import Iterator


class WatchLimits:
    """Counts the watches of this worker, and of each identity."""

    def __init__(self, per_worker: int, per_identity: int) -> None:
        self._per_worker = per_worker
        self._per_identity = per_identity
        self._held: Counter[str] = Counter()

    @contextlib.contextmanager
    def hold(self, identity: str) -> Iterator[None]:
        """Count a watch for as long as a block lasts. Raises `LIMIT_REACHED`."""
        if self._held.total() >= self._per_worker:
            raise VaultError(
                Reason.LIMIT_REACHED, "too many watches on this worker", limit="watches_per_worker"
            )
        if self._held[identity] >= self._per_identity:
            raise VaultError(
                Reason.LIMIT_REACHED, "too many watches of this identity", limit="watches_per_identity"
            )
        self._held[identity] += 1
        try:
            yield
        finally:
            self._held[identity] -= 1
            if not self._held[identity]:
                del self._held[identity]
