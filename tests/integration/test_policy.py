"""The policy in force: stored in versions, changed only with approval, and obeyed everywhere within a second."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest

from tests.integration.wire import Wire, failure
from tests.support.postgres import owner_url
from tests.support.vault import POLICY, TRUST_DOMAIN
from vault.client import Client, StrongroomError
from vault.client.operations.approvals import verified_document
from vault.client.sealing import Recipient, SealingError
from vault.core.policies import change
from vault.core.policy import Circumstances, Policy
from vault.crypto.approvals import Operation
from vault.crypto.scopes import Scope
from vault.v1 import session_pb2 as pb
from vault.v1.approval_pb2 import APPROVAL_STATE_APPROVED, Approval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.support.vault import VaultSite

NAME = "acme/policy/login"
PAYMENTS = f"spiffe://{TRUST_DOMAIN}/payments"
WITHOUT_PAYMENTS = POLICY.replace('principal.path == "payments" || ', "")
SECOND_PERSON = (
    'permit (principal, action, resource) when { principal.path == "ledger" && resource.tenant == "system" };'
)
BASE = POLICY + SECOND_PERSON
SYSTEM = (
    "policy.read:system/policy", "policy.write:system/policy", "approval.read:system/policy",
    "approval.approve:system/policy", "tenant.create:system/tenants/*",
)  # fmt: skip


@pytest.fixture
def vault(fresh_site: VaultSite) -> Iterator[VaultSite]:
    (fresh_site.folder / "policy.cedar").write_text(BASE)
    fresh_site.settings = {"server": {"workers": 2}}
    fresh_site.write_config()
    fresh_site.start()
    with officer(fresh_site) as one:
        one.create_tenant("acme")
    with fresh_site.client() as client:
        client.put(NAME, {"password": "x"}, kind="bank_login")
    return fresh_site


def officer(site: VaultSite, name: str = "operator") -> Client:
    return Client(site.profile(name, "system", SYSTEM))


def apply(site: VaultSite, text: str, base: int = 0) -> Any:
    operation = change(base, Policy(text).digest)
    with officer(site) as one, officer(site, "ledger") as other:
        asked = one.request_approval(operation, purpose="a change", document=text)
        other.approve(asked)
        return one.apply_policy(text, base_version=base, comment="a change", approval_id=asked.approval_id)


def refused(reason: str, call: Callable[[], object]) -> None:
    with pytest.raises(StrongroomError) as caught:
        call()
    assert caught.value.reason == reason


@pytest.mark.alone
def test_what_an_applied_policy_no_longer_grants_ends_everywhere(vault: VaultSite) -> None:
    wires = [Wire(vault.profile("payments"), "acme") for _ in range(6)]
    for wire in wires:
        assert wire.call("/vault.v1.CredentialService/Get", name=NAME).ok
    start = pb.SessionStart(
        credentials=[pb.CredentialSelector(name=NAME)], purpose="t", recipient_key=Recipient().public_bytes
    )
    streams = [wire.stream() for wire in wires]
    for stream in streams:
        assert stream.ask(start=start).WhichOneof("message") == "opened"
    watch = wires[0].channel.unary_stream("/vault.v1.CredentialService/Watch")
    watching = watch(b"", metadata=[("authorization", f"Bearer {wires[0].token}")], timeout=20)
    next(watching)
    with Wire(vault.profile("ledger"), "acme") as kept, kept.stream() as staying:
        assert staying.ask(start=start).WhichOneof("message") == "opened"
        applied = apply(vault, WITHOUT_PAYMENTS + SECOND_PERSON)
        began = time.monotonic()
        assert (applied.version, applied.in_force) == (1, True)
        for stream in streams:
            closed = stream.read().closed
            assert closed.reason == pb.CLOSE_REASON_POLICY_CHANGED
            assert closed.buffers == closed.buffers_wiped
        assert time.monotonic() - began < 1
        with pytest.raises(grpc.RpcError) as ended:
            next(watching)
        assert failure(ended.value, "").reason == "TOKEN_REVOKED"
        assert time.monotonic() - began < 3
        for wire in wires:
            assert wire.call("/vault.v1.CredentialService/Get", name=NAME).reason == "TOKEN_REVOKED"
            answer = wire.call(
                "/vault.v1.TokenService/Issue", tenant="acme", scopes=[f"credential.read:{NAME}"]
            )
            assert answer.reason == "POLICY_DENIED"
        assert kept.call("/vault.v1.CredentialService/Get", name=NAME).ok
        assert (
            staying.ask(operation_id=1, reveal=pb.RevealOperation(name=NAME)).WhichOneof("message")
            == "reveal"
        )
    for stream in streams:
        stream.half_close()
    for wire in wires:
        wire.channel.close()


def test_a_stored_policy_outlives_a_restart_and_only_the_vault_can_store_one(vault: VaultSite) -> None:
    apply(vault, WITHOUT_PAYMENTS + SECOND_PERSON)
    vault.stop()
    vault.start()
    refused("POLICY_DENIED", lambda: vault.client().get(NAME))
    with officer(vault) as one:
        assert one.get_policy().text == WITHOUT_PAYMENTS + SECOND_PERSON
        assert [item.version for item in one.list_policies()] == [1]
    vault.stop()
    vault.settings["policy"] = {"ignore_stored": True}
    vault.write_config()
    vault.start()
    with vault.client() as client:
        assert client.get(NAME).name == NAME
    assert "ignore_stored" in vault.log()
    vault.stop()
    # Whoever can write to the database cannot write policy.
    forged = BASE + 'permit (principal, action, resource) when { principal.path == "stranger" };'

    async def forge() -> None:
        connection = await asyncpg.connect(owner_url(vault.database_url))
        await connection.execute("UPDATE policies SET text = $1, digest = $2", forged, Policy(forged).digest)
        await connection.close()

    asyncio.run(forge())
    vault.settings["policy"] = {"ignore_stored": False}
    vault.write_config()
    with pytest.raises(RuntimeError, match="not what this vault stored"):
        vault.start()


def test_a_change_needs_the_approval_of_just_this_change(vault: VaultSite) -> None:
    text = WITHOUT_PAYMENTS + SECOND_PERSON
    with officer(vault) as one, officer(vault, "ledger") as other:
        call = lambda approval_id, body=text, base=0: one.apply_policy(  # noqa: E731
            body, base_version=base, comment="c", approval_id=approval_id
        )
        refused("APPROVAL_REQUIRED", lambda: call(""))
        asked = one.request_approval(change(0, Policy(text).digest), purpose="c", document=text)
        refused("APPROVAL_REQUIRED", lambda: call(asked.approval_id))
        other.approve(asked)
        refused("APPROVAL_MISMATCH", lambda: call(asked.approval_id, text + "\n// and more"))
        assert call(asked.approval_id).version == 1
        refused("POLICY_CHANGED", lambda: call(asked.approval_id))
        refused("APPROVAL_ENDED", lambda: call(asked.approval_id, text + "// more", 1))
        assert one.get_policy(1).created_by.endswith("/operator")
        # What would lock its author out is refused, approved or not.
        refused("POLICY_INVALID", lambda: call("A" * 22, BASE.replace('"operator"', '"nobody"'), 1))


def test_who_approves_a_change_sees_it_and_signs_for_what_was_seen(vault: VaultSite, tmp_path: Path) -> None:
    text = WITHOUT_PAYMENTS + SECOND_PERSON
    with officer(vault) as one, officer(vault, "ledger") as other:

        def ask(document: str, of: str = text) -> Approval:
            operation = change(0, hashlib.sha256(of.encode()).digest())
            return one.request_approval(operation, purpose="c", document=document)

        steering = text + "// \x1b[2J\n"
        for document, of in (
            ("", text),
            (text + " ", text),
            ("no Cedar", "no Cedar"),
            (steering, steering),
            ("// a right that reads to the left: \u202e\n" + text,) * 2,
            ("// " + "x" * 131_072 + "\n" + text,) * 2,
        ):
            refused("FIELD_INVALID", lambda document=document, of=of: ask(document, of))
        other_operation = Operation("database.recover", "system/database", {"sha256": "0" * 64})
        with Client(vault.profile("operator", "system", ("database.recover:system/database",))) as recovering:
            refused(
                "FIELD_INVALID",
                lambda: recovering.request_approval(other_operation, purpose="c", document=text),
            )

        asked = ask(text)
        found = other.get_approval(asked.approval_id)
        assert verified_document(found) == text
        # What came with another text, or with none as in a list, is not signed for.
        (listed,) = other.list_approvals(only_open=True)
        assert not listed.document
        changed = Approval()
        changed.CopyFrom(found)
        changed.document += "\n"
        for unseen in (listed, changed):
            with pytest.raises(SealingError):
                other.approve(unseen)
        assert not other.get_approval(asked.approval_id).signatures

        reader = profile_file(vault, "ledger", tmp_path)
        code, shown = strongroom("approval", "show", asked.approval_id, "--profile", str(reader))
        assert code == 0
        assert "changed: policy1" in shown
        assert '-  (principal.path == "payments" ||' in shown
        (tmp_path / "approver").mkdir()
        scopes = ("approval.approve:system/policy",)
        approver = profile_file(vault, "ledger", tmp_path / "approver", scopes=scopes)
        code, shown = strongroom("approval", "approve", asked.approval_id, "--profile", str(approver))
        assert (code, text in shown, "Sign for this?" in shown) == (1, True, True)
        assert other.approve(found).state == APPROVAL_STATE_APPROVED
        assert one.apply_policy(text, base_version=0, comment="c", approval_id=asked.approval_id).version == 1
        later = ask(text)
        code, shown = strongroom("approval", "show", later.approval_id, "--profile", str(reader))
        assert "version 0, which is not in force" in shown


def test_explain_names_the_rule_and_who_can_reach_a_credential(site: VaultSite) -> None:
    with site.system() as system:
        granted = system.explain_policy(PAYMENTS, f"session.reveal:{NAME}")
        assert granted.allowed
        assert [rule.name for rule in granted.rules] == ["policy1"]
        assert "payments" in granted.rules[0].text
        denied = system.explain_policy(f"spiffe://{TRUST_DOMAIN}/stranger", f"session.reveal:{NAME}")
        assert (denied.allowed, list(denied.rules)) == (False, [])
        found = system.list_reachers(NAME, identities=[PAYMENTS, f"spiffe://{TRUST_DOMAIN}/stranger"])
        by_identity = {item.identity: item for item in found.reachers}
        assert "session.reveal" in by_identity[PAYMENTS].actions
        assert list(by_identity[PAYMENTS].rules) == ["policy1"]
        assert f"spiffe://{TRUST_DOMAIN}/stranger" not in by_identity
        assert f"spiffe://{TRUST_DOMAIN}/globex" not in by_identity
        assert len(found.open_rules) == 4


def test_a_tenant_is_told_of_its_own_policy_and_not_of_anothers(site: VaultSite) -> None:
    with Client(site.profile("payments", "acme", ("policy.read:acme/policy",))) as client:
        answer = client.explain_policy(PAYMENTS, f"session.reveal:{NAME}")
        assert answer.allowed
        assert not answer.rules[0].text
        refused("SCOPE_DENIED", lambda: client.explain_policy(PAYMENTS, "session.reveal:globex/a/b"))
        refused("SCOPE_DENIED", lambda: client.list_reachers("globex/a/b"))
        refused("SCOPE_DENIED", client.get_policy)
        refused("SCOPE_DENIED", lambda: client.validate_policy(POLICY))


def test_the_whole_change_by_the_command(vault: VaultSite, tmp_path: Path) -> None:
    new = tmp_path / "new.cedar"
    new.write_text(WITHOUT_PAYMENTS + SECOND_PERSON)
    table = tmp_path / "expect.toml"
    table.write_text(
        f"""
        [[expect]]
        identity = "{PAYMENTS}"
        scope = "session.reveal:{NAME}"
        allow = true
        rule = "policy1"
        """
    )
    one, other = (profile_file(vault, name, tmp_path) for name in ("operator", "ledger"))
    assert strongroom("policy", "validate", str(new))[0] == 0
    assert strongroom("policy", "test", str(table), "--profile", str(one))[0] == 0
    code, out = strongroom("policy", "test", str(table), str(new), "-o", "json")
    assert (code, json.loads(out)["met"]) == (5, False)
    assert "changed: policy1" in strongroom("policy", "diff", str(new), "--profile", str(one))[1]
    code, out = strongroom("policy", "apply", str(new), "--comment", "c", "--profile", str(one), "-o", "json")
    approval = json.loads(out)["approval_id"]
    assert strongroom("approval", "approve", approval, "--yes", "--profile", str(other))[0] == 0
    apply_ = ("policy", "apply", str(new), "--comment", "c", "--approval", approval, "--profile", str(one))
    assert strongroom(*apply_)[0] == 0
    assert strongroom("policy", "test", str(table), "--profile", str(one))[0] == 5
    code, out = strongroom("policy", "explain", PAYMENTS, f"session.reveal:{NAME}", "--profile", str(one))
    assert code == 5
    assert "no rule" in out
    ledger = PAYMENTS.replace("payments", "ledger")
    code, out = strongroom("policy", "reach", NAME, "--identity", ledger, "--profile", str(one), "-o", "json")
    assert [item["identity"] for item in json.loads(out)["reachers"]] == [ledger]
    assert "c" in strongroom("policy", "list", "--profile", str(one))[1]
    assert strongroom("policy", "show", "--profile", str(one))[1].strip() == new.read_text().strip()


@pytest.mark.parametrize("role", ["service", "operator", "security-officer", "auditor", "ci"])
def test_a_starter_policy_is_valid_and_only_for_its_identity_and_tenant(role: str) -> None:
    code, out = strongroom("policy", "starter", role, "--identity", PAYMENTS, "--tenant", "acme")
    assert code == 0
    policy = Policy(out)
    assert all(rule.identities == {PAYMENTS} and not rule.open for rule in policy.rules)
    actions = frozenset[str]().union(*(rule.actions for rule in policy.rules))
    opens = {"session.reveal", "session.use.verify_webhook"} & actions
    assert bool(opens) == (role in ("service", "ci"))
    moment = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    firsts = [Scope("tenant.create", ("system", "tenants", tenant)) for tenant in ("acme", "globex")]
    judged = policy.judge(PAYMENTS, firsts, Circumstances("", 600, "", "", moment))
    assert [one.allowed for one in judged] == [role == "operator", False]
    destroys = Scope("credential.destroy", ("acme", "old", "*"))
    for people in (0, 1):
        (judged,) = policy.judge(PAYMENTS, [destroys], Circumstances("", 600, "", "", moment, people))
        assert judged.allowed == (role == "operator" and people == 1)


def strongroom(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "vault.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def profile_file(
    site: VaultSite, name: str, folder: Path, tenant: str = "system", scopes: Sequence[str] = SYSTEM
) -> Path:
    file = folder / f"{name}.toml"
    pki = site.folder / "pki"
    file.write_text(
        f'server = "{site.address}"\nca_file = "{pki}/ca.pem"\ncertificate_file = "{pki}/{name}.pem"\n'
        f'private_key_file = "{pki}/{name}-key.pem"\ntenant = "{tenant}"\nscopes = {json.dumps(scopes)}\n'
    )
    return file
