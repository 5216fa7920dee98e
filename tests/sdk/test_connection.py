"""What an engineer is told when there is no connection: what is wrong, and where."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.certificates import self_signed
from tests.support.postgres import free_port
from tests.support.sockets import forward_to, listener
from tests.support.vault import TRUST_DOMAIN, client_extensions, issue_certificate
from vault.client import AsyncClient, Client, Profile, StrongroomError
from vault.client.health import look

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.vault import VaultSite

HOUR = datetime.timedelta(hours=1)
EXTENSIONS = client_extensions(f"spiffe://{TRUST_DOMAIN}/payments")


def plaintext(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def silence(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def failure(profile: Profile, timeout: float = 15.0) -> StrongroomError:
    with Client(profile, timeout=timeout) as client, pytest.raises(StrongroomError) as failed:
        client.list_credentials()
    assert failed.value.code.name == "UNAVAILABLE"
    return failed.value


@pytest.fixture
def site(shared_sites: Callable[[str], VaultSite]) -> VaultSite:
    return shared_sites("sqlite")


@pytest.fixture
def own(site: VaultSite, tmp_path: Path) -> Callable[..., Profile]:
    """A profile whose certificate is issued as asked for, by the vault's CA unless `ca_key` is another."""

    def make(**options: object) -> Profile:
        issue_certificate(site.folder / "pki", "own", EXTENSIONS, **options)
        for suffix in (".pem", "-key.pem"):
            (site.folder / f"pki/own{suffix}").rename(tmp_path / f"own{suffix}")
        profile = site.profile("payments")
        return dataclasses.replace(
            profile, certificate_file=tmp_path / "own.pem", private_key_file=tmp_path / "own-key.pem"
        )

    return make


now = datetime.datetime.now(datetime.UTC)


@pytest.mark.parametrize(
    ("options", "reason", "text"),
    [
        ({"not_before": now - 3 * HOUR, "life": -HOUR}, "CERTIFICATE_EXPIRED", "own.pem expired at 20"),
        ({"not_before": now + HOUR, "life": 2 * HOUR}, "CERTIFICATE_NOT_YET_VALID", "own.pem holds from 20"),
        (
            {"ca_key": ec.generate_private_key(ec.SECP256R1())},
            "CERTIFICATE_REJECTED",
            "sees the client certi",
        ),
    ],
    ids=["expired", "not yet valid", "another CA"],
)
def test_a_client_whose_certificate_is_not_taken_is_told_why(
    own: Callable[..., Profile], options: dict[str, object], reason: str, text: str
) -> None:
    profile = own(**options)
    failed = failure(profile)
    assert failed.reason == reason
    assert text in failed.message

    async def asynchronously() -> str:
        async with AsyncClient(profile) as client:
            with pytest.raises(StrongroomError) as refused:
                await client.list_credentials()
            return refused.value.reason

    assert asyncio.run(asynchronously()) == reason
    with pytest.raises(StrongroomError) as unhealthy:
        look(profile)
    assert unhealthy.value.reason == reason


def test_a_server_by_another_ca_is_not_trusted(site: VaultSite, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(self_signed(ec.generate_private_key(ec.SECP256R1()), "other"))
    failed = failure(dataclasses.replace(site.profile("payments"), ca_file=tmp_path / "other.pem"))
    assert (failed.reason, "other.pem" in failed.message) == ("SERVER_UNTRUSTED", True)


def test_a_server_under_a_name_that_its_certificate_does_not_hold(site: VaultSite) -> None:
    with listener(forward_to(site.port), "127.0.0.2") as address:
        failed = failure(dataclasses.replace(site.profile("payments"), server=address))
    assert (failed.reason, "'127.0.0.2'" in failed.message) == ("SERVER_NAME_MISMATCH", True)


def test_a_port_where_nothing_listens(site: VaultSite) -> None:
    port = free_port()
    failed = failure(dataclasses.replace(site.profile("payments"), server=f"localhost:{port}"))
    assert (failed.reason, failed.message) == ("UNREACHABLE", f"nothing listens at localhost:{port}")


def test_a_host_that_is_not_found(site: VaultSite) -> None:
    failed = failure(dataclasses.replace(site.profile("payments"), server="no-such-host.invalid:7443"))
    assert (failed.reason, "no-such-host.invalid" in failed.message) == ("UNREACHABLE", True)


def test_a_port_that_speaks_no_tls(site: VaultSite) -> None:
    with listener(plaintext) as address:
        failed = failure(dataclasses.replace(site.profile("payments"), server=address))
    assert (failed.reason, failed.message) == ("NOT_A_VAULT", f"what listens at {address} does not speak TLS")


def test_a_port_that_speaks_tls_but_not_grpc(site: VaultSite) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.folder / "pki/server.pem", site.folder / "pki/server-key.pem")

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as encrypted:
            encrypted.recv(4096)

    with listener(serve) as address:
        failed = failure(dataclasses.replace(site.profile("payments"), server=address))
    assert failed.reason == "NOT_A_VAULT"
    assert failed.message == f"what listens at {address} speaks TLS, but not gRPC"


def test_a_port_that_says_nothing(site: VaultSite) -> None:
    with listener(silence) as address:
        failed = failure(dataclasses.replace(site.profile("payments"), server=address), timeout=1.0)
    assert (failed.reason, "says nothing" in failed.message) == ("UNREACHABLE", True)


def test_the_command_says_what_to_do(own: Callable[..., Profile], tmp_path: Path) -> None:
    profile = own(not_before=now - 3 * HOUR, life=-HOUR)
    (tmp_path / "profile.toml").write_text(
        f'server = "{profile.server}"\nca_file = "{profile.ca_file}"\ncertificate_file = "own.pem"\n'
        'private_key_file = "own-key.pem"\ntenant = "acme"\nscopes = ["credential.read:acme/**"]\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "vault.cli", "credential", "list", "--profile", tmp_path / "profile.toml"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("strongroom: CERTIFICATE_EXPIRED: ")
    assert second.startswith("  next: get another from your CA")
    assert "PRIVATE" not in done.stderr
