"""`strongroom dev`: a vault on this machine, made from nothing, with a real token, real TLS and a real log.

For development only: SoftHSM keeps its keys in files, and the CA's key lies beside its certificate.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vault.errors import StartError

if TYPE_CHECKING:
    from vault.client.profile import Profile

TENANT = "acme"
_TRUST_DOMAIN = "dev.strongroom.internal"
_START_SECONDS = 30.0
_CONFIG = """\
# The development vault. Every key is explained in docs/configuration.md.
[server]
listen = "{listen}"

[tls]
certificate_file = "pki/server.pem"
private_key_file = "pki/server-key.pem"
client_ca_file = "pki/ca.pem"

[identity]
trust_domains = ["{trust_domain}"]

[hsm]
uri = "{uri}"
softhsm_config_file = "softhsm/softhsm2.conf"

[database]
url = "sqlite:///strongroom.db"

[policy]
files = ["policy.cedar"]

# How many others must sign. One is for a laptop; a bank takes two or more.
[approvals]
destroy_key = 1
delete_tenant = 1
change_policy = 1
recover_database = 1
break_glass = 1
issue_token = 1

[audit]
anchor_file = "audit-anchor.txt"

[connectors]
folder = "connectors"
"""
_PROFILE = """\
# Who "{name}" is, for the SDK and for `strongroom --profile`. No secret is in here.
server = "{listen}"
ca_file = "pki/ca.pem"
certificate_file = "pki/{name}.pem"
private_key_file = "pki/{name}-key.pem"
tenant = "{tenant}"
scopes = {scopes}
"""
_USES = (
    "hmac",
    "hmac_raw",
    "verify_hmac",
    "totp",
    "verify_webhook",
    "answer_challenge",
    "sign_jws",
    "client_assertion",
    "sign_http",
    "sign_raw",
    "http_call",
    "oauth_refresh",
    "link_token",
)
_PROFILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "payments": (
        TENANT,
        (
            f"credential.write:{TENANT}/**",
            f"credential.read:{TENANT}/**",
            f"credential.set_standing:{TENANT}/**",
            f"session.reveal:{TENANT}/**",
            f"handover.wrap:{TENANT}/**",
            f"handover.unwrap:{TENANT}/**",
            *(f"session.use.{use}:{TENANT}/**" for use in _USES),
        ),
    ),
    "operator": (
        TENANT,
        (
            f"credential.read:{TENANT}/**",
            f"credential.set_standing:{TENANT}/**",
            f"webhook.manage:{TENANT}/webhooks",
            f"credential.delete:{TENANT}/**",
            f"credential.destroy:{TENANT}/**",
            f"key.rotate:{TENANT}/keys",
            f"key.rewrap:{TENANT}/keys",
            f"key.retire:{TENANT}/keys",
            f"key.schedule:{TENANT}/keys",
            f"key.read:{TENANT}/keys",
            f"token.revoke:{TENANT}/tokens",
            f"token.introspect:{TENANT}/tokens",
            f"audit.read:{TENANT}/audit",
            f"handover.wrap:{TENANT}/**",
            f"handover.unwrap:{TENANT}/**",
            f"key.destroy:{TENANT}/keys",
            f"approval.read:{TENANT}/**",
        ),
    ),
    "operator-system": (
        "system",
        (
            "tenant.create:system/tenants/*",
            "key.read:system/keys",
            "key.rotate:system/keys",
            "key.schedule:system/keys",
            "policy.read:system/policy",
            "approval.read:system/**",
            "approval.approve:system/**",
        ),
    ),
    "auditor": (
        "system",
        (
            "audit.read:system/audit",
            "audit.verify:system/audit",
            "policy.read:system/policy",
            "approval.read:system/**",
        ),
    ),
    "officer": (
        TENANT,
        (
            f"approval.read:{TENANT}/**",
            f"approval.approve:{TENANT}/**",
            f"threat.read:{TENANT}/threats",
            f"threat.release:{TENANT}/threats",
            f"token.revoke:{TENANT}/tokens",
            f"audit.read:{TENANT}/audit",
        ),
    ),
    "policy": (
        "system",
        ("policy.read:system/policy", "policy.write:system/policy", "approval.read:system/**"),
    ),
}
_CERTIFICATES = {
    "payments": "payments",
    "operator": "operator",
    "operator-system": "operator",
    "auditor": "auditor",
    "officer": "officer",
    "policy": "officer",
}


def dev(
    *,
    data: Annotated[Path, typer.Option(help="Where everything lies.")] = Path(".strongroom"),
    listen: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1:7443",
    tour: Annotated[bool, typer.Option("--tour", help="Show the main job at work, then stop.")] = False,
) -> None:
    """Make a development vault if there is none, and run it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    server = start(data, listen)
    providers = _start_providers(data, listen)
    try:
        print(f"strongroom: a development vault is up at {listen} ({time.monotonic() - began:.1f} s)\n")
        if tour:
            from vault.cli.tour import run  # noqa: PLC0415

            run(data)
            _how_to_go_on(data, running=False)
        else:
            _how_to_go_on(data, running=True)
            server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        providers.terminate()
        providers.wait()
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
        server.wait()
    if not tour and server.returncode:
        raise typer.Exit(server.returncode)


