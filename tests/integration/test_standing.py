"""How a credential stands with its provider decides whether it is opened, and everybody who watches hears of it."""

from __future__ import annotations

import asyncio
import datetime
import hmac
import json
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.integration.wire import until
from tests.support.certificates import self_signed
from tests.support.postgres import owner_url
from vault.client import SessionClosedError, StrongroomError
from vault.v1 import credential_pb2 as pb
from vault.v1 import session_pb2

if TYPE_CHECKING:
    from tests.support.vault import VaultSite
    from vault.client import Client

FOLDER = "acme/standing"


def stored(client: Client, name: str) -> str:
    full = f"{FOLDER}/{name}"
    client.put(full, {"password": "p"}, kind="bank_login")
    return full


def certified(client: Client, name: str, *lives: datetime.timedelta) -> str:
    """Store a client certificate, with others behind it, each with its life."""
    full, key = f"{FOLDER}/{name}", ec.generate_private_key(ec.SECP256R1())
    fields = {
        "private_key": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        "certificate": b"".join(self_signed(key, name, life) for life in lives),
    }
    client.put(full, fields, kind="tls_client")
    return full


def reason(client: Client, name: str) -> str:
    try:
        client.reveal(name, purpose="test")[0].close()
    except StrongroomError as error:
        return error.reason
    return ""


def test_who_set_it_when_and_why_is_told(site: VaultSite) -> None:
    with site.client() as client:
        name = stored(client, "told")
        assert client.get(name).standing == pb.STANDING_ACTIVE
        after = client.set_standing(name, "update-required", note="the bank wants a new consent")
    assert after.standing == pb.STANDING_UPDATE_REQUIRED
    assert after.standing_note == "the bank wants a new consent"
    assert after.standing_by.endswith("/payments")
    assert after.HasField("standing_time")


@pytest.mark.parametrize(
    ("standing", "refused"),
    [
        ("active", ""),
        ("expiring", ""),
        ("update-required", ""),
        ("suspended", "CREDENTIAL_SUSPENDED"),
        ("revoked", "CREDENTIAL_REVOKED"),
    ],
)
def test_what_is_opened_depends_on_it(site: VaultSite, standing: str, refused: str) -> None:
    with site.client() as client:
        name = stored(client, f"opened-{standing}")
        client.set_standing(name, "expiring", note="first")
        client.set_standing(name, standing, note="test")
        assert reason(client, name) == refused


def test_a_suspension_can_be_lifted_and_survives_delete_and_undelete(site: VaultSite) -> None:
    with site.client() as client, site.operator() as operator:
        name = stored(client, "lifted")
        client.set_standing(name, "suspended", note="under investigation")
        operator.delete(name)
        operator.undelete(name)
        assert reason(client, name) == "CREDENTIAL_SUSPENDED"
        client.set_standing(name, "active", note="cleared")
        assert reason(client, name) == ""


def test_nothing_leads_back_from_revoked(site: VaultSite) -> None:
    with site.client() as client:
        name = stored(client, "final")
        client.set_standing(name, "revoked", note="the customer left")
        with pytest.raises(StrongroomError) as refused:
            client.set_standing(name, "active", note="again")
        assert refused.value.reason == "STANDING_UNREACHABLE"
        with pytest.raises(StrongroomError) as refused:
            stored(client, "final")
        assert refused.value.reason == "CREDENTIAL_REVOKED"


def test_a_new_version_mends_what_it_can_mend(site: VaultSite) -> None:
    with site.client() as client:
        name = stored(client, "mended")
        for standing, expected in (
            ("update-required", pb.STANDING_ACTIVE),
            ("expiring", pb.STANDING_ACTIVE),
            ("suspended", pb.STANDING_SUSPENDED),
        ):
            client.set_standing(name, standing, note="test")
            stored(client, "mended")
            assert client.get(name).standing == expected


def test_a_certificate_says_when_its_credential_expires(site: VaultSite) -> None:
    year, day = datetime.timedelta(days=365), datetime.timedelta(days=1)
    with site.client() as client:
        for lives in ((year,), (year, day), (10 * year, year)):
            name, now = certified(client, "chain", *lives), datetime.datetime.now(datetime.UTC)
            ends = client.get(name).expire_time.ToDatetime(datetime.UTC) - now
            assert abs(ends - min(lives)) < datetime.timedelta(minutes=1)
        client.set_standing(name, "expiring", note="test")
        certified(client, "chain", year)
        after = client.get(name)
        assert (after.standing, after.HasField("expire_time")) == (pb.STANDING_ACTIVE, True)


def test_a_suspension_ends_open_sessions(site: VaultSite) -> None:
    """How soon: `test_session_ends.py`."""
    with site.client() as client:
        name = stored(client, "session")
        with site.client() as other, other.session(name, purpose="test") as session:
            client.set_standing(name, "suspended", note="test")

            def ended() -> session_pb2.SessionClosed | None:
                try:
                    session.reveal("password").close()
                except SessionClosedError as closed:
                    return closed.closed
                except StrongroomError:
                    return session.closed
                return None

            closed = until(ended)
    assert closed.reason == session_pb2.CLOSE_REASON_CREDENTIAL_GONE
    assert closed.buffers_wiped == closed.buffers


