"""Plaid, Stripe and an OAuth server, as far as trying out the vault needs them: on this machine, for development only.

    python -m vault.cli.mock_providers PORT CERTIFICATE PRIVATE_KEY

They hold to the providers' own forms: Plaid takes its access token in the JSON body only, Stripe's key is a bearer
token, OAuth refresh tokens are good once. `/v1/echo` shows a request as it came, so that one can see the vault withhold
the answer. `/sandbox/item/fire_webhook` and `/sandbox/item/reset_login` make Plaid's webhook, really signed: it
is sent to the item's webhook address if that is one of this machine, and stands in the answer.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import secrets
import signal
import ssl
import sys
import threading
import time
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from vault.crypto.hardening import end_with_parent

Answer = tuple[int, dict[str, Any]]


class WebhookKey:
    """One of Plaid's keys for webhooks."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.kid = secrets.token_hex(16)
        self.expired_at: int | None = None

    @property
    def jwk(self) -> dict[str, Any]:
        """As `/webhook_verification_key/get` gives it."""
        numbers = self._key.public_key().public_numbers()
        return {
            "alg": "ES256", "crv": "P-256", "kid": self.kid, "kty": "EC", "use": "sig",
            "x": _base64url(numbers.x.to_bytes(32, "big")), "y": _base64url(numbers.y.to_bytes(32, "big")),
            "created_at": 0, "expired_at": self.expired_at,
        }  # fmt: skip

    def sign(self, body: bytes, now: float) -> str:
        """The header `Plaid-Verification` of a webhook."""
        header = {"alg": "ES256", "kid": self.kid, "typ": "JWT"}
        claims = {"iat": int(now), "request_body_sha256": hashlib.sha256(body).hexdigest()}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class Providers(http.server.ThreadingHTTPServer):
    """The server, and what the providers remember."""

    daemon_threads = True

    def __init__(self, port: int, certificate: str, private_key: str) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, private_key)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.lock = threading.Lock()
        self.public_tokens: set[str] = set()
        self.items: dict[str, str] = {}
        self.broken_items: set[str] = set()
        self.webhook_addresses: dict[str, str] = {}
        self.webhook_key = WebhookKey()
        self.keys_asked_for: list[str] = []
        self.refresh_tokens: set[str] = {"refresh-mock-first"}
        self.issued: list[str] = []
        self.refreshes = 0
        self.oauth_down = False
        self.oauth_says: dict[str, Any] = {}
        """What the OAuth server says beside its tokens, or instead of what it would say."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Providers

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        parts = urlsplit(self.path)
        if parts.path == "/v1/redirect":
            self._reply(302, {}, {"Location": "https://localhost/elsewhere"})
            return
        with self.server.lock:
            if parts.path == "/oauth/token":
                status, answer = self._oauth(dict(parse_qsl(body.decode())))
            elif parts.path.startswith("/v1/"):
                status, answer = self._stripe(parts.path, parts.query, body)
            else:
                status, answer = self._plaid(parts.path, body)
        self._reply(status, answer)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the library's names

    def _reply(self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        text = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json", "Request-Id": f"req_{secrets.token_hex(6)}",
            "Set-Cookie": "session=1", **(headers or {}),
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _webhook_key(self, key_id: str) -> Answer:
        self.server.keys_asked_for.append(key_id)
        if key_id != self.server.webhook_key.kid:
            return 400, {"error_code": "INVALID_WEBHOOK_VERIFICATION_KEY_ID", "error_type": "INVALID_INPUT"}
        return 200, {"key": self.server.webhook_key.jwk, "request_id": "mock"}

    def _link_token(self, asked: dict[str, Any]) -> Answer:
        wanted = {"user", "client_name", "language", "country_codes"}
        if "access_token" in asked and not wanted <= set(asked):
            return 400, {"error_code": "INVALID_FIELD", "error_type": "INVALID_REQUEST"}
        if "access_token" in asked and asked["access_token"] not in self.server.items:
            return 400, {"error_code": "INVALID_ACCESS_TOKEN", "error_type": "INVALID_INPUT"}
        mode = "update" if "access_token" in asked else "sandbox"
        return 200, {
            "link_token": f"link-{mode}-{secrets.token_hex(8)}",
            "expiration": "2030-01-01T00:00:00Z",
            "request_id": "mock",
        }

    def _fire(self, item: str, code: str) -> Answer:
        """Make an item's webhook, as if that had happened at its bank, and send it if there is where to."""
        webhook: dict[str, Any] = {"webhook_type": "ITEM", "webhook_code": code, "item_id": item}
        if code == "ERROR":
            webhook["error"] = {"error_code": "ITEM_LOGIN_REQUIRED", "error_type": "ITEM_ERROR"}
            self.server.broken_items.add(item)
        elif code == "LOGIN_REPAIRED":
            self.server.broken_items.discard(item)
        body = json.dumps(webhook)
        jwt = self.server.webhook_key.sign(body.encode(), time.time())
        address = urlsplit(self.server.webhook_addresses.get(item, ""))
        if address.hostname in ("localhost", "127.0.0.1") and address.scheme == "http":
            connection = http.client.HTTPConnection(address.hostname, address.port or 80, timeout=2)
            with contextlib.suppress(OSError), contextlib.closing(connection):
                headers = {"Plaid-Verification": jwt, "Content-Type": "application/json"}
                connection.request("POST", address.path or "/", body.encode(), headers)
                connection.getresponse()
        return 200, {"webhook_fired": True, "mock": {"Plaid-Verification": jwt, "body": body}}

    def _plaid(self, path: str, body: bytes) -> Answer:  # noqa: PLR0911 - one a path
        if not self.headers.get("plaid-client-id") or not self.headers.get("plaid-secret"):
            return 400, {"error_code": "INVALID_API_KEYS", "error_type": "INVALID_INPUT"}
        asked = json.loads(body or b"{}")
        server = self.server
        if path == "/sandbox/public_token/create":
            token = f"public-sandbox-{secrets.token_hex(8)}"
            server.public_tokens.add(token)
            return 200, {"public_token": token, "request_id": "mock"}
        if path == "/webhook_verification_key/get":
            return self._webhook_key(asked.get("key_id", ""))
        if path == "/link/token/create":
            return self._link_token(asked)
        if path == "/item/public_token/exchange":
            if asked.get("public_token") not in server.public_tokens:
                return 400, {"error_code": "INVALID_PUBLIC_TOKEN", "error_type": "INVALID_INPUT"}
            server.public_tokens.discard(asked["public_token"])
            access, item = f"access-sandbox-{secrets.token_hex(16)}", f"item-{secrets.token_hex(8)}"
            server.items[access] = item
            server.issued.append(access)
            return 200, {"access_token": access, "item_id": item, "request_id": "mock"}
        return self._item(path, asked)

    def _item(self, path: str, asked: dict[str, Any]) -> Answer:
        server = self.server
        item = server.items.get(asked.get("access_token", ""), "")
        if not item:
            return 400, {"error_code": "INVALID_ACCESS_TOKEN", "error_type": "INVALID_INPUT"}
        if path == "/item/access_token/invalidate":
            del server.items[asked["access_token"]]
            access = f"access-sandbox-{secrets.token_hex(16)}"
            server.items[access] = item
            server.issued.append(access)
            return 200, {"new_access_token": access, "request_id": "mock"}
        if path == "/item/webhook/update":
            server.webhook_addresses[item] = asked.get("webhook", "")
            return 200, {"item": {"item_id": item, "webhook": asked.get("webhook")}, "request_id": "mock"}
        if path in ("/sandbox/item/fire_webhook", "/sandbox/item/reset_login"):
            return self._fire(item, "ERROR" if path.endswith("login") else asked.get("webhook_code", ""))
        if item in server.broken_items:
            return 400, {"error_code": "ITEM_LOGIN_REQUIRED", "error_type": "ITEM_ERROR"}
        accounts = [{"account_id": "acc-1", "balances": {"available": 100.5, "iso_currency_code": "EUR"}}]
        return 200, {"accounts": accounts, "item": {"item_id": item}, "request_id": "mock"}

    def _stripe(self, path: str, query: str, body: bytes) -> Answer:
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            key = base64.b64decode(key).decode().partition(":")[0]
        if not key.startswith("sk_test_"):
            return 401, {"error": {"type": "invalid_request_error", "message": "Invalid API Key provided"}}
        if path == "/v1/echo":
            return 200, {"headers": dict(self.headers), "query": parse_qs(query), "body": body.decode()}
        if path == "/v1/balance":
            return 200, {
                "object": "balance",
                "available": [{"amount": 1200, "currency": "eur"}],
                "livemode": False,
            }
        return 200, {
            "object": path.split("/")[2],
            "id": f"mock_{secrets.token_hex(6)}",
            **dict(parse_qsl(body.decode())),
        }

    def _oauth(self, form: dict[str, str]) -> Answer:
        server = self.server
        client = self.headers.get("authorization", "").startswith("Basic ") or "client_assertion" in form
        if server.oauth_down:
            return 503, {"error": "temporarily_unavailable"}
        if not client and "client_secret" not in form:
            return 401, {"error": "invalid_client"}
        if form.get("refresh_token") not in server.refresh_tokens:
            return 400, {"error": "invalid_grant"}
        server.refresh_tokens.discard(form["refresh_token"])
        server.refreshes += 1
        refresh, access = f"refresh-mock-{secrets.token_hex(16)}", f"access-mock-{secrets.token_hex(16)}"
        server.refresh_tokens.add(refresh)
        server.issued += [refresh, access]
        return 200, {
            "access_token": access,
            "refresh_token": refresh,
            "expires_in": 600,
            "token_type": "Bearer",
            **server.oauth_says,
        }

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


