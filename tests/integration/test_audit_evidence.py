"""Evidence for somebody who does not trust the vault: exports and proofs, verified with nothing but public keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.integration.wire import until
from vault.client import AsyncClient, Client, Profile, StrongroomError
from vault.client.health import look
from vault.core.evidence import consistency_text, inclusion_text, verify_text
from vault.crypto import notes
from vault.crypto.approvals import Operation
from vault.crypto.errors import CryptoError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Postgres
    from tests.support.vault import VaultSite


def strongroom(*arguments: object, expect: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "vault.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def grow(system: Client, size: int) -> None:
    """Have the log hold at least so many records, all covered by a checkpoint."""
    while int(system.checkpoint().note.split("\n")[1]) < size:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: system.audit_records(most=1), range(size // 2)))


@pytest.fixture(scope="module")
def auditor(site: VaultSite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile file of somebody who may read the whole log."""
    file = tmp_path_factory.mktemp("auditor") / "auditor.toml"
    pki = site.folder / "pki"
    file.write_text(
        f'server = "{site.address}"\nca_file = "{pki}/ca.pem"\ncertificate_file = "{pki}/operator.pem"\n'
        f'private_key_file = "{pki}/operator-key.pem"\ntenant = "system"\n'
        'scopes = ["audit.read:system/audit", "audit.verify:system/audit"]\n'
    )
    return file


def test_an_export_verifies_without_the_vault_whichever_way_it_was_made(
    site: VaultSite, auditor: Path, tmp_path: Path
) -> None:
    by_rpc, by_database, key = tmp_path / "rpc.jsonl", tmp_path / "database.jsonl", tmp_path / "key"
    with site.system() as system:
        found = system.checkpoint()
    key.write_text(found.verifier_key + "\n")
    strongroom("audit", "export", by_rpc, "--profile", auditor)
    strongroom("audit", "export", by_database, "--config", site.config_file)
    for file in (by_rpc, by_database):
        assert not file.stat().st_mode & 0o007, "the log names people"
        report = json.loads(strongroom("audit", "verify", file, "--key", key, "-o", "json"))
        assert report["valid"], report
        assert report["records"] == report["signed_size"] >= 1
        assert report["checkpoints"] >= 1
    first = by_rpc.read_text().splitlines()
    assert json.loads(first[0])["verifier_keys"] == [found.verifier_key]
    # One record altered, and one left out: named.
    altered = [line.replace("create_tenant", "create_tenamt") for line in first]
    by_rpc.write_text("\n".join(altered) + "\n")
    said = strongroom("audit", "verify", by_rpc, "--key", key, expect=5)
    assert "the record was altered" in said
    by_rpc.write_text("\n".join(first[:3] + first[4:]) + "\n")
    assert "sequence 2: 1 records are missing" in strongroom(
        "audit", "verify", by_rpc, "--key", key, expect=5
    )
    by_rpc.write_text("\n".join(first[:-1]) + "\n")
    assert "it was cut" in strongroom("audit", "verify", by_rpc, "--key", key, expect=5)


def test_an_export_is_not_believed_on_its_own_word(site: VaultSite, tmp_path: Path) -> None:
    """Whoever makes a log anew can name a key of their own in its header."""
    file = tmp_path / "log.jsonl"
    strongroom("audit", "export", file, "--config", site.config_file)
    strongroom("audit", "verify", file, expect=2)
    stranger = "strongroom/audit+ad0bdcc7+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
    assert "no key vouches" in strongroom("audit", "verify", file, "--key", stranger, expect=5)


def test_the_database_verifies_by_its_configuration(site: VaultSite) -> None:
    report = json.loads(strongroom("audit", "verify", "--config", site.config_file, "-o", "json"))
    assert report["valid"], report
    assert report["anchors"] == 1, "it asks the anchors of the configuration"
    with site.system() as system:
        key = system.checkpoint().verifier_key
        assert system.verify_audit().anchors == 1
    again = strongroom(
        "audit", "verify", "--config", site.config_file, "--key", key, "--no-state", "-o", "json"
    )
    assert json.loads(again)["valid"]


