"""Endpoints are told what happened: signed, in order, until they take it, and by nobody twice at once."""

from __future__ import annotations

import base64
import http.server
import json
import secrets
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.wire import Books, Wire, until
from tests.support.postgres import free_port
from vault.client import StrongroomError
from vault.core.uses.webhooks import standard
from vault.core.uses.webhooks.verdict import Secret, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.vault import VaultSite

SIGNER = "acme/webhooks/signer"
EVENTS = ["credential.put", "credential.standing_changed"]


class Receiver:
    """A real HTTPS endpoint on this machine."""

    def __init__(self, site: VaultSite) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if receiver.status == 204:
                    receiver.taken.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site.folder / "pki/server.pem", site.folder / "pki/server-key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://localhost:{self._server.server_port}/vault"

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.taken]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def vault(fresh_site: VaultSite) -> VaultSite:
    fresh_site.settings = {
        "webhooks": {"development_ca_file": "pki/ca.pem"},
        "server": {"workers": 2},
    }
    fresh_site.write_config()
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    return fresh_site


@pytest.fixture
def receiver(vault: VaultSite) -> Iterator[Receiver]:
    made = Receiver(vault)
    yield made
    made.close()


def scopes(*more: str) -> tuple[str, ...]:
    every = ("credential.write", "credential.read", "credential.set_standing")
    return (*(f"{action}:acme/**" for action in every), "webhook.manage:acme/webhooks", *more)


def signing_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def test_what_happens_is_told_signed_in_order_and_once(vault: VaultSite, receiver: Receiver) -> None:
    secret = signing_secret()
    with vault.client(scopes=scopes()) as client:
        client.put(SIGNER, {"signing_secret": secret}, kind="webhook_endpoint")
        client.create_webhook_endpoint(receiver.url, EVENTS, credential=SIGNER)
        names = [f"acme/told/n{number}" for number in range(20)]
        for name in names:
            client.put(name, {"password": "never-told-7c1e"}, kind="bank_login")
        client.set_standing(names[0], "update-required", note="consent")
        until(lambda: len(receiver.taken) >= 21, seconds=40)
    assert [event["data"]["name"] for event in receiver.told] == [*names, names[0]]
    assert receiver.told[-1]["type"] == "credential.standing_changed"
    assert receiver.told[-1]["data"]["standing"] == "update-required"
    assert len({headers["webhook-id"] for headers, _ in receiver.taken}) == 21
    for headers, body in receiver.taken:
        assert b"never-told" not in body
        key = Secret("signing_secret", memoryview(secret.encode()), "")
        now = float(headers["webhook-timestamp"])
        assert standard.verify([key], headers, body, now).verdict is Verdict.VALID


def test_an_endpoint_that_was_away_misses_nothing(vault: VaultSite, receiver: Receiver) -> None:
    with vault.client(scopes=scopes()) as client:
        client.put(SIGNER, {"signing_secret": signing_secret()}, kind="webhook_endpoint")
        client.create_webhook_endpoint(receiver.url, EVENTS, credential=SIGNER)
        receiver.status = 503
        names = [f"acme/away/n{number}" for number in range(5)]
        for name in names:
            client.put(name, {"password": "p"}, kind="bank_login")
        until(lambda: client.list_webhook_endpoints()[0].error == "HTTP 503", seconds=40)
        assert client.list_webhook_endpoints()[0].HasField("failing_since")
        receiver.status = 204
        until(lambda: len(receiver.taken) >= 5, seconds=60)
        until(lambda: client.list_webhook_endpoints()[0].error == "", seconds=40)
    assert [event["data"]["name"] for event in receiver.told] == names
    with vault.operator() as operator:
        assert len(operator.audit_records(action="webhook.fail")) == 1


def test_what_happened_while_the_vault_was_killed_is_told_afterwards(
    vault: VaultSite, receiver: Receiver
) -> None:
    with vault.client(scopes=scopes()) as client:
        client.put(SIGNER, {"signing_secret": signing_secret()}, kind="webhook_endpoint")
        client.create_webhook_endpoint(receiver.url, EVENTS, credential=SIGNER)
        receiver.status = 503
        client.put("acme/killed/one", {"password": "p"}, kind="bank_login")
    vault.kill_workers()
    receiver.status = 204
    # The lease of a worker that was killed runs out after 15 seconds at most.
    until(lambda: receiver.taken, seconds=40, step=0.2)
    assert receiver.told[0]["data"]["name"] == "acme/killed/one"


