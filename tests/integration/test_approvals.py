"""Approvals: distinct people sign for exactly one operation, which is then done once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.integration.test_token_lineage import thumbprint
from tests.integration.wire import Books, Wire
from tests.support.postgres import owner_url
from tests.support.vault import client_extensions, issue_certificate
from vault.client import Client, Profile, StrongroomError
from vault.crypto import approvals
from vault.crypto.approvals import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.vault import VaultSite
    from vault.v1.approval_pb2 import Approval

NAME = "acme/approvals/vault-door"
GLASS = Operation("session.break_glass", NAME, {"version": "0", "fields": ""})
SCOPES = (
    "session.break_glass:acme/**", "approval.read:acme/**", "approval.approve:acme/**", "key.destroy:acme/keys",
)  # fmt: skip


@pytest.fixture(scope="module")
def people(site: VaultSite) -> Iterator[dict[str, Client]]:
    with site.client() as client:
        client.put(NAME, {"password": "open sesame"}, kind="bank_login")
    made = {name: Client(site.profile(name, "acme", SCOPES)) for name in ("payments", "ledger", "operator")}
    yield made
    for client in made.values():
        client.close()


def refused(reason: str, call: Callable[[], object]) -> None:
    with pytest.raises(StrongroomError) as caught:
        call()
    assert caught.value.reason == reason


def ask(people: dict[str, Client], operation: Operation = GLASS) -> Approval:
    return people["payments"].request_approval(operation, purpose="the door is stuck")


def approved(people: dict[str, Client], operation: Operation = GLASS) -> Approval:
    found = ask(people, operation)
    people["ledger"].approve(found)
    return people["operator"].approve(found)


def test_enough_people_let_the_one_who_asked_break_the_glass_once(people: dict[str, Client]) -> None:
    asker = people["payments"]
    found = ask(people)
    break_glass = lambda: asker.reveal(NAME, purpose="door", approval_id=found.approval_id)  # noqa: E731
    refused("APPROVAL_REQUIRED", break_glass)
    assert people["ledger"].approve(found).state == 1
    refused("APPROVAL_REQUIRED", break_glass)
    assert people["operator"].approve(found).state == 2
    (secrets,) = break_glass()
    with secrets:
        assert bytes(secrets["password"]) == b"open sesame"
    refused("APPROVAL_ENDED", break_glass)
    assert asker.get_approval(found.approval_id).state == 3


def test_without_an_approval_the_scope_to_break_the_glass_reveals_nothing(people: dict[str, Client]) -> None:
    refused("SCOPE_DENIED", lambda: people["payments"].reveal(NAME, purpose="door"))
    for unknown in ("A" * 22, "x", "*" * 5000):
        refused(
            "APPROVAL_NOT_FOUND",
            lambda unknown=unknown: people["payments"].reveal(NAME, purpose="door", approval_id=unknown),
        )


def test_fifty_at_once_use_an_approval_once(people: dict[str, Client]) -> None:
    found = approved(people)

    def use(_: int) -> bool:
        with contextlib.suppress(StrongroomError):
            for secrets in people["payments"].reveal(NAME, purpose="door", approval_id=found.approval_id):
                secrets.close()
            return True
        return False

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(use, range(50))) == 1


def test_who_asks_cannot_approve_and_nobody_approves_twice(people: dict[str, Client]) -> None:
    found = ask(people)
    refused("APPROVER_UNSUITABLE", lambda: people["payments"].approve(found))
    people["ledger"].approve(found)
    refused("APPROVER_UNSUITABLE", lambda: people["ledger"].approve(found))
    assert [item.identity.rpartition("/")[2] for item in ask_again(people, found).signatures] == ["ledger"]


def ask_again(people: dict[str, Client], found: Approval) -> Approval:
    return people["operator"].get_approval(found.approval_id)


def test_a_second_certificate_of_the_same_person_counts_no_further(
    site: VaultSite, people: dict[str, Client]
) -> None:
    found = ask(people)
    people["ledger"].approve(found)
    uri = "spiffe://test.strongroom.internal/ledger"
    issue_certificate(site.folder / "pki", "ledger-2", client_extensions(uri))
    profile = site.profile("ledger", "acme", SCOPES)
    other = dataclasses.replace(
        profile,
        certificate_file=site.folder / "pki/ledger-2.pem",
        private_key_file=site.folder / "pki/ledger-2-key.pem",
    )
    with Client(other) as again:
        refused("APPROVER_UNSUITABLE", lambda: again.approve(found))


def test_one_key_under_two_names_counts_once(site: VaultSite, people: dict[str, Client]) -> None:
    found = ask(people)
    people["ledger"].approve(found)
    pem = (site.folder / "pki/ledger-key.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    uri = "spiffe://test.strongroom.internal/operator"
    issue_certificate(site.folder / "pki", "operator-2", client_extensions(uri), key=key)
    profile = site.profile("operator", "acme", SCOPES)
    other = dataclasses.replace(
        profile,
        certificate_file=site.folder / "pki/operator-2.pem",
        private_key_file=site.folder / "pki/operator-2-key.pem",
    )
    with Client(other) as again:
        refused("APPROVER_UNSUITABLE", lambda: again.approve(found))


@pytest.mark.parametrize(
    ("name", "fields", "who"),
    [
        ("acme/approvals/other-door", (), "payments"),
        (NAME, ("password",), "payments"),
        (NAME, (), "ledger"),
    ],
    ids=["another credential", "other fields", "another identity"],
)
def test_it_is_good_for_nothing_else_and_nobody_else(
    people: dict[str, Client], site: VaultSite, name: str, fields: tuple[str, ...], who: str
) -> None:
    found = approved(people)
    if name != NAME:
        with site.client() as client:
            client.put(name, {"password": "other"}, kind="bank_login")
    refused(
        "APPROVAL_MISMATCH",
        lambda: people[who].reveal(name, purpose="door", field_names=fields, approval_id=found.approval_id),
    )
    assert ask_again(people, found).state == 2


def test_a_signature_over_anything_else_is_refused(people: dict[str, Client]) -> None:
    found, other = ask(people), ask(people)
    for change in (
        lambda a: setattr(a.operation, "resource", "acme/approvals/other-door"),
        lambda a: a.operation.arguments.update({"version": "1"}),
        lambda a: setattr(a, "requested_by", "spiffe://test.strongroom.internal/stranger"),
        lambda a: setattr(a.expire_time, "seconds", a.expire_time.seconds + 1),
    ):
        shown = type(found)()
        shown.CopyFrom(found)
        change(shown)
        refused("SIGNATURE_INVALID", lambda shown=shown: people["ledger"].approve(shown))
    shown = type(found)()
    shown.CopyFrom(other)
    shown.approval_id = found.approval_id
    shown.expire_time.CopyFrom(other.expire_time)
    if other.expire_time != found.expire_time:
        refused("SIGNATURE_INVALID", lambda: people["ledger"].approve(shown))


def test_one_persons_signature_does_not_speak_for_another(site: VaultSite, people: dict[str, Client]) -> None:
    found = ask(people)
    signed = people["ledger"].approve(found).signatures[0].signature
    with Wire(site.profile("operator"), "acme", SCOPES) as wire:
        answer = wire.call(
            "/vault.v1.ApprovalService/Approve", approval_id=found.approval_id, signature=signed
        )
        assert answer.reason == "SIGNATURE_INVALID"


def delegated(site: VaultSite, giver: str, taker: str, *scopes: str) -> str:
    """A token of one identity for the certificate of another, to whom policy grants nothing."""
    with Wire(site.profile(giver), "acme", (*SCOPES, "token.delegate:acme/tokens")) as wire:
        answer = wire.call(
            "/vault.v1.TokenService/Exchange", scopes=scopes, certificate_thumbprint=thumbprint(site, taker)
        )
        assert answer.ok, answer
        return str(answer.response.token)


def test_who_asks_does_not_sign_by_a_token_for_another_certificate_of_its_own(
    site: VaultSite, people: dict[str, Client]
) -> None:
    found = ask(people)
    token = delegated(site, "payments", "stranger", "approval.approve:acme/**")
    profile = site.profile("stranger")
    operation = found.operation
    message = approvals.statement(
        found.approval_id,
        Operation(operation.action, operation.resource, dict(operation.arguments)),
        found.requested_by,
        found.expire_time.ToMicroseconds(),
    )
    with Wire(profile) as wire:
        answer = wire.call(
            "/vault.v1.ApprovalService/Approve",
            bearer=token,
            approval_id=found.approval_id,
            signature=approvals.sign(profile.private_key(), message),
        )
    assert answer.reason == "APPROVER_UNSUITABLE"
    assert not ask_again(people, found).signatures


def test_nobody_has_another_certificate_ask_for_what_they_then_sign(site: VaultSite) -> None:
    token = delegated(site, "ledger", "stranger", "session.break_glass:acme/**")
    asked = {"action": GLASS.action, "resource": GLASS.resource, "arguments": dict(GLASS.arguments)}
    with Wire(site.profile("stranger")) as wire:
        answer = wire.call(
            "/vault.v1.ApprovalService/Request", bearer=token, operation=asked, purpose="the door is stuck"
        )
    assert answer.reason == "SCOPE_DENIED"


def test_the_evidence_can_be_checked_without_the_vault(site: VaultSite, people: dict[str, Client]) -> None:
    found = approved(people)
    ca = x509.load_pem_x509_certificate((site.folder / "pki/ca.pem").read_bytes())
    operation = Operation(found.operation.action, found.operation.resource, dict(found.operation.arguments))
    message = approvals.statement(
        found.approval_id, operation, found.requested_by, found.expire_time.ToMicroseconds()
    )
    for item in found.signatures:
        certificate = x509.load_der_x509_certificate(item.certificate)
        certificate.verify_directly_issued_by(ca)
        assert approvals.verifies(certificate.public_key(), item.signature, message)
        assert not approvals.verifies(certificate.public_key(), item.signature, message + b"x")


def test_cancelling_needs_the_right_to_ask(site: VaultSite, people: dict[str, Client]) -> None:
    found = ask(people)
    with Client(site.profile("ledger", "acme", ("approval.approve:acme/**", "approval.read:acme/**"))) as who:
        refused("SCOPE_DENIED", lambda: who.cancel_approval(found.approval_id))
    assert people["ledger"].cancel_approval(found.approval_id).state == 4
    refused("APPROVAL_ENDED", lambda: people["operator"].approve(found))
    refused("APPROVAL_ENDED", lambda: people["payments"].cancel_approval(found.approval_id))


def test_asking_needs_the_scope_of_the_operation_itself(site: VaultSite) -> None:
    with Client(site.profile("payments", "acme", ("credential.read:acme/**",))) as who:
        refused("SCOPE_DENIED", lambda: who.request_approval(GLASS, purpose="x"))


def test_to_who_may_not_see_it_an_approval_looks_absent(site: VaultSite, people: dict[str, Client]) -> None:
    found = ask(people)
    narrow = ("approval.approve:acme/elsewhere/*", "approval.read:acme/elsewhere/*")
    with (
        Wire(site.profile("ledger"), "acme", narrow) as ledger,
        Wire(
            site.profile("globex"), "globex", ("approval.approve:globex/**", "approval.read:globex/**")
        ) as globex,
    ):
        for wire in (ledger, globex):
            for method, more in (("Get", {}), ("Approve", {"signature": b"x"}), ("Cancel", {})):
                answers = [
                    wire.call(f"/vault.v1.ApprovalService/{method}", approval_id=approval_id, **more)
                    for approval_id in (found.approval_id, "A" * 22)
                ]
                assert answers[0].refusal == answers[1].refusal
                assert answers[0].reason == "APPROVAL_NOT_FOUND"
            assert not wire.call("/vault.v1.ApprovalService/List").response.approvals


def test_a_list_shows_every_approval_page_by_page_newest_first(
    site: VaultSite, people: dict[str, Client]
) -> None:
    asked = [ask(people).approval_id for _ in range(3)]
    people["payments"].cancel_approval(asked[0])
    with Wire(site.profile("payments"), "acme", SCOPES) as wire:
        seen, page = [], ""
        while True:
            answer = wire.call(
                "/vault.v1.ApprovalService/List", only_open=True, page_size=2, page_token=page
            ).response
            seen.extend(item.approval_id for item in answer.approvals)
            page = answer.next_page_token
            if not page:
                break
    assert seen[:2] == [asked[2], asked[1]]
    assert asked[0] not in seen
    assert len(seen) == len(set(seen))
    assert asked[0] in [item.approval_id for item in people["ledger"].list_approvals()]


def test_every_step_is_in_the_log_and_the_use_names_the_approval(
    site: VaultSite, people: dict[str, Client]
) -> None:
    found = approved(people)
    for secrets in people["payments"].reveal(NAME, purpose="door", approval_id=found.approval_id):
        secrets.close()
    books = Books(site)
    records = books.rows(
        "SELECT * FROM audit_records WHERE rows_written LIKE"
        f" '%approvals:{found.approval_id}%' ORDER BY sequence"
    )
    books.close()
    assert [item["action_type"] for item in records] == [
        "approval.request", "approval.approve", "approval.approve", "session.break_glass",
    ]  # fmt: skip
    assert json.loads(records[2]["after_state"])["approved_by"] == [
        item.identity for item in found.signatures
    ]


def test_an_approval_ends_with_its_time(fresh_site: VaultSite) -> None:
    fresh_site.settings = {"approvals": {"life_seconds": 60, "break_glass": 1}}
    fresh_site.write_config()
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with fresh_site.client() as client:
        client.put(NAME, {"password": "x"}, kind="bank_login")
    profiles = {name: fresh_site.profile(name, "acme", SCOPES) for name in ("payments", "ledger")}
    with Client(profiles["payments"]) as payments, Client(profiles["ledger"]) as ledger:
        found = payments.request_approval(GLASS, purpose="x")
        ledger.approve(found)
        late = payments.request_approval(GLASS, purpose="x")
        _age(fresh_site, "UPDATE approvals SET expire_time = expire_time - interval '61 seconds'")
        refused("APPROVAL_ENDED", lambda: payments.reveal(NAME, purpose="d", approval_id=found.approval_id))
        assert payments.get_approval(late.approval_id).state == 5


def test_signatures_that_were_not_made_are_found_out_when_they_are_used(fresh_site: VaultSite) -> None:
    fresh_site.settings = {"approvals": {"break_glass": 1}}
    fresh_site.write_config()
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with fresh_site.client() as client:
        client.put(NAME, {"password": "x"}, kind="bank_login")
    profiles: dict[str, Profile] = {
        name: fresh_site.profile(name, "acme", SCOPES) for name in ("payments", "ledger")
    }
    with Client(profiles["payments"]) as payments, Client(profiles["ledger"]) as ledger:
        first, second = (payments.request_approval(GLASS, purpose="x") for _ in range(2))
        ledger.approve(first)
        # Whoever can write to the database gives the one approval the signature of the other.
        _age(
            fresh_site,
            "UPDATE approvals SET signatures = (SELECT signatures FROM approvals WHERE approval_id ="
            f" '{first.approval_id}')",
        )
        refused(
            "STORED_DATA_DAMAGED",
            lambda: payments.reveal(NAME, purpose="d", approval_id=second.approval_id),
        )


def _age(site: VaultSite, statement: str) -> None:
    """Change the database behind the vault's back."""
    import asyncio

    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(owner_url(site.database_url))
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run())
