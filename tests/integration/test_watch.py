"""A watch tells of every change that its token may read, once, in order, across workers and lost connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.integration.wire import Wire, until
from vault.client import AsyncClient, StrongroomError
from vault.client.health import check
from vault.v1 import credential_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.vault import VaultSite

METHOD = "/vault.v1.CredentialService/Watch"
# How soon something is told is measured on one of the two.
on_postgresql = pytest.mark.parametrize("site", ["postgresql"], indirect=True, scope="session")


class Watcher:
    """A client's watch, running in a thread of its own, for as long as a `with` block lasts."""

    def __init__(self, site: VaultSite, prefix: str, **options: Any) -> None:
        self.changes: list[pb.CredentialServiceWatchResponse] = []
        self._client = site.client(scopes=options.get("scopes"))
        self._prefix = prefix
        self._cursor = options.get("cursor", "")
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        # A watch goes on across lost connections, so what ends it is a client that was closed.
        with contextlib.suppress(StrongroomError, ValueError):
            for change in self._client.watch(self._prefix, cursor=self._cursor):
                self.changes.append(change)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.close()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def told(self) -> list[tuple[int, str, int]]:
        return [(change.change, change.name, change.version) for change in self.changes]


@contextlib.contextmanager
def watching(site: VaultSite, prefix: str, client: Any) -> Iterator[Watcher]:
    """A watch that has begun: proved by a change that it has told of."""
    with Watcher(site, prefix) as watcher:
        marker = f"{prefix}/marker"

        def seen() -> bool:
            client.put(marker, {"a": "b"}, kind="generic")
            return bool(watcher.changes)

        until(seen, step=0.3)
        watcher.changes.clear()
        yield watcher


def test_every_kind_of_change_is_told(site: VaultSite) -> None:
    name = "acme/watch-kinds/one"
    with (
        site.client() as client,
        site.operator() as operator,
        watching(site, "acme/watch-kinds", client) as watcher,
    ):
        client.put(name, {"a": "b"}, kind="generic")
        client.put(name, {"a": "c"}, kind="generic")
        operator.delete(name)
        operator.undelete(name)
        operator.destroy_version(name, 1)
        expected = [
            (pb.CREDENTIAL_CHANGE_PUT, name, 1),
            (pb.CREDENTIAL_CHANGE_PUT, name, 2),
            (pb.CREDENTIAL_CHANGE_DELETED, name, 0),
            (pb.CREDENTIAL_CHANGE_UNDELETED, name, 0),
            (pb.CREDENTIAL_CHANGE_VERSION_DESTROYED, name, 1),
        ]
        until(lambda: [c for c in watcher.told() if c[1] == name] == expected)


@pytest.mark.alone
@on_postgresql
def test_a_change_is_told_within_a_second(site: VaultSite) -> None:
    with site.client() as client, watching(site, "acme/watch-soon", client) as watcher:
        client.put("acme/watch-soon/x", {"a": "b"}, kind="generic")
        began = time.monotonic()
        until(lambda: "acme/watch-soon/x" in [change.name for change in watcher.changes])
        assert time.monotonic() - began < 1.0


def test_from_a_cursor_nothing_is_missed_and_nothing_told_twice(site: VaultSite) -> None:
    prefix = "acme/watch-cursor"
    names = [f"{prefix}/n{number}" for number in range(30)]
    with site.client() as client, watching(site, prefix, client) as first:
        client.put(names[0], {"a": "b"}, kind="generic")
        until(lambda: names[0] in [change.name for change in first.changes])
        cursor = next(change.cursor for change in first.changes if change.name == names[0])
        for name in names[1:]:
            client.put(name, {"a": "b"}, kind="generic")
        with Watcher(site, prefix, cursor=cursor) as later:
            until(lambda: len(later.changes) >= len(names) - 1)
    assert [change.name for change in later.changes] == names[1:]


def test_it_goes_on_after_the_worker_was_killed(fresh_site: VaultSite) -> None:
    site = fresh_site
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    prefix = "acme/watch-killed"
    with site.client() as client, watching(site, prefix, client) as watcher:
        for number in range(10):
            client.put(f"{prefix}/n{number}", {"a": "b"}, kind="generic")
            if number == 4:
                site.kill_workers()
                until(lambda: _ready(site))
        until(lambda: len([c for c in watcher.changes if "/n" in c.name]) >= 10)
    names = [change.name for change in watcher.changes if "/n" in change.name]
    assert names == [f"{prefix}/n{number}" for number in range(10)]


def _ready(site: VaultSite) -> bool:
    try:
        return check(site.profile("operator"), timeout=1)[0]
    except StrongroomError:
        return False


def test_what_the_token_does_not_cover_is_not_told(site: VaultSite) -> None:
    prefix = "acme/watch-scope"
    with (
        site.client() as client,
        watching(site, prefix, client) as all_of_it,
        Watcher(site, prefix, scopes=(f"credential.read:{prefix}/seen/*",)) as narrow,
    ):
        names = []

        def told() -> bool:
            for kind in ("hidden", "seen"):
                names.append(f"{prefix}/{kind}/n{len(names)}")
                client.put(names[-1], {"a": "b"}, kind="generic")
            return bool(narrow.changes)

        until(told, step=0.3)
        until(lambda: names[-1] in [change.name for change in all_of_it.changes])
    assert all("/seen/" in change.name for change in narrow.changes)


@pytest.mark.alone
@on_postgresql
def test_it_ends_within_two_seconds_when_the_token_is_revoked(site: VaultSite) -> None:
    with Wire(site.profile("payments")) as wire, site.operator() as operator:
        issued = wire.issue("credential.read:acme/**")
        invoke = wire.channel.unary_stream(
            METHOD, response_deserializer=pb.CredentialServiceWatchResponse.FromString
        )
        call = invoke(b"", metadata=[("authorization", f"Bearer {issued.token}")], timeout=20)
        assert next(call).change == pb.CREDENTIAL_CHANGE_UNSPECIFIED
        operator.revoke_token(issued.token_id)
        began = time.monotonic()
        with pytest.raises(Exception, match="revoked"):
            for _ in call:
                pass
    assert time.monotonic() - began < 2.0


def test_an_identity_has_only_so_many(site: VaultSite) -> None:
    with Wire(site.profile("ledger"), scopes=("credential.read:acme/**",)) as wire:
        invoke = wire.channel.unary_stream(
            METHOD, response_deserializer=pb.CredentialServiceWatchResponse.FromString
        )
        sent = [("authorization", f"Bearer {wire.token}")]
        calls = [invoke(b"", metadata=sent, timeout=20) for _ in range(16)]
        for call in calls:
            next(call)
        refused = wire.call(METHOD)
        assert (refused.reason, refused.metadata) == ("LIMIT_REACHED", {"limit": "watches_per_identity"})
        calls[0].cancel()
        until(lambda: wire.call(METHOD).ok)


def test_the_asyncio_client_watches_too(site: VaultSite) -> None:
    name = "acme/watch-async/x"

    async def first() -> str:
        async with AsyncClient(site.profile("payments")) as client:

            async def put() -> None:
                while True:
                    await client.put(name, {"a": "b"}, kind="generic")
                    await asyncio.sleep(0.2)

            putting = asyncio.create_task(put())
            async for change in client.watch("acme/watch-async"):
                putting.cancel()
                return change.name
        raise AssertionError("unreachable")

    assert asyncio.run(first()) == name