def test_a_record_is_proved_to_be_in_the_log_and_the_proof_verifies_alone(
    site: VaultSite, auditor: Path, tmp_path: Path
) -> None:
    file = tmp_path / "record.tlog-proof"
    with site.system() as system:
        grow(system, 300)
        newest = system.checkpoint()
        size = int(newest.note.split("\n")[1])
        for sequence in (0, 1, 255, 256, size - 1):
            proof = system.inclusion_proof(sequence)
            row_size = proof.checkpoint.size
            assert proof.record.sequence == sequence < row_size
            from vault.cli.export import row_of

            text = inclusion_text(row_of(proof.record), proof.path, proof.checkpoint.note)
            proven = verify_text(text, [newest.verifier_key])
            assert proven.record is not None
            assert proven.record["sequence"] == sequence
            for broken in (
                text.replace("index ", "index 1"),
                text.replace(proof.checkpoint.note.split("\n")[2], "A" * 43 + "="),
                text.replace("extra ", "extra A"),
            ):
                with pytest.raises(CryptoError):
                    verify_text(broken, [newest.verifier_key])
    strongroom("audit", "prove", 256, "--profile", auditor, "--out", file)
    said = strongroom("audit", "verify-proof", file, "--key", newest.verifier_key)
    assert "sequence" in said
    assert "256" in said
    file.write_text(file.read_text().replace("index 256", "index 255"))
    strongroom("audit", "verify-proof", file, "--key", newest.verifier_key, expect=5)


def test_an_older_checkpoint_is_proved_to_be_the_beginning_of_a_newer(
    site: VaultSite, auditor: Path, tmp_path: Path
) -> None:
    with site.system() as system:
        old = system.checkpoint()
        old_size = int(old.note.split("\n")[1])
        system.audit_records(most=1)
        proof = system.consistency_proof(old_size)
        assert proof.checkpoint.size > old_size
        text = consistency_text(old_size, proof.path, proof.checkpoint.note)
        assert verify_text(text, [old.verifier_key], old_note=old.note).old_size == old_size
        with pytest.raises(CryptoError):
            verify_text(text, [old.verifier_key], old_note=proof.checkpoint.note)
        for sizes in ((old_size, old_size - 1), (10**9, 0), (old_size, 10**9)):
            with pytest.raises(StrongroomError) as caught:
                system.consistency_proof(sizes[0], size=sizes[1])
            assert caught.value.reason == "CHECKPOINT_NOT_FOUND"
        with pytest.raises(StrongroomError) as caught:
            system.inclusion_proof(10**9)
        assert caught.value.reason == "RECORD_NOT_FOUND"
    older, file = tmp_path / "old", tmp_path / "proof"
    older.write_text(old.note)
    strongroom("audit", "prove-consistency", old_size, "--profile", auditor, "--out", file)
    strongroom("audit", "verify-proof", file, "--key", old.verifier_key, "--old", older)
    strongroom("audit", "verify-proof", file, "--key", old.verifier_key, expect=5)


def test_a_tenant_proves_its_own_records_only(site: VaultSite) -> None:
    with site.client() as client, site.system() as system:
        client.put("acme/evidence/one", {"a": "b"}, kind="generic")
        (mine,) = system.audit_records(tenant="acme", resource="acme/evidence/one")[:1]
        with site.operator("acme") as acme, site.operator("globex") as globex:
            assert acme.inclusion_proof(mine.sequence).record == mine
            with pytest.raises(StrongroomError) as caught:
                globex.inclusion_proof(mine.sequence)
            with pytest.raises(StrongroomError) as absent:
                globex.inclusion_proof(10**9)
            assert (caught.value.reason, str(caught.value)) == (absent.value.reason, str(absent.value))


def test_every_checkpoint_is_listed_and_signed(site: VaultSite) -> None:
    with site.system() as system:
        key = system.checkpoint().verifier_key
        found = system.list_checkpoints()
    assert [item.size for item in found] == sorted({item.size for item in found})
    for item in found:
        assert notes.verify_checkpoint(item.note, [key]).size == item.size


def test_a_damaged_node_makes_no_false_proof(site: VaultSite) -> None:
    import sqlite3

    if not site.database_url.startswith("sqlite"):
        pytest.skip("the same code on both databases")
    with site.system() as system:
        grow(system, 300)
        file = site.folder / site.database_url.removeprefix("sqlite:///")
        damage = "UPDATE tree_nodes SET hash = {} WHERE level = 1 AND position = 0"
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            (kept,) = database.execute(
                "SELECT hash FROM tree_nodes WHERE level = 1 AND position = 0"
            ).fetchone()
            database.execute(damage.format("zeroblob(32)"))
        try:
            with pytest.raises(StrongroomError) as caught:
                system.inclusion_proof(300)
            assert caught.value.reason == "STORED_DATA_DAMAGED"
        finally:
            with contextlib.closing(sqlite3.connect(file)) as database, database:
                database.execute(damage.format("?"), (kept,))
        assert system.inclusion_proof(300).path


