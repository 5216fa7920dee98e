"""A database that was set back is served only when enough people have signed for what is lost."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_backup import made, new_url, strongroom
from tests.integration.wire import until
from tests.support.vault import VaultSite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["new_url"]


def sign(site: VaultSite, statement: Path, name: str) -> int:
    pki = site.folder / "pki"
    profile = site.folder / f"{name}.toml"
    profile.write_text(
        f'server = "{site.address}"\nca_file = "{pki}/ca.pem"\ncertificate_file = "{pki}/{name}.pem"\n'
        f'private_key_file = "{pki}/{name}-key.pem"\ntenant = "system"\n'
    )
    return strongroom("approval", "sign", str(statement), "--yes", "--profile", str(profile))[0]


def copy_database(source: Path, target: Path) -> None:
    """By SQLite itself: what is not yet in the file stands in its write-ahead log."""
    with (
        contextlib.closing(sqlite3.connect(source)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)


def test_a_database_that_was_set_back_is_served_after_enough_people_signed_for_what_is_lost(
    softhsm: tuple[str, Path], tmp_path: Path, new_url: Callable[[str, Path], str]
) -> None:
    site = made(softhsm, tmp_path / "vault", new_url("sqlite", tmp_path))
    (database,) = tmp_path.glob("*.db")
    config = str(site.config_file)
    with site.client() as vault:
        vault.put("acme/kept", {"key": "kept"}, kind="generic")
    site.stop()
    old = tmp_path / "old.copy"
    copy_database(database, old)
    site.start()
    with site.client() as vault:
        vault.put("acme/lost", {"key": "lost"}, kind="generic")
    site.stop()
    anchored = (site.folder / "anchor.txt").read_text()
    copy_database(old, database)

    with pytest.raises(RuntimeError, match="rolled back or truncated"):
        site.start()
    statement = tmp_path / "statement.json"
    code, said = strongroom("recover", str(statement), "--config", config)
    assert code == 78, "nobody may approve"
    assert "recovery_certificates" in said["error"]

    pinned = ["pki/payments.pem", "pki/ledger.pem"]
    site.write_config(approvals={"recovery_certificates": pinned})
    code, said = strongroom("recover", str(statement), "--config", config)
    assert code == 0, said
    assert said["lost"][0]["size"] == int(anchored.split("\n")[1])

    accept = ("recover", str(statement), "--approved", "--config", config)
    assert strongroom(*accept)[0] == 78, "unsigned"
    for name in ("payments", "payments", "operator"):
        assert sign(site, statement, name) == 0
    code, refused = strongroom(*accept)
    assert code == 78
    assert "1 of 2" in refused["error"], "one person counts once, and who is not named not at all"
    other = json.loads(statement.read_text())
    sign(site, statement, "ledger")
    forged = json.loads(statement.read_text())
    statement.write_text(json.dumps({**forged, "database_size": forged["database_size"] - 1}))
    assert strongroom(*accept)[0] == 78, "signed for another database"
    statement.write_text(json.dumps(forged))
    code, done = strongroom(*accept)
    assert code == 0, done
    assert len(done["approved_by"]) == 2
    assert (site.folder / f"anchor.txt.lost-{said['lost'][0]['size']}").read_text() == anchored
    assert len(other["signatures"]) == 3

    site.start()
    try:
        with site.client() as vault, vault.reveal("acme/kept", purpose="test")[0] as found:
            assert found.text("key") == "kept"
        with site.system() as system:
            (record,) = system.audit_records(action="database.recover")
            assert json.loads(record.after_state)["lost"] == said["lost"]
            report = system.verify_audit()
            assert report.valid, list(report.findings)
    finally:
        site.stop()
    assert strongroom("recover", str(tmp_path / "again.json"), "--config", config)[0] == 78, (
        "nothing to recover"
    )

    # Set back once more, to before the recovery: what was signed then excuses nothing now.
    copy_database(old, database)
    with pytest.raises(RuntimeError, match="rolled back or truncated"):
        site.start()


def test_a_record_of_a_recovery_that_nobody_signed_excuses_nothing() -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding

    from tests.support.certificates import self_signed
    from vault.clock import SystemClock
    from vault.core import recovery
    from vault.crypto import merkle
    from vault.errors import StartError
    from vault.store.ledger import Head

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    pems = [self_signed(key, f"approver {number}") for number, key in enumerate(keys)]
    ders = tuple(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in pems)
    trusted = recovery.Recovery(ders[:2], 2)
    lost = [recovery.Lost("anchor", 9, bytes(32))]
    made_ = recovery.statement(Head(0, merkle.EMPTY), lost, SystemClock().now())
    good = recovery.sign(recovery.sign(made_, pems[0], keys[0]), pems[1], keys[1])
    assert len(trusted.check(good)) == 2
    stranger = recovery.sign(recovery.sign(made_, pems[0], keys[0]), pems[2], keys[2])
    borrowed = recovery.sign(recovery.sign(made_, pems[0], keys[0]), pems[1], keys[2])
    flipped = json.loads(json.dumps(good))
    flipped["signatures"][0]["signature"] = base64.b64encode(bytes(70)).decode()
    for bad in (
        made_,
        stranger,
        borrowed,
        flipped,
        {**good, "lost": [{"name": "anchor", "size": 10, "root": "00" * 32}]},
        {**good, "database_root": "00" * 32},
        {**good, "approval_id": "A" * 22},
        {**good, "expire_time": "2030-01-01T00:00:00+00:00"},
        {**good, "signatures": [{}]},
        {"signatures": []},
    ):
        with pytest.raises(StartError):
            trusted.check(bad)


def test_an_anchor_that_is_lost_stops_the_start_until_somebody_says_that_it_is_new(
    softhsm: tuple[str, Path], tmp_path: Path, new_url: Callable[[str, Path], str]
) -> None:
    site = made(softhsm, tmp_path / "vault", new_url("sqlite", tmp_path))
    (database,) = tmp_path.glob("*.db")
    with site.system() as system:
        system.checkpoint()
    site.stop()
    anchors = site.folder / "anchors"
    anchors.mkdir()
    anchor, directory = anchors / "newest.txt", site.folder / "all"
    (site.folder / "anchor.txt").rename(anchor)
    site.settings = {"audit": {"anchor_file": "anchors/newest.txt", "checkpoint_seconds": 3600.0}}
    site.write_config()
    config = str(site.config_file)
    begin = ("audit", "begin-anchors", "--config", config)
    old = tmp_path / "old.copy"
    copy_database(database, old)
    code, said = strongroom(*begin)
    assert code == 78, "nothing is new"
    assert "holds a checkpoint already" in said["error"]
    site.start()
    with site.client() as vault:
        vault.put("acme/lost", {"key": "lost"}, kind="generic")
    site.stop()

    # What would tell that the database was set back is not there: nobody serves it, nor signs over what is lost.
    newer = anchor.read_text()
    copy_database(old, database)
    anchor.unlink()
    with pytest.raises(RuntimeError, match=r"newest\.txt: it holds no checkpoint.* begin-anchors"):
        site.start()
    assert strongroom("backup", str(tmp_path / "x.backup"), "--config", config)[0] == 78
    assert not anchor.exists()
    anchor.mkdir()  # as good as a file that cannot be read, for whoever may read all
    with pytest.raises(RuntimeError, match=r"newest\.txt: it cannot be read.* no start without it"):
        site.start()
    anchor.rmdir()
    anchors.rename(site.folder / "unmounted")
    with pytest.raises(RuntimeError, match=r"newest\.txt: its folder is not there"):
        site.start()
    code, said = strongroom(*begin)
    assert code == 78, "what cannot be asked is not new"
    assert "is it mounted?" in said["error"]

    # Back, it tells.
    (site.folder / "unmounted").rename(anchors)
    anchor.write_text(newer)
    with pytest.raises(RuntimeError, match="rolled back or truncated"):
        site.start()

    # A new one is begun by who says so, on the record; it does not make another that knows more be forgotten.
    directory.mkdir()
    lines = site.config_file.read_text()
    site.config_file.write_text(f'{lines}[[audit.anchors]]\nkind = "directory"\npath = "all"\n')
    code, said = strongroom(*begin)
    assert code == 78
    assert "rolled back or truncated" in said["error"]
    anchor.unlink()
    code, said = strongroom(*begin)
    assert (code, len(said["begun"])) == (0, 2), said
    assert [anchor.read_text()] == [file.read_text() for file in directory.glob("*.checkpoint")]
    site.start()
    try:
        with site.system() as system:
            (record,) = system.audit_records(action="audit.begin_anchors")
            assert json.loads(record.after_state) == {"anchors": said["begun"]}
            report = system.verify_audit()
            assert (report.valid, report.anchors) == (True, 2)
    finally:
        site.stop()


def test_a_new_log_needs_no_anchor_yet_even_if_its_first_worker_was_killed_before_it_told_any(
    softhsm: tuple[str, Path], tmp_path: Path, new_url: Callable[[str, Path], str]
) -> None:
    site = VaultSite(tmp_path / "vault", new_url("sqlite", tmp_path), *softhsm)
    site.settings = {"audit": {"anchor_file": "later/anchor.txt", "checkpoint_seconds": 3600.0}}
    site.prepare()
    with pytest.raises(RuntimeError, match="its folder is not there"):
        site.start()
    (site.folder / "later").mkdir()
    anchor = site.folder / "later/anchor.txt"
    for _ in range(2):
        site.start()
        until(anchor.exists)
        assert site.process is not None
        for process in (site.process.pid, *site.worker_pids()):
            os.kill(process, signal.SIGKILL)
        site.process.wait()
        anchor.unlink()
    site.start()
    until(anchor.exists)
    with site.system() as system:
        system.create_tenant("acme")
    site.stop()
    anchor.unlink()
    with pytest.raises(RuntimeError, match="holds no checkpoint"):
        site.start()
