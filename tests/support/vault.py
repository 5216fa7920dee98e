"""A real vault for the tests: a configuration, an HSM token, certificates, and the server as its own process."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.postgres import free_port, owner_url
from vault.cli.pki import ensure_pki
from vault.client import Client, Profile, StrongroomError
from vault.client.health import check

TRUST_DOMAIN = "test.strongroom.internal"
CLIENTS = ("payments", "ledger", "operator", "globex", "stranger")
POLICY = """
permit (principal, action, resource) when {
  principal.path == "operator" && ["acme", "globex", "system"].contains(resource.tenant)
};
permit (principal, action, resource) when {
  (principal.path == "payments" || principal.path == "ledger") && resource.tenant == "acme"
};
permit (principal, action, resource) when { principal.path == "globex" && resource.tenant == "globex" };
permit (principal, action, resource) when { principal.path like "bench*" && resource.tenant == "acme" };
"""
ALL_SCOPES = (
    "credential.write", "credential.read", "credential.set_standing", "credential.delete", "credential.destroy",
    "session.reveal", "session.use.verify_webhook", "handover.wrap", "handover.unwrap",
    "session.use.hmac", "session.use.hmac_raw",
    "session.use.verify_hmac", "session.use.totp", "session.use.answer_challenge",
    "session.use.sign_jws", "session.use.client_assertion",
    "session.use.sign_http", "session.use.sign_raw", "session.use.http_call", "session.use.oauth_refresh",
    "session.use.link_token",
)  # fmt: skip

_DEPLOYMENTS = itertools.count()
_ALL_LISTEN = b"strongroom: listening on "
"""What the supervisor says when the last of its workers has started."""


@dataclass
class VaultSite:
    """Everything of one vault, in one folder."""

    folder: Path
    database_url: str
    hsm_uri: str
    softhsm_config: Path
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    deployment: str = field(default_factory=lambda: f"t{next(_DEPLOYMENTS)}")
    """Sets its keys apart from those of the other vaults in the same HSM token."""
    environment: dict[str, str] = field(default_factory=dict)
    """What the server's environment has beside the tests' own."""

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @property
    def config_file(self) -> Path:
        return self.folder / "strongroom.toml"

    @property
    def log_file(self) -> Path:
        return self.folder / "server.log"

    def prepare(self) -> None:
        """Write the configuration, migrate, make the vault's own keys."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ensure_pki(self.folder / "pki", {name: f"spiffe://{TRUST_DOMAIN}/{name}" for name in CLIENTS})
        (self.folder / "policy.cedar").write_text(POLICY)
        self.write_config()
        from vault.cli.keys import create_system_keys
        from vault.cli.server import migrate_database

        os.environ["SOFTHSM2_CONF"] = str(self.softhsm_config)
        asyncio.run(migrate_database(self.config_file))
        asyncio.run(create_system_keys(self.config_file))

    def write_config(self, **changes: dict[str, object]) -> None:
        document: dict[str, dict[str, object]] = {
            "server": {"listen": f"127.0.0.1:{self.port}", "drain_seconds": 3.0},
            "tls": {
                "certificate_file": "pki/server.pem",
                "private_key_file": "pki/server-key.pem",
                "client_ca_file": "pki/ca.pem",
            },
            "identity": {"trust_domains": [TRUST_DOMAIN]},
            "hsm": {
                "uri": self.hsm_uri,
                "softhsm_config_file": str(self.softhsm_config),
                "deployment": self.deployment,
            },
            "database": {
                "url": self.database_url,
                "owner_url": owner_url(self.database_url) if "postgresql" in self.database_url else None,
            },
            "approvals": {
                "destroy_key": 2,
                "delete_tenant": 2,
                "change_policy": 1,
                "recover_database": 2,
                "break_glass": 2,
                "issue_token": 1,
            },
            "policy": {"files": ["policy.cedar"]},
            "audit": {"checkpoint_seconds": 3600.0, "anchor_file": "anchor.txt"},
        }
        for source in (self.settings, changes):
            for section, values in source.items():
                document.setdefault(section, {}).update(values)
        lines = []
        for section, values in document.items():
            lines.append(f"[{section}]")
            lines.extend(f"{key} = {toml(value)}" for key, value in values.items() if value is not None)
        self.config_file.write_text("\n".join(lines) + "\n")

    def start(self, *, whole: bool = True) -> None:
        """Start the server, and wait until it is ready: all of its workers, or any if it need not be whole."""
        with self.log_file.open("ab") as log:
            before = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vault.cli", "serve", "--config", str(self.config_file)],
                stderr=log,
                stdout=log,
                env={**os.environ, **self.environment},
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the vault ended with {self.process.returncode}: {self.log()}")
            try:
                said = self.log_file.read_bytes()[before:]
                if (not whole or _ALL_LISTEN in said) and check(self.profile("operator"), timeout=1)[0]:
                    return
            except StrongroomError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"the vault did not become ready: {self.log()}")

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def worker_pids(self) -> list[int]:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def kill_workers(self) -> None:
        for pid in self.worker_pids():
            os.kill(pid, signal.SIGKILL)

    def log(self) -> str:
        return self.log_file.read_text()

    def profile(self, name: str, tenant: str = "acme", scopes: tuple[str, ...] | None = None) -> Profile:
        if scopes is None:
            scopes = tuple(f"{action}:{tenant}/**" for action in ALL_SCOPES)
        return Profile(
            server=self.address,
            ca_file=self.folder / "pki/ca.pem",
            certificate_file=self.folder / f"pki/{name}.pem",
            private_key_file=self.folder / f"pki/{name}-key.pem",
            tenant=tenant,
            scopes=scopes,
        )

    def client(
        self, name: str = "payments", tenant: str = "acme", scopes: tuple[str, ...] | None = None
    ) -> Client:
        return Client(self.profile(name, tenant, scopes))

    def operator(self, tenant: str = "acme") -> Client:
        scopes: tuple[str, ...] = (
            f"key.rotate:{tenant}/keys", f"key.rewrap:{tenant}/keys", f"key.retire:{tenant}/keys",
            f"key.schedule:{tenant}/keys", f"key.destroy:{tenant}/keys", f"approval.approve:{tenant}/**",
            f"key.read:{tenant}/keys",
            f"audit.read:{tenant}/audit",
            f"token.revoke:{tenant}/tokens", f"token.introspect:{tenant}/tokens",
            f"credential.read:{tenant}/**", f"credential.delete:{tenant}/**", f"credential.destroy:{tenant}/**",
        )  # fmt: skip
        return Client(self.profile("operator", tenant, scopes))

    def system(self, timeout: float = 15.0) -> Client:
        scopes = (
            "tenant.create:system/tenants/*", "audit.read:system/audit", "audit.verify:system/audit",
            "policy.read:system/policy", "policy.write:system/policy", "approval.read:system/**",
            "key.rotate:system/keys", "key.read:system/keys", "key.schedule:system/keys",
        )  # fmt: skip
        return Client(self.profile("operator", "system", scopes), timeout=timeout)


def toml(value: object) -> str:
    """A value as TOML, tables in it inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def issue_certificate(
    folder: Path, name: str, extensions: list[tuple[x509.ExtensionType, bool]], **options: object
) -> None:
    """A client certificate by the site's CA, as bad as asked for: key, life, common_name, not_before, ca_key."""
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    ca_key = options.get("ca_key") or serialization.load_pem_private_key(
        (folder / "ca-key.pem").read_bytes(), None
    )
    key = options.get("key") or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    not_before = options.get("not_before") or now - datetime.timedelta(minutes=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(options.get("common_name", name)))])
        )
        .issuer_name(ca.subject)
        .public_key(key.public_key())  # type: ignore[attr-defined]
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)  # type: ignore[arg-type]
        .not_valid_after(now + options.get("life", datetime.timedelta(hours=1)))  # type: ignore[operator]
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}-key.pem").write_bytes(
        key.private_bytes(  # type: ignore[attr-defined]
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def client_extensions(uri: str) -> list[tuple[x509.ExtensionType, bool]]:
    return [
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
    ]
