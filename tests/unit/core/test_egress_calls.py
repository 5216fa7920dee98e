"""Requests take turns, and none waits for its turn for ever."""

from __future__ import annotations

import asyncio
import socket

import pytest

from vault.core.egress import calls
from vault.errors import Reason, VaultError


def request(port: int) -> calls.Request:
    return calls.Request(
        host="localhost", port=port, method="GET", path="/", query=(), headers={}, body=b"", injections=(), captures=(),
        response_bytes=1000, seconds=30, loopback=True,
    )  # fmt: skip


async def refused(made: calls.Calls, port: int) -> Reason:
    with pytest.raises(VaultError) as caught:
        async with asyncio.timeout(10):
            await made.make(request(port))
    return caught.value.reason


def test_a_request_whose_turn_does_not_come_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_AT_ONCE", 1)
    monkeypatch.setattr(calls, "ROOM_SECONDS", 0.2)

    async def ask(silent: int, nobody: int) -> None:
        made = calls.Calls()
        slow = asyncio.create_task(made.make(request(silent)))
        await asyncio.sleep(0)
        assert await refused(made, silent) is Reason.OVERLOADED
        slow.cancel()
        await asyncio.wait([slow])
        assert await refused(made, nobody) is Reason.UPSTREAM_UNREACHABLE, (
            "the turn that was given up came back"
        )

    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        asyncio.run(ask(silent.getsockname()[1], nobody.getsockname()[1]))
