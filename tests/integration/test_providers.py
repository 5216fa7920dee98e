"""Requests to providers through the vault: mock Plaid, Stripe and OAuth over real TLS, two real workers."""

from __future__ import annotations

import json
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
import stripe

from tests.integration.test_audit_evidence import strongroom
from tests.integration.test_policy import profile_file
from tests.integration.wire import Wire
from tests.support.postgres import free_port
from tests.support.vault import VaultSite
from vault.cli import mock_providers
from vault.client import Client, StrongroomError
from vault.client.sealing import Recipient
from vault.client.transport import AsyncVaultTransport, VaultTransport
from vault.v1 import credential_pb2
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.wire import Stream
    from tests.support.postgres import Postgres

PLAID = {"client_id": "client-1", "secret": "plaid-secret-0123456789"}
KEY = f"sk_test_{secrets.token_hex(16)}"


@pytest.fixture(scope="module")
def world(
    softhsm: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[tuple[VaultSite, mock_providers.Providers]]:
    folder = tmp_path_factory.mktemp("vault-providers")
    settings: dict[str, dict[str, object]] = {
        "connectors": {"folder": "connectors"},
        "server": {"workers": 2},
        "sessions": {"max_bytes_per_tenant": 1_000_000},
    }
    site = VaultSite(folder, postgres.create_database("vault_providers"), softhsm[0], softhsm[1], settings)
    port = free_port()
    (folder / "connectors").mkdir()
    for name, text in mock_providers.connectors(port, str(folder / "pki/ca.pem")).items():
        (folder / f"connectors/{name}.toml").write_text(text)
    site.prepare()
    providers = mock_providers.Providers(
        port, str(folder / "pki/server.pem"), str(folder / "pki/server-key.pem")
    )
    threading.Thread(target=providers.serve_forever, daemon=True).start()
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    yield site, providers
    site.stop()
    providers.shutdown()
    providers.server_close()


@pytest.fixture
def client(world: tuple[VaultSite, mock_providers.Providers]) -> Iterator[Client]:
    with world[0].client() as made:
        yield made


def unique() -> str:
    return f"acme/providers/{secrets.token_hex(8)}"


def put_stripe(client: Client) -> str:
    name = unique()
    client.put(name, {"api_key": KEY}, kind="stripe_account")
    return name


def reason(caught: pytest.ExceptionInfo[StrongroomError]) -> str:
    return caught.value.reason


def test_a_request_is_made_with_the_key_put_in_and_only_harmless_headers_come_back(client: Client) -> None:
    name = put_stripe(client)
    with client.session(name, purpose="test") as session:
        answer = session.http_call("stripe-mock", "GET", "/v1/balance")
    assert answer.status == 200
    assert json.loads(answer.body)["object"] == "balance"
    assert "request-id" in answer.headers
    assert not {"set-cookie", "location", "connection"} & set(answer.headers)


def test_the_command_says_nothing_of_a_capture_where_nothing_was_captured(
    world: tuple[VaultSite, mock_providers.Providers], client: Client, tmp_path: Path
) -> None:
    scopes = ["session.use.http_call:acme/**", "session.reveal:acme/**"]
    profile = profile_file(world[0], "payments", tmp_path, "acme", scopes)
    for form in ("table", "json"):
        shown = strongroom(
            "session", "http", put_stripe(client), "stripe-mock", "GET", "/v1/balance",
            "--output", form, "--profile", profile,
        )  # fmt: skip
        assert "200" in shown
        assert "captured" not in shown


def test_a_provider_that_shows_the_key_in_any_spelling_has_its_answer_withheld(client: Client) -> None:
    name = put_stripe(client)
    with client.session(name, purpose="test") as session:
        with pytest.raises(StrongroomError) as caught:
            session.http_call("stripe-mock", "GET", "/v1/echo")
        assert reason(caught) == "RESPONSE_WITHHELD"
        assert session.http_call("stripe-mock", "GET", "/v1/balance").status == 200


def test_a_redirect_is_not_followed_and_leads_nowhere(client: Client) -> None:
    with client.session(put_stripe(client), purpose="test") as session:
        answer = session.http_call("stripe-mock", "GET", "/v1/redirect")
    assert answer.status == 302
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"connector": "nothing"}, "CONNECTOR_NOT_FOUND"),
        ({"connector": "plaid-mock"}, "CONNECTOR_NOT_FOUND"),
        ({"host": "evil.example"}, "DESTINATION_DENIED"),
        ({"host": "localhost@evil.example"}, "DESTINATION_DENIED"),
        ({"method": "PUT"}, "DESTINATION_DENIED"),
        ({"method": "GET /v1/balance HTTP/1.1\r\nX: y\r\n\r\n"}, "DESTINATION_DENIED"),
        ({"path": "/v1/webhook_endpoints"}, "DESTINATION_DENIED"),
        ({"path": "/v1/balance/../webhook_endpoints"}, "DESTINATION_DENIED"),
        ({"path": "/v1/charges/%2e%2e/webhook_endpoints"}, "DESTINATION_DENIED"),
        ({"path": "//evil.example/v1/balance"}, "DESTINATION_DENIED"),
        ({"path": "https://evil.example/v1/balance"}, "DESTINATION_DENIED"),
        ({"path": "/v1/balance\r\nHost: evil.example"}, "DESTINATION_DENIED"),
        ({"path": "/v1/balance?x=1"}, "DESTINATION_DENIED"),
        ({"path": "/v1/balance#x"}, "DESTINATION_DENIED"),
        ({"path": "\\v1\\balance"}, "DESTINATION_DENIED"),
        ({"headers": {"idempotency-key": "a\r\nHost: evil.example"}}, "FIELD_INVALID"),
        ({"body": b"x" * 131_073}, "FIELD_INVALID"),
        ({"capture": "acme/providers/new"}, "FIELD_INVALID"),
    ],
)
def test_what_the_connector_does_not_allow_is_not_sent(
    client: Client, changes: dict[str, object], expected: str
) -> None:
    asked: dict[str, object] = {"connector": "stripe-mock", "method": "GET", "path": "/v1/balance", **changes}
    with (
        client.session(put_stripe(client), purpose="test") as session,
        pytest.raises(StrongroomError) as caught,
    ):
        session.http_call(**asked)  # type: ignore[arg-type]
    assert reason(caught) == expected


