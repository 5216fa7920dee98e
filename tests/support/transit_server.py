"""A real OpenBao or HashiCorp Vault, in development mode on loopback, where one is on PATH.

It speaks TLS by a certificate of its own CA. The log-ins are set up as `docs/operations.md` says, so what the tests
do with them is what the vault may do, and no more.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hvac
import requests

from tests.support.postgres import free_port
from tests.support.token_reviews import ACCOUNT, NAMESPACE, TokenReviews

if TYPE_CHECKING:
    from collections.abc import Sequence

BINARY = shutil.which("bao") or shutil.which("vault")
KINDS = ("double", "real") if BINARY else ("double",)
"""What can be asked for here; a test says so where the real one is missing."""
POLICY = Path(__file__).parents[2] / "deploy/transit-policy.hcl"
READS_KV = """
path "secret/data/*" { capabilities = ["read"] }
path "secret/metadata" { capabilities = ["list"] }
path "secret/metadata/*" { capabilities = ["list"] }
"""
_START_SECONDS = 30


class TransitServer:
    """The server. What it has in common with the double has the same name there."""

    def __init__(self, folder: Path, client_ca: str) -> None:
        assert BINARY is not None
        self.port = free_port()
        self._folder = folder
        self._log = (folder / "server.log").open("wb")
        self._root = secrets.token_hex(16)
        self._unseal_key = ""
        self._kubernetes = TokenReviews()
        token = {f"{name}_DEV_ROOT_TOKEN_ID": self._root for name in ("BAO", "VAULT")}
        self._process = subprocess.Popen(
            [
                *(BINARY, "server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={folder}", "-dev-no-store-token"),
                f"-dev-listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **token, "HOME": str(folder)},
        )
        self.ca_file = folder / "vault-ca.pem"
        try:
            self._await()
            self._set_up(client_ca)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._kubernetes.close()
        self._log.close()

    # -- as the double has it ----------------------------------------------------------------------

    def uri(self, query: str, namespace: str = "") -> str:
        within = f"&namespace={namespace}" if namespace else ""
        return f"transit://127.0.0.1:{self.port}/transit?ca-file={self.ca_file}{within}&{query}"

    def kv_uri(self, query: str) -> str:
        return f"kv://127.0.0.1:{self.port}/secret?ca-file={self.ca_file}&{query}"

    def new_token(self) -> str:
        made = self._ask("post", "auth/token/create", policies=["strongroom"], ttl="1h")
        token: str = made["auth"]["client_token"]
        return token

    def importing_token(self) -> str:
        return self._root

    def approle(self) -> tuple[str, str]:
        role = self._ask("get", "auth/approle/role/strongroom/role-id")["data"]["role_id"]
        secret = self._ask("post", "auth/approle/role/strongroom/secret-id")["data"]["secret_id"]
        return role, secret

    def service_account(self) -> tuple[str, str]:
        return "strongroom", self._kubernetes.issue()

    def forged_service_account(self) -> tuple[str, str]:
        return "strongroom", self._kubernetes.forge()

    def revoke_tokens(self) -> None:
        for accessor in self._ask("list", "auth/token/accessors")["data"]["keys"]:
            found = self._ask("post", "auth/token/lookup-accessor", accessor=accessor)["data"]
            if "root" not in found["policies"]:
                self._ask("post", "auth/token/revoke-accessor", accessor=accessor)

    def write_secret(self, path: str, fields: dict[str, Any]) -> None:
        self._ask("post", f"secret/data/{path}", data=fields)

    def delete_secret(self, path: str) -> None:
        self._ask("delete", f"secret/metadata/{path}")

    def destroy_key(self, name: str) -> None:
        self._ask("post", f"transit/keys/{name}/config", deletion_allowed=True)
        self._ask("delete", f"transit/keys/{name}")

    def key_names(self) -> Sequence[str]:
        try:
            names: Sequence[str] = self._ask("list", "transit/keys")["data"]["keys"]
        except hvac.exceptions.InvalidPath:
            return []
        return names

    def new_namespace(self, name: str) -> bool:
        """Make a namespace with a Transit mount of its own; false where the server has none (Vault's free edition)."""
        try:
            self._ask("post", f"sys/namespaces/{name}")
        except hvac.exceptions.VaultError:
            return False
        self._ask("post", f"{name}/sys/mounts/transit", type="transit")
        self._ask("put", f"{name}/sys/policies/acl/strongroom", policy=POLICY.read_text())
        return True

    def new_token_in(self, namespace: str) -> str:
        made = self._ask("post", f"{namespace}/auth/token/create", policies=["strongroom"])
        token: str = made["auth"]["client_token"]
        return token

    def seal(self) -> None:
        self._ask("put", "sys/seal")

    def unseal(self) -> None:
        self._ask("put", "sys/unseal", key=self._unseal_key)

    # -- setting up --------------------------------------------------------------------------------

    def _await(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(requests.RequestException, hvac.exceptions.VaultError, OSError):
                self._ask("get", "auth/token/lookup-self")
                if found := re.search(r"^Unseal Key: (\S+)$", self._said(), re.MULTILINE):
                    self._unseal_key = found[1]
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{BINARY} did not start: {self._said()}")
            time.sleep(0.1)

    def _said(self) -> str:
        return (self._folder / "server.log").read_text(errors="replace")

    def _set_up(self, client_ca: str) -> None:
        self._ask("post", "sys/mounts/transit", type="transit")
        self._ask("put", "sys/policies/acl/strongroom", policy=POLICY.read_text() + READS_KV)
        for method in ("approle", "cert", "kubernetes"):
            self._ask("post", f"sys/auth/{method}", type=method)
        self._ask("post", "auth/approle/role/strongroom", token_policies=["strongroom"], token_ttl="1h")
        self._ask(
            "post",
            "auth/kubernetes/config",
            kubernetes_host=self._kubernetes.address,
            disable_local_ca_jwt=True,
            kubernetes_ca_cert=client_ca,  # not looked at, as the double of Kubernetes has no TLS
        )
        self._ask(
            "post",
            "auth/kubernetes/role/strongroom",
            bound_service_account_names=[ACCOUNT],
            bound_service_account_namespaces=[NAMESPACE],
            token_policies=["strongroom"],
        )
        self._ask("post", "auth/cert/certs/strongroom", certificate=client_ca, token_policies=["strongroom"])

    def _ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        with contextlib.closing(
            hvac.Client(self.address, self._root, verify=str(self.ca_file)).adapter
        ) as adapter:
            answer = adapter.request(method, f"/v1/{path}", json=body or None)
        return answer if isinstance(answer, dict) else {}

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"
