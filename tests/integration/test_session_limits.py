"""How many sessions may be open, and how much they may hold: by worker, by tenant, by identity."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.integration.wire import until
from vault.client import StrongroomError

if TYPE_CHECKING:
    from tests.support.vault import VaultSite
    from vault.client import Client, Session

NAME = "acme/limits/one"


def limited(site: VaultSite, **limits: int) -> VaultSite:
    site.settings = {"sessions": dict(limits)}
    site.write_config()
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
        system.create_tenant("globex")
    for name, tenant in (("payments", "acme"), ("globex", "globex")):
        with site.client(name, tenant) as client:
            client.put(NAME.replace("acme", tenant), {"a": "b"}, kind="generic")
    return site


def open_one(stack: contextlib.ExitStack, client: Client, name: str = NAME) -> Session:
    return stack.enter_context(client.session(name, purpose="test"))


def refusal(client: Client, name: str = NAME) -> dict[str, str]:
    with pytest.raises(StrongroomError) as refused, client.session(name, purpose="test"):
        pass
    assert refused.value.reason == "LIMIT_REACHED"
    return refused.value.metadata


def test_an_identity_has_only_so_many_and_leaves_room_for_others(fresh_site: VaultSite) -> None:
    site = limited(fresh_site, max_per_identity=2)
    with site.client() as payments, site.client("ledger") as ledger, contextlib.ExitStack() as stack:
        first = open_one(stack, payments)
        open_one(stack, payments)
        assert refusal(payments) == {"limit": "sessions_per_identity"}
        open_one(stack, ledger)
        first.__exit__(None, None, None)
        until(lambda: _opens(payments))


def test_a_tenant_has_only_so_many_and_leaves_room_for_others(fresh_site: VaultSite) -> None:
    site = limited(fresh_site, max_per_tenant=2)
    with (
        site.client() as payments,
        site.client("ledger") as ledger,
        site.client("globex", "globex") as globex,
        contextlib.ExitStack() as stack,
    ):
        first = open_one(stack, payments)
        open_one(stack, ledger)
        assert refusal(ledger) == {"limit": "sessions_per_tenant"}
        open_one(stack, globex, "globex/limits/one")
        first.__exit__(None, None, None)
        until(lambda: _opens(ledger))


def test_a_tenant_holds_only_so_much_memory_and_leaves_room_for_others(fresh_site: VaultSite) -> None:
    site = limited(fresh_site, max_bytes_per_tenant=100_000)
    with (
        site.client() as payments,
        site.client("globex", "globex") as globex,
        contextlib.ExitStack() as stack,
    ):
        large = "acme/limits/large"
        payments.put(large, {"a": "x" * 60_000}, kind="generic")
        first = open_one(stack, payments, large)
        assert refusal(payments, large) == {"limit": "session_bytes_per_tenant"}
        open_one(stack, payments)
        open_one(stack, globex, "globex/limits/one")
        with payments.reveal(large, purpose="test")[0] as secrets:
            assert len(secrets["a"]) == 60_000, "what holds nothing is not counted"
        first.__exit__(None, None, None)
        until(lambda: _opens(payments, large))


def test_a_worker_has_only_so_many(fresh_site: VaultSite) -> None:
    site = limited(fresh_site, max_per_worker=2)
    with (
        site.client() as payments,
        site.client("globex", "globex") as globex,
        contextlib.ExitStack() as stack,
    ):
        open_one(stack, payments)
        open_one(stack, globex, "globex/limits/one")
        assert refusal(payments) == {"limit": "sessions_per_worker"}


def _opens(client: Client, name: str = NAME) -> bool:
    try:
        with client.session(name, purpose="test"):
            return True
    except StrongroomError:
        return False
