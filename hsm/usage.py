"""How often each key-encryption key has been used, as random 96-bit IVs wear a GCM key out.

NIST SP 800-38D allows 2^32 encryptions with random IVs under one key. Counting is by process: a caller
with several processes, or a restart, persists `snapshot()` and tells each process what the others used.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from hsm.errors import HsmPolicyViolation
from hsm.model import name_of

if TYPE_CHECKING:
    from hsm.model import Kek, KeyRef

log = logging.getLogger("hsm.usage")

WARN_AT: Final = 1 << 30
REFUSE_AT: Final = 1 << 32


class UsageCounter:
    """Counts wraps per key; warns once at 2^30 and refuses before 2^32. Thread-safe."""

    def __init__(self, *, warn_at: int = WARN_AT, refuse_at: int = REFUSE_AT) -> None:
        self._warn_at = warn_at
        self._refuse_at = refuse_at
        self._counts: dict[KeyRef, int] = {}
        self._lock = threading.Lock()

    def spend(self, kek: Kek) -> None:
        """Count one wrap, before it is made. Raises `HsmPolicyViolation` if the key has none left."""
        ref = name_of(kek)
        with self._lock:
            count = self._counts.get(ref, 0) + 1
            if count >= self._refuse_at:
                raise HsmPolicyViolation("wrap", f"key {ref.label} has wrapped all it may; rotate it")
            self._counts[ref] = count
        if count == self._warn_at:
            log.warning("key %s has wrapped %d times; rotate it", ref.label, count)

    def note(self, ref: KeyRef, count: int) -> None:
        """Learn that a key has been used that often; the greater number counts."""
        if count < 0:
            raise ValueError("a count is not negative")
        with self._lock:
            before = self._counts.get(ref, 0)
            self._counts[ref] = max(before, count)
        if before < self._warn_at <= count:
            log.warning("key %s has wrapped %d times; rotate it", ref.label, count)

    def forget(self, ref: KeyRef) -> None:
        """Drop a key that no longer exists."""
        with self._lock:
            self._counts.pop(ref, None)

    def settle(self, ref: KeyRef, count: int) -> None:
        """Count so many wraps no longer, as they are written down; a key without any is not kept."""
        with self._lock:
            left = self._counts.get(ref, 0) - count
            if left > 0:
                self._counts[ref] = left
            else:
                self._counts.pop(ref, None)

    def snapshot(self) -> dict[KeyRef, int]:
        """What has been counted until now."""
        with self._lock:
            return dict(self._counts)