def test_the_callers_headers_pass_only_if_the_connector_says_so(client: Client) -> None:
    with client.session(put_stripe(client), purpose="test") as session:
        sent = {
            "Host": "evil.example",
            "Authorization": "Bearer mine",
            "Transfer-Encoding": "chunked",
            "Stripe-Version": "1",
        }
        assert session.http_call("stripe-mock", "GET", "/v1/balance", headers=sent).status == 200


def test_a_public_token_becomes_an_item_whose_access_token_nobody_sees(client: Client) -> None:
    app, item = unique(), unique()
    client.put(app, PLAID, kind="plaid_app")
    with client.session(app, purpose="test") as session:
        created = session.http_call("plaid-mock", "POST", "/sandbox/public_token/create")
        exchange = json.dumps({"public_token": json.loads(created.body)["public_token"]}).encode()
        answer = session.http_call(
            "plaid-mock", "POST", "/item/public_token/exchange", body=exchange, capture=item
        )
    shown = json.loads(answer.body)
    assert shown["access_token"] == f"strongroom:{item}"
    assert (answer.captured_name, answer.captured_version) == (item, 1)
    stored = client.get(item)
    assert (stored.kind, list(stored.field_names)) == ("plaid_item", ["access_token", "item_id"])
    with client.session(item, app, purpose="test") as session:
        balance = session.http_call("plaid-mock", "POST", "/accounts/balance/get", also=app, name=item)
        assert json.loads(balance.body)["item"]["item_id"] == shown["item_id"]
        # The item's token is replaced: the session goes on with the new one.
        rotated = session.http_call(
            "plaid-mock", "POST", "/item/access_token/invalidate", also=app, name=item
        )
        assert rotated.captured_version == 2
        assert session.http_call("plaid-mock", "POST", "/accounts/get", also=app, name=item).status == 200
    with client.reveal(item, purpose="test")[0] as revealed:
        assert revealed.text("access_token").startswith("access-sandbox-")
        assert revealed.text("access_token").encode() not in answer.body + rotated.body


