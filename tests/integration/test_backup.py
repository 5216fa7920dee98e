"""Backup and restore, as an operator does them: on a running vault, into an empty database, on either database."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import unittest.mock
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.vault import VaultSite
from vault.cli.main import main
from vault.cli.server import migrate_database
from vault.store import backup as store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.postgres import Postgres


COMMAND, PIPE = (sys.executable, "-m", "vault.cli"), subprocess.PIPE


def strongroom(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The command, in this process, which saves the time that an interpreter takes to start."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = ["strongroom", *arguments, "--output", "json"]
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        unittest.mock.patch.object(sys, "argv", argv),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    text = out.getvalue()
    return code, json.loads(text) if text else {"error": err.getvalue()}


@pytest.fixture
def new_url(postgres: Postgres) -> Callable[[str, Path], str]:
    """An empty database of a kind: its URL."""

    def make(kind: str, folder: Path) -> str:
        if kind == "sqlite":
            return f"sqlite:///{folder}/{secrets.token_hex(4)}.db"
        return postgres.create_database(f"restored_{secrets.token_hex(6)}")

    return make


def made(softhsm: tuple[str, Path], folder: Path, url: str) -> VaultSite:
    site = VaultSite(folder, url, softhsm[0], softhsm[1])
    site.prepare()
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    return site


def moved(site: VaultSite, url: str) -> VaultSite:
    """The same vault with another database, and an anchor of its own."""
    other = dataclasses.replace(
        site,
        database_url=url,
        process=None,
        settings={
            "audit": {"checkpoint_seconds": 3600.0, "anchor_file": f"anchor-{secrets.token_hex(4)}.txt"}
        },
    )
    other.write_config()
    return other


def start_elsewhere(site: VaultSite) -> None:
    """Start a vault that was moved: its anchor is new, which somebody has to say."""
    code, said = strongroom("audit", "begin-anchors", "--config", str(site.config_file))
    assert code == 0, said
    site.start()


def tables_of(url: str, postgres: Postgres) -> list[str]:
    if url.startswith("sqlite:///"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    listing = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return postgres.sql(url.rpartition("/")[2], listing).split()


def verifier_key(site: VaultSite) -> str:
    with site.system() as system:
        return system.checkpoint().verifier_key


@pytest.mark.parametrize(("source", "target"), [("postgresql", "postgresql"), ("sqlite", "postgresql")])
def test_a_vault_is_restored_from_a_backup_made_while_it_was_written_to(
    softhsm: tuple[str, Path],
    tmp_path: Path,
    new_url: Callable[[str, Path], str],
    source: str,
    target: str,
) -> None:
    site = made(softhsm, tmp_path / "vault", new_url(source, tmp_path))
    file = tmp_path / "vault.backup"
    try:
        with site.client() as vault:
            for number in range(30):
                vault.put(f"acme/keys/{number}", {"key": f"value {number}"}, kind="generic")
            vault.delete("acme/keys/29")
            stop = threading.Event()

            def write_on() -> None:
                while not stop.is_set():
                    vault.put("acme/busy", {"key": "x" * 200}, kind="generic")

            writer = threading.Thread(target=write_on)
            writer.start()
            code, written = strongroom("backup", str(file), "--config", str(site.config_file))
            stop.set()
            writer.join()
        assert code == 0, written
        assert file.stat().st_mode & 0o777 == 0o600
        key = verifier_key(site)
    finally:
        site.stop()

    # Without the HSM: whole, and signed by this vault.
    code, structure = strongroom("restore", str(file), "--verify-only", "--key", key)
    assert (code, structure["valid"], structure["log_root"]) == (0, True, written["log_root"])
    # With the HSM, and without leaving anything.
    code, content = strongroom(
        "restore", str(file), "--verify-only", "--all", "--config", str(site.config_file)
    )
    assert code == 0, content
    assert content["versions_opened"] == written["rows"]["credential_versions"]
    assert content["records_verified"] == written["log_size"]

    other = moved(site, new_url(target, tmp_path))
    code, restored = strongroom("restore", str(file), "--all", "--config", str(other.config_file))
    assert code == 0, restored
    code, _ = strongroom("restore", str(file), "--config", str(other.config_file))
    assert code == 78, "only an empty database is restored into"
    start_elsewhere(other)
    try:
        with other.client() as vault:
            with vault.reveal("acme/keys/7", purpose="drill")[0] as found:
                assert found.text("key") == "value 7"
            vault.put("acme/new", {"key": "after"}, kind="generic")
            vault.undelete("acme/keys/29")
        with other.system() as system:
            report = system.verify_audit()
        assert report.valid, list(report.findings)
    finally:
        other.stop()


def test_a_backup_that_was_altered_anywhere_is_refused_without_the_hsm_and_with_it(
    softhsm: tuple[str, Path], tmp_path: Path, new_url: Callable[[str, Path], str], postgres: Postgres
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    from vault.core.backup import check
    from vault.crypto import notes
    from vault.crypto.errors import CryptoError

    site = made(softhsm, tmp_path / "vault", new_url("sqlite", tmp_path))
    try:
        with site.client() as vault:
            for number in range(20):
                vault.put(f"acme/keys/{number}", {"key": secrets.token_hex(8000)}, kind="generic")
        files = [tmp_path / "one.backup", tmp_path / "two.backup"]
        for file in files:
            code, written = strongroom("backup", str(file), "--config", str(site.config_file))
            assert code == 0, written
        key = verifier_key(site)
    finally:
        site.stop()
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(CryptoError), files[0].open("rb") as opened:
        check(opened, [notes.verifier_key("strongroom/audit", spki)])
    content, other = (file.read_bytes() for file in files)
    with files[0].open("rb") as opened:
        check(opened, [key])
    head = 22 + int.from_bytes(content[18:22], "big")
    first = 4 + (int.from_bytes(content[head : head + 4], "big") & ~(1 << 31))
    assert len(content) > 2 * first, "several chunks"
    other_head = 22 + int.from_bytes(other[18:22], "big")
    altered = {
        "a bit of a chunk": content[: head + 50] + bytes((content[head + 50] ^ 1,)) + content[head + 51 :],
        "a bit of the wrapped key": content[: head - 4] + b"0" + content[head - 3 :]
        if content[head - 4 : head - 3] != b"0"
        else content[: head - 4] + b"1" + content[head - 3 :],
        "a chunk less": content[:head] + content[head + first :],
        "chunks swapped": content[:head]
        + content[head + first : head + 2 * first]
        + content[head : head + first]
        + content[head + 2 * first :],
        "a chunk of another backup": content[:head]
        + other[other_head : other_head + first]
        + content[head + first :],
        "another backup's header": other[:other_head] + content[head:],
        "its end cut": content[:-200],
        "nothing but a header": content[:head],
        "something behind it": content + b"\0",
        "the last mark set early": content[:head]
        + (int.from_bytes(content[head : head + 4], "big") | 1 << 31).to_bytes(4, "big")
        + content[head + 4 :],
        "nothing": b"",
    }
    for what, bad in altered.items():
        file = tmp_path / "bad.backup"
        file.write_bytes(bad)
        with pytest.raises(CryptoError), file.open("rb") as opened:
            check(opened, [key])
            pytest.fail(what)
    # The HSM is no way around it: nothing of it is restored, not even a table, also if all but the manifest is right.
    manifest = content.index(b"strongroom/backup/v1")
    other_manifest = other.index(b"strongroom/backup/v1")
    last_of_signature = content.rindex(b"\n") - 10
    of_the_manifest = {
        "another backup's manifest": content[: manifest - 4] + other[other_manifest - 4 :],
        "a manifest that counts otherwise": content.replace(b'"credentials":20', b'"credentials":19'),
        "a signature altered": content[:last_of_signature]
        + (b"A" if content[last_of_signature : last_of_signature + 1] != b"A" else b"B")
        + content[last_of_signature + 1 :],
        "something behind it": altered["something behind it"],
    }
    empty = new_url("sqlite", tmp_path), new_url("postgresql", tmp_path)
    for url, what, bad in (
        (empty[0], "chunks swapped", altered["chunks swapped"]),
        *((url, *of_the_manifest.popitem()) for url in (*empty, *empty)),
    ):
        assert bad != content, what
        file.write_bytes(bad)
        target = moved(site, url)
        code, refused = strongroom("restore", str(file), "--config", str(target.config_file))
        assert (code, refused["valid"]) == (5, False), what
        assert tables_of(url, postgres) == [], what
    # A newer backup that lends keys is held to the same, before anything is restored.
    code, refused = strongroom(
        "restore", str(files[0]), "--subjects-from", str(file), "--config", str(target.config_file)
    )
    assert (code, refused["valid"], tables_of(url, postgres)) == (5, False, [])
    # So is a backup that is by another key than the one that is asked for.
    foreign = tmp_path / "foreign.vkey"
    foreign.write_text(notes.verifier_key("strongroom/audit", spki))
    code, refused = strongroom(
        "restore", str(files[0]), "--key", str(foreign), "--config", str(target.config_file)
    )
    assert (code, refused["valid"], tables_of(url, postgres)) == (5, False, [])
    code, after = strongroom("restore", str(files[0]), "--config", str(target.config_file))
    assert code == 0, after


def test_a_backup_of_an_older_version_is_brought_up_to_date_and_a_foreign_table_is_in_the_way(
    softhsm: tuple[str, Path], tmp_path: Path, new_url: Callable[[str, Path], str], postgres: Postgres
) -> None:
    site = made(softhsm, tmp_path / "vault", new_url("sqlite", tmp_path))
    site.stop()
    file = tmp_path / "older.backup"
    newest = store.tables

    async def without_the_newest_column(connection: Any) -> Any:
        async for table in newest(connection):
            yield table._replace(columns=[name for name in table.columns if name != "document"])

    with (
        unittest.mock.patch("vault.core.backup.wanted_revision", return_value="0026"),
        unittest.mock.patch("vault.store.backup.tables", without_the_newest_column),
    ):
        code, written = strongroom("backup", str(file), "--config", str(site.config_file))
        assert (code, written.get("schema")) == (0, "0026"), written
    url = new_url("postgresql", tmp_path)
    target = moved(site, url)
    asyncio.run(migrate_database(target.config_file))
    code, refused = strongroom("restore", str(file), "--config", str(target.config_file))
    assert code == 78
    assert "of another version" in refused["error"]

    target = moved(site, new_url("postgresql", tmp_path))
    code, restored = strongroom("restore", str(file), "--all", "--config", str(target.config_file))
    assert (code, restored.get("findings")) == (0, []), restored
    start_elsewhere(target)
    target.stop()


def test_killed_in_the_middle_a_backup_is_seen_to_be_none_and_a_restore_leaves_nothing(
    softhsm: tuple[str, Path], tmp_path: Path, new_url: Callable[[str, Path], str]
) -> None:
    site = made(softhsm, tmp_path / "vault", new_url("postgresql", tmp_path))
    whole, part = tmp_path / "whole.backup", tmp_path / "part.backup"
    try:
        with site.client() as vault:
            for number in range(20):
                vault.put(f"acme/keys/{number}", {"key": secrets.token_hex(16_000)}, kind="generic")
        code, written = strongroom("backup", str(whole), "--config", str(site.config_file))
        assert code == 0, written
        key = verifier_key(site)
        # It writes into a pipe that nobody empties: so it is in the middle when it is killed.
        writing = subprocess.Popen([*COMMAND, "backup", "-", "--config", str(site.config_file)], stdout=PIPE)
        assert writing.stdout is not None
        with writing.stdout as pipe:
            begun = pipe.read(100_000)
            writing.kill()
            part.write_bytes(begun + pipe.read())
        assert writing.wait() == -signal.SIGKILL
    finally:
        site.stop()
    assert 100_000 <= part.stat().st_size < whole.stat().st_size
    assert strongroom("restore", str(part), "--verify-only", "--key", key)[0] == 5

    other = moved(site, new_url("postgresql", tmp_path))
    assert strongroom("restore", str(part), "--config", str(other.config_file))[0] == 5
    reading = subprocess.Popen([*COMMAND, "restore", "-", "--config", str(other.config_file)], stdin=PIPE)
    assert reading.stdin is not None
    # More than a pipe holds: when it is gone, most of it has been read.
    reading.stdin.write(whole.read_bytes()[:-1000])
    reading.kill()
    assert reading.wait() == -signal.SIGKILL
    with contextlib.suppress(BrokenPipeError):
        reading.stdin.close()
    code, restored = strongroom("restore", str(whole), "--all", "--config", str(other.config_file))
    assert (code, restored.get("findings")) == (0, []), restored
    assert restored["versions_opened"] == 20