OAUTH = """\
kinds = ["oauth_grant", "oauth_client"]
hosts = ["localhost"]

[inject.access_token]
place = "bearer"
field = "access_token"

[[routes]]
methods = ["GET"]
paths = ["/v1/balance"]
inject = ["access_token"]

[oauth]
path = "/oauth/token"
client = "basic"
"""


def connectors(port: int, ca_file: str) -> dict[str, str]:
    """The connectors of the mock providers, by name: those of the real ones, led to this machine."""
    from importlib import resources  # noqa: PLC0415

    development = f'\n[development]\nloopback = true\nport = {port}\nca_file = "{ca_file}"\n'
    shipped = resources.files("vault.core").joinpath("connectors")
    made = {"oauth-mock": OAUTH + development}
    for name, host in (("plaid-sandbox", "sandbox.plaid.com"), ("stripe", "api.stripe.com")):
        text = shipped.joinpath(f"{name}.toml").read_text().replace(f'"{host}"', '"localhost"')
        if name == "stripe":
            text += (
                '\n[[routes]]\nmethods = ["GET", "POST"]\n'
                'paths = ["/v1/echo", "/v1/redirect"]\ninject = ["api_key"]\n'
            )
        made[f"{name.partition('-')[0]}-mock"] = text + development
    return made


def main() -> None:
    """Serve until stopped."""
    end_with_parent(signal.SIGTERM)
    port, certificate, private_key = sys.argv[1:]
    Providers(int(port), certificate, private_key).serve_forever()


if __name__ == "__main__":
    main()