def test_a_call_of_a_method_that_there_is_not_is_refused_and_recorded(site: VaultSite) -> None:
    import grpc

    profile = site.profile("payments")
    with grpc.secure_channel(profile.server, profile.channel_credentials()) as channel:
        for method in ("/vault.v1.CredentialService/Steal", "/vault.v9.Unheard/Of", "/x/y"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(b"canary-in-the-body", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with site.system() as system:
        found = system.audit_records(action="rpc.unknown")
    assert len(found) == 3
    assert {(record.reason, record.identity.rpartition("/")[2], record.resource) for record in found} == {
        ("METHOD_UNKNOWN", "payments", "")
    }


def test_over_a_damaged_record_nothing_is_signed_until_people_accept_that_it_is_lost(
    fresh_site: VaultSite, postgres: Postgres
) -> None:
    """One bit: refused, an alarm that leaves the vault at work, and a way on that is seen for ever."""
    site = fresh_site
    with (site.folder / "policy.cedar").open("a") as policy:
        policy.write('permit (principal, action, resource) when { resource.tenant == "system" };\n')
    site.start()
    recover = ("database.recover:system/audit", "approval.approve:system/**", "audit.read:system/audit")
    made = {
        name: Client(site.profile(name, "system", recover)) for name in ("operator", "payments", "ledger")
    }
    with site.system() as system:
        system.create_tenant("acme")
        before = system.checkpoint()
        sequence = int(before.note.split("\n")[1])
        system.audit_records(most=1)
        database = site.database_url.rpartition("/")[2]
        kept = postgres.sql(database, f"SELECT user_id FROM audit_records WHERE sequence = {sequence}")
        spoil = "UPDATE audit_records SET user_id = '{}' WHERE sequence = {}"
        postgres.sql(database, spoil.format(kept[:-1] + chr(ord(kept[-1]) ^ 1), sequence))
        for _ in range(2):
            with pytest.raises(StrongroomError) as caught:
                system.checkpoint()
            assert caught.value.reason == "STORED_DATA_DAMAGED"
        seen = until(lambda: (found := look(site.profile("operator"))).alarms and found)
        assert seen.ready
        assert f"checkpoints: sequence {sequence}: the record was altered" in seen.alarms
        assert "the log does not verify; not signed" in site.log()
        wanted = Operation("database.recover", "system/audit", {"sequence": str(sequence)})
        with pytest.raises(StrongroomError) as caught:
            made["operator"].accept_audit_loss(sequence, "")
        assert caught.value.reason == "APPROVAL_REQUIRED"
        approval = made["operator"].request_approval(wanted, purpose="a disk lost a bit")
        for name in ("payments", "ledger"):
            made[name].approve(approval)
        checkpoint = made["operator"].accept_audit_loss(sequence, approval.approval_id)
        assert checkpoint.size > sequence
        report = system.verify_audit()
        assert report.valid, report.findings
        (accepted,) = report.accepted
        assert accepted.startswith(f"sequence {sequence}: its content is lost; ")
        until(lambda: look(site.profile("operator")).alarms == "")
        # What was accepted is that leaf and no other: another change of the same record is a finding.
        postgres.sql(
            database, f"UPDATE audit_records SET leaf_hash = '\\x{'00' * 32}' WHERE sequence = {sequence}"
        )
        assert not system.verify_audit().valid
    for client in made.values():
        client.close()


async def test_both_sdks_and_the_command_are_given_the_same_verdict(site: VaultSite, auditor: Path) -> None:
    shown = json.loads(strongroom("audit", "verify", "--profile", auditor, "--output", "json"))
    async with AsyncClient(Profile.load(auditor)) as client:
        asked = await client.verify_audit()
        with site.system() as system:
            again = await asyncio.to_thread(system.verify_audit)
    assert shown["valid"] is asked.valid is again.valid is True
    assert int(shown["records"]) < asked.records < again.records, "each verdict is recorded"