def test_a_removed_endpoint_is_told_nothing_more(vault: VaultSite, receiver: Receiver) -> None:
    with vault.client(scopes=scopes()) as client:
        client.put(SIGNER, {"signing_secret": signing_secret()}, kind="webhook_endpoint")
        kept = client.create_webhook_endpoint(receiver.url, ["credential.put"], credential=SIGNER)
        removed = client.create_webhook_endpoint(receiver.url, EVENTS, credential=SIGNER)
        client.delete_webhook_endpoint(removed.endpoint_id)
        assert [e.endpoint_id for e in client.list_webhook_endpoints()] == [kept.endpoint_id]
        client.put("acme/removed/x", {"password": "p"}, kind="bank_login")
        client.set_standing("acme/removed/x", "expiring", note="test")
        client.put("acme/removed/y", {"password": "p"}, kind="bank_login")
        until(lambda: len(receiver.taken) >= 2, seconds=40)
    assert [event["type"] for event in receiver.told] == ["credential.put"] * 2
    # Nor is it remembered how far it had come. All other readers of the log keep their places.
    books = Books(vault)

    def places() -> set[str]:
        return {row["name"] for row in books.rows("SELECT name FROM audit_sinks")}

    before = places()
    until(lambda: f"webhook:{removed.endpoint_id}" not in places(), seconds=40)
    assert before - places() <= {f"webhook:{removed.endpoint_id}"}
    assert f"webhook:{kept.endpoint_id}" in places()
    books.close()


def test_what_is_asked_for_twice_is_made_and_recorded_once(fresh_site: VaultSite) -> None:
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with (
        fresh_site.client(scopes=scopes()) as client,
        Wire(fresh_site.profile("payments"), "acme", scopes()) as wire,
    ):
        client.put(SIGNER, {"signing_secret": signing_secret()}, kind="webhook_endpoint")
        asked = {
            "url": "https://hooks.example.com/",
            "events": EVENTS,
            "credential": SIGNER,
            "request_id": "once",
        }
        made = [wire.call("/vault.v1.WebhookService/CreateEndpoint", **asked).response for _ in range(2)]
        (kept,) = client.list_webhook_endpoints()
        assert [answer.endpoint.endpoint_id for answer in made] == [kept.endpoint_id] * 2
    books = Books(fresh_site)
    said = [
        row["after_state"]
        for row in books.rows(
            "SELECT after_state FROM audit_records WHERE action_type = 'webhook.create' ORDER BY sequence"
        )
    ]
    books.close()
    assert [json.loads(state).get("endpoint_id") for state in said] == [kept.endpoint_id, None]
    assert json.loads(said[1]) == {"repeated": True}


def test_no_endpoint_inside_the_network_is_called(fresh_site: VaultSite) -> None:
    """Without the setting for development a loopback address is refused like every private one."""
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with fresh_site.client(scopes=scopes()) as client:
        client.put(SIGNER, {"signing_secret": signing_secret()}, kind="webhook_endpoint")
        client.create_webhook_endpoint("https://localhost:9/", EVENTS, credential=SIGNER)
        client.put("acme/inside/x", {"password": "p"}, kind="bank_login")
        until(lambda: client.list_webhook_endpoints()[0].error == "DESTINATION_DENIED", seconds=40)


CONNECTOR = """
kinds = ["api_key"]
hosts = ["localhost"]
[inject.key]
place = "bearer"
field = "api_key"
[[routes]]
methods = ["GET"]
paths = ["/**"]
inject = ["key"]
[development]
loopback = true
port = {port}
ca_file = "../pki/ca.pem"
"""


def test_endpoints_that_say_nothing_hold_up_no_request_to_a_provider(fresh_site: VaultSite) -> None:
    folder = fresh_site.folder / "connectors"
    folder.mkdir()
    (folder / "nobody.toml").write_text(CONNECTOR.format(port=free_port()))
    fresh_site.settings = {
        "webhooks": {"development_ca_file": "pki/ca.pem"},
        "connectors": {"folder": "connectors"},
    }
    fresh_site.write_config()
    fresh_site.start()
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as tarpit, fresh_site.system() as system:
        threading.Thread(
            target=lambda: [held.append(tarpit.accept()[0]) for _ in range(16)], daemon=True
        ).start()
        system.create_tenant("acme")
        with fresh_site.client(scopes=scopes("session.use.http_call:acme/**")) as client:
            client.put(SIGNER, {"signing_secret": signing_secret()}, kind="webhook_endpoint")
            client.put("acme/key", {"api_key": "of-some-length"}, kind="api_key")

            def asking() -> float:
                """How long it takes to be told that the provider is not there."""
                began = time.monotonic()
                with (
                    client.session("acme/key", purpose="test") as session,
                    pytest.raises(StrongroomError, match="UPSTREAM_UNREACHABLE"),
                ):
                    session.http_call("nobody", "GET", "/balance")
                return time.monotonic() - began

            alone = asking()
            url = f"https://localhost:{tarpit.getsockname()[1]}/"
            for _ in range(20):
                client.create_webhook_endpoint(url, EVENTS, credential=SIGNER)
            client.put("acme/told", {"password": "x"}, kind="bank_login")
            until(lambda: len(held) == 16)
            beside = asking()
    for connection in held:
        connection.close()
    assert beside < alone + 4, "what is held up is so for ten seconds"


def test_only_a_credential_made_for_it_signs(vault: VaultSite) -> None:
    with vault.client(scopes=scopes()) as client:
        client.put("acme/webhooks/other", {"webhook_secret": "s"}, kind="webhook_secret")
        with pytest.raises(StrongroomError) as refused:
            client.create_webhook_endpoint("https://hooks.example/", EVENTS, credential="acme/webhooks/other")
    assert refused.value.reason == "SECRET_UNSUITABLE"
