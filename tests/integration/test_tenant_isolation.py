"""What is another tenant's looks exactly like what does not exist: same code, same reason, same words."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.wire import METHODS, OPEN, Answer, Books, Wire
from vault.client import Client
from vault.client.sealing import Recipient
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.vault import VaultSite

SECRET = "acme-only-0a1b2c3d"
EXISTING, ABSENT = "acme/isolation/login", "acme/isolation/absent"
DELETED = "acme/isolation/deleted"
OWN = "globex/isolation/login"
KEY = Recipient().public_bytes

BY_NAME: dict[str, Callable[[str], dict[str, Any]]] = {
    "/vault.v1.CredentialService/Put": lambda name: {
        "name": name, "kind": "bank_login", "sealed": b"\0" * 100, "ingest_key_id": "A" * 43,
    },
    "/vault.v1.CredentialService/Get": lambda name: {"name": name},
    "/vault.v1.CredentialService/List": lambda name: {"prefix": name},
    "/vault.v1.CredentialService/ListVersions": lambda name: {"name": name},
    "/vault.v1.CredentialService/Watch": lambda name: {"prefix": name},
    "/vault.v1.CredentialService/SetStanding": lambda name: {"name": name},
    "/vault.v1.CredentialService/CreateKey": lambda name: {"name": name, "algorithm": "ES256"},
    "/vault.v1.CredentialService/GetPublicKey": lambda name: {"name": name},
    "/vault.v1.CredentialService/Delete": lambda name: {"name": name},
    "/vault.v1.CredentialService/Undelete": lambda name: {"name": name},
    "/vault.v1.CredentialService/DestroyVersion": lambda name: {"name": name, "version": 1},
    "/vault.v1.WebhookService/CreateEndpoint": lambda name: {
        "url": "https://hooks.example/", "events": ["credential.put"], "credential": name,
    },
    "/vault.v1.HandoverService/Wrap": lambda name: {
        "name": name, "recipient": "a", "sealed": b"\0" * 100, "ingest_key_id": "A" * 43,
    },
    "/vault.v1.HandoverService/Unwrap": lambda name: {
        "name": name, "handover_id": "A" * 22, "recipient_key": KEY,
    },
    "/vault.v1.SessionService/Reveal": lambda name: {
        "credentials": [pb.CredentialSelector(name=name)], "purpose": "test", "recipient_key": KEY,
    },
}  # fmt: skip
BY_TENANT: dict[str, Callable[[str], dict[str, Any]]] = {
    "/vault.v1.KeyService/CreateTenant": lambda tenant: {"tenant": tenant},
    "/vault.v1.KeyService/Rotate": lambda tenant: {"tenant": tenant},
    "/vault.v1.KeyService/List": lambda tenant: {"tenant": tenant},
    "/vault.v1.KeyService/Describe": lambda tenant: {"tenant": tenant},
    "/vault.v1.ErasureService/Describe": lambda tenant: {"tenant": tenant},
    "/vault.v1.ErasureService/Erase": lambda tenant: {"tenant": tenant},
    "/vault.v1.AuditService/List": lambda tenant: {"tenant": tenant},
    "/vault.v1.KeyService/GetStatus": lambda tenant: {"tenant": tenant},
    "/vault.v1.KeyService/ListUses": lambda tenant: {"tenant": tenant, "version": 1},
    "/vault.v1.KeyService/Retire": lambda tenant: {"tenant": tenant, "version": 1},
    "/vault.v1.KeyService/Quarantine": lambda tenant: {"tenant": tenant, "version": 1},
    "/vault.v1.KeyService/Restore": lambda tenant: {"tenant": tenant, "version": 1},
    "/vault.v1.KeyService/Destroy": lambda tenant: {"tenant": tenant, "version": 1},
    "/vault.v1.KeyService/SetSchedule": lambda tenant: {"tenant": tenant, "schedule": {}},
    "/vault.v1.JobService/Start": lambda tenant: {"tenant": tenant, "kind": 1},
    "/vault.v1.JobService/Get": lambda tenant: {"tenant": tenant, "job_id": "A" * 22},
    "/vault.v1.JobService/List": lambda tenant: {"tenant": tenant},
    "/vault.v1.JobService/ListFailures": lambda tenant: {"tenant": tenant, "job_id": "A" * 22},
    "/vault.v1.JobService/Update": lambda tenant: {"tenant": tenant, "job_id": "A" * 22, "command": 1},
    "/vault.v1.JobService/Watch": lambda tenant: {"tenant": tenant, "job_id": "A" * 22},
}
ON_THEIR_OWN = {
    "/vault.v1.ThreatService/Explain",
    "/vault.v1.ThreatService/Release",
    "/vault.v1.WebhookService/DeleteEndpoint",
    "/vault.v1.ApprovalService/Request",
    "/vault.v1.ApprovalService/Approve",
    "/vault.v1.ApprovalService/Get",
    "/vault.v1.ApprovalService/List",
    "/vault.v1.ApprovalService/Cancel",
    OPEN,
    "/vault.v1.TokenService/Issue",
    "/vault.v1.TokenService/Exchange",
    "/vault.v1.TokenService/Revoke",
    "/vault.v1.TokenService/Introspect",
}
WITHOUT_OBJECT = {
    "/vault.v1.ThreatService/List",
    "/vault.v1.ThreatService/GetBlastRadius",
    "/vault.v1.WebhookService/ListEndpoints",
    "/vault.v1.PolicyService/Get",
    "/vault.v1.PolicyService/List",
    "/vault.v1.PolicyService/Validate",
    "/vault.v1.PolicyService/Apply",
    "/vault.v1.PolicyService/Explain",
    "/vault.v1.PolicyService/ListReachers",
    "/vault.v1.TokenService/GetJwks",
    "/vault.v1.CredentialService/GetIngestKey",
    "/vault.v1.AuditService/GetCheckpoint",
    "/vault.v1.AuditService/ListSinks",
    "/vault.v1.AuditService/Report",
    "/vault.v1.AuditService/Verify",
    "/vault.v1.AuditService/WatchVerify",
    "/vault.v1.AuditService/ListCheckpoints",
    "/vault.v1.AuditService/GetInclusionProof",
    "/vault.v1.AuditService/GetConsistencyProof",
    "/vault.v1.AuditService/AcceptLoss",
    "/vault.v1.AuditService/Identify",
}


@pytest.fixture(scope="session")
def acme(site: VaultSite) -> Iterator[Wire]:
    with site.client() as client:
        for name in (EXISTING, DELETED):
            client.put(name, {"password": SECRET}, kind="bank_login")
        client.delete(DELETED)
    with Wire(site.profile("payments"), "acme") as wire:
        yield wire


@pytest.fixture(scope="session")
def globex(site: VaultSite, acme: Wire) -> Iterator[Wire]:
    with site.client("globex", "globex") as client:
        client.put(OWN, {"password": "own"}, kind="bank_login")
    with Wire(site.profile("globex"), "globex") as wire:
        yield wire


@pytest.fixture(scope="session")
def books(site: VaultSite) -> Iterator[Books]:
    made = Books(site)
    yield made
    made.close()


def alike(*answers: Answer) -> Answer:
    """Whoever gets these cannot tell them apart."""
    first = answers[0]
    for answer in answers:
        assert not answer.ok
        assert answer.refusal == first.refusal
        assert answer.metadata == first.metadata
        assert answer.raw == first.raw
        assert SECRET.encode() not in answer.raw
    return first


def test_every_method_is_held_to_it() -> None:
    assert {*BY_NAME, *BY_TENANT, *ON_THEIR_OWN, *WITHOUT_OBJECT} == set(METHODS)


@pytest.mark.parametrize("method", BY_NAME)
def test_another_tenants_credential_looks_like_none(globex: Wire, books: Books, method: str) -> None:
    before = books.state()
    fields = BY_NAME[method]
    answer = alike(
        *(globex.call(method, **fields(name)) for name in (EXISTING, ABSENT, DELETED, "initech/a/b"))
    )
    assert answer.reason == "SCOPE_DENIED"
    assert books.state() == before
    (record,) = books.records(answer.request_id)
    assert (record["tenant"], record["outcome"]) == ("globex", "refused")


@pytest.mark.parametrize(
    "method", [method for method in BY_NAME if not method.endswith(("Service/List", "Service/Watch"))]
)
def test_a_credential_of_the_own_tenant_outside_the_scope_looks_like_none(
    acme: Wire, books: Books, method: str
) -> None:
    narrow = acme.issue("credential.read:acme/other/*", "session.reveal:acme/other/*").token
    before = books.state()
    fields = BY_NAME[method]
    answer = alike(
        *(acme.call(method, bearer=narrow, **fields(name)) for name in (EXISTING, ABSENT, DELETED))
    )
    assert answer.reason == "SCOPE_DENIED"
    assert books.state() == before


def test_a_list_leaves_out_what_the_token_does_not_cover(acme: Wire, globex: Wire) -> None:
    method = "/vault.v1.CredentialService/List"
    narrow = acme.issue("credential.read:acme/isolation/absent").token
    for prefix in ("", "acme", "acme/isolation"):
        assert not acme.call(method, bearer=narrow, prefix=prefix, show_deleted=True).response.credentials
    names = [item.name for item in globex.call(method, show_deleted=True).response.credentials]
    assert OWN in names
    assert all(name.startswith("globex/") for name in names)


@pytest.mark.parametrize("method", BY_TENANT)
def test_another_tenant_looks_like_none(globex: Wire, books: Books, method: str) -> None:
    before = books.state()
    fields = BY_TENANT[method]
    answer = alike(*(globex.call(method, **fields(tenant)) for tenant in ("acme", "initech")))
    assert answer.reason == "SCOPE_DENIED"
    assert books.state() == before


def test_no_policy_answers_alike_for_a_tenant_that_exists_and_one_that_does_not(globex: Wire) -> None:
    answers = [
        globex.call("/vault.v1.TokenService/Issue", tenant=tenant, scopes=[f"credential.read:{tenant}/**"])
        for tenant in ("acme", "initech", "system")
    ]
    assert {answer.refusal for answer in answers} == {answers[0].refusal}
    assert answers[0].reason == "POLICY_DENIED"


def test_a_session_on_another_tenants_credential_looks_like_one_on_none(globex: Wire) -> None:
    answers = []
    for wanted in ([EXISTING], [ABSENT], [OWN, EXISTING], [OWN, ABSENT]):
        with globex.stream() as stream:
            start = pb.SessionStart(
                credentials=[pb.CredentialSelector(name=name) for name in wanted],
                purpose="test",
                recipient_key=KEY,
            )
            answers.append(stream.ask(start=start))
    assert alike(*answers).reason == "SCOPE_DENIED"


USES = ("hmac", "verify_hmac", "totp", "answer_challenge", "sign")


@pytest.mark.parametrize("kind", ["reveal", "verify_webhook", *USES])
def test_an_operation_on_another_tenants_credential_looks_like_one_on_none(globex: Wire, kind: str) -> None:
    operations = {
        "reveal": lambda name: pb.RevealOperation(name=name),
        "verify_webhook": lambda name: pb.VerifyWebhookOperation(
            name=name, field_names=["password"], scheme=pb.WEBHOOK_SCHEME_STRIPE, body=b"{}"
        ),
        **dict.fromkeys(USES, lambda name: {"name": name, "field_name": "password"}),
        "sign": lambda name: {"name": name, "field_name": "password", "raw": {"message": b"x"}},
    }
    with globex.stream() as stream:
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=OWN)], purpose="test", recipient_key=KEY
        )
        assert stream.ask(start=start).WhichOneof("message") == "opened"
        errors = [
            stream.ask(operation_id=1, **{kind: operations[kind](name)}).error for name in (EXISTING, ABSENT)
        ]
        assert errors[0] == errors[1]
        assert errors[0].reason == "SCOPE_DENIED"


def test_another_tenants_token_is_revoked_by_nobody_else(acme: Wire, globex: Wire) -> None:
    issued = acme.issue("credential.read:acme/**")
    answers = [
        globex.call("/vault.v1.TokenService/Revoke", token_id=token_id)
        for token_id in (issued.token_id, "A" * 22)
    ]
    assert [dataclasses.replace(a, response=None, request_id="") for a in answers] == [
        Answer(answers[0].code)
    ] * 2
    get = "/vault.v1.CredentialService/Get"
    assert acme.call(get, bearer=issued.token, name=EXISTING).ok


def test_another_tenants_token_looks_like_no_token(acme: Wire, globex: Wire) -> None:
    method = "/vault.v1.TokenService/Introspect"
    issued = acme.issue("credential.read:acme/**").token
    revoked = acme.issue("credential.read:acme/**")
    acme.call("/vault.v1.TokenService/Revoke", token_id=revoked.token_id)
    answers = [
        globex.call(method, token=text) for text in (issued, revoked.token, "a.b.c", issued[:-4] + "AAAA")
    ]
    assert all(answer.ok for answer in answers)
    assert {answer.response.SerializeToString() for answer in answers} == {b""}
    assert acme.call(method, token=issued).response.active


def test_a_token_of_the_same_tenant_looks_like_no_token_without_the_scope(
    site: VaultSite, acme: Wire
) -> None:
    """`to anyone else every token looks inactive`, says the contract."""
    method = "/vault.v1.TokenService/Introspect"
    issued = acme.issue("credential.read:acme/**").token
    with Wire(site.profile("ledger"), "acme", ("credential.read:acme/**",)) as ledger:
        answers = [ledger.call(method, token=text) for text in (issued, "a.b.c")]
    assert [answer.ok for answer in answers] == [True, True]
    assert {answer.response.SerializeToString() for answer in answers} == {b""}


def test_the_trail_of_a_tenant_shows_nothing_of_another(acme: Wire, globex: Wire) -> None:
    method = "/vault.v1.AuditService/List"
    globex.call("/vault.v1.CredentialService/Get", name=EXISTING)
    for wire, own in ((globex, "globex"), (acme, "acme")):
        page = ""
        while True:
            answer = wire.call(method, page_size=1000, page_token=page).response
            assert {record.tenant for record in answer.records} <= {own}
            page = answer.next_page_token
            if not page:
                break
    mine = globex.call(method, resource=EXISTING).response.records
    assert mine, "who tried, and was refused, sees that"
    assert {record.reason for record in mine} == {"SCOPE_DENIED"}
    theirs = acme.call(method, resource=EXISTING, identity=mine[0].identity).response.records
    assert not theirs


def test_the_checkpoint_tells_no_tenant_more_than_the_size_of_the_log(acme: Wire, globex: Wire) -> None:
    method = "/vault.v1.AuditService/GetCheckpoint"
    for wire in (acme, globex):
        answer = wire.call(method)
        assert answer.ok
        assert "acme" not in answer.response.note
        assert "globex" not in answer.response.note
    for verify in ("Verify", "WatchVerify"):
        assert globex.call(f"/vault.v1.AuditService/{verify}").reason == "SCOPE_DENIED"


def test_another_tenants_webhook_endpoint_looks_like_none(acme: Wire, globex: Wire) -> None:
    with_signer = "acme/isolation/signer"
    with Client(acme.profile) as client:
        client.put(with_signer, {"signing_secret": "whsec_" + "A" * 44}, kind="webhook_endpoint")
    made = acme.call(
        "/vault.v1.WebhookService/CreateEndpoint",
        url="https://hooks.example/", events=["credential.put"], credential=with_signer,
    )  # fmt: skip
    answers = [
        globex.call("/vault.v1.WebhookService/DeleteEndpoint", endpoint_id=endpoint_id)
        for endpoint_id in (made.response.endpoint.endpoint_id, "A" * 22)
    ]
    assert alike(*answers).reason == "ENDPOINT_NOT_FOUND"
    assert not globex.call("/vault.v1.WebhookService/ListEndpoints").response.endpoints
