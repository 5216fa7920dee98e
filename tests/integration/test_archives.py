"""The log's beginning is moved to an archive by the command, while the vault serves; all that reads the log goes on."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import io
import json
import secrets
import sys
import unittest.mock
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.vault import VaultSite
from vault import config as configuration
from vault.cli.main import main
from vault.clock import SystemClock
from vault.server.checkpointing import checkpointing
from vault.server.foundation import foundation
from vault.store.archives import months_before

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres


class LongAgo:
    """The vault's clock, 14 months ago."""

    def __enter__(self) -> None:
        then = months_before(datetime.datetime.now(datetime.UTC), 14)
        self._patch = unittest.mock.patch.object(SystemClock, "now", return_value=then)
        self._patch.start()

    def __exit__(self, *_error: object) -> None:
        self._patch.stop()


async def sign(site: VaultSite) -> str:
    config = configuration.load(site.config_file)
    async with foundation(config) as base:
        parts = checkpointing(base, config)
        await parts.checkpoints.start()
        await parts.checkpoints.sign()
        await parts.anchors.close()
        return parts.keys.newest


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(
    request: pytest.FixtureRequest, softhsm: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VaultSite]:
    folder = tmp_path_factory.mktemp("archives")
    if request.param == "sqlite":
        url = f"sqlite:///{folder}/strongroom.db"
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create_database(f"archived_{secrets.token_hex(6)}")
    (folder / "archive").mkdir()
    settings: dict[str, dict[str, object]] = {"audit": {"archive_folder": "archive"}}
    site = VaultSite(folder, url, softhsm[0], softhsm[1], settings)
    with LongAgo():
        site.prepare()
        (folder / "key").write_text(asyncio.run(sign(site)))
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    with site.client() as client:
        client.put("acme/plaid/x", {"value": "secret"}, kind="generic")
    yield site
    site.stop()


def strongroom(*arguments: object) -> tuple[int, str, str]:
    """The command, in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        unittest.mock.patch.object(sys, "argv", ["strongroom", *map(str, arguments)]),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


def told(*arguments: object) -> Any:
    code, out, err = strongroom(*arguments, "--output", "json")
    assert code == 0, (out, err)
    return json.loads(out)


def test_the_beginning_of_the_log_is_archived_and_everything_goes_on(site: VaultSite, tmp_path: Path) -> None:
    config, folder, key = site.config_file, site.folder / "archive", site.folder / "key"
    due = told("audit", "archive", "--config", config, "--dry-run")["due"]
    assert due["first"] == 0
    end = due["records"]
    assert end > 0
    assert list(folder.iterdir()) == []
    (archive,) = told("audit", "archive", "--config", config)["archived"]
    assert (archive["first"], archive["records"]) == (0, end)
    assert told("audit", "archive", "--config", config)["archived"] == []
    for more in ((), ("--dry-run",)):
        assert "nothing" in strongroom("audit", "archive", "--config", config, *more)[1]
    file = folder / archive["file"]

    # The rest, by the vault and by whoever has the database; everything, with the archive; the archive alone.
    with site.system() as system:
        asked = system.verify_audit()
        assert (asked.valid, asked.first_sequence) == (True, end)
        assert [record.sequence for record in system.audit_records(most=1)] == [end]
        # An assessor is told where the rest is.
        assert archive["sha256"] in system.compliance_report("pci-dss-4.0.1").report
    rest = told("audit", "verify", "--config", config)
    assert (rest["valid"], rest["first"]) == (True, end)
    whole = told("audit", "verify", "--config", config, "--archive", folder)
    assert (whole["valid"], whole["first"]) == (True, 0)
    assert whole["records"] >= rest["records"] + end
    for alone in (file, folder):
        found = told("audit", "verify", alone, "--key", key)
        assert (found["valid"], found["records"]) == (True, end)

    # What was archived is found and proven from the file.
    rows = told("audit", "search", "--archive", folder, "--tenant", "system", "--until", "300d")
    assert rows
    assert {row["tenant"] for row in rows} == {"system"}
    assert [row["sequence"] for row in rows] == sorted(row["sequence"] for row in rows)
    for sequence in range(end):
        proof = tmp_path / "proof"
        code, _, err = strongroom("audit", "prove", sequence, "--archive", folder, "--out", proof)
        assert code == 0, err
        assert told("audit", "verify-proof", proof, "--key", key)["sequence"] == sequence
    code, _, err = strongroom("audit", "prove", end, "--archive", folder)
    assert code != 0
    assert "no archive here holds this record" in err

    # An export of what is left, from either side, begins where the archive ends.
    exported = tmp_path / "rest.jsonl"
    assert strongroom("audit", "export", exported, "--config", config)[0] == 0
    found = told("audit", "verify", exported, "--key", key)
    assert (found["valid"], found["first"]) == (True, end)

    # The vault still serves, and starts again, by its anchor.
    site.stop()
    site.start()
    with site.client() as client, client.reveal("acme/plaid/x", purpose="test")[0] as found:
        assert found.text("value") == "secret"

    # A backup of such a database is one.
    backup = tmp_path / "backup"
    assert strongroom("backup", backup, "--config", config)[0] == 0
    assert told("restore", backup, "--config", config, "--verify-only")["valid"] is True

    # Tampering with the archive is found.
    file.write_bytes(file.read_bytes().replace(b'"tenant":"system"', b'"tenant":"systen"', 1))
    for arguments in ((folder, "--key", key), ("--config", config, "--archive", folder)):
        code, out, _ = strongroom("audit", "verify", *arguments, "--output", "json")
        assert code == 5
        assert any(archive["file"] in finding for finding in json.loads(out)["findings"])


def test_what_may_be_configured(site: VaultSite) -> None:
    text = site.config_file.read_text()
    other = site.folder / "other.toml"
    for changed, refused in (
        (text.replace('archive_folder = "archive"\n', ""), "audit.archive_folder"),
        (text.replace("[audit]", "[audit]\nretention_months = 11"), "retention_months"),
    ):
        other.write_text(changed)
        code, _, err = strongroom("audit", "archive", "--config", other)
        assert code != 0
        assert refused in err
