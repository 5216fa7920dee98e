"""What the tests stand on: one SoftHSM token, one private PostgreSQL, and real vaults on both databases."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from vault.store.reach import ALL_TENANTS, declare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.postgres import Postgres
    from tests.support.vault import VaultSite


# How long an example takes says more of what else the machine does than of what is tested.
hypothesis.settings.register_profile(
    "unhurried",
    hypothesis.settings.default,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _every_tenant() -> None:
    """What runs in the tests' own process is not behind the edge; it declares like the vault's background work."""
    declare(ALL_TENANTS)


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A SoftHSM token of its own: its URI and its configuration."""
    from hsm.softhsm import init_token

    folder = tmp_path_factory.mktemp("softhsm")
    pin = folder / "pin"
    pin.write_text(secrets.token_hex(8))
    pin.chmod(0o600)
    uri = init_token(folder / "token", "strongroom-test", pin)
    config = folder / "token" / "softhsm2.conf"
    # SoftHSM reads this once in a process.
    os.environ["SOFTHSM2_CONF"] = str(config)
    return uri, config


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    from tests.support.postgres import Postgres

    server = Postgres()
    yield server
    server.close()


def _site(
    softhsm: tuple[str, Path], folder: Path, url: str, settings: dict[str, dict[str, object]] | None = None
) -> VaultSite:
    from tests.support.vault import VaultSite

    site = VaultSite(folder, url, softhsm[0], softhsm[1], settings or {})
    site.prepare()
    return site


@pytest.fixture(scope="session")
def shared_sites(
    request: pytest.FixtureRequest, softhsm: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], VaultSite]]:
    """Running vaults by the kind of their database, each started when it is first asked for."""
    with contextlib.ExitStack() as running:

        @functools.cache
        def start(database: str) -> VaultSite:
            url = "sqlite:///strongroom.db"
            if database == "postgresql":
                url = request.getfixturevalue("postgres").create_database("vault_shared")
            site = _site(softhsm, tmp_path_factory.mktemp(f"vault-{database}"), url)
            site.start()
            running.callback(site.stop)
            with site.system() as system:
                system.create_tenant("acme")
                system.create_tenant("globex")
            return site

        yield start


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, shared_sites: Callable[[str], VaultSite]) -> VaultSite:
    """A running vault with the tenants acme and globex, shared by tests that leave it as it was."""
    return shared_sites(request.param)


@pytest.fixture
def fresh_site(softhsm: tuple[str, Path], tmp_path: Path, postgres: Postgres) -> Iterator[VaultSite]:
    """A prepared vault on PostgreSQL, not started, for a test to do with as it likes."""
    url = postgres.create_database(f"vault_{secrets.token_hex(6)}")
    site = _site(softhsm, tmp_path / "vault", url)
    yield site
    if site.process is not None:
        site.stop()
