"""Around the Transit backend: requests that it never makes, by the log-in that it uses."""

# The methods are described by `Around`.
# ruff: noqa: D102

from __future__ import annotations

import base64
import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from hvac.exceptions import VaultError

from hsm import HsmError, WrapScheme
from hsm.transit import key_name
from hsm.transit_login import Connection
from hsm.uri import parse_transit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm import KeyRef

_KINDS: Final = ("encryption-key", "signing-key", "hmac-key")


class AroundTransit:
    """One mount. `importing` is a URI whose log-in may import keys, where the backend's own may not."""

    def __init__(self, uri: str, importing: str | None = None) -> None:
        self._uri = uri
        self._importing = importing or uri

    def steal(self, ref: KeyRef) -> list[str]:
        name = key_name(ref)
        ways: dict[str, tuple[str, str, dict[str, Any] | None]] = {
            **{f"export it as {kind}": ("get", f"export/{kind}/{name}", None) for kind in _KINDS},
            "back it up": ("get", f"backup/{name}", None),
            "make it exportable": ("post", f"keys/{name}/config", {"exportable": True}),
            "open it to backups": ("post", f"keys/{name}/config", {"allow_plaintext_backup": True}),
        }
        with self._connected(self._uri) as call:
            return [way for way, request in ways.items() if _succeeds(call, *request)]

    def plant(self, ref: KeyRef, key: bytes, scheme: WrapScheme) -> None:
        assert scheme is WrapScheme.TRANSIT
        with self._connected(self._importing) as call:
            try:
                public = serialization.load_pem_public_key(
                    call("get", "wrapping_key", None)["public_key"].encode()
                )
                assert isinstance(public, rsa.RSAPublicKey)
                ephemeral = secrets.token_bytes(32)
                oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
                sealed = public.encrypt(ephemeral, oaep) + aes_key_wrap_with_padding(ephemeral, key)
                body = {
                    "ciphertext": base64.b64encode(sealed).decode(),
                    "hash_function": "SHA256",
                    "type": "aes256-gcm96",
                }
                call("post", f"keys/{key_name(ref)}/import", body)
            except (VaultError, HsmError) as error:
                pytest.skip(f"this log-in cannot import keys: {error}")

    @contextlib.contextmanager
    def log_ins(self) -> Iterator[list[str]]:
        asked: list[str] = []
        send = requests.Session.send

        def watched(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> Any:
            asked.append(f"{request.method} {request.path_url}")
            return send(session, request, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(requests.Session, "send", watched)
            yield asked

    @contextlib.contextmanager
    def _connected(self, uri: str) -> Iterator[Any]:
        parsed = parse_transit(uri)
        connection = Connection(parsed, clients=1, wait_seconds=10.0)

        def call(method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
            return connection.request("around", method, f"{parsed.mount}/{path}", body)

        try:
            yield call
        finally:
            connection.close()


def _succeeds(call: Any, method: str, path: str, body: dict[str, Any] | None) -> bool:
    try:
        call(method, path, body)
    except (VaultError, HsmError):
        return False
    return True
