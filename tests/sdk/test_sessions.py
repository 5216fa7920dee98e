"""Sessions as services use them: shared by tasks and threads, cancelled, out of time, opened again."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.support.sockets import forward_to, listener
from vault.client import AsyncClient, Client, StrongroomError
from vault.client.operations import calls
from vault.client.operations.access import Access
from vault.client.operations.calls import MAX_TRIES
from vault.client.operations.sessions import Opening
from vault.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.vault import VaultSite

KEY = b"a key of more than sixteen bytes"


@pytest.fixture
def site(shared_sites: Callable[[str], VaultSite]) -> VaultSite:
    return shared_sites("sqlite")


@pytest.fixture
def name(site: VaultSite) -> str:
    name = f"acme/sessions/{secrets.token_hex(6)}"
    with site.client() as client:
        client.put(name, {"key": KEY}, kind="generic")
    return name


def right(message: bytes) -> bytes:
    return hmac.digest(KEY, message, "sha256")


async def test_tasks_share_a_session_and_each_gets_its_own_answer(site: VaultSite, name: str) -> None:
    messages = [str(number).encode() for number in range(30)]
    async with (
        AsyncClient(site.profile("payments")) as client,
        client.session(name, purpose="test") as session,
    ):
        made = await asyncio.gather(*(session.hmac("key", message, raw=True) for message in messages))
    assert made == [right(message) for message in messages]
    assert session.closed is not None
    assert (session.closed.reason, session.closed.uses) == (session_pb2.CLOSE_REASON_CLOSED_BY_CALLER, 30)


async def test_a_session_outlives_operations_that_are_cancelled_or_out_of_time(
    site: VaultSite, name: str
) -> None:
    async with (
        AsyncClient(site.profile("payments")) as client,
        client.session(name, purpose="test") as session,
    ):
        for pause in (0.0, 0.0001, 0.001, 0.002):
            asked = asyncio.create_task(session.hmac("key", b"given up", raw=True))
            await asyncio.sleep(pause)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await session.hmac("key", b"late", raw=True)
            assert await session.hmac("key", b"wanted", raw=True) == right(b"wanted")
    assert session.closed is not None
    assert session.closed.reason == session_pb2.CLOSE_REASON_CLOSED_BY_CALLER


async def test_an_operation_whose_session_is_left_by_another_task_ends(site: VaultSite, name: str) -> None:
    async with AsyncClient(site.profile("payments")) as client:
        async with client.session(name, purpose="test") as session:
            waiting = [asyncio.create_task(session.hmac("key", b"m", raw=True)) for _ in range(20)]
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            for ended in await asyncio.gather(*waiting, return_exceptions=True):
                assert ended == right(b"m") or isinstance(ended, Exception)


def test_threads_that_share_a_session_take_turns(site: VaultSite, name: str) -> None:
    messages = [str(number).encode() for number in range(40)]
    with (
        site.client() as client,
        client.session(name, purpose="test") as session,
        ThreadPoolExecutor(8) as threads,
    ):
        made = list(threads.map(lambda message: session.hmac("key", message, raw=True), messages))
    assert made == [right(message) for message in messages]


async def test_a_session_outside_of_its_block_says_so(site: VaultSite) -> None:
    with site.client() as client, pytest.raises(ValueError, match="use it in a `with` block"):
        client.session("acme/any", purpose="test").reveal()
    async with AsyncClient(site.profile("payments")) as client:
        with pytest.raises(ValueError, match="use it in an `async with` block"):
            await client.session("acme/any", purpose="test").reveal()


async def test_a_session_is_opened_with_a_new_token_once_the_old_one_is_revoked(
    site: VaultSite, name: str
) -> None:
    with site.client() as client, site.operator() as operator:
        async with AsyncClient(site.profile("payments")) as other:
            client.get(name)
            await other.get(name)
            for user in (client, other):
                assert user._access._token is not None
                operator.revoke_token(user._access._token.token_id)
            with client.session(name, purpose="test") as session:
                assert session.hmac("key", b"m", raw=True) == right(b"m")
            async with other.session(name, purpose="test") as again:
                assert await again.hmac("key", b"m", raw=True) == right(b"m")


def test_an_opening_is_tried_as_often_as_any_call(site: VaultSite) -> None:
    opening = Opening(Access(site.profile("payments")))
    lost = StrongroomError(grpc.StatusCode.UNAVAILABLE, "UNREACHABLE", "lost", {})
    assert all(0 <= opening.after(lost) <= 3.2 for _ in range(MAX_TRIES - 1))
    with pytest.raises(StrongroomError, match="lost"):
        opening.after(lost)
    refused = StrongroomError(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_DENIED", "no", {})
    with pytest.raises(StrongroomError, match="SCOPE_DENIED"):
        Opening(Access(site.profile("payments"))).after(refused)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_session_whose_vault_is_gone_without_a_word_does_not_wait_for_ever(
    site: VaultSite, name: str, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    quick = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
    options = tuple((key, 1000 if key in quick else value) for key, value in calls.CHANNEL_OPTIONS)
    assert {key for key, value in options if value == 1000} == set(quick)
    monkeypatch.setattr(calls, "CHANNEL_OPTIONS", options)
    cut = threading.Event()

    async def asynchronously(address: str) -> None:
        profile = dataclasses.replace(site.profile("payments"), server=address)
        async with AsyncClient(profile) as client, client.session(name, purpose="test") as session:
            cut.set()
            await session.hmac("key", b"m", raw=True)

    with listener(forward_to(site.port, cut=cut)) as address:
        began = time.monotonic()
        with pytest.raises(StrongroomError, match="UNREACHABLE"):
            if is_async:
                asyncio.run(asynchronously(address))
            else:
                profile = dataclasses.replace(site.profile("payments"), server=address)
                with Client(profile) as client, client.session(name, purpose="test") as session:
                    cut.set()
                    session.hmac("key", b"m", raw=True)
        assert time.monotonic() - began < 15


def test_after_a_fork_the_client_is_good_on_both_sides_and_the_session_with_who_opened_it(
    site: VaultSite, name: str
) -> None:
    profile = site.profile("payments")
    program = f"""
import os, signal
from pathlib import PosixPath
from vault.client import Client
from vault.client.profile import Profile

client = Client({profile!r})
client.get({name!r})
for _ in range(3):
    if (child := os.fork()) == 0:
        signal.alarm(30)
        with client.session({name!r}, purpose="test") as session:
            os._exit(0 if session.hmac("key", b"m", raw=True) == {right(b"m")!r} else 1)
    assert os.waitpid(child, 0)[1] == 0
with client.session({name!r}, purpose="test") as session:
    session.hmac("key", b"m")
    if (child := os.fork()) == 0:
        signal.alarm(30)
        try:
            session.hmac("key", b"m")
        except ValueError as error:
            session.__exit__(None, None, None)
            os._exit(0 if "another process's" in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert session.hmac("key", b"m", raw=True) == {right(b"m")!r}
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
