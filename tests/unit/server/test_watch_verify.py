"""A verification that is watched: how far it is, then the verdict; and it ends when nobody watches any more."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncGenerator, Callable

import pytest

from vault.core.verification import Report
from vault.crypto import scopes
from vault.errors import Reason, VaultError
from vault.model import Caller, Certificate, Origin, Token
from vault.server import audit
from vault.v1 import audit_pb2 as pb


class SlowCheckpoints:
    """Verifies when it is told to."""

    def __init__(self) -> None:
        self.watch: Callable[[int, int], None] = lambda _records, _total: None
        self.go_on = asyncio.Event()
        self.ended = ""

    async def verify(self, _caller: Caller, watch: Callable[[int, int], None]) -> Report:
        self.watch = watch
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        report = Report()
        report.records = 7
        report.find("record 3: altered")
        return report


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> SlowCheckpoints:
    monkeypatch.setattr(audit, "_TELL_SECONDS", 0.01)
    return SlowCheckpoints()


def watched(
    checkpoints: SlowCheckpoints, scope: str = "audit.verify:system/audit"
) -> AsyncGenerator[pb.AuditServiceWatchVerifyResponse]:
    now = datetime.datetime.now(datetime.UTC)
    later = now + datetime.timedelta(hours=1)
    token = Token("t" * 22, "me", "system", (scopes.parse(scope),), "", now, later)
    service = audit.AuditService.__new__(audit.AuditService)
    service._checkpoints = checkpoints  # type: ignore[assignment]
    return service.watch_verify(
        pb.AuditServiceWatchVerifyRequest(), Caller(Certificate("me", "", now, later), Origin(), token)
    )


async def test_it_tells_how_far_it_is_and_ends_with_the_verdict(checkpoints: SlowCheckpoints) -> None:
    told = watched(checkpoints)
    assert await anext(told) == pb.AuditServiceWatchVerifyResponse()
    checkpoints.watch(5, 7)
    assert await anext(told) == pb.AuditServiceWatchVerifyResponse(records=5, total=7)
    checkpoints.go_on.set()
    rest = [message async for message in told]
    assert all(not message.HasField("verdict") for message in rest[:-1])
    verdict = rest[-1].verdict
    assert (verdict.valid, verdict.records, list(verdict.findings)) == (False, 7, ["record 3: altered"])


async def test_it_ends_when_nobody_watches_any_more(checkpoints: SlowCheckpoints) -> None:
    told = watched(checkpoints)
    await anext(told)
    await told.aclose()
    await asyncio.sleep(0.01)
    assert checkpoints.ended == "cancelled"


async def test_it_is_refused_without_the_scope(checkpoints: SlowCheckpoints) -> None:
    with pytest.raises(VaultError) as refused:
        await anext(watched(checkpoints, "audit.read:system/audit"))
    assert refused.value.reason is Reason.SCOPE_DENIED
