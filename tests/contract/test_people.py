"""The people among the callers: entered once however many workers meet them at once, known to all, and forgotten."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from vault import config
from vault.core.keys import Keyring
from vault.core.people import ERASE, RESOURCE, People
from vault.core.subjects import Subjects
from vault.core.suspicions import network
from vault.crypto import people as crypto
from vault.model import Origin
from vault.server.foundation import Foundation, foundation
from vault.store.audit import granted_between
from vault.store.ledger import read_head

if TYPE_CHECKING:
    from tests.support.vault import VaultSite

DOMAIN = "bank.example"
ALICE, BOB = f"spiffe://{DOMAIN}/people/alice", f"spiffe://{DOMAIN}/people/bob"
PAYMENTS = f"spiffe://{DOMAIN}/payments"


async def _people(base: Foundation, *patterns: str) -> People:
    """As a worker has it."""
    keyring = Keyring(base.database, base.hsm, base.log, base.keyring._deployment)
    subjects = Subjects(base.database, base.hsm, base.log, keyring)
    wanted = patterns or (f"spiffe://{DOMAIN}/people/*", "*.people.bank.example")
    people = People(wanted, (DOMAIN,), base.database, base.log, keyring, subjects)
    await people.start()
    return people


async def test_a_person_is_entered_once_by_many_at_once_and_known_to_all(fresh_site: VaultSite) -> None:
    async with foundation(config.load(fresh_site.config_file)) as base:
        workers = [await _people(base) for _ in range(3)]
        calls = [worker.written(who) for worker in workers for who in (ALICE, BOB, ALICE, PAYMENTS)]
        found = await asyncio.gather(*calls)
        alice, bob = found[0], found[1]
        assert found == [alice, bob, alice, PAYMENTS] * 3
        assert crypto.PREFIX in alice
        assert alice != bob
        late = await _people(base)
        assert [await late.named(one) for one in (alice, bob, PAYMENTS)] == [ALICE, BOB, PAYMENTS]
        assert await late.sought(ALICE) == alice
        # Who only looks for somebody enters nobody.
        nobody = f"spiffe://{DOMAIN}/people/nobody"
        assert await late.sought(nobody) == nobody
        async with base.database.read() as connection:
            size = (await read_head(connection)).size
            entered = await granted_between(connection, 0, size, ("person.create",))
        assert len(entered) == 2

        # What is forgotten is forgotten by each worker that hears of it.
        erased = dataclasses.replace(entered[0], action=ERASE, resource=f"{RESOURCE}/{alice[7:]}")
        late.notice(erased)
        assert late.known(alice) is None
        assert workers[0].known(alice) is not None


async def test_of_a_person_the_network_is_written_and_an_alias_of_the_device(fresh_site: VaultSite) -> None:
    async with foundation(config.load(fresh_site.config_file)) as base:
        people = await _people(base)
        alice, bob = await people.person(ALICE), await people.person(BOB)
        assert alice is not None
        assert bob is not None
        for address, written in (
            ("198.51.100.77", "198.51.100.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
            ("", ""),
        ):
            seen = alice.written(Origin(address, "laptop-7", "r"))
            assert (seen.ip_address, seen.request_id) == (written, "r")
            # The rules see the network that they saw before.
            assert network(seen.ip_address) == network(address)
        assert seen.device_id == alice.written(Origin("192.0.2.1", "laptop-7")).device_id
        assert "laptop" not in seen.device_id
        assert seen.device_id != bob.written(Origin("", "laptop-7")).device_id
        assert alice.written(Origin()).device_id == ""


async def test_texts_name_people_by_pseudonym_and_back(fresh_site: VaultSite) -> None:
    async with foundation(config.load(fresh_site.config_file)) as base:
        people = await _people(base)
        text = f'principal.id == "{ALICE}" // {ALICE}s, {ALICE}.\n || "{PAYMENTS}" || "x.people.bank.example"'
        hidden = await people.hide(text)
        assert "alice" not in hidden
        assert PAYMENTS in hidden
        assert await people.show(hidden) == text
        assert await people.hide(hidden) == hidden
        assert people.alluded('principal.path == "people/alice"')
        assert not people.alluded('principal.path like "people/*" && resource.path == "pay/people/x"')
        people.forget(await people.written(ALICE))
        assert 'people/alice"' not in await people.show(hidden), "known no more"
