"""A hand-over is opened once, by the identity it was wrapped for, in time; then its secret is nowhere."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.integration.wire import Books, Wire
from tests.support.vault import TRUST_DOMAIN
from vault.client import AsyncClient, StrongroomError
from vault.client.sealing import Recipient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.vault import VaultSite

NAME = "acme/onboarding/gateway"
SECRET = "handed-over-9f2c41d7"
LEDGER = f"spiffe://{TRUST_DOMAIN}/ledger"


@pytest.fixture(scope="module")
def books(site: VaultSite) -> Iterator[Books]:
    made = Books(site)
    yield made
    made.close()


def wrap(site: VaultSite, *, recipient: str = LEDGER, ttl: int = 3600) -> str:
    with site.client() as payments:
        return payments.wrap(NAME, {"password": SECRET}, recipient=recipient, ttl_seconds=ttl).handover_id


def row(books: Books, handover_id: str) -> dict[str, object]:
    (found,) = books.rows(f"SELECT * FROM handovers WHERE handover_id = '{handover_id}'")
    return found


def test_the_recipient_opens_it_once(site: VaultSite, books: Books) -> None:
    handover_id = wrap(site)
    assert SECRET.encode() not in row(books, handover_id)["envelope"]  # type: ignore[operator]
    with site.client("ledger") as ledger:
        with ledger.unwrap(NAME, handover_id) as secrets:
            assert bytes(secrets["password"]) == SECRET.encode()
        with pytest.raises(StrongroomError) as refused:
            ledger.unwrap(NAME, handover_id)
    assert refused.value.reason == "HANDOVER_OPENED"


@pytest.mark.parametrize("nobody", ["", "ledger", "spiffe://", "CN=ledger", "spiffe://bank.example/a b"])
def test_a_recipient_that_no_certificate_could_name_is_refused(site: VaultSite, nobody: str) -> None:
    with pytest.raises(StrongroomError) as refused:
        wrap(site, recipient=nobody)
    assert refused.value.reason == "FIELD_INVALID"
    assert "SPIFFE ID or a DNS name" in str(refused.value)


def test_its_secret_leaves_the_database_with_the_opening(site: VaultSite, books: Books) -> None:
    handover_id = wrap(site)
    with site.client("ledger") as ledger:
        ledger.unwrap(NAME, handover_id).close()
    after = row(books, handover_id)
    assert (after["state"], after["envelope"]) == ("opened", b"")


def test_a_second_opening_alarms(site: VaultSite, books: Books) -> None:
    handover_id = wrap(site)
    wire = Wire(site.profile("ledger"), "acme", ("handover.unwrap:acme/**",))
    with wire:
        answers = [
            wire.call(
                "/vault.v1.HandoverService/Unwrap",
                name=NAME, handover_id=handover_id, recipient_key=Recipient().public_bytes,
            )
            for _ in range(2)
        ]  # fmt: skip
    assert [answer.reason for answer in answers] == ["", "HANDOVER_OPENED"]
    (record,) = books.records(answers[1].request_id)
    assert (record["outcome"], record["resource"]) == ("refused", NAME)
    alarms = [json.loads(line) for line in site.log().splitlines() if handover_id in line]
    assert [(alarm["level"], alarm["event"]) for alarm in alarms] == [
        ("critical", "a hand-over was to be opened twice")
    ]


def test_of_many_at_once_exactly_one_opens_it(site: VaultSite) -> None:
    handover_id = wrap(site)
    with site.client("ledger") as ledger, ThreadPoolExecutor(32) as threads:

        def attempt(_: int) -> str:
            try:
                with ledger.unwrap(NAME, handover_id) as secrets:
                    return secrets.text("password")
            except StrongroomError as error:
                return error.reason

        results = list(threads.map(attempt, range(60)))
    assert results.count(SECRET) == 1
    assert set(results) == {SECRET, "HANDOVER_OPENED"}


def test_to_anybody_else_it_does_not_exist(site: VaultSite) -> None:
    handover_id = wrap(site)
    with site.client() as payments:
        for wanted in (handover_id, "A" * 22):
            with pytest.raises(StrongroomError) as refused:
                payments.unwrap(NAME, wanted)
            assert (refused.value.reason, refused.value.message) == (
                "HANDOVER_NOT_FOUND", "no such hand-over for this identity",
            )  # fmt: skip
    with site.client("ledger") as ledger:
        assert ledger.unwrap(NAME, handover_id).text("password") == SECRET, "who tried did not use it up"


def test_a_bad_recipient_key_uses_nothing_up(site: VaultSite) -> None:
    handover_id = wrap(site)
    with Wire(site.profile("ledger"), "acme", ("handover.unwrap:acme/**",)) as wire:
        answer = wire.call(
            "/vault.v1.HandoverService/Unwrap", name=NAME, handover_id=handover_id, recipient_key=b"x"
        )
    assert answer.reason == "RECIPIENT_KEY_INVALID"
    with site.client("ledger") as ledger:
        assert ledger.unwrap(NAME, handover_id).text("password") == SECRET


def test_it_expires(site: VaultSite) -> None:
    handover_id = wrap(site, ttl=1)
    with site.client("ledger") as ledger:
        time.sleep(1.1)
        with pytest.raises(StrongroomError) as refused:
            ledger.unwrap(NAME, handover_id)
    assert refused.value.reason == "HANDOVER_EXPIRED"


def test_a_rotation_of_the_key_in_between_harms_nothing(site: VaultSite) -> None:
    handover_id = wrap(site)
    with site.operator() as operator:
        operator.rotate_key("acme")
    with site.client("ledger") as ledger:
        assert ledger.unwrap(NAME, handover_id).text("password") == SECRET


def test_the_state_of_hand_overs_is_held_against_the_log(site: VaultSite) -> None:
    wrap(site)
    with site.system() as auditor:
        report = auditor.verify_audit()
    assert not [finding for finding in report.findings if "handovers" in finding]


def test_the_asyncio_client_does_the_same(site: VaultSite) -> None:
    async def both() -> str:
        async with (
            AsyncClient(site.profile("payments")) as payments,
            AsyncClient(site.profile("ledger")) as ledger,
        ):
            made = await payments.wrap(NAME, {"password": SECRET}, recipient=LEDGER)
            with await ledger.unwrap(NAME, made.handover_id) as secrets:
                return secrets.text("password")

    assert asyncio.run(both()) == SECRET