def start(data: Path, listen: str) -> subprocess.Popen[bytes]:
    """Make what is missing, start the vault, and return when it is ready with its tenant."""
    refuse_taken(listen)
    prepare(data, listen)
    config = data / "strongroom.toml"
    server = subprocess.Popen([sys.executable, "-m", "vault.cli", "serve", "--config", str(config)])  # noqa: S603
    try:
        _wait_until_ready(server, data)
        _ensure_tenant(data)
    except BaseException:
        server.terminate()
        server.wait()
        raise
    return server


def refuse_taken(listen: str) -> None:
    """Raise `StartError` if somebody listens there: workers share a port, and another vault's would not notice."""
    host, _, port = listen.rpartition(":")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # A vault that has just stopped is no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
    except (OSError, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StartError(f"cannot listen on {listen}: {reason}; --listen names another address") from None


def prepare(data: Path, listen: str) -> None:
    """Make what is missing: HSM token, PKI, configuration, policy, profiles, database, keys."""
    from hsm.softhsm import init_token  # noqa: PLC0415 - slow to import, and not every command needs it
    from vault.cli import mock_providers  # noqa: PLC0415
    from vault.cli.keys import create_system_keys  # noqa: PLC0415
    from vault.cli.pki import ensure_pki  # noqa: PLC0415
    from vault.cli.server import migrate_database  # noqa: PLC0415

    data = data.resolve()
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    pin = data / "hsm-pin"
    if not pin.exists():
        descriptor = os.open(pin, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(16))
    uri = init_token(data / "softhsm", "strongroom-dev", pin)
    ensure_pki(
        data / "pki", {name: f"spiffe://{_TRUST_DOMAIN}/{name}" for name in set(_CERTIFICATES.values())}
    )
    (data / "connectors").mkdir(exist_ok=True)
    for name, text in mock_providers.connectors(_providers_port(listen), str(data / "pki/ca.pem")).items():
        (data / f"connectors/{name}.toml").write_text(text)
    (data / "strongroom.toml").write_text(_CONFIG.format(listen=listen, trust_domain=_TRUST_DOMAIN, uri=uri))
    policy = data / "policy.cedar"
    if not policy.exists():
        policy.write_text(resources.files("vault.cli").joinpath("development.cedar").read_text())
    for name, (tenant, scopes) in _PROFILES.items():
        text = _PROFILE.format(name=_CERTIFICATES[name], listen=listen, tenant=tenant, scopes=list(scopes))
        (data / f"{name}.toml").write_text(text.replace("'", '"'))
    asyncio.run(migrate_database(data / "strongroom.toml"))
    asyncio.run(create_system_keys(data / "strongroom.toml"))


def _start_providers(data: Path, listen: str) -> subprocess.Popen[bytes]:
    """Run mock Plaid, Stripe and OAuth on the port behind the vault's."""
    pki = data.resolve() / "pki"
    arguments = [str(_providers_port(listen)), str(pki / "server.pem"), str(pki / "server-key.pem")]
    return subprocess.Popen([sys.executable, "-m", "vault.cli.mock_providers", *arguments])  # noqa: S603


def _providers_port(listen: str) -> int:
    return int(listen.rpartition(":")[2]) % 65_535 + 1


def profile(data: Path, name: str) -> Profile:
    """One of the development profiles."""
    from vault.client.profile import Profile  # noqa: PLC0415

    return Profile.load(data / f"{name}.toml")


def _wait_until_ready(server: subprocess.Popen[bytes], data: Path) -> None:
    from vault.client.errors import StrongroomError  # noqa: PLC0415
    from vault.client.health import check  # noqa: PLC0415

    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise StartError("the vault did not start; it said why above")
        try:
            if check(profile(data, "operator"), timeout=1)[0]:
                return
        except StrongroomError:
            pass
        time.sleep(0.1)
    raise StartError("the vault did not become ready in time")


def _ensure_tenant(data: Path) -> None:
    from vault.client import Client, StrongroomError  # noqa: PLC0415

    with Client(profile(data, "operator-system")) as client:
        try:
            client.create_tenant(TENANT)
        except StrongroomError as error:
            if error.reason != "TENANT_EXISTS":
                raise


def _how_to_go_on(data: Path, *, running: bool) -> None:
    command = sys.argv[0] if Path(sys.argv[0]).name == "strongroom" else "strongroom"
    if running:
        print(
            "Mock Plaid, Stripe and OAuth run beside it: connectors plaid-mock, stripe-mock, oauth-mock (docs/uses.md)."
        )
        print(f"To use it:   export STRONGROOM_PROFILE={data}/payments.toml; {command} credential list")
        print("To stop it:  Ctrl-C")
    else:
        print(f"The vault has stopped. To run it again and keep it:  {command} dev")
    print(
        f"Where all lies:  {data}/ (configuration, database, HSM token, certificates); delete it to begin anew"
    )
    print(f"What else there is:  {command} --help", flush=True)
