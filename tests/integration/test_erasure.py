"""Crypto-shredding, on real keys: what was erased opens nowhere, not from a backup either; all else opens as before."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.test_audit_evidence import strongroom as by_command
from tests.integration.test_backup import made, moved, new_url, start_elsewhere, strongroom, verifier_key
from tests.integration.test_policy import profile_file
from vault.client import Client, SessionClosedError, StrongroomError
from vault.crypto.approvals import Operation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.vault import VaultSite

__all__ = ["new_url"]

MORE = 'permit (principal, action, resource) when { resource.tenant == "system" };\n'
JANE, JOHN = "jane.doe@example.com", "john.roe@example.com"
SCOPES = {
    "acme": ("tenant.delete:acme/subjects", "approval.approve:acme/subjects"),
    "system": ("tenant.delete:system/tenants/acme", "approval.approve:system/tenants/acme"),
}

HOOKS = ("webhook.manage:acme/webhooks",)


def client(site: VaultSite, name: str, tenant: str) -> Client:
    return Client(site.profile(name, tenant, SCOPES[tenant]), timeout=60)


def erase(site: VaultSite, subject: str = "") -> str:
    """As three people do it: one asks, two approve, the one who asked erases."""
    tenant = "acme" if subject else "system"
    with (
        client(site, "operator", tenant) as asking,
        client(site, "payments", tenant) as first,
        client(site, "ledger", tenant) as second,
    ):
        found = asking.describe_erasure("acme", subject)
        operation = Operation(found.action, found.resource, dict(found.arguments))
        approval = asking.request_approval(operation, purpose="article 17")
        with pytest.raises(StrongroomError, match="APPROVAL_REQUIRED"):
            asking.erase("acme", subject, approval_id=approval.approval_id)
        first.approve(approval)
        second.approve(approval)
        certificate = asking.erase("acme", subject, approval_id=approval.approval_id)
        assert asking.erase("acme", subject) == certificate, "the same answer, without another approval"
        return certificate


def says(certificate: str) -> dict[str, Any]:
    return json.loads(certificate.split("\n")[1])


def opens(site: VaultSite, name: str, value: str, version: int = 0) -> None:
    with site.client() as vault, vault.session(name, purpose="test") as session, session.reveal() as found:
        assert found.text("key") == value
        assert version in (0, found.version)


def refuses(site: VaultSite, name: str, *reasons: str) -> None:
    with site.client() as vault, pytest.raises(StrongroomError) as refused:
        vault.reveal(name, purpose="test")
    assert refused.value.reason in reasons


@pytest.mark.parametrize("kind", ["postgresql"])
def test_one_person_is_erased_everywhere_and_the_others_are_not(
    softhsm: tuple[str, Path], tmp_path: Path, new_url: Callable[[str, Path], str], kind: str
) -> None:
    site = made(softhsm, tmp_path / "vault", new_url(kind, tmp_path))
    before, after = tmp_path / "before.backup", tmp_path / "after.backup"
    try:
        with site.client() as vault:
            for person, short in ((JANE, "one"), (JOHN, "two")):
                for number in range(3):
                    name = f"acme/customers/{short}-{number}"
                    vault.put(name, {"key": f"{short} {number} old"}, kind="generic", subject=person)
                    vault.put(name, {"key": f"{short} {number}"}, kind="generic")
            vault.put("acme/house/stripe", {"key": "house"}, kind="generic")
            assert strongroom("backup", str(before), "--config", str(site.config_file))[0] == 0
            with (
                pytest.raises(SessionClosedError),
                vault.session("acme/customers/one-0", purpose="test") as session,
            ):
                certificate = erase(site, JANE)
                while True:
                    session.reveal().close()
        for number in range(3):
            refuses(site, f"acme/customers/one-{number}", "CREDENTIAL_DELETED", "VERSION_DESTROYED")
            opens(site, f"acme/customers/two-{number}", f"two {number}")
        opens(site, "acme/house/stripe", "house")

        content = says(certificate)
        assert (content["erased"], content["credentials"], content["versions"]) == ("subject", 3, 6)
        assert (content["tried"] >= 7, content["opened"]) == (True, 0)
        assert len(content["approved_by"]) == 2
        assert content["keys_destroyed"][0]["purpose"] == "subject"
        assert "jane" not in certificate

        # Who comes back gets a new key; what was before stays gone.
        with site.client() as vault:
            vault.undelete("acme/customers/one-0")
            with pytest.raises(StrongroomError, match="subject"):
                vault.put("acme/customers/one-0", {"key": "again"}, kind="generic")
            vault.put("acme/customers/one-0", {"key": "again"}, kind="generic", subject=JANE)
        opens(site, "acme/customers/one-0", "again", version=3)

        with site.system() as system:
            report = system.verify_audit()
            assert report.valid, list(report.findings)
            (record,) = system.audit_records(action="subject.erased")
            assert record.after_state == json.dumps(
                {"certificate": hashlib.sha256(certificate.encode()).hexdigest()}, separators=(",", ":")
            )
            assert not any("jane" in str(item) for item in system.audit_records(most=1000)), (
                "the log does not name the person either"
            )
        key = verifier_key(site)
        auditor = profile_file(site, "operator", tmp_path, "system", ["audit.read:system/audit"])
        for sequence in (record.sequence, record.sequence - 1):
            proof = tmp_path / f"proof-{record.sequence - sequence}"
            by_command("audit", "prove", sequence, "--out", proof, "--profile", auditor)
        assert strongroom("backup", str(after), "--config", str(site.config_file))[0] == 0
    finally:
        site.stop()

    file = tmp_path / "certificate"
    file.write_text(certificate)
    verified = ("erasure", "verify", str(file), "--key", key)
    assert strongroom(*verified)[0] == 0
    code, said = strongroom(*verified, "--proof", str(tmp_path / "proof-0"))
    assert (code, said["in_log_at"]) == (0, record.sequence)
    code, said = strongroom(*verified, "--proof", str(tmp_path / "proof-1"))
    assert (code, said["valid"]) == (5, False)
    assert "audit search --action subject.erased" in said["finding"], "and how to find the right one"
    file.write_text(certificate.replace('"versions":6', '"versions":7'))
    assert strongroom("erasure", "verify", str(file), "--key", key)[0] == 5

    # The backup from before, with the very HSM of the vault: whole, and dead for what was shredded.
    other = moved(site, new_url("sqlite", tmp_path))
    code, restored = strongroom("restore", str(before), "--all", "--config", str(other.config_file))
    assert code == 5
    assert restored["findings"] == []
    assert restored["versions_not_opened"] == {"HSM_UNAVAILABLE": 12}
    start_elsewhere(other)
    try:
        for number in range(3):
            refuses(other, f"acme/customers/one-{number}", "HSM_UNAVAILABLE")
        opens(other, "acme/house/stripe", "house")
    finally:
        other.stop()
    # With what a newer backup knows of the keys, those who stayed open again, and who was erased does not.
    code, both = strongroom(
        "restore", str(before), "--verify-only", "--all", "--subjects-from", str(after),
        "--config", str(site.config_file),
    )  # fmt: skip
    assert (code, both["findings"]) == (0, [])
    assert (both["versions_opened"], both["versions_not_opened"]) == (7, {"VERSION_DESTROYED": 6})
    code, later = strongroom(
        "restore", str(after), "--verify-only", "--all", "--config", str(site.config_file)
    )
    assert (code, later["versions_opened"]) == (0, 8)


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_tenant_is_erased_whole_and_its_name_is_not_given_again(
    softhsm: tuple[str, Path], tmp_path: Path, new_url: Callable[[str, Path], str], kind: str
) -> None:
    site = made(softhsm, tmp_path / "vault", new_url(kind, tmp_path))
    before = tmp_path / "before.backup"
    try:
        site.stop()
        with (site.folder / "policy.cedar").open("a") as policy:
            policy.write(MORE)
        site.start()
        with site.client() as vault, site.operator() as operator, site.system() as system:
            system.create_tenant("globex")
            vault.put("acme/a", {"key": "one"}, kind="generic", subject=JANE)
            operator.rotate_key("acme")
            vault.put("acme/b", {"key": "two"}, kind="generic")
            with site.client(
                scopes=(*HOOKS, "credential.write:acme/hook", "credential.read:acme/hook")
            ) as owner:
                secret = "whsec_" + base64.b64encode(bytes(32)).decode()
                owner.put("acme/hook", {"signing_secret": secret}, kind="webhook_endpoint")
                url = "https://hooks.example/vault"
                owner.create_webhook_endpoint(url, ("credential.deleted",), credential="acme/hook")
            assert strongroom("backup", str(before), "--config", str(site.config_file))[0] == 0
            content = says(erase(site))
            assert {(key["purpose"], key["version"]) for key in content["keys_destroyed"]} == {
                ("kek", 1), ("kek", 2), ("subject", 1),
            }  # fmt: skip
            assert (content["credentials"], content["versions"], content["tried"]) == (3, 3, 3)
            refuses(site, "acme/a", "CREDENTIAL_DELETED")
            with site.client(scopes=HOOKS) as owner:
                assert not owner.list_webhook_endpoints(), "nobody could sign for it"
            with pytest.raises(StrongroomError, match="TENANT_NOT_FOUND"):
                vault.put("acme/c", {"key": "x"}, kind="generic")
            with pytest.raises(StrongroomError, match="TENANT_NOT_FOUND"):
                operator.rotate_key("acme")
            with pytest.raises(StrongroomError, match="TENANT_EXISTS"):
                system.create_tenant("acme")
            report = system.verify_audit()
            assert report.valid, list(report.findings)
        with site.client("globex", "globex") as globex:
            globex.put("globex/a", {"key": "untouched"}, kind="generic")
    finally:
        site.stop()
    code, content = strongroom(
        "restore", str(before), "--verify-only", "--all", "--config", str(site.config_file)
    )
    assert (code, content["versions_opened"]) == (5, 0)


def test_an_approval_for_one_person_erases_no_other(
    softhsm: tuple[str, Path], tmp_path: Path, new_url: Callable[[str, Path], str]
) -> None:
    site = made(softhsm, tmp_path / "vault", new_url("sqlite", tmp_path))
    try:
        with (
            site.client() as vault,
            client(site, "operator", "acme") as asking,
            client(site, "payments", "acme") as first,
            client(site, "ledger", "acme") as second,
        ):
            vault.put("acme/a", {"key": "one"}, kind="generic", subject=JANE)
            vault.put("acme/b", {"key": "two"}, kind="generic", subject=JOHN)
            found = asking.describe_erasure("acme", JANE)
            assert (found.credentials, found.versions) == (1, 1)
            approval = asking.request_approval(
                Operation(found.action, found.resource, dict(found.arguments)), purpose="article 17"
            )
            first.approve(approval)
            second.approve(approval)
            with pytest.raises(StrongroomError, match="APPROVAL_MISMATCH"):
                asking.erase("acme", JOHN, approval_id=approval.approval_id)
            with pytest.raises(StrongroomError, match="APPROVAL_MISMATCH"):
                first.erase("acme", JANE, approval_id=approval.approval_id)
            with pytest.raises(StrongroomError, match="SUBJECT_NOT_FOUND"):
                asking.erase("acme", secrets.token_hex(4), approval_id=approval.approval_id)
            with pytest.raises(StrongroomError, match="SCOPE_DENIED"):
                asking.erase("acme", approval_id=approval.approval_id)
        opens(site, "acme/a", "one")
        opens(site, "acme/b", "two")
    finally:
        site.stop()