def test_a_repeated_request_changes_it_once(site: VaultSite) -> None:
    from tests.integration.wire import Wire

    with site.client() as client:
        name = stored(client, "repeated")
    with Wire(site.profile("payments")) as wire:
        request = {"name": name, "standing": 2, "note": "test", "request_id": "standing-once"}
        answers = [wire.call("/vault.v1.CredentialService/SetStanding", **request) for _ in range(2)]
    assert answers[0].response.credential == answers[1].response.credential


def test_what_expires_is_said_to_in_time(fresh_site: VaultSite) -> None:
    """The sweep runs at the start and each minute: so start the vault when something is due."""
    site = fresh_site
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
    with site.client() as client:
        for name, expires in (("soon", soon), ("week", soon + datetime.timedelta(days=5)), ("never", None)):
            client.set_standing(stored(client, name), expire_time=expires)
        certified(client, "certified", datetime.timedelta(days=5))
    site.stop()
    until(lambda: datetime.datetime.now(datetime.UTC) > soon)
    site.start()
    with site.client() as client:
        until(lambda: client.get(f"{FOLDER}/soon").standing == pb.STANDING_UPDATE_REQUIRED)
        until(lambda: client.get(f"{FOLDER}/week").standing == pb.STANDING_EXPIRING)
        until(lambda: client.get(f"{FOLDER}/certified").standing == pb.STANDING_EXPIRING)
        assert client.get(f"{FOLDER}/never").standing == pb.STANDING_ACTIVE
        assert client.get(f"{FOLDER}/week").standing_by == "strongroom"
        stored(client, "soon")
        assert client.get(f"{FOLDER}/soon").standing == pb.STANDING_ACTIVE
    with site.system() as system:
        assert system.verify_audit().valid


def test_a_rotation_that_is_due_is_said_once_until_a_new_version_is_stored(fresh_site: VaultSite) -> None:
    site = fresh_site
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    day = datetime.timedelta(days=1)
    due, later, steady = (f"{FOLDER}/{name}" for name in ("due", "later", "steady"))
    with site.client() as client:
        stored(client, "steady")
        for name in (due, later):
            made = client.put(name, {"password": "p"}, kind="bank_login", rotation_days=90)
            assert made.rotation_period.ToTimedelta() == 90 * day
            assert made.rotation_due_time.ToDatetime() == made.update_time.ToDatetime() + 90 * day
        assert not client.get(steady).HasField("rotation_due_time")
    _let_days_pass(site, due)
    with site.client() as client:
        until(lambda: client.get(due).standing == pb.STANDING_EXPIRING)
        assert client.get(due).standing_note.startswith("its rotation is due since")
        assert client.get(due).standing_by == "strongroom"
        assert reason(client, due) == "", "it is opened as before"
        assert {client.get(name).standing for name in (later, steady)} == {pb.STANDING_ACTIVE}
    _let_days_pass(site, later)
    with site.client() as client, site.operator() as operator:
        until(lambda: client.get(later).standing == pb.STANDING_EXPIRING)
        records = operator.audit_records(tenant="acme", action="credential.set_standing", resource=due)
        assert len(records) == 1
        mended = client.put(due, {"password": "q"}, kind="bank_login")
        assert mended.standing == pb.STANDING_ACTIVE
        assert mended.rotation_due_time.ToDatetime() == mended.update_time.ToDatetime() + 90 * day
        ended = client.put(later, {"password": "q"}, kind="bank_login", rotation_days=0)
        assert not ended.HasField("rotation_period")
        assert not ended.HasField("rotation_due_time")
    with site.system() as system:
        assert system.verify_audit().valid


def _let_days_pass(site: VaultSite, name: str) -> None:
    """Start the vault anew, with a rotation due since yesterday: the sweep runs at the start and each minute."""
    site.stop()

    async def age() -> None:
        connection = await asyncpg.connect(owner_url(site.database_url))
        await connection.execute(
            "UPDATE credentials SET rotation_due_time = rotation_due_time - interval '91 days' WHERE name = $1",
            name,
        )
        await connection.close()

    asyncio.run(age())
    site.start()


def test_watchers_hear_of_it(site: VaultSite) -> None:
    from tests.integration.test_watch import watching

    prefix = "acme/standing-watched"
    with site.client() as client, watching(site, prefix, client) as watcher:
        client.put(f"{prefix}/x", {"a": "b"}, kind="generic")
        client.set_standing(f"{prefix}/x", "expiring", note="test")
        until(lambda: (pb.CREDENTIAL_CHANGE_STANDING, f"{prefix}/x", 0) in watcher.told())


