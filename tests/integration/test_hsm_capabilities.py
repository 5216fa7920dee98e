"""A vault holds its HSM against what it was recorded to be, at each start, and refuses one that is something else."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from hsm.softhsm import config_file, init_token
from tests.integration.wire import until
from tests.support.vault import VaultSite

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def site(softhsm: tuple[str, Path], tmp_path: Path) -> VaultSite:
    site = VaultSite(tmp_path / "vault", "sqlite:///strongroom.db", *softhsm)
    site.prepare()
    return site


def strongroom(site: VaultSite, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vault.cli", *arguments, "--config", str(site.config_file)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def query(site: VaultSite, text: str, *values: object) -> list[Any]:
    with contextlib.closing(sqlite3.connect(site.folder / "strongroom.db")) as database, database:
        return database.execute(text, values).fetchall()


def recorded(site: VaultSite, place: str = "hsm") -> dict[str, Any]:
    ((text,),) = query(site, "SELECT capabilities FROM hsm_capabilities WHERE place = ?", place)
    found: dict[str, Any] = json.loads(text)
    return found


def records(site: VaultSite) -> list[tuple[str, str, str]]:
    return query(
        site,
        "SELECT action_type, user_id, resource FROM audit_records WHERE action_type LIKE 'hsm.%' ORDER BY sequence",
    )


def remember_as(site: VaultSite, place: str = "hsm", **changes: object) -> None:
    """Have the vault's record, and the log, say that the HSM was another."""
    import asyncio

    from vault import config as configuration
    from vault.core import capabilities
    from vault.server.foundation import foundation

    async def work() -> None:
        async with foundation(configuration.load(site.config_file), any_hsm=True) as base:
            now = await capabilities.look(place, base.hsm.backends[place])
            await base.capabilities.write(place, {**now, **changes}, capabilities.ACCEPT, "test")

    asyncio.run(work())


def test_the_first_start_records_the_hsm_once_and_the_log_has_it(site: VaultSite) -> None:
    assert records(site) == [("hsm.record", "strongroom", "system/hsm")], "by `keys init`"
    found = recorded(site)
    assert found["name"].startswith("pkcs11:")
    assert (found["wrap"], found["iv_mode"]) == ("aes-gcm", "host")
    assert found["signatures"] == ["ES256", "EdDSA"]
    site.start()
    assert site.stop() == 0
    assert strongroom(site, "keys", "init").returncode == 0
    assert len(records(site)) == 1


def test_a_vault_from_before_records_its_hsm_at_its_first_start_whoever_of_its_workers_is_first(
    site: VaultSite,
) -> None:
    before = recorded(site)
    query(site, "DELETE FROM hsm_capabilities")
    site.write_config(server={"workers": 2})
    site.start()
    assert site.stop() == 0
    assert recorded(site) == before
    assert len(records(site)) == 2


def test_an_hsm_that_is_not_what_was_recorded_is_refused_until_it_is_accepted(site: VaultSite) -> None:
    was = {
        "name": "pkcs11:0123456789abcdef",
        "wrap": "aes-kwp",
        "iv_mode": "hsm",
        "signatures": ["ES256", "ES512", "EdDSA"],
    }
    remember_as(site, **was)
    says = (
        "name: was pkcs11:0123456789abcdef, is pkcs11:",
        "wrap: was aes-kwp, is aes-gcm",
        "iv_mode: was hsm, is host",
        "ES512: no longer works",
    )
    for command in (["serve"], ["keys", "init"]):
        refused = strongroom(site, *command)
        assert refused.returncode == 78
        (line,) = refused.stderr.splitlines()
        assert line.startswith("strongroom: hsm: ")
        assert all(text in line for text in says)
        assert "strongroom hsm accept" in line

    accepted = strongroom(site, "hsm", "accept", "--output", "json")
    assert accepted.returncode == 0, accepted.stderr
    differences = json.loads(accepted.stdout)["hsm"]
    assert all(found.startswith(text) for found, text in zip(differences, says, strict=True))
    operator = pwd.getpwuid(os.getuid()).pw_name
    assert records(site)[-1] == ("hsm.accept", f"strongroom hsm accept: {operator}", "system/hsm")
    (before, after), *_ = query(
        site, "SELECT before_state, after_state FROM audit_records ORDER BY sequence DESC"
    )
    assert json.loads(before).items() >= was.items()
    assert json.loads(after) == {"capabilities": recorded(site), "differences": differences}

    site.start()
    assert site.stop() == 0
    verified = strongroom(site, "audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_gain_and_another_firmware_are_said_and_let_in(site: VaultSite) -> None:
    remember_as(site, mac=False, firmware="0.9")
    site.start()
    assert site.stop() == 0
    (line,) = {text for text in site.log().splitlines() if "not quite what it was recorded" in text}
    assert "mac: works now" in line
    assert "firmware: was 0.9" in line


def test_accepting_what_is_recorded_already_changes_nothing(site: VaultSite) -> None:
    before = records(site)
    accepted = strongroom(site, "hsm", "accept", "--output", "json")
    assert json.loads(accepted.stdout) == {"hsm": "as recorded"}
    assert records(site) == before


def test_a_record_that_is_edited_behind_the_vaults_back_is_found(site: VaultSite) -> None:
    query(site, "UPDATE hsm_capabilities SET capabilities = '{}'")
    verified = strongroom(site, "audit", "verify")
    assert verified.returncode == 5
    assert "row hsm_capabilities:hsm: it was edited" in verified.stdout + verified.stderr


def test_a_token_of_the_same_label_in_the_old_ones_place_is_refused(tmp_path: Path) -> None:
    """Named by its label alone, as a configuration may, the serial is what tells."""
    folder = tmp_path / "softhsm"
    pin = tmp_path / "pin"
    uri = init_token(folder, "one", pin)
    query_ = uri.partition("?")[2]
    site = VaultSite(
        tmp_path / "vault", "sqlite:///strongroom.db", f"pkcs11:token=one?{query_}", config_file(folder)
    )
    site.prepare()
    site.start()
    assert site.stop() == 0
    (old,) = (folder / "tokens").iterdir()
    old.rename(tmp_path / "aside")
    init_token(folder, "one", pin)
    refused = strongroom(site, "serve")
    assert refused.returncode == 78
    assert "name: was pkcs11:" in refused.stderr


def test_a_second_hsm_that_comes_late_is_let_in_only_as_it_was_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "softhsm"
    uris = [init_token(folder, name, tmp_path / f"{name}-pin") for name in ("first", "second")]
    serial = uris[1].partition("serial=")[2].partition("?")[0]
    (token,) = [path for path in (folder / "tokens").iterdir() if path.name.replace("-", "").endswith(serial)]
    settings: dict[str, dict[str, object]] = {"second_hsm": {"uri": uris[1], "wait_seconds": 1.0}}
    site = VaultSite(tmp_path / "vault", "sqlite:///strongroom.db", uris[0], config_file(folder), settings)
    site.prepare()
    assert recorded(site, "second_hsm")["name"] == f"pkcs11:{serial}"
    remember_as(site, "second_hsm", mac=True, iv_mode="hsm")
    aside = token.rename(tmp_path / "aside")
    site.start()
    try:
        aside.rename(token)
        until(lambda: "the second HSM is refused" in site.log())
        assert "iv_mode: was hsm, is host" in site.log()
        assert strongroom(site, "hsm", "accept").returncode == 0
        until(lambda: "the second HSM is there" in site.log())
    finally:
        site.stop()
