"""What is limited for a tenant is counted where everybody's writes meet: calls at once, on any worker, keep to it."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from hsm import open_backend
from tests.integration.wire import until
from vault import config
from vault.client import Client, StrongroomError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.vault import VaultSite

CALLERS = 12


@pytest.fixture
def vault(fresh_site: VaultSite) -> VaultSite:
    fresh_site.settings = {"server": {"workers": 3}, "hsm": {"max_credential_keys_per_tenant": 5}}
    fresh_site.write_config()
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
        system.create_tenant("globex")
    return fresh_site


def at_once(vault: VaultSite, scopes: tuple[str, ...], call: Callable[[Client, int], object]) -> list[str]:
    """What callers on connections of their own get for a call that they make at the same moment: "" or a limit."""
    ready = threading.Barrier(CALLERS)

    def one(number: int) -> str:
        with vault.client(scopes=scopes) as client:
            client.list_credentials("acme/none")  # so that it has its token, and its connection
            ready.wait(30)
            try:
                call(client, number)
            except StrongroomError as error:
                assert error.reason == "LIMIT_REACHED", error
                return str(error.metadata["limit"])
            return ""

    with ThreadPoolExecutor(CALLERS) as pool:
        return sorted(pool.map(one, range(CALLERS)))


def in_hsm(vault: VaultSite) -> int:
    """How many private keys of credentials lie in the HSM."""
    with open_backend(vault.hsm_uri) as backend:
        deployment = config.load(vault.config_file).hsm.deployment
        return len(list(backend.list_keys(f"{deployment}/sign/")))


def test_a_tenant_has_so_many_keys_in_the_hsm_and_leaves_room_for_the_others(vault: VaultSite) -> None:
    scopes = tuple(f"credential.{action}:acme/**" for action in ("write", "read", "destroy"))
    outcomes = at_once(vault, scopes, lambda client, n: client.create_key(f"acme/sign/{n}"))
    assert outcomes == [""] * 5 + ["credential_keys_per_tenant"] * (CALLERS - 5)
    assert in_hsm(vault) == 5

    with vault.client("globex", "globex") as other:
        other.create_key("globex/sign/ours")
    with vault.client(scopes=scopes) as client:
        (made, *_) = client.list_credentials("acme/sign")
        # A version that is destroyed gives its room back, once its key is out of the HSM.
        client.destroy_version(made.name, 1)
        until(lambda: in_hsm(vault) == 5)
        until(lambda: _is_made(client, "acme/sign/again"))
        assert not _is_made(client, "acme/sign/one-more")
    assert in_hsm(vault) == 6


def _is_made(client: Client, name: str) -> bool:
    with contextlib.suppress(StrongroomError):
        client.create_key(name)
        return True
    return False
