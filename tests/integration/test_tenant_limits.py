"""What is limited for a tenant is counted where everybody's writes meet: calls at once, on any worker, keep to it."""

from __future__ import annotations

import contextlib
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from hsm import open_backend
from tests.integration.wire import until
from tests.support.vault import VaultSite
from vault import config
from vault.client import Client, StrongroomError
from vault.core.outgoing import MAX_ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

CALLERS = 12


@pytest.fixture(scope="module")
def vault(
    softhsm: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[VaultSite]:
    settings: dict[str, dict[str, object]] = {
        "server": {"workers": 3},
        "hsm": {"max_credential_keys_per_tenant": 5},
    }
    url = postgres.create_database(f"limits_{secrets.token_hex(6)}")
    site = VaultSite(tmp_path_factory.mktemp("limits") / "vault", url, *softhsm, settings)
    site.prepare()
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
        system.create_tenant("globex")
    yield site
    site.stop()


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


def test_a_tenant_has_so_many_webhook_endpoints_and_a_removed_one_makes_room(vault: VaultSite) -> None:
    actions = ("credential.write", "credential.read")
    scopes = (*(f"{action}:acme/**" for action in actions), "webhook.manage:acme/webhooks")

    def create(client: Client, number: int) -> object:
        url = f"https://hooks.example.com/{number}"
        return client.create_webhook_endpoint(url, ["handover.opened"], credential="acme/signer")

    with vault.client(scopes=scopes) as client:
        client.put("acme/signer", {"signing_secret": "whsec_" + "c2Vj" * 8}, kind="webhook_endpoint")
        for number in range(MAX_ENDPOINTS - 4):
            create(client, 100 + number)
        outcomes = at_once(vault, scopes, create)
        assert outcomes == [""] * 4 + ["webhook_endpoints"] * (CALLERS - 4)
        found = client.list_webhook_endpoints()
        assert len(found) == MAX_ENDPOINTS
        client.delete_webhook_endpoint(found[0].endpoint_id)
        create(client, 200)
        with pytest.raises(StrongroomError, match="LIMIT_REACHED"):
            create(client, 201)


def _is_made(client: Client, name: str) -> bool:
    with contextlib.suppress(StrongroomError):
        client.create_key(name)
        return True
    return False
