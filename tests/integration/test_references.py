"""Secrets that the configuration only refers to: the PIN and the database's password, from a KV version 2 mount."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.contract.hsm.transit_serving import serving
from tests.integration.test_start import serve
from tests.support.transit_server import KINDS
from tests.support.vault import VaultSite
from vault import config as configuration
from vault.errors import EX_CONFIG, StartError
from vault.server import references

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.hsm.transit_double import Double
    from tests.support.transit_server import TransitServer

PIN_AT = "vault:strongroom/hsm#pin"


@pytest.fixture(scope="module", params=KINDS)
def secrets_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Double | TransitServer]:
    """The double always, and a real OpenBao or Vault where one is on PATH."""
    with serving(request.param, tmp_path_factory.mktemp("secrets"), trustme.CA()) as running:
        yield running


@pytest.fixture(scope="module")
def site(
    secrets_server: Double | TransitServer,
    softhsm: tuple[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[VaultSite]:
    """A vault whose configuration names neither PIN nor file of it."""
    uri, config = softhsm
    head, _, file = uri.partition("pin-source=file:")
    secrets_server.write_secret("strongroom/hsm", {"pin": Path(file.partition("&")[0]).read_text()})
    secrets_server.write_secret("strongroom/db", {"password": "db-password-51f0", "null": None})
    role, text = secrets_server.approle()
    folder = tmp_path_factory.mktemp("references")
    secret = folder / "secret-id"
    secret.write_text(text)
    secret.chmod(0o400)
    kv = secrets_server.kv_uri(f"auth=approle&role-id={role}&secret-id-source=file:{secret}")
    settings: dict[str, dict[str, object]] = {"secrets": {"uri": kv}}
    vault = VaultSite(
        folder / "vault", "sqlite:///strongroom.db", f"{head}pin-source={PIN_AT}", config, settings
    )
    vault.prepare()
    yield vault
    if vault.process is not None:
        vault.stop()


def test_a_vault_starts_with_a_pin_that_is_fetched(site: VaultSite, softhsm: tuple[str, Path]) -> None:
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    with site.client() as client:
        client.put("acme/a", {"k": b"fetched"}, kind="generic")
        (revealed,) = client.reveal("acme/a", purpose="test")
        with revealed:
            assert revealed.text("k") == "fetched"
    assert site.stop() == 0
    pin = Path(softhsm[0].partition("pin-source=file:")[2].partition("&")[0]).read_text()
    assert pin not in site.config_file.read_text() + site.log()


def test_the_databases_password_is_fetched(site: VaultSite) -> None:
    site.write_config(database={"password_source": "vault:strongroom/db#password"})
    assert references.password(configuration.load(site.config_file)) == "db-password-51f0"
    site.write_config()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"database": {"password_source": "vault:strongroom/db#none"}}, "vault:strongroom/db#none"),
        ({"database": {"password_source": "vault:strongroom/db#null"}}, "vault:strongroom/db#null"),
        ({"database": {"password_source": "vault:strongroom/none#password"}}, "vault:strongroom/none"),
        ({"database": {"password_source": "vault:no-field"}}, "vault:PATH#FIELD"),
        (
            {"secrets": {"uri": "kv://127.0.0.1:1/secret?plaintext-http=yes&token-source=file:/nowhere"}},
            "secrets",
        ),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(
    site: VaultSite, changes: dict[str, dict[str, object]], says: str
) -> None:
    site.write_config(**{"database": {"password_source": "vault:strongroom/db#password"}, **changes})
    with pytest.raises(StartError, match=says) as caught:
        references.password(configuration.load(site.config_file))
    assert "51f0" not in str(caught.value)
    site.write_config()


def test_a_vault_that_cannot_fetch_its_pin_says_so_and_does_not_start(
    site: VaultSite, secrets_server: Double | TransitServer
) -> None:
    secrets_server.delete_secret("strongroom/hsm")
    done = serve(site)
    assert done.returncode == EX_CONFIG
    assert done.stderr.splitlines() == [f"strongroom: hsm: there is no text at {PIN_AT}"]
