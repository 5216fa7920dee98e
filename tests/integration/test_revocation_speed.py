"""A revocation is in force on every worker at once, not when each next looks; so is a new signing key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest

from hsm import KeyAlgorithm
from tests.integration.wire import Wire, until
from tests.support.postgres import SERVER, SUPERUSER
from vault import config as configuration
from vault.model import SYSTEM_TENANT, AuditDraft, KeyPurpose, Origin, Outcome
from vault.server.foundation import foundation

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.vault import VaultSite

pytestmark = pytest.mark.alone

GET = "/vault.v1.CredentialService/Get"
REVOKE = "/vault.v1.TokenService/Revoke"
INTROSPECT = "/vault.v1.TokenService/Introspect"
JWKS = "/vault.v1.TokenService/GetJwks"
NAME = "acme/speed/login"
READ = "credential.read:acme/**"


def start(site: VaultSite, workers: int = 2) -> None:
    site.write_config(server={"workers": workers})
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    with site.client() as client:
        client.put(NAME, {"password": "p"}, kind="bank_login")


def keys_shown(wire: Wire) -> list[dict[str, str]]:
    keys: list[dict[str, str]] = json.loads(wire.call(JWKS).response.jwks)["keys"]
    return keys


def refuses(wire: Wire, text: str) -> Callable[[], bool]:
    return lambda: wire.call(GET, bearer=text, name=NAME).reason == "TOKEN_REVOKED"


def test_other_workers_are_woken_and_do_not_wait_for_their_next_look(fresh_site: VaultSite) -> None:
    start(fresh_site)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(fresh_site.profile("payments"))) for _ in range(8)]
        took, waited = [], []
        for _ in range(20):
            issued = wires[0].issue(READ)
            assert wires[0].call(REVOKE, token_id=issued.token_id).ok
            began = time.monotonic()
            for wire in wires[1:]:
                until(refuses(wire, issued.token), step=0.001)
            heard = time.monotonic()
            # What so many calls take when there is nothing to wait for.
            assert all(refuses(wire, issued.token)() for wire in wires[1:])
            took.append(heard - began)
            waited.append(took[-1] - (time.monotonic() - heard))
        assert sorted(waited)[15] < 0.1, waited
        assert max(took) < 1, took


def test_a_revocation_is_in_force_within_a_second_when_no_worker_can_be_woken(fresh_site: VaultSite) -> None:
    start(fresh_site)

    async def listeners(function: str) -> int:
        # Only a superuser sees what other roles' connections do.
        connection = await asyncpg.connect(fresh_site.database_url.replace(f"//{SERVER}@", f"//{SUPERUSER}@"))
        found = await connection.fetch(
            f"SELECT {function}(pid) FROM pg_stat_activity "
            "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        )
        await connection.close()
        return len(found)

    def all_listen() -> bool:
        return asyncio.run(listeners("pg_blocking_pids")) == 2

    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(fresh_site.profile("payments"))) for _ in range(8)]
        issued = [wires[0].issue(READ) for _ in range(3)]
        until(all_listen, step=0.1)
        assert asyncio.run(listeners("pg_terminate_backend")) == 2
        for one in issued:
            assert wires[0].call(REVOKE, token_id=one.token_id).ok
            began = time.monotonic()
            for wire in wires[1:]:
                until(refuses(wire, one.token), step=0.01)
            assert time.monotonic() - began < 1
        until(all_listen, step=0.1)


def test_a_new_signing_key_signs_at_once_and_what_the_old_one_signed_stays_good(
    fresh_site: VaultSite,
) -> None:
    start(fresh_site)

    async def rotate() -> None:
        async with foundation(configuration.load(fresh_site.config_file)) as base:
            draft = AuditDraft(SYSTEM_TENANT, "test", "key.rotate", "", Outcome.GRANTED, Origin())
            await base.keyring._make(SYSTEM_TENANT, KeyPurpose.TOKEN, KeyAlgorithm.EC_P256, draft, None)

    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(fresh_site.profile("payments"))) for _ in range(8)]
        old = wires[0].issue(READ).token
        (before,) = keys_shown(wires[0])
        asyncio.run(rotate())
        began = time.monotonic()
        # On every worker, as each signs.
        for wire in wires:
            until(lambda wire=wire: len(keys_shown(wire)) == 2)
        assert time.monotonic() - began < 1
        new = [wire.issue(READ).token for wire in wires]
        headers = {text.partition(".")[0] for text in new}
        assert old.partition(".")[0] not in headers
        assert len(headers) == 1
        for text in (old, *new):
            for wire in wires:
                assert wire.call(GET, bearer=text, name=NAME).ok
        for wire in wires:
            keys = keys_shown(wire)
            assert before in keys
            assert len(keys) == 2
