"""The second wall in a running vault: what is left when the vault's own check is not there, and who may not serve."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import _site
from tests.support.postgres import OWNER, SUPERUSER
from vault.client import StrongroomError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.postgres import Postgres
    from tests.support.vault import VaultSite
    from vault.client import Client

THEIRS = "globex/stripe/secret"
GETS: dict[str, Callable[[Client], object]] = {
    "get": lambda acme: acme.get(THEIRS),
    "reveal": lambda acme: acme.reveal(THEIRS, purpose="to see"),
    "reveal with one's own": lambda acme: acme.reveal("acme/own", THEIRS, purpose="to see"),
    "list versions": lambda acme: acme.list_versions(THEIRS),
    "delete": lambda acme: acme.delete(THEIRS),
    "put": lambda acme: acme.put(THEIRS, {"secret": b"mine"}, kind="generic"),
    "list keys": lambda acme: acme.list_keys("globex"),
}


def found(site: VaultSite) -> dict[str, str]:
    """What a caller with a token for acme comes to, on a vault that forgets to look at scopes."""
    site.start()
    with site.system() as system:
        for tenant in ("acme", "globex"):
            system.create_tenant(tenant)
    with site.client("globex", "globex") as globex:
        globex.put(THEIRS, {"secret": b"theirs"}, kind="generic")
    reasons = {}
    with site.client("payments", "acme") as acme:
        acme.put("acme/own", {"secret": b"own"}, kind="generic")
        for name, get in GETS.items():
            try:
                get(acme)
                reasons[name] = ""
            except StrongroomError as error:
                reasons[name] = error.reason
    with site.client("globex", "globex") as globex:
        (theirs,) = globex.reveal(THEIRS, purpose="to see")
        with theirs:
            reasons["afterwards"] = bytes(theirs["secret"]).decode()
    return reasons


@pytest.fixture
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "forgetful"))


@pytest.mark.usefixtures("_forgetful")
def test_a_check_that_was_forgotten_finds_nothing_of_another_tenant(fresh_site: VaultSite) -> None:
    absent = dict.fromkeys(GETS, "CREDENTIAL_NOT_FOUND")
    assert found(fresh_site) == {
        **absent,
        "put": "TENANT_NOT_FOUND",
        "list keys": "TENANT_NOT_FOUND",
        "afterwards": "theirs",
    }


@pytest.mark.usefixtures("_forgetful")
def test_without_the_databases_part_the_same_defect_gives_away_what_is_read_alone(
    softhsm: tuple[str, Path], tmp_path: Path
) -> None:
    """The control: the defect is real. SQLite has no second wall, but for what callers read or write together."""
    site = _site(softhsm, tmp_path / "vault", "sqlite:///strongroom.db")
    try:
        reasons = found(site)
    finally:
        site.stop()
    assert {name for name, reason in reasons.items() if not reason} == {"list versions", "list keys"}


def serves_not(site: VaultSite, *, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vault.cli", "serve", "--config", str(site.config_file)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 78, done.stderr
    assert says in done.stderr


def test_a_server_whose_role_is_past_the_wall_does_not_start(
    fresh_site: VaultSite, postgres: Postgres
) -> None:
    name = fresh_site.database_url.rpartition("/")[2]
    for role, says in ((SUPERUSER, "is a superuser"), (OWNER, "owns the tables")):
        fresh_site.write_config(database={"url": postgres.url(name, role)})
        serves_not(fresh_site, says=says)
    # Unless somebody says so where everybody sees it.
    fresh_site.write_config(database={"url": postgres.url(name, OWNER), "danger_any_role": True})
    fresh_site.start()
    assert fresh_site.stop() == 0
    assert "danger_any_role" in fresh_site.log()


def test_what_the_command_prints_is_what_a_role_needs(fresh_site: VaultSite, postgres: Postgres) -> None:
    role, name = f"role_{secrets.token_hex(4)}", fresh_site.database_url.rpartition("/")[2]
    command = [
        sys.executable,
        "-m",
        "vault.cli",
        "database",
        "grants",
        "--config",
        str(fresh_site.config_file),
    ]
    printed = subprocess.run([*command, "--role", role], capture_output=True, text=True, check=True).stdout
    postgres.sql(name, "\n".join(line for line in printed.splitlines() if not line.startswith("--")))
    fresh_site.write_config(database={"url": postgres.url(name, role)})
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with fresh_site.client() as acme:
        acme.put("acme/own", {"secret": b"own"}, kind="generic")
