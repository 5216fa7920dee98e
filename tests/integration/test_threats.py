"""Threats: what the rules find is recorded once, told, and can freeze an identity until somebody releases it."""

from __future__ import annotations

import base64
import http.server
import json
import secrets
import threading
from typing import TYPE_CHECKING

import pytest
from standardwebhooks import Webhook

from tests.integration.wire import Books, Wire, until
from tests.support.vault import TRUST_DOMAIN
from vault.client import Client, StrongroomError
from vault.client.sealing import Recipient
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.vault import VaultSite

CANARY, NAME = "acme/threats/canary", "acme/threats/login"
LEDGER = f"spiffe://{TRUST_DOMAIN}/ledger"
OFFICER = ("threat.read:acme/threats", "threat.release:acme/threats", "audit.read:acme/audit")


class Hook:
    """A receiver of webhooks."""

    def __init__(self) -> None:
        received: list[tuple[dict[str, str], bytes]] = []
        self.received = received

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append((dict(self.headers.items()), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def refused(reason: str, call: Callable[[], object]) -> None:
    with pytest.raises(StrongroomError) as caught:
        call()
    assert caught.value.reason == reason


def test_a_touched_canary_freezes_who_touched_it_until_somebody_else_releases_it(
    fresh_site: VaultSite,
) -> None:
    hook = Hook()
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    fresh_site.folder.mkdir(exist_ok=True)
    (fresh_site.folder / "hook-secret").write_text(secret)
    fresh_site.settings = {
        "server": {"workers": 2},
        "threats": {"webhook_url": hook.url, "webhook_secret_file": "hook-secret"},
        "threats.freeze": {"acme": ["canary"]},
    }
    fresh_site.write_config()
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with fresh_site.client() as client:
        client.put(CANARY, {"password": "x"}, kind="bank_login", labels={"canary": "true"})
        client.put(NAME, {"password": "x"}, kind="bank_login")
    with (
        Wire(fresh_site.profile("ledger"), "acme") as ledger,
        Client(fresh_site.profile("payments", "acme", OFFICER)) as officer,
        ledger.stream() as stream,
    ):
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=NAME)],
            purpose="t",
            recipient_key=Recipient().public_bytes,
        )
        assert stream.ask(start=start).WhichOneof("message") == "opened"
        assert ledger.call("/vault.v1.CredentialService/Get", name=CANARY).ok
        assert stream.read().revoked.reason == pb.CLOSE_REASON_TOKEN_REVOKED
        (found,) = until(officer.list_threats)
        assert (found.rule, found.identity, found.state) == ("canary", LEDGER, 2)
        assert json.loads(found.evidence)["credential"] == CANARY
        for _ in range(8):
            answer = ledger.call(
                "/vault.v1.TokenService/Issue", tenant="acme", scopes=["credential.read:acme/**"]
            )
            assert answer.reason == "IDENTITY_FROZEN"
        headers, body = until(lambda: hook.received)[0]
        told = Webhook(secret).verify(body, headers)
        assert told["data"]["threat_id"] == found.threat_id
        assert "break-in" in officer.explain_threat(found.threat_id).explanation
        released = officer.release_threat(found.threat_id, purpose="a drill")
        assert released.state == 3
        until(
            lambda: all(
                ledger.call(
                    "/vault.v1.TokenService/Issue", tenant="acme", scopes=["credential.read:acme/**"]
                ).ok
                for _ in range(4)
            ),
            step=0.2,  # who is refused more often than that is found again
        )
        assert not officer.list_threats(only_open=True)
    books = Books(fresh_site)
    records = books.rows("SELECT * FROM audit_records WHERE action_type = 'threat.find'")
    books.close()
    assert len(records) == 1
    assert len(hook.received) == 1
    hook.server.shutdown()
    hook.server.server_close()


def test_nobody_releases_what_was_found_of_themselves_and_no_tenant_sees_anothers(site: VaultSite) -> None:
    with site.client("ledger") as client:
        client.put("acme/threats/own", {"password": "x"}, kind="bank_login", labels={"canary": "true"})
        client.get("acme/threats/own")
    with Client(site.profile("ledger", "acme", OFFICER)) as ledger:
        found = until(lambda: [item for item in ledger.list_threats() if item.identity == LEDGER])[0]
        refused("SCOPE_DENIED", lambda: ledger.release_threat(found.threat_id, purpose="x"))
    with Wire(site.profile("ledger"), "acme", (*OFFICER, "token.delegate:acme/tokens")) as ledger:
        handed = ledger.call(
            "/vault.v1.TokenService/Exchange",
            scopes=["threat.release:acme/threats"],
            certificate_thumbprint=issued_thumbprint(site.profile("stranger")),
        ).response.token
    with Wire(site.profile("stranger")) as other:
        answer = other.call(
            "/vault.v1.ThreatService/Release", bearer=handed, threat_id=found.threat_id, purpose="x"
        )
        assert answer.reason == "SCOPE_DENIED", "nor through another certificate"
    scopes = tuple(scope.replace("acme", "globex") for scope in OFFICER)
    with Client(site.profile("globex", "globex", scopes)) as globex:
        assert found.threat_id not in [item.threat_id for item in globex.list_threats()]
        for threat_id in (found.threat_id, "A" * 22):
            refused("THREAT_NOT_FOUND", lambda threat_id=threat_id: globex.explain_threat(threat_id))


def test_the_blast_radius_is_everything_that_was_touched_and_nothing_else(site: VaultSite) -> None:
    name = "acme/threats/radius"
    with site.client() as client:
        client.put(name, {"password": "x"}, kind="bank_login")
        client.put(NAME + "2", {"password": "x"}, kind="bank_login")
    profile = site.profile("ledger", "acme")
    with Wire(profile, "acme") as ledger, Client(site.profile("payments", "acme", OFFICER)) as officer:
        issued = ledger.issue("credential.read:acme/threats/*")
        for _ in range(3):
            ledger.call("/vault.v1.CredentialService/Get", bearer=issued.token, name=name)
        ledger.call("/vault.v1.CredentialService/Get", bearer=issued.token, name="acme/other/x")
        by_token = officer.blast_radius(token_id=issued.token_id)
        seen = {(item.resource, item.action, item.granted): item.count for item in by_token.touches}
        assert seen[name, "credential.get", True] == 3
        assert seen["acme/other/x", "credential.get", False] == 1
        assert not any(resource == NAME + "2" for resource, _, _ in seen)
        for wider in (
            officer.blast_radius(identity=LEDGER),
            officer.blast_radius(certificate=issued_thumbprint(profile)),
        ):
            assert name in {item.resource for item in wider.touches}
    with Client(site.profile("globex", "globex", ("audit.read:globex/audit",))) as globex:
        assert not globex.blast_radius(identity=LEDGER).touches
        assert not globex.blast_radius(token_id=issued.token_id).touches


def issued_thumbprint(profile: object) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    pem = profile.certificate_file.read_bytes()  # type: ignore[attr-defined]
    digest = x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256())
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
