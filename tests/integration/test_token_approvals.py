"""A policy can ask that others sign for a token: for just this one, which is then issued once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.wire import Books, Wire
from tests.support.vault import POLICY, VaultSite, client_extensions, issue_certificate
from vault.client import Client, StrongroomError
from vault.crypto.approvals import Operation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres
    from vault.v1.approval_pb2 import Approval

NAME = "acme/approved/door"
WANTED = ("credential.destroy:acme/approved/*",)
ARGUMENTS: dict[str, Any] = {"ttl_seconds": 600, "purpose": "clean up"}
ISSUE = "/vault.v1.TokenService/Issue"
GUARD = """
@id("two people sign for a token that destroys")
forbid (principal, action == Strongroom::Action::"credential.destroy", resource) when { context.approvals < 2 };
"""
SCOPES = (
    "token.issue:acme/tokens", "approval.read:acme/**", "approval.approve:acme/**", "session.break_glass:acme/**",
)  # fmt: skip


@pytest.fixture(scope="module")
def guarded(
    softhsm: tuple[str, Path], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VaultSite]:
    folder = tmp_path_factory.mktemp("guarded")
    site = VaultSite(folder, postgres.create_database("guarded"), *softhsm)
    site.prepare()
    (folder / "policy.cedar").write_text(POLICY + GUARD)
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
        system.create_tenant("globex")
    with site.client(scopes=("credential.write:acme/**",)) as client:
        client.put(NAME, {"password": "open sesame"}, kind="bank_login")
    yield site
    site.stop()


@pytest.fixture(scope="module")
def people(guarded: VaultSite) -> Iterator[dict[str, Client]]:
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(Client(guarded.profile(name, "acme", SCOPES)))
            for name in ("payments", "ledger", "operator")
        }


def ask(people: dict[str, Client], *signers: str, **changes: Any) -> Approval:
    found = people["payments"].request_token(WANTED, **{**ARGUMENTS, **changes})
    for name in signers:
        people[name].approve(found)
    return found


def refused(client: Client, approval_id: str, scopes: tuple[str, ...] = WANTED, **changes: Any) -> str:
    with pytest.raises(StrongroomError) as caught:
        client.issue_token(scopes, **{**ARGUMENTS, "approval_id": approval_id, **changes})
    return caught.value.reason


def test_a_token_is_issued_once_to_who_asked_when_enough_have_signed(
    guarded: VaultSite, people: dict[str, Client]
) -> None:
    asker = people["payments"]
    assert refused(asker, "") == "POLICY_DENIED"
    found = ask(people)
    assert refused(asker, found.approval_id) == "APPROVAL_REQUIRED", "nobody has signed"
    people["ledger"].approve(found)
    assert refused(asker, found.approval_id) == "POLICY_DENIED", (
        "the configuration asks for one, the policy for two"
    )
    people["operator"].approve(found)
    issued = asker.issue_token(WANTED, **ARGUMENTS, approval_id=found.approval_id)
    with Client(guarded.profile("payments", "acme", ())) as holder:
        holder.use_token(issued.token)
        holder.destroy_version(NAME, 1)
    assert refused(asker, found.approval_id) == "APPROVAL_ENDED", "once"
    assert asker.get_approval(found.approval_id).state == 3

    books = Books(guarded)
    (record,) = books.rows(f"SELECT * FROM audit_records WHERE rows_written LIKE '%approvals:{found.approval_id}%'"
                           " AND action_type = 'token.issue'")  # fmt: skip
    books.close()
    after = json.loads(record["after_state"])
    assert (record["token_id"], after["approval"], after["approvals"]) == (
        issued.token_id,
        found.approval_id,
        2,
    )


@pytest.mark.parametrize(
    ("scopes", "changes"),
    [
        (("credential.destroy:acme/**",), {}),
        ((*WANTED, "credential.read:acme/approved/*"), {}),
        (WANTED, {"ttl_seconds": 601}),
        (WANTED, {"purpose": "clean  up"}),
        (WANTED, {"max_sessions": 1}),
        (WANTED, {"narrowable": True}),
    ],
    ids=["wider scope", "one scope more", "a second longer", "purpose", "session limit", "narrowable"],
)
def test_it_is_good_for_no_other_token(
    people: dict[str, Client], scopes: tuple[str, ...], changes: dict[str, Any]
) -> None:
    found = ask(people, "ledger", "operator")
    assert refused(people["payments"], found.approval_id, scopes, **changes) == "APPROVAL_MISMATCH"
    assert people["payments"].get_approval(found.approval_id).state == 2, "and is not used up by trying"


def test_it_is_good_for_no_other_certificate_of_the_same_identity(
    guarded: VaultSite, people: dict[str, Client]
) -> None:
    found = ask(people, "ledger", "operator")
    uri = "spiffe://test.strongroom.internal/payments"
    issue_certificate(guarded.folder / "pki", "payments-2", client_extensions(uri))
    profile = dataclasses.replace(
        guarded.profile("payments", "acme", SCOPES),
        certificate_file=guarded.folder / "pki/payments-2.pem",
        private_key_file=guarded.folder / "pki/payments-2-key.pem",
    )
    with Client(profile) as other:
        assert refused(other, found.approval_id) == "APPROVAL_MISMATCH"


def test_to_anybody_else_and_in_any_other_tenant_it_looks_absent(
    guarded: VaultSite, people: dict[str, Client]
) -> None:
    found = ask(people, "ledger", "operator")
    for name, tenant in (
        ("ledger", "acme"),
        ("globex", "globex"),
        ("globex", "acme"),
        ("payments", "globex"),
    ):
        with Wire(guarded.profile(name), tenant) as wire:
            scopes = [f"credential.destroy:{tenant}/approved/*"]
            answers = [
                wire.call(ISSUE, tenant=tenant, scopes=scopes, approval_id=approval)
                for approval in (found.approval_id, "A" * 22, "x", "*" * 5000)
            ]
        assert {answer.refusal for answer in answers} == {answers[0].refusal}
        assert answers[0].reason == "APPROVAL_NOT_FOUND"
    assert people["payments"].get_approval(found.approval_id).state == 2


def test_who_asks_does_not_count_and_nobody_counts_twice(people: dict[str, Client]) -> None:
    found = ask(people, "ledger")
    for name in ("payments", "ledger"):
        with pytest.raises(StrongroomError) as caught:
            people[name].approve(found)
        assert caught.value.reason == "APPROVER_UNSUITABLE"
    assert refused(people["payments"], found.approval_id) == "POLICY_DENIED"


def test_of_many_at_once_one_gets_the_token(people: dict[str, Client]) -> None:
    found = ask(people, "ledger", "operator")

    def issue(_: int) -> str:
        try:
            people["payments"].issue_token(WANTED, **ARGUMENTS, approval_id=found.approval_id)
        except StrongroomError as error:
            return error.reason
        return "OK"

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(issue, range(32)))
    assert sorted(answers) == ["APPROVAL_ENDED"] * 31 + ["OK"]


def test_an_approval_of_something_else_that_was_cancelled_or_forged_is_no_good(
    guarded: VaultSite, people: dict[str, Client], postgres: Postgres
) -> None:
    asker = people["payments"]
    glass = Operation("session.break_glass", NAME, {"version": "0", "fields": ""})
    other = asker.request_approval(glass, purpose="door")
    people["ledger"].approve(other)
    people["operator"].approve(other)
    assert refused(asker, other.approval_id) == "APPROVAL_MISMATCH"
    taken_back = ask(people, "ledger", "operator")
    asker.cancel_approval(taken_back.approval_id)
    assert refused(asker, taken_back.approval_id) == "APPROVAL_ENDED"
    late = ask(people, "ledger", "operator")
    forged, signed = ask(people), ask(people, "ledger", "operator")
    change = "UPDATE approvals SET {} WHERE approval_id = '{}'"
    postgres.sql("guarded", change.format("expire_time = now() - interval '1 second'", late.approval_id))
    # Whoever can write to the database moves the end of an approval, or gives it the signatures of another.
    assert refused(asker, late.approval_id) == "APPROVAL_ENDED"
    signatures = f"(SELECT signatures FROM approvals WHERE approval_id = '{signed.approval_id}')"
    postgres.sql("guarded", change.format(f"signatures = {signatures}", forged.approval_id))
    assert refused(asker, forged.approval_id) == "STORED_DATA_DAMAGED"


def test_people_are_not_asked_to_sign_for_what_they_cannot_read(people: dict[str, Client]) -> None:
    many = tuple(f"credential.read:acme/approved/n{number}" for number in range(11))
    long = ("credential.read:acme/" + "a" * 110,)
    for scopes in (many, long):
        with pytest.raises(ValueError, match="at most 10 scopes of at most 128"):
            people["payments"].request_token(scopes, purpose="x")
        assert refused(people["payments"], "A" * 22, scopes) == "FIELD_INVALID"


def test_the_command_line_asks_signs_and_issues(guarded: VaultSite, tmp_path: Path) -> None:
    files = {}
    for name in ("payments", "ledger", "operator"):
        profile = guarded.profile(name, "acme", SCOPES)
        files[name] = tmp_path / f"{name}.toml"
        files[name].write_text(
            f'server = "{profile.server}"\nca_file = "{profile.ca_file}"\ntenant = "acme"\n'
            f'certificate_file = "{profile.certificate_file}"\nprivate_key_file = "{profile.private_key_file}"\n'
            f"scopes = {json.dumps(profile.scopes)}\n"
        )

    def run(who: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vault.cli", *arguments, "--profile", str(files[who]), "-o", "json"],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    wanted = ("--scope", WANTED[0], "--ttl", "600", "--purpose", "clean up")
    asked = run("payments", "token", "request", *wanted)
    assert asked.returncode == 0, asked.stderr
    approval = json.loads(asked.stdout)
    assert approval["operation"]["arguments"]["scope_1"] == WANTED[0]
    for who in ("ledger", "operator"):
        assert run(who, "approval", "approve", approval["approval_id"], "--yes").returncode == 0
    issued = run("payments", "token", "issue", *wanted, "--approval", approval["approval_id"])
    assert json.loads(issued.stdout)["scopes"] == list(WANTED)
    again = run("payments", "token", "issue", *wanted, "--approval", approval["approval_id"])
    assert again.returncode != 0
    assert "APPROVAL_ENDED" in again.stderr
