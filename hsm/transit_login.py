"""Logging in to HashiCorp Vault or OpenBao, staying logged in, and making requests.

hvac is a thin client: one shared token that anyone may change, no lock, no retry, no renewal, no new log-in.
All of that is here. Tokens and answers are Python strings on the way, which cannot be wiped: through this
road go data keys, and at start the secrets that a configuration refers to, and nothing else.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import queue
import random
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import hvac
import requests
from hvac.exceptions import (
    BadGateway,
    Forbidden,
    InternalServerError,
    InvalidPath,
    InvalidRequest,
    PreconditionFailed,
    RateLimitExceeded,
    Unauthorized,
    UnexpectedError,
    VaultDown,
    VaultError,
    VaultNotInitialized,
)

from hsm.errors import HsmAuthFailed, HsmBusy, HsmError, HsmUnavailable, KeyNotPermitted
from hsm.secretfile import SecretSourceError
from hsm.uri import TransitAuth

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm.uri import TransitUri

log = logging.getLogger("hsm.transit")

_ATTEMPTS: Final = 3
_FIRST_PAUSE: Final = 0.05  # seconds
_PASSING: Final = (
    *(BadGateway, InternalServerError, PreconditionFailed, RateLimitExceeded, UnexpectedError),
    *(VaultDown, VaultNotInitialized, requests.RequestException),
)
_RETIRED: Final = "minimum encryption key version"
_CODES: Final = {
    InvalidRequest: "HTTP 400",
    Unauthorized: "HTTP 401",
    Forbidden: "HTTP 403",
    InvalidPath: "HTTP 404",
    PreconditionFailed: "HTTP 412",
    RateLimitExceeded: "HTTP 429",
    InternalServerError: "HTTP 500",
    VaultNotInitialized: "HTTP 501",
    BadGateway: "HTTP 502",
    VaultDown: "HTTP 503",
}


class Connection:
    """A server, a log-in that renews itself, and a bounded number of clients. Thread-safe."""

    def __init__(self, uri: TransitUri, *, clients: int, wait_seconds: float) -> None:
        self.address = uri.address
        self._uri = uri
        self._process = os.getpid()
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._token = ""
        self._generation = 0
        self._renew_at = 0.0
        self._refused: HsmAuthFailed | None = None
        self._refused_secret = b""
        self._salt = secrets.token_bytes(32)
        self._clients: queue.LifoQueue[hvac.Client] = queue.LifoQueue()
        self._all = [self._client() for _ in range(clients)]
        for client in self._all:
            self._clients.put(client)

    def request(
        self, op: str, method: str, path: str, body: dict[str, Any] | None = None, *, repeat: bool = True
    ) -> dict[str, Any]:
        """Make a request and return its answer's `data`, trying again what is worth it if `repeat`.

        Raises hvac's `VaultError` for what the server says of the request itself, else `HsmError`.
        """
        if self.forked:
            raise HsmUnavailable(
                op, "this process was forked from one that uses the server; spawn it instead"
            )
        with self._checked_out(op) as client:
            relogged = False
            for attempt in range(1, _ATTEMPTS + 1):
                generation = self._authorize(op, client)
                try:
                    answer = client.adapter.request(method, f"/v1/{path}", json=body)
                except (Forbidden, Unauthorized):
                    if relogged:
                        raise KeyNotPermitted(
                            op, "the server does not permit this", code_name="HTTP 403"
                        ) from None
                    relogged = True
                    self._log_in_again(op, generation)
                except _PASSING as error:
                    if _RETIRED in str(error):
                        # Said with 400 of a KEK and with 500 of a signing key, but final of both.
                        raise InvalidRequest(_RETIRED) from None
                    if not repeat or attempt == _ATTEMPTS:
                        raise unavailable(op, error) from None
                    time.sleep(_FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))  # noqa: S311
                else:
                    return _data(answer)
            raise HsmUnavailable(op, "the server refuses each new log-in")

    def logged_in(self) -> bool:
        """Whether the server still takes the token. Raises `HsmError`."""
        with contextlib.suppress(VaultError, KeyNotPermitted):
            self.request("health", "get", "auth/token/lookup-self")
            return True
        return False

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that logged in: the open connections are its parent's."""
        return os.getpid() != self._process

    def close(self) -> None:
        """Drop the connections. The token is left to expire, as it may be others' too."""
        for client in self._all:
            client.adapter.close()
        self._token = ""

    # -- the log-in --------------------------------------------------------------------------------

    def _authorize(self, op: str, client: hvac.Client) -> int:
        with self._lock:
            if self._refused is not None:
                # An agent beside us may have written a new secret; the refused one is not sent again.
                if self._secret_digest() == self._refused_secret:
                    raise self._refused
                self._refused = None
                self._log_in(op)
            elif not self._token:
                self._log_in(op)
            elif time.monotonic() >= self._renew_at:
                self._renew(op)
            client.token = self._token
            return self._generation

    def _log_in_again(self, op: str, generation: int) -> None:
        with self._lock:
            if self._generation == generation:  # else another thread has done it
                self._log_in(op)

    def _log_in(self, op: str) -> None:
        try:
            with self._one_client() as client:
                answer = self._log_in_by(client)
        except SecretSourceError as error:
            raise HsmAuthFailed(op, f"the log-in's secret: {error}") from None
        except _PASSING as error:
            raise unavailable(op, error) from None
        except VaultError as error:
            # The server looked at it and said no: asking again would only count as an attack.
            text = "the server refused the log-in"
            self._token, self._refused_secret = "", self._secret_digest()
            self._refused = HsmAuthFailed(op, text, code_name=_CODES.get(type(error), ""))
            log.error("%s at %s; it will not be tried again", text, self.address)  # noqa: TRY400
            raise self._refused from None
        self._accept(answer)

    def _log_in_by(self, client: hvac.Client) -> dict[str, Any]:
        uri = self._uri
        if uri.auth is TransitAuth.CERT:
            return _auth(client.auth.cert.login(name=uri.role, mount_point=uri.auth_mount, use_token=False))
        assert uri.source is not None
        with uri.source.read() as secret:
            text = secret.decode()
            if uri.auth is TransitAuth.APPROLE:
                return _auth(
                    client.auth.approle.login(uri.role, text, use_token=False, mount_point=uri.auth_mount)
                )
            if uri.auth is TransitAuth.KUBERNETES:
                return _auth(
                    client.auth.kubernetes.login(uri.role, text, use_token=False, mount_point=uri.auth_mount)
                )
            client.token = text
            found = _data(client.adapter.request("get", "/v1/auth/token/lookup-self"))
            return {
                "client_token": text,
                "lease_duration": found.get("ttl", 0),
                "renewable": found.get("renewable", False),
            }

    def _secret_digest(self) -> bytes:
        if self._uri.source is None:
            return b""
        try:
            with self._uri.source.read() as secret:
                return hmac.digest(self._salt, secret, "sha256")
        except SecretSourceError:
            return self._refused_secret

    def _renew(self, op: str) -> None:
        try:
            with self._one_client() as client:
                client.token = self._token
                answer = client.adapter.request("post", "/v1/auth/token/renew-self", json={})
        except (VaultError, requests.RequestException):
            log.info("the token could not be renewed; logging in anew")
            self._log_in(op)
        else:
            self._accept(_auth(answer))

    def _accept(self, auth: dict[str, Any]) -> None:
        self._token = auth["client_token"]
        self._generation += 1
        lease = float(auth.get("lease_duration") or 0)
        # Two thirds of the way: time for several attempts before it is too late. No lease: for ever.
        self._renew_at = time.monotonic() + lease * 2 / 3 if lease else float("inf")

    # -- clients -----------------------------------------------------------------------------------

    def _client(self) -> hvac.Client:
        uri = self._uri
        session = requests.Session()
        # hvac takes these from a session that it is given, and not from its own arguments.
        session.verify = uri.ca_file or True
        if uri.client_cert and uri.client_key:
            session.cert = (uri.client_cert, uri.client_key)
        return hvac.Client(
            url=uri.address,
            token="",
            timeout=uri.timeout,
            namespace=uri.namespace,
            allow_redirects=False,  # a token is not sent to wherever a server points
            session=session,
        )

    @contextlib.contextmanager
    def _one_client(self) -> Iterator[hvac.Client]:
        """A client of its own, as all others may be waiting for the log-in that it is for."""
        client = self._client()
        try:
            yield client
        finally:
            client.adapter.close()

    @contextlib.contextmanager
    def _checked_out(self, op: str) -> Iterator[hvac.Client]:
        try:
            client = self._clients.get(timeout=self._wait_seconds)
        except queue.Empty:
            raise HsmBusy(op, "every connection to the server is in use") from None
        try:
            yield client
        finally:
            client.token = ""
            self._clients.put(client)


def unavailable(op: str, error: Exception) -> HsmError:
    """The family's error for a server that does not answer, or not sensibly. Its text is not passed on."""
    code = _CODES.get(type(error), type(error).__name__)
    text = (
        "the server is sealed or down"
        if isinstance(error, VaultDown)
        else "the server does not answer properly"
    )
    return HsmUnavailable(op, text, code_name=code)


def _data(answer: Any) -> dict[str, Any]:
    """The `data` of an answer; a write may be answered by nothing at all."""
    if isinstance(answer, dict):
        found = answer.get("data")
        return found if isinstance(found, dict) else {}
    return {}


def _auth(answer: Any) -> dict[str, Any]:
    auth = answer.get("auth") if isinstance(answer, dict) else None
    if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
        raise UnexpectedError("a log-in without a token")
    return auth