def test_what_is_captured_needs_the_scope_to_write_where_it_goes(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    app = unique()
    client.put(app, PLAID, kind="plaid_app")
    scopes = ("session.use.http_call:acme/**", "credential.write:acme/elsewhere/**")
    with (
        world[0].client(scopes=scopes) as narrow,
        narrow.session(app, purpose="test") as session,
        pytest.raises(StrongroomError) as caught,
    ):
        session.http_call("plaid-mock", "POST", "/item/public_token/exchange", body=b"{}", capture=unique())
    assert reason(caught) == "SCOPE_DENIED"


def test_stripes_own_library_and_httpx_run_through_the_vault_without_the_key(client: Client) -> None:
    with client.session(put_stripe(client), purpose="test") as session:
        http = httpx.Client(transport=VaultTransport(session, "stripe-mock"), base_url="https://localhost")
        assert http.get("/v1/balance", params={"a": "b c"}).json()["object"] == "balance"
        vendor = stripe.StripeClient(
            "sk_test_not_the_key", http_client=_Stripe(http), base_addresses={"api": "https://localhost"}
        )
        assert vendor.v1.balance.retrieve().available[0].amount == 1200


class _Stripe(stripe.HTTPClient):
    """Stripe's library on an `httpx` client."""

    name = "vault"

    def __init__(self, http: httpx.Client) -> None:
        super().__init__()
        self.http = http

    def request(
        self, method: str, url: str, headers: object, post_data: object = None
    ) -> tuple[bytes, int, object]:
        answer = self.http.request(method, url, headers=dict(headers), content=post_data)  # type: ignore[call-overload,arg-type]
        return answer.content, answer.status_code, dict(answer.headers)

    def close(self) -> None:
        pass


async def test_the_asynchronous_transport_does_the_same(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    from vault.client import AsyncClient

    name = put_stripe(client)
    async with (
        AsyncClient(world[0].profile("payments")) as vault,
        vault.session(name, purpose="test") as session,
        httpx.AsyncClient(transport=AsyncVaultTransport(session, "stripe-mock")) as http,
    ):
        assert (await http.get("https://localhost/v1/balance")).status_code == 200


def put_grant(client: Client, providers: mock_providers.Providers) -> tuple[str, str]:
    grant, own = unique(), unique()
    first = f"refresh-mock-{secrets.token_hex(8)}"
    with providers.lock:
        providers.refresh_tokens.add(first)
    client.put(grant, {"refresh_token": first, "access_token": "access-mock-old"}, kind="oauth_grant")
    client.put(own, {"client_id": "me", "client_secret": "oauth-client-secret"}, kind="oauth_client")
    return grant, own


def test_a_grant_is_refreshed_and_the_session_goes_on_with_it(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    grant, own = put_grant(client, world[1])
    with client.session(grant, own, purpose="test") as session:
        first = session.oauth_refresh("oauth-mock", client=own, name=grant)
        assert (first.version, first.refreshed) == (2, True)
        assert 500 < first.expire_time.seconds - time.time() <= 600
        # The refresh token was rotated: the next refresh works only with the new one.
        assert session.oauth_refresh("oauth-mock", client=own, name=grant).version == 3
    with client.reveal(grant, purpose="test")[0] as revealed:
        assert revealed.text("refresh_token").startswith("refresh-mock-")
        assert set(revealed) == {"access_token", "expires_at", "refresh_token", "token_type"}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"expires_in": "soon"}, {"token_type"}),
        ({"expires_in": "9" * 5000}, {"token_type"}),
        ({"expires_in": "-1"}, {"token_type"}),
        ({"expires_in": 2**40}, {"token_type"}),
        ({"expires_in": 599.5, "token_type": None}, set()),
        ({"expires_in": {"seconds": 600}, "token_type": ""}, set()),
        ({"expires_in": True, "scope": ["accounts", "payments"]}, {"token_type"}),
        ({"expires_in": None, "scope": "accounts"}, {"token_type", "scope"}),
        ({"expires_in": None, "scope": "Zahlungsauslösung"}, {"token_type"}),
        ({"expires_in": None, "access_token": "a" * 9000}, {"token_type"}),
    ],
)
def test_a_grant_is_kept_whatever_the_provider_says_beside_it(
    world: tuple[VaultSite, mock_providers.Providers], client: Client, said: dict[str, object], kept: set[str]
) -> None:
    refreshed, fields = refreshed_while_the_provider_says(world[1], client, said)
    assert (refreshed.version, refreshed.refreshed, refreshed.HasField("expire_time")) == (2, True, False)
    assert set(fields) == {"access_token", "refresh_token"} | kept
    assert fields["refresh_token"] in world[1].refresh_tokens
    assert fields["access_token"] in (said.get("access_token"), world[1].issued[-1])


