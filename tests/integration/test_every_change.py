"""Every change has its record, under its own action, by whoever made it. Other calls: `test_bad_input.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.test_bad_input import CHANGING
from tests.integration.wire import until
from tests.support.vault import POLICY, TRUST_DOMAIN
from vault.client import Client
from vault.core.policies import change
from vault.core.policy import Policy
from vault.crypto.approvals import Operation
from vault.server.methods import RULES

if TYPE_CHECKING:
    from tests.support.vault import VaultSite

NAME, TRAP = "acme/changes/login", "acme/changes/trap"
PEOPLE = ("operator", "payments", "ledger")
ELSEWHERE = {"audit.accept_loss"}
"""Needs a damaged log: `test_audit_evidence.py`, where every later verification names the record."""
SYSTEM = (
    "tenant.create:system/tenants/*", "tenant.delete:system/tenants/acme", "approval.approve:system/**",
    "policy.read:system/policy", "policy.write:system/policy", "audit.read:system/audit",
)  # fmt: skip
ACME = (
    "credential.write:acme/**", "credential.read:acme/**", "credential.delete:acme/**", "credential.destroy:acme/**",
    "key.rotate:acme/keys", "key.rewrap:acme/keys", "key.retire:acme/keys", "key.destroy:acme/keys",
    "approval.approve:acme/**", "threat.read:acme/threats", "threat.release:acme/threats", "policy.read:acme/policy",
)  # fmt: skip


def approved(asker: Client, others: list[Client], operation: Operation, document: str = "") -> str:
    found = asker.request_approval(operation, purpose="test", document=document)
    for other in others:
        other.approve(found)
    return found.approval_id


def test_every_change_that_is_made_is_recorded(fresh_site: VaultSite) -> None:
    everybody = 'permit (principal, action, resource) when { resource.tenant == "system" };\n'
    (fresh_site.folder / "policy.cedar").write_text(POLICY + everybody)
    fresh_site.start()
    system = {name: Client(fresh_site.profile(name, "system", SYSTEM), timeout=60) for name in PEOPLE}
    acme = {name: Client(fresh_site.profile(name, "acme", ACME), timeout=60) for name in PEOPLE}
    chief, *chiefs = system.values()
    one, *others = acme.values()

    chief.create_tenant("acme")
    one.put(NAME, {"password": "x"}, kind="bank_login")
    one.delete(NAME)
    one.undelete(NAME)
    one.destroy_version(NAME, 1)
    one.rotate_key("acme")
    one.retire_key("acme", 1)
    one.restore_key("acme", 1)
    one.retire_key("acme", 1)
    one.destroy_key(
        "acme", 1, approval_id=approved(one, others, Operation("key.destroy", "acme/keys", {"version": "1"}))
    )
    # More than a job gets through at one a second before it is cancelled.
    for number in range(60):
        one.put(f"acme/changes/n{number}", {"password": "y"}, kind="bank_login")
    one.rotate_key("acme")
    job = one.start_job("acme", "rewrap", max_per_second=1)
    one.update_job("acme", job.job_id, command="cancel")
    one.cancel_approval(approved(one, [], Operation("key.destroy", "acme/keys", {"version": "2"})))
    one.put(TRAP, {"password": "z"}, kind="bank_login", labels={"canary": "true"})
    others[0].get(TRAP)
    threat = until(one.list_threats)[0]
    one.explain_threat(threat.threat_id)
    one.release_threat(threat.threat_id, purpose="test")
    text = POLICY + everybody + "// once more\n"
    applying = approved(chief, chiefs, change(0, Policy(text).digest), text)
    chief.apply_policy(text, base_version=0, comment="test", approval_id=applying)
    chief.explain_policy(f"spiffe://{TRUST_DOMAIN}/payments", "credential.read:acme/x")
    erasure = chief.describe_erasure("acme")
    operation = Operation(erasure.action, erasure.resource, dict(erasure.arguments))
    chief.erase("acme", approval_id=approved(chief, chiefs, operation))

    with fresh_site.system() as reader:
        by = f"spiffe://{TRUST_DOMAIN}/operator"
        for method in CHANGING:
            action = RULES[method].action
            if action in ELSEWHERE:
                continue
            who = f"spiffe://{TRUST_DOMAIN}/ledger" if action == "approval.approve" else by
            assert reader.audit_records(action=action, identity=who, outcome="granted"), method
        report = reader.verify_audit()
        assert report.valid, report.findings
    for client in (*system.values(), *acme.values()):
        client.close()
