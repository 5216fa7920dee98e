"""Time, as a parameter: whoever needs the time is handed a clock."""

from __future__ import annotations

import datetime
import time
from typing import Protocol

UTC = datetime.UTC


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime.datetime:
        """The time, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever go forward, whatever is done to the wall clock."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime.datetime:
        """The time, UTC."""
        return datetime.datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()


def micros(moment: datetime.datetime) -> int:
    """Microseconds since 1970-01-01 UTC, exactly: what is hashed and compared where a time is meant."""
    return (moment - _EPOCH) // _MICROSECOND


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