def test_a_grant_is_kept_though_its_answer_shows_the_tokens_once_more(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    shown = f"refresh-mock-{secrets.token_hex(16)}"
    with world[1].lock:
        world[1].refresh_tokens.add(shown)
    said = {"refresh_token": shown, "tokens": {"refresh": shown}}
    refreshed, fields = refreshed_while_the_provider_says(world[1], client, said)
    assert (refreshed.version, fields["refresh_token"]) == (2, shown)


def test_an_access_token_that_cannot_be_stored_costs_nobody_the_grant(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    _, fields = refreshed_while_the_provider_says(world[1], client, {"access_token": "two words"})
    assert set(fields) == {"refresh_token", "token_type", "expires_at"}
    assert fields["refresh_token"] in world[1].refresh_tokens


def refreshed_while_the_provider_says(
    providers: mock_providers.Providers, client: Client, said: dict[str, object]
) -> tuple[pb.OauthRefreshResult, dict[str, str]]:
    """What a refresh is answered while the provider says this beside its tokens, and what is stored then."""
    grant, own = put_grant(client, providers)
    providers.oauth_says = said
    try:
        with client.session(grant, own, purpose="test") as session:
            refreshed = session.oauth_refresh("oauth-mock", client=own, name=grant)
    finally:
        providers.oauth_says = {}
    with client.reveal(grant, purpose="test")[0] as revealed:
        return refreshed, {name: revealed.text(name) for name in revealed}


def test_many_who_ask_at_once_cause_one_refresh(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    site, providers = world
    grant, own = put_grant(client, providers)
    clients = [site.client() for _ in range(8)]
    before = providers.refreshes
    start = threading.Barrier(24)

    def ask(number: int) -> tuple[int, bool]:
        with clients[number % 8].session(grant, own, purpose="test") as session:
            start.wait(30)
            result = session.oauth_refresh("oauth-mock", client=own, name=grant)
            return result.version, result.refreshed

    with ThreadPoolExecutor(24) as pool:
        results = list(pool.map(ask, range(24)))
    for made in clients:
        made.close()
    assert providers.refreshes - before == 1
    assert {version for version, _ in results} == {2}
    assert sum(refreshed for _, refreshed in results) == 1


def test_a_refusal_moves_the_standing_and_an_outage_does_not(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    grant, own = put_grant(client, world[1])
    with client.session(grant, own, purpose="test") as session:
        world[1].oauth_down = True
        try:
            with pytest.raises(StrongroomError) as caught:
                session.oauth_refresh("oauth-mock", client=own, name=grant)
        finally:
            world[1].oauth_down = False
        assert reason(caught) == "UPSTREAM_FAILED"
        assert client.get(grant).standing == 1
        with world[1].lock:
            world[1].refresh_tokens.clear()
        for _ in range(2):
            with pytest.raises(StrongroomError) as caught:
                session.oauth_refresh("oauth-mock", client=own, name=grant)
            assert reason(caught) == "CREDENTIAL_UPDATE_REQUIRED"
    standing = client.get(grant)
    assert standing.standing_note == "the provider says invalid_grant"
    client.put(grant, {"refresh_token": "refresh-mock-again"}, kind="oauth_grant")
    assert client.get(grant).standing == 1


def test_a_grant_that_was_refreshed_elsewhere_is_taken_over_without_another_refresh(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    grant, own = put_grant(client, world[1])
    with (
        client.session(grant, own, purpose="one") as one,
        world[0].client() as other,
        other.session(grant, own, purpose="two") as two,
    ):
        assert one.oauth_refresh("oauth-mock", client=own, name=grant).refreshed
        late = two.oauth_refresh("oauth-mock", client=own, name=grant)
        assert (late.version, late.refreshed) == (2, False)
        assert (
            two.http_call("oauth-mock", "GET", "/v1/balance", name=grant).status == 401
        )  # the mock wants Stripe's key


def test_what_a_session_holds_more_of_after_a_refresh_counts_against_its_tenants_memory(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    own = unique()
    client.put(own, {"client_id": "me", "client_secret": "oauth-client-secret"}, kind="oauth_client")
    grants = [unique() for _ in range(20)]
    for grant in grants:
        client.put(grant, {"refresh_token": "r"}, kind="oauth_grant")
    with client.session(*grants, own, purpose="test") as session:
        for grant in grants:
            client.put(grant, {"refresh_token": "r", "scope": "s" * 60_000}, kind="oauth_grant")
        refused = 0
        for grant in grants:
            try:
                assert session.oauth_refresh("oauth-mock", client=own, name=grant).version == 2
            except StrongroomError as error:
                assert (error.reason, error.metadata) == (
                    "LIMIT_REACHED",
                    {"limit": "session_bytes_per_tenant"},
                )
                refused += 1
    assert refused == 4, "a million bytes for twenty times 60,000"
    # All of it was given back.
    with client.session(*grants[:15], purpose="test"):
        pass


def test_the_copies_that_requests_work_on_count_against_their_tenants_memory(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    site, providers = world
    grant, own = put_grant(client, providers)
    with client.reveal(grant, purpose="test")[0] as revealed:
        fields = {"refresh_token": revealed.text("refresh_token"), "scope": "s" * 65_000}
    client.put(grant, fields, kind="oauth_grant")
    start = pb.SessionStart(
        credentials=[pb.CredentialSelector(name=name) for name in (grant, own)],
        purpose="test",
        recipient_key=Recipient().public_bytes,
    )
    asked = pb.OauthRefreshOperation(name=grant, client_name=own, connector="oauth-mock")
    with Wire(site.profile("payments")) as wire, wire.stream(timeout=60) as stream:
        assert stream.ask(start=start).opened.session_id
        with providers.lock:  # the provider answers nobody: one asks it, and the others wait for that one
            for number in range(1, 17):
                stream.send(operation_id=number, oauth_refresh=asked)
            refused = [answer_on(stream) for _ in range(2)]
        answers = [answer_on(stream) for _ in range(14)]
        stream.send(operation_id=17, oauth_refresh=asked)
        assert answer_on(stream).oauth_refresh.version == 4
    assert {answer.error.reason for answer in refused} == {"LIMIT_REACHED"}, (
        "a million bytes for 17 times 65,000"
    )
    assert {answer.oauth_refresh.version for answer in answers} == {3}


def answer_on(stream: Stream) -> pb.SessionServiceOpenResponse:
    """The next answer; the session also says when the grant has a new version."""
    while not (message := stream.read()).operation_id:
        assert message.HasField("credential_changed")
    return message  # type: ignore[no-any-return]


def test_calls_are_in_the_log_before_and_after(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    name = put_stripe(client)
    with client.session(name, purpose="test") as session:
        session.http_call("stripe-mock", "GET", "/v1/balance")
    with world[0].operator() as operator:
        states = [
            json.loads(record.after_state)
            for record in operator.audit_records(action="session.use.http_call", resource=name)
        ]
    assert states[0]["intent"] == {"connector": "stripe-mock", "method": "GET", "path": "/v1/balance"}
    assert states[1]["status"] == 200
    assert KEY not in json.dumps(states)


def put_item(client: Client) -> tuple[str, str]:
    """Plaid's app and an item of it, its access token captured; the item says which of Plaid's items it is."""
    app, item = unique(), unique()
    client.put(app, PLAID, kind="plaid_app")
    with client.session(app, purpose="test") as session:
        created = session.http_call("plaid-mock", "POST", "/sandbox/public_token/create")
        exchange = json.dumps({"public_token": json.loads(created.body)["public_token"]}).encode()
        session.http_call("plaid-mock", "POST", "/item/public_token/exchange", body=exchange, capture=item)
    return app, item


def put_known_item(client: Client) -> tuple[str, str, dict[str, str]]:
    """An item by whose id the provider's webhooks find it; with its fields."""
    app, item = put_item(client)
    with client.reveal(item, purpose="test")[0] as revealed:
        fields = {name: revealed.text(name) for name in revealed}
    assert dict(client.get(item).labels) == {"provider_id": fields["item_id"]}, "captured with it"
    return app, item, fields


def fire(client: Client, app: str, item: str, path: str, **asked: str) -> tuple[dict[str, str], bytes]:
    """Have mock Plaid make a webhook of an item's: its headers and its body."""
    with client.session(item, app, purpose="test") as session:
        body = json.dumps(asked).encode()
        answer = session.http_call("plaid-mock", "POST", path, also=app, name=item, body=body)
    made = json.loads(answer.body)["mock"]
    return {"Plaid-Verification": made["Plaid-Verification"]}, made["body"].encode()


def test_a_webhook_of_plaids_is_verified_by_a_key_that_the_vault_fetches_once(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    providers = world[1]
    app, item = put_item(client)
    headers, body = fire(client, app, item, "/sandbox/item/fire_webhook", webhook_code="LOGIN_REPAIRED")
    before = len(providers.keys_asked_for)
    with client.session(app, purpose="test") as session:

        def verify(headers: dict[str, str], body: bytes) -> int:
            return session.verify_webhook("plaid", headers, body, connector="plaid-mock").verdict

        assert [verify(headers, body) for _ in range(5)] == [pb.WEBHOOK_VERDICT_VALID] * 5
        assert providers.keys_asked_for[before:] == [providers.webhook_key.kid]
        assert verify(headers, body + b" ") == pb.WEBHOOK_VERDICT_SIGNATURE_MISMATCH
        assert verify({"Plaid-Verification": "a.b.c"}, body) == pb.WEBHOOK_VERDICT_HEADER_INVALID
        stranger = mock_providers.WebhookKey()
        forged = {"Plaid-Verification": stranger.sign(body, time.time())}
        assert [verify(forged, body) for _ in range(3)] == [pb.WEBHOOK_VERDICT_KEY_UNKNOWN] * 3
        assert providers.keys_asked_for[before + 1 :] == [stranger.kid]
        old = {"Plaid-Verification": providers.webhook_key.sign(body, time.time() - 400)}
        assert verify(old, body) == pb.WEBHOOK_VERDICT_TOO_OLD
        with pytest.raises(StrongroomError) as caught:
            session.verify_webhook("plaid", headers, body, connector="stripe-mock")
        assert reason(caught) == "CONNECTOR_NOT_FOUND"
        with pytest.raises(StrongroomError) as caught:
            session.verify_webhook("stripe", headers, body, connector="plaid-mock")
        assert reason(caught) == "FIELD_INVALID"
    with world[0].operator() as operator:
        records = operator.audit_records(action="session.use.verify_webhook", resource=app)
    states = [json.loads(record.after_state) for record in records if record.outcome == 1]
    assert states[0]["intent"]["path"] == "/webhook_verification_key/get"
    assert (states[1]["verdict"], states[1]["connector"]) == ("valid", "plaid-mock")


def test_a_key_that_plaid_no_longer_uses_verifies_nothing(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    app, item = put_item(client)
    headers, body = fire(client, app, item, "/sandbox/item/fire_webhook", webhook_code="LOGIN_REPAIRED")
    world[1].webhook_key.expired_at = int(time.time()) - 1
    try:
        with client.session(app, purpose="test") as session:
            result = session.verify_webhook("plaid", headers, body, connector="plaid-mock")
    finally:
        world[1].webhook_key.expired_at = None
    assert result.verdict == pb.WEBHOOK_VERDICT_KEY_UNKNOWN


def test_an_item_that_broke_is_mended_by_the_link_token_that_the_vault_mints(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    app, item, fields = put_known_item(client)
    asked = {"client_user_id": "customer-1", "client_name": "Acme", "country_codes": ["DE", "FR"]}

    def told(path: str, **more: str) -> int:
        headers, body = fire(client, app, item, path, **more)
        with client.session(app, purpose="test") as session:
            result = session.verify_webhook("plaid", headers, body, connector="plaid-mock", apply_to=item)
        assert result.verdict == pb.WEBHOOK_VERDICT_VALID
        return client.get(item).standing

    assert told("/sandbox/item/reset_login") == credential_pb2.STANDING_UPDATE_REQUIRED
    with client.session(item, app, purpose="test") as session:
        with pytest.raises(StrongroomError) as caught:
            session.http_call("plaid-mock", "POST", "/accounts/balance/get", also=app, name=item)
        assert reason(caught) == "CREDENTIAL_UPDATE_REQUIRED"
        minted = session.link_token("plaid-mock", also=app, name=item, **asked)  # type: ignore[arg-type]
        assert minted.link_token.startswith("link-update-"), "in update mode: for this very item"
        assert minted.expire_time.seconds > time.time()
        for wrong in (
            {"client_user_id": ""},
            {"client_name": "x" * 31},
            {"language": "English"},
            {"country_codes": ["germany"]},
            {"country_codes": []},
            {"redirect_uri": "http://bank.example"},
        ):
            with pytest.raises(StrongroomError) as caught:
                session.link_token("plaid-mock", also=app, name=item, **{**asked, **wrong})  # type: ignore[arg-type]
            assert reason(caught) == "FIELD_INVALID"
    # The customer has mended it.
    world[1].broken_items.clear()
    with client.session(app, purpose="test") as session:
        body = json.dumps(
            {"webhook_type": "ITEM", "webhook_code": "LOGIN_REPAIRED", "item_id": fields["item_id"]}
        ).encode()
        jwt = {"Plaid-Verification": world[1].webhook_key.sign(body, time.time() + 2)}
        assert session.verify_webhook("plaid", jwt, body, connector="plaid-mock", apply_to=item).standing_set
    assert client.get(item).standing == credential_pb2.STANDING_ACTIVE


def test_an_item_that_breaks_again_within_a_day_is_said_to_be_broken_again(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    """With an equal body: Plaid gives its webhooks no id and no time."""
    app, item, fields = put_known_item(client)
    error = {"error_code": "ITEM_LOGIN_REQUIRED", "error_type": "ITEM_ERROR"}
    broken = {"webhook_type": "ITEM", "webhook_code": "ERROR", "item_id": fields["item_id"], "error": error}
    body = json.dumps(broken).encode()
    now = time.time()
    first, again = (world[1].webhook_key.sign(body, now + offset) for offset in (-2, 0))

    def told(jwt: str) -> bool:
        headers = {"Plaid-Verification": jwt}
        with client.session(app, purpose="test") as session:
            result = session.verify_webhook("plaid", headers, body, connector="plaid-mock", apply_to=item)
        assert result.verdict == pb.WEBHOOK_VERDICT_VALID
        return bool(result.standing_set)

    assert told(first)
    assert not told(again), "nothing new"
    etag = client.get(item).etag
    client.put(item, fields, kind="plaid_item", labels={"provider_id": fields["item_id"]}, etag=etag)
    assert client.get(item).standing == credential_pb2.STANDING_ACTIVE
    assert not told(first), "the same delivery once more"
    assert told(again)
    assert client.get(item).standing == credential_pb2.STANDING_UPDATE_REQUIRED


def test_a_link_token_needs_its_own_scope_and_a_connector_that_says_how(
    world: tuple[VaultSite, mock_providers.Providers], client: Client
) -> None:
    app, item = put_item(client)
    asked = {"client_user_id": "customer-1", "client_name": "Acme", "country_codes": ["DE"]}
    with (
        world[0].client(scopes=("session.use.http_call:acme/**",)) as narrow,
        narrow.session(item, app, purpose="test") as session,
    ):
        with pytest.raises(StrongroomError) as caught:
            session.link_token("plaid-mock", also=app, name=item, **asked)  # type: ignore[arg-type]
        assert reason(caught) == "SCOPE_DENIED"
    grant, own = put_grant(client, world[1])
    with client.session(grant, own, purpose="test") as session:
        with pytest.raises(StrongroomError) as caught:
            session.link_token("oauth-mock", name=grant, **asked)  # type: ignore[arg-type]
        assert reason(caught) == "CONNECTOR_NOT_FOUND"
