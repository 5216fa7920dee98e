"""Ingest keys: what opens nothing any more is not kept."""

from __future__ import annotations

import asyncio
import datetime
import gc
import weakref
from typing import Any

import pytest

from vault.clock import UTC
from vault.core.ingest import GRACE, OFFERED, IngestKeys
from vault.errors import Reason, VaultError
from vault.model import IngestKey

BEGAN = datetime.datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.time = BEGAN

    def now(self) -> datetime.datetime:
        return self.time

    def monotonic(self) -> float:
        return (self.time - BEGAN).total_seconds()


class Private:
    """A private key, as far as it matters here."""


def test_a_private_key_whose_time_is_over_is_let_go_of_when_the_next_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing: Any = None
    clock = Clock()
    keys = IngestKeys("issuer", nothing, nothing, nothing, nothing, nothing, clock)
    made: dict[str, weakref.ref[Private]] = {}

    async def unwrap(key_id: str) -> tuple[IngestKey, Private]:
        private = Private()
        made[key_id] = weakref.ref(private)
        return IngestKey(key_id, 1, "", b"", 1, clock.time, clock.time + OFFERED + GRACE), private

    monkeypatch.setattr(keys, "_unwrap", unwrap)

    def use(key_id: str) -> None:
        with pytest.raises(VaultError) as refused:
            asyncio.run(keys.open(key_id, b"", b"too short"))
        assert refused.value.reason is Reason.SEALED_PAYLOAD_INVALID
        gc.collect()

    use("first")
    clock.time += OFFERED
    use("second")
    assert made["first"]() is not None, "what was sealed just before still arrives"
    clock.time += OFFERED
    use("third")
    assert made["first"]() is None
    assert made["second"]() is not None
