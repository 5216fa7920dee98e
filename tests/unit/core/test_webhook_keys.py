"""Plaid's keys by fetch: how long each answer holds, and what a flood of unknown ids may cost."""

from __future__ import annotations

import asyncio
import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.core.test_uses import material
from vault.core.egress import connectors
from vault.core.egress.calls import Answer, Request
from vault.core.uses import webhook_keys
from vault.core.uses.material import Material, Surroundings
from vault.core.uses.outside import Outside
from vault.core.uses.webhook_keys import FETCHES_A_MINUTE, KEPT_SECONDS, UNKNOWN_KEPT_SECONDS, WebhookKeys
from vault.errors import Reason, VaultError
from vault.model import Caller, Certificate, Origin, Token

CONNECTOR = "plaid"
TEXT = """
kinds = ["generic"]
hosts = ["plaid.example"]
[inject.secret]
place = "header"
name = "PLAID-SECRET"
field = "secret"
[[routes]]
methods = ["POST"]
paths = ["/webhook_verification_key/get"]
inject = ["secret"]
"""


class Plaid:
    """Answers as Plaid does, and counts."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)
        self.asked: list[str] = []
        self.status = 0

    async def make(self, request: Request) -> Answer:
        kid = json.loads(request.body)["key_id"]
        self.asked.append(kid)
        await asyncio.sleep(0.01)
        if self.status:
            return Answer(self.status, {}, b"{}", ())
        if kid in self.known:
            return Answer(200, {}, json.dumps({"key": {"kid": kid}}).encode(), ())
        return Answer(400, {}, b'{"error_code": "INVALID_WEBHOOK_VERIFICATION_KEY_ID"}', ())


class Log:
    async def record(self, *_drafts: object) -> None:
        """Nothing."""


class World:
    def __init__(self, plaid: Plaid) -> None:
        self.plaid = plaid
        self.now = 1_700_000_000.0
        self.keys = WebhookKeys()
        self.app, self.other = app("acme/plaid/app"), app("acme/plaid/other")
        found = connectors.Connectors({CONNECTOR: connectors.parse(TEXT, "test", Path())})
        outside = Outside(plaid, found, None, None, Log(), self.keys)  # type: ignore[arg-type]
        self.surroundings = Surroundings(
            now=lambda: datetime.datetime.fromtimestamp(self.now, datetime.UTC), reach=outside
        )

    async def get(self, kid: str, of: Material | None = None) -> Any:
        return await self.keys.get(of or self.app, CONNECTOR, kid, self.surroundings)


def app(name: str) -> Material:
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = material(secret=b"a secret of some length")
    token = Token("id", "me", "acme", (), "", moment, moment)
    object.__setattr__(made, "name", name)
    object.__setattr__(made, "caller", Caller(Certificate("me", "", moment, moment, b""), Origin(), token))
    return made


async def test_a_key_is_remembered_for_an_hour_and_then_asked_for_again() -> None:
    world = World(Plaid("k"))
    assert await world.get("k") == {"kid": "k"}
    world.now += KEPT_SECONDS - 1
    assert await world.get("k") == {"kid": "k"}
    assert world.plaid.asked == ["k"]
    world.now += 1
    world.plaid.known.clear()
    assert await world.get("k") is None, "Plaid has withdrawn it"


async def test_an_id_that_plaid_does_not_know_is_remembered_for_a_minute() -> None:
    world = World(Plaid())
    assert await world.get("k") is None
    world.now += UNKNOWN_KEPT_SECONDS - 1
    assert await world.get("k") is None
    assert world.plaid.asked == ["k"]
    world.now += 1
    world.plaid.known.add("k")
    assert await world.get("k") == {"kid": "k"}


async def test_all_who_ask_at_once_cause_one_request() -> None:
    world = World(Plaid("k"))
    found = await asyncio.gather(*(world.get("k") for _ in range(50)))
    assert found == [{"kid": "k"}] * 50
    assert world.plaid.asked == ["k"]


async def test_whoever_leaves_does_not_take_the_key_from_the_others() -> None:
    world = World(Plaid("k"))
    first, second = asyncio.ensure_future(world.get("k")), asyncio.ensure_future(world.get("k"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == {"kid": "k"}
    assert world.plaid.asked == ["k"]


async def test_a_flood_of_ids_is_stopped_and_hurts_no_other_credential() -> None:
    world = World(Plaid("k"))
    assert await world.get("k") == {"kid": "k"}
    refused = 0
    for number in range(100):
        try:
            await world.get(f"made-up-{number}")
        except VaultError as error:
            assert error.reason is Reason.LIMIT_REACHED
            refused += 1
    assert len(world.plaid.asked) == FETCHES_A_MINUTE
    assert refused == 100 - (FETCHES_A_MINUTE - 1)
    assert await world.get("k") == {"kid": "k"}, "what is at hand stays at hand"
    assert await world.get("k", world.other) == {"kid": "k"}
    world.now += 60
    assert await world.get("another") is None


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_keys, "_MOST", 4)
    world = World(Plaid())
    for number in range(20):
        await world.get(f"made-up-{number}")
    assert len(world.keys._known) == 4


async def test_one_credentials_answers_are_never_anothers() -> None:
    world = World(Plaid())
    assert await world.get("k") is None
    world.plaid.known.add("k")
    assert await world.get("k", world.other) == {"kid": "k"}


@pytest.mark.parametrize("status", [200, 400, 429, 500])
async def test_an_outage_is_no_answer_and_is_not_remembered(status: int) -> None:
    world = World(Plaid("k"))
    world.plaid.status = status
    with pytest.raises(VaultError) as caught:
        await world.get("k")
    assert caught.value.reason is Reason.UPSTREAM_FAILED
    world.plaid.status = 0
    assert await world.get("k") == {"kid": "k"}
