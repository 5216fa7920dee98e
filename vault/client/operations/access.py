"""What a client has in hand: a token and the ingest key, fetched when they are needed."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.duration_pb2 import Duration

from vault.client.errors import StrongroomError
from vault.client.operations.calls import PAGE, Call
from vault.client.sealing import verify_ingest_key
from vault.v1 import credential_pb2, token_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.message import Message

    from vault.client.operations.calls import Steps
    from vault.client.profile import Profile
    from vault.client.sealing import IngestKey

T = TypeVar("T")
_RENEW_AT = 0.8
# The certificate is rejected, for one, when it expires on an open connection; its file may hold another by then.
_RENEW_REASONS = ("TOKEN_EXPIRED", "TOKEN_REVOKED", "CERTIFICATE_REJECTED")


class Access:
    """What a client has in hand, its token and the vault's ingest key, and the calls that need them."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._token: token_pb2.TokenServiceIssueResponse | None = None
        self._renew_time = 0.0
        self._ingest_key: IngestKey | None = None

    def use_token(self, text: str) -> None:
        """Use this token instead of issuing one."""
        self._token = token_pb2.TokenServiceIssueResponse(token=text)
        self._renew_time = float("inf")

    def issue_token(
        self,
        scopes: Sequence[str],
        ttl_seconds: int,
        purpose: str,
        tenant: str = "",
        max_sessions: int = 0,
        narrowable: bool = False,
        approval_id: str = "",
    ) -> Steps[token_pb2.TokenServiceIssueResponse]:
        """Issue a token."""
        request = token_pb2.TokenServiceIssueRequest(
            tenant=tenant or self.profile.tenant,
            scopes=scopes,
            ttl=Duration(seconds=ttl_seconds),
            purpose=purpose,
            max_sessions=max_sessions,
            narrowable=narrowable,
            approval_id=approval_id,
        )
        response: token_pb2.TokenServiceIssueResponse = yield Call(
            "/vault.v1.TokenService/Issue",
            request,
            token_pb2.TokenServiceIssueResponse,
            shows_certificate=True,
        )
        return response

    @property
    def has_token(self) -> bool:
        """Whether the token at hand is good for a while."""
        return self._token is not None and time.time() < self._renew_time

    @property
    def has_ingest_key(self) -> bool:
        """Whether the ingest key at hand is good."""
        return self._ingest_key is not None and time.time() < self._ingest_key.expire_time

    def token(self) -> Steps[str]:
        """The client's token: issued when it is first needed, and anew well before it ends."""
        if self._token is None or not self.has_token:
            profile = self.profile
            self._token = yield from self.issue_token(profile.scopes, profile.token_seconds, "")
            left = self._token.expire_time.seconds - time.time()
            self._renew_time = time.time() + left * _RENEW_AT
        return self._token.token

    def renews(self, failure: StrongroomError) -> bool:
        """Whether a new token mends this failure; then the old one is forgotten."""
        if failure.reason not in _RENEW_REASONS or self._renew_time == float("inf"):
            return False
        self._token = None
        return True

    def authorised(
        self, method: str, request: Message, response: type[T], *, repeatable: bool = True
    ) -> Steps[T]:
        """A call with the client's token; tried once more with a new one if this one has ended."""
        call = Call(method, request, response, repeatable=repeatable)  # type: ignore[arg-type]  # T is always a message
        token = yield from self.token()
        try:
            return (yield dataclasses.replace(call, token=token))  # type: ignore[no-any-return]
        except StrongroomError as error:
            if not self.renews(error):
                raise
        token = yield from self.token()
        return (yield dataclasses.replace(call, token=token))  # type: ignore[no-any-return]

    def jwks(self) -> Steps[bytes]:
        """The vault's public keys, as a JWK set."""
        response: token_pb2.TokenServiceGetJwksResponse = yield Call(
            "/vault.v1.TokenService/GetJwks",
            token_pb2.TokenServiceGetJwksRequest(),
            token_pb2.TokenServiceGetJwksResponse,
        )
        return response.jwks

    def sealed(self, method: str, request: Callable[[IngestKey], Message], response: type[T]) -> Steps[T]:
        """A call whose request is sealed to the ingest key; sealed anew, once, if the vault forgot that key."""
        for last in (False, True):
            key = yield from self.ingest_key()
            try:
                return (yield from self.authorised(method, request(key), response))
            except StrongroomError as error:
                if last or error.reason != "INGEST_KEY_UNKNOWN":
                    raise
                self._ingest_key = None
        raise AssertionError("unreachable")

    def ingest_key(self) -> Steps[IngestKey]:
        """The vault's ingest key, verified; fetched when it is first needed."""
        if self._ingest_key is None or not self.has_ingest_key:
            response: credential_pb2.CredentialServiceGetIngestKeyResponse = yield Call(
                "/vault.v1.CredentialService/GetIngestKey",
                credential_pb2.CredentialServiceGetIngestKeyRequest(),
                credential_pb2.CredentialServiceGetIngestKeyResponse,
            )
            # Afterwards: so it holds the key that signed, whichever worker did a moment ago.
            jwks = yield from self.jwks()
            self._ingest_key = verify_ingest_key(response.signed_key, jwks)
        return self._ingest_key


def collect(access: Access, method: str, request: Any, response: type[Any], items: str) -> Steps[list[Any]]:
    """Everything that a method lists, page by page; `items` is the field of the answer that holds it."""
    request.page_size = PAGE
    found: list[Any] = []
    while True:
        page = yield from access.authorised(method, request, response)
        found.extend(getattr(page, items))
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found