def _stripe(secret: str, event: dict[str, object]) -> tuple[dict[str, str], bytes]:
    body = json.dumps(event).encode()
    now = int(time.time())
    mac = hmac.digest(secret.encode(), f"{now}.".encode() + body, "sha256").hex()
    return {"stripe-signature": f"t={now},v1={mac}"}, body


def test_a_genuine_webhook_of_the_provider_sets_it_once_and_an_older_one_does_not(site: VaultSite) -> None:
    secret, account = "whsec_test", f"{FOLDER}/connected"
    hook = f"{FOLDER}/stripe-hook"
    now = int(time.time())
    kind = "financial_connections.account."
    with site.client() as client:
        client.put(hook, {"webhook_secret": secret}, kind="webhook_secret")
        client.put(account, {"api_key": "sk"}, kind="stripe_account", labels={"provider_id": "fca_1"})

        def told(event_id: str, what: str, created: int, about: str = "fca_1") -> bool:
            event = {
                "id": event_id,
                "type": kind + what,
                "created": created,
                "data": {"object": {"id": about}},
            }
            headers, body = _stripe(secret, event)
            with client.session(hook, purpose="test") as session:
                answer = session.verify_webhook("stripe", headers, body, apply_to=account)
            assert answer.verdict == session_pb2.WEBHOOK_VERDICT_VALID
            return bool(answer.standing_set)

        assert told("evt_1", "deactivated", now - 60)
        assert client.get(account).standing == pb.STANDING_UPDATE_REQUIRED
        assert not told("evt_1", "deactivated", now - 60), "the same event again"
        assert not told("evt_0", "upcoming_deactivation", now - 120), "an older event"
        assert told("evt_2", "reactivated", now - 30)
        assert client.get(account).standing == pb.STANDING_ACTIVE
        with pytest.raises(StrongroomError) as refused:
            told("evt_3", "disconnected", now, about="fca_2")
        assert refused.value.reason == "FIELD_INVALID"
        assert client.get(account).standing == pb.STANDING_ACTIVE


def test_no_webhook_lifts_a_suspension_and_a_revocation_gets_past_it(site: VaultSite) -> None:
    hook, account = f"{FOLDER}/suspended-hook", f"{FOLDER}/suspended-account"
    with site.client() as client, site.client("operator") as operator:
        client.put(hook, {"webhook_secret": "whsec_s"}, kind="webhook_secret")
        client.put(account, {"api_key": "sk"}, kind="stripe_account", labels={"provider_id": "acct_1"})
        operator.set_standing(account, "suspended", note="under suspicion")

        def told(kind: str) -> bool:
            created = int(time.time()) + 1
            event = {"id": kind, "type": kind, "created": created, "account": "acct_1"}
            event["data"] = {"object": {"id": "acct_1"}}
            headers, body = _stripe("whsec_s", event)
            with client.session(hook, purpose="test") as session:
                answer = session.verify_webhook("stripe", headers, body, apply_to=account)
            return bool(answer.standing_set)

        assert not told("account.application.authorized")
        assert not told("financial_connections.account.deactivated"), "which could be opened"
        assert client.get(account).standing == pb.STANDING_SUSPENDED
        assert told("account.application.deauthorized")
        assert client.get(account).standing == pb.STANDING_REVOKED


def test_a_forged_webhook_sets_nothing(site: VaultSite) -> None:
    hook, account = f"{FOLDER}/forged-hook", f"{FOLDER}/forged"
    with site.client() as client:
        client.put(hook, {"webhook_secret": "whsec_real"}, kind="webhook_secret")
        client.put(account, {"api_key": "sk"}, kind="stripe_account", labels={"provider_id": "acct_1"})
        event = {"id": "e", "type": "account.application.deauthorized", "created": 1, "account": "acct_1"}
        headers, body = _stripe("whsec_other", event)
        with client.session(hook, purpose="test") as session:
            answer = session.verify_webhook("stripe", headers, body, apply_to=account)
        assert not answer.standing_set
        assert client.get(account).standing == pb.STANDING_ACTIVE


def test_who_may_not_set_it_cannot_have_a_webhook_do_so(site: VaultSite) -> None:
    hook, account = f"{FOLDER}/scoped-hook", f"{FOLDER}/scoped"
    with site.client() as client:
        client.put(hook, {"webhook_secret": "whsec_a"}, kind="webhook_secret")
        client.put(account, {"api_key": "sk"}, kind="stripe_account", labels={"provider_id": "acct_1"})
    narrow = ("session.use.verify_webhook:acme/**",)
    with site.client(scopes=narrow) as client, client.session(hook, purpose="test") as session:
        headers, body = _stripe("whsec_a", {"id": "e"})
        with pytest.raises(StrongroomError) as refused:
            session.verify_webhook("stripe", headers, body, apply_to=account)
    assert refused.value.reason == "SCOPE_DENIED"
