"""A token made from a token is weaker, dies with it, and counts against it; many tokens are revoked at once."""

from __future__ import annotations

import base64
import datetime
import hashlib
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.integration.wire import Books, Wire
from tests.support.vault import TRUST_DOMAIN, client_extensions, issue_certificate
from vault.client.sealing import Recipient
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.wire import Answer
    from tests.support.vault import VaultSite

GET = "/vault.v1.CredentialService/Get"
ISSUE = "/vault.v1.TokenService/Issue"
EXCHANGE = "/vault.v1.TokenService/Exchange"
REVOKE = "/vault.v1.TokenService/Revoke"
INTROSPECT = "/vault.v1.TokenService/Introspect"
REVEAL = "/vault.v1.SessionService/Reveal"
NAME = "acme/lineage/login"
READ, OPEN = "credential.read:acme/**", "session.reveal:acme/**"
KEY = Recipient().public_bytes
IDS = itertools.count()


@pytest.fixture(scope="session")
def wire(site: VaultSite) -> Iterator[Wire]:
    scopes = (READ, OPEN, "token.revoke:acme/tokens", "token.delegate:acme/tokens")
    with Wire(site.profile("payments"), "acme", scopes) as made, site.client() as client:
        client.put(NAME, {"password": "p"}, kind="bank_login")
        yield made


@pytest.fixture(scope="session")
def books(site: VaultSite) -> Iterator[Books]:
    made = Books(site)
    yield made
    made.close()


def thumbprint(site: VaultSite, name: str) -> str:
    certificate = x509.load_pem_x509_certificate((site.folder / f"pki/{name}.pem").read_bytes())
    der = certificate.public_bytes(serialization.Encoding.DER)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def exchange(wire: Wire, parent: str, *scopes: str, **fields: Any) -> Any:
    answer = wire.call(EXCHANGE, bearer=parent, scopes=scopes or [READ], **fields)
    assert answer.ok, answer
    return answer.response


def works(wire: Wire, text: str) -> str:
    """OK, or the reason why a read with this token is refused."""
    answer = wire.call(GET, bearer=text, name=NAME)
    return "OK" if answer.ok else answer.reason


def reveal(wire: Wire, text: str) -> Answer:
    selector = pb.CredentialSelector(name=NAME)
    return wire.call(REVEAL, bearer=text, credentials=[selector], purpose="t", recipient_key=KEY)


@pytest.fixture
def someone(site: VaultSite) -> Iterator[Wire]:
    """A client of an identity of its own, so that to revoke all of its tokens disturbs nobody."""
    name = f"bench{next(IDS)}"
    uri = f"spiffe://{TRUST_DOMAIN}/{name}"
    issue_certificate(site.folder / "pki", name, client_extensions(uri))
    with Wire(site.profile(name), "acme", (READ, OPEN)) as made:
        yield made


def identity(wire: Wire) -> str:
    answer = wire.call(INTROSPECT, token=wire.issue(READ).token)
    return str(answer.response.identity)


# Weaker than its parent.


def test_a_child_has_what_was_asked_for_and_says_whom_it_comes_from(wire: Wire, books: Books) -> None:
    root, before = wire.issue(READ, OPEN), time.time()
    child = exchange(wire, root.token, "credential.read:acme/lineage/*", ttl={"seconds": 60})
    assert (child.parent_id, child.root_id) == (root.token_id, root.token_id)
    assert list(child.scopes) == ["credential.read:acme/lineage/*"]
    assert before + 58 < child.expire_time.seconds <= time.time() + 60
    grandchild = exchange(wire, child.token, f"credential.read:{NAME}")
    assert (grandchild.parent_id, grandchild.root_id) == (child.token_id, root.token_id)
    assert grandchild.expire_time.seconds <= child.expire_time.seconds
    assert works(wire, grandchild.token) == "OK"
    assert reveal(wire, child.token).reason == "SCOPE_DENIED"
    (record,) = books.rows(f"SELECT * FROM audit_records WHERE resource = '{grandchild.token_id}'")
    assert (record["action_type"], record["token_id"]) == ("token.exchange", child.token_id)
    assert root.token_id in record["after_state"]
    said = wire.call(INTROSPECT, token=grandchild.token).response
    assert (said.active, said.parent_id, said.root_id) == (True, child.token_id, root.token_id)


@pytest.mark.parametrize(
    "wider",
    [
        "credential.read:acme/**", "credential.read:acme/lineage/**", "credential.read:acme/*/*",
        "credential.read:acme/other/login", "credential.write:acme/lineage/login",
        "session.reveal:acme/lineage/login", "token.revoke:acme/tokens",
    ],
)  # fmt: skip
def test_no_child_has_a_scope_that_its_parent_lacks(wire: Wire, wider: str) -> None:
    parent = wire.issue("credential.read:acme/lineage/*").token
    assert wire.call(EXCHANGE, bearer=parent, scopes=[wider]).reason == "SCOPE_DENIED"
    both = wire.call(EXCHANGE, bearer=parent, scopes=["credential.read:acme/lineage/login", wider])
    assert both.reason == "SCOPE_DENIED"


@pytest.mark.parametrize("scope", ["credential.read:globex/**", "credential.read:system/x", "nothing", ""])
def test_no_child_leaves_its_tenant(wire: Wire, scope: str) -> None:
    assert wire.call(EXCHANGE, scopes=[scope]).reason == "FIELD_INVALID"


@pytest.mark.parametrize("seconds", [0, -1, 61, 86_400, 2**63 - 1, -(2**63)])
def test_no_child_lives_longer_than_its_parent(wire: Wire, seconds: int) -> None:
    parent = wire.issue(READ, seconds=60).token
    answer = wire.call(EXCHANGE, bearer=parent, scopes=[READ], ttl={"seconds": seconds})
    assert (answer.reason, answer.metadata) == ("FIELD_INVALID", {"field": "ttl"})
    left = exchange(wire, parent, READ)
    assert left.expire_time.seconds <= time.time() + 60


def test_a_token_is_made_from_a_token_eight_times_and_no_more(wire: Wire) -> None:
    text = wire.issue(READ).token
    for _ in range(8):
        text = exchange(wire, text).token
    assert works(wire, text) == "OK"
    answer = wire.call(EXCHANGE, bearer=text, scopes=[READ])
    assert (answer.reason, answer.metadata) == ("LIMIT_REACHED", {"limit": "token_depth"})


# For another service, if the parent may.


def test_a_child_can_be_bound_to_another_services_certificate(
    site: VaultSite, wire: Wire, books: Books
) -> None:
    root = wire.issue(READ, "token.delegate:acme/tokens")
    child = exchange(wire, root.token, certificate_thumbprint=thumbprint(site, "ledger"))
    assert works(wire, child.token) == "TOKEN_CERTIFICATE_MISMATCH"
    with Wire(site.profile("ledger")) as ledger:
        answer = ledger.call(GET, bearer=child.token, name=NAME)
        assert answer.ok
        (record,) = books.records(answer.request_id)
        assert record["user_id"].endswith("/ledger"), "who did it is who showed the certificate"
        assert record["token_id"] == child.token_id
        assert wire.call(REVOKE, token_id=root.token_id).ok
        assert works(ledger, child.token) == "TOKEN_REVOKED"


def test_without_the_scope_to_delegate_no_child_is_bound_to_another(site: VaultSite, wire: Wire) -> None:
    other = thumbprint(site, "ledger")
    answer = wire.call(EXCHANGE, bearer=wire.issue(READ).token, scopes=[READ], certificate_thumbprint=other)
    assert answer.reason == "SCOPE_DENIED"
    own = thumbprint(site, "payments")
    assert exchange(wire, wire.issue(READ).token, certificate_thumbprint=own).token


@pytest.mark.parametrize("bad", ["x", "A" * 42, "A" * 44, "A" * 42 + "=", "A" * 42 + "\n", "\u00e9" * 43])
def test_a_malformed_thumbprint_is_refused(wire: Wire, bad: str) -> None:
    answer = wire.call(EXCHANGE, scopes=[READ], certificate_thumbprint=bad)
    assert (answer.reason, answer.metadata) == ("FIELD_INVALID", {"field": "certificate_thumbprint"})


# Revoked with what it comes from.


def test_every_descendant_dies_with_the_token_it_comes_from_and_no_ancestor_does(wire: Wire) -> None:
    line = [wire.issue(READ)]
    for _ in range(4):
        line.append(exchange(wire, line[-1].token))
    assert wire.call(REVOKE, token_id=line[2].token_id).ok
    assert [works(wire, one.token) for one in line] == ["OK"] * 2 + ["TOKEN_REVOKED"] * 3


def test_to_revoke_the_children_leaves_the_parent_and_later_children(wire: Wire) -> None:
    parent = wire.issue(READ)
    children = [exchange(wire, parent.token) for _ in range(2)]
    grandchild = exchange(wire, children[0].token)
    assert wire.call(REVOKE, bearer=parent.token, parent_id=parent.token_id).ok, "its own: no scope needed"
    for dead in (*children, grandchild):
        assert works(wire, dead.token) == "TOKEN_REVOKED"
    assert works(wire, parent.token) == "OK"
    time.sleep(1.1)
    assert works(wire, exchange(wire, parent.token).token) == "OK"


def test_a_child_neither_revokes_its_parent_nor_its_siblings(wire: Wire) -> None:
    parent = wire.issue(READ)
    one, other = exchange(wire, parent.token), exchange(wire, parent.token)
    for fields in (
        {"token_id": parent.token_id},
        {"token_id": other.token_id},
        {"parent_id": parent.token_id},
    ):
        assert wire.call(REVOKE, bearer=one.token, **fields).reason == "SCOPE_DENIED"
    assert works(wire, other.token) == "OK"


def test_all_tokens_of_an_identity_are_revoked_until_now_and_not_those_after(
    wire: Wire, someone: Wire
) -> None:
    who = identity(someone)
    before = [someone.issue(READ) for _ in range(3)]
    children = [exchange(someone, one.token) for one in before]
    assert wire.call(REVOKE, identity=who).ok
    for dead in (*before, *children):
        assert works(someone, dead.token) == "TOKEN_REVOKED"
    assert works(wire, wire.issue(READ).token) == "OK", "nobody else's"
    time.sleep(1.1)
    assert works(someone, someone.issue(READ).token) == "OK"


def test_a_revoked_identity_cannot_use_what_others_delegated_to_it(
    site: VaultSite, wire: Wire, someone: Wire
) -> None:
    name = someone.profile.certificate_file.stem
    child = exchange(wire, wire.token, READ, certificate_thumbprint=thumbprint(site, name))
    assert works(someone, child.token) == "OK"
    assert wire.call(REVOKE, identity=identity(someone)).ok
    assert works(someone, child.token) == "TOKEN_REVOKED"


def test_what_was_issued_before_a_moment_is_revoked_with_all_that_came_from_it_later(
    wire: Wire, someone: Wire
) -> None:
    who = identity(someone)
    old = someone.issue(READ)
    time.sleep(1.1)
    moment = datetime.datetime.now(datetime.UTC)
    time.sleep(1.1)
    new, late = someone.issue(READ), exchange(someone, old.token)
    assert wire.call(REVOKE, identity=who, issued_before=moment).ok
    assert [works(someone, one.token) for one in (old, late, new)] == ["TOKEN_REVOKED"] * 2 + ["OK"]
    earlier = moment - datetime.timedelta(hours=1)
    assert wire.call(REVOKE, identity=who, issued_before=earlier).ok
    assert works(someone, old.token) == "TOKEN_REVOKED", "the later moment stands"


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"token_id": "A" * 22, "identity": "x"}, {"all": True, "identity": "x"},
        {"all": True, "token_id": "A" * 22},
        {"parent_id": "x"}, {"identity": "a b"}, {"identity": "\u0430"}, {"identity": "a\n"}, {"identity": "a" * 256},
        {"token_id": "A" * 22, "tenant": "*"}, {"token_id": "A" * 22, "issued_before": {"seconds": 1}},
        {"identity": "x", "issued_before": {"seconds": 2**40}},
        {"identity": "x", "issued_before": {"seconds": -(2**62)}},
    ],
)  # fmt: skip
def test_a_revocation_that_says_too_little_or_too_much_is_refused(wire: Wire, fields: dict[str, Any]) -> None:
    assert wire.call(REVOKE, **fields).reason in ("FIELD_INVALID", "SCOPE_DENIED")


def test_nobody_revokes_many_without_the_scope_or_in_another_tenant(site: VaultSite, wire: Wire) -> None:
    weak = wire.issue(READ).token
    for fields in ({"all": True}, {"identity": "x"}, {"parent_id": "A" * 22}):
        assert wire.call(REVOKE, bearer=weak, **fields).reason == "SCOPE_DENIED"
    for tenant in ("globex", "system", "*"):
        for fields in ({"all": True}, {"identity": "x"}, {"token_id": "A" * 22}):
            answer = wire.call(REVOKE, tenant=tenant, **fields)
            assert answer.reason in ("SCOPE_DENIED", "FIELD_INVALID"), (tenant, fields)


def test_a_tenant_and_then_everything_is_revoked(fresh_site: VaultSite) -> None:
    fresh_site.start()
    with fresh_site.system() as system:
        for tenant in ("acme", "globex"):
            system.create_tenant(tenant)
    with fresh_site.client() as client:
        client.put(NAME, {"password": "p"}, kind="bank_login")
    with (
        Wire(fresh_site.profile("payments"), "acme", (READ, OPEN)) as acme,
        Wire(fresh_site.profile("globex"), "globex", ("credential.read:globex/**",)) as globex,
        Wire(fresh_site.profile("operator"), "system", ("token.revoke:system/tokens",)) as operator,
    ):
        stream = acme.stream(bearer=acme.token)
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=NAME)], purpose="t", recipient_key=KEY
        )
        assert stream.ask(start=start).WhichOneof("message") == "opened"
        assert globex.token
        assert operator.call(REVOKE, all=True, tenant="acme").ok
        assert stream.read().revoked.reason == pb.CLOSE_REASON_TOKEN_REVOKED
        assert works(acme, acme.token) == "TOKEN_REVOKED"
        assert works(globex, globex.token) == "SCOPE_DENIED", "it is good, if not for this name"
        assert operator.call(REVOKE, all=True, tenant="*").ok
        assert works(globex, globex.token) == "TOKEN_REVOKED"
        assert works(operator, operator.token) == "TOKEN_REVOKED", "the operator's own too"
        assert fresh_site.stop() == 0
        fresh_site.start()
        for one in (acme, globex, operator):
            assert works(one, one.token) == "TOKEN_REVOKED", "and after a restart"
    with fresh_site.system() as system:
        verified = system.verify_audit()
        assert verified.valid, verified.findings


# Good for a number of sessions.


def test_a_token_opens_as_many_sessions_as_it_is_good_for(wire: Wire, books: Books) -> None:
    answer = wire.call(ISSUE, tenant="acme", scopes=[READ, OPEN], max_sessions=2)
    text = answer.response.token
    assert wire.call(INTROSPECT, token=text).response.sessions_left == 2
    assert reveal(wire, text).ok
    with wire.stream(bearer=text) as stream:
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=NAME)], purpose="t", recipient_key=KEY
        )
        assert stream.ask(start=start).WhichOneof("message") == "opened"
        for number in (1, 2, 3):
            operation = pb.RevealOperation(name=NAME)
            assert stream.ask(operation_id=number, reveal=operation).WhichOneof("message") == "reveal"
    refused = reveal(wire, text)
    assert (refused.reason, refused.code) == ("TOKEN_USED_UP", grpc.StatusCode.UNAUTHENTICATED)
    assert books.records(refused.request_id)[0]["reason"] == "TOKEN_USED_UP"
    with wire.stream(bearer=text) as stream:
        assert stream.ask(start=start).reason == "TOKEN_USED_UP"
    said = wire.call(INTROSPECT, token=text).response
    assert said.active
    assert (said.HasField("sessions_left"), said.sessions_left) == (True, 0)
    assert works(wire, text) == "OK", "what opens no session is not counted"


def test_a_session_that_is_refused_is_not_counted(wire: Wire) -> None:
    text = wire.call(ISSUE, tenant="acme", scopes=[OPEN], max_sessions=1).response.token
    absent = pb.CredentialSelector(name="acme/lineage/absent")
    answer = wire.call(REVEAL, bearer=text, credentials=[absent], purpose="t", recipient_key=KEY)
    assert answer.reason == "CREDENTIAL_NOT_FOUND"
    assert reveal(wire, text).ok


def test_children_share_the_sessions_of_their_parent(wire: Wire) -> None:
    parent = wire.call(ISSUE, tenant="acme", scopes=[OPEN], max_sessions=3).response.token
    one = exchange(wire, parent, OPEN, max_sessions=1).token
    other = exchange(wire, parent, OPEN).token
    assert wire.call(INTROSPECT, token=other).response.sessions_left == 3
    assert [reveal(wire, text).reason for text in (one, one, other, parent, other, parent)] == [
        "", "TOKEN_USED_UP", "", "", "TOKEN_USED_UP", "TOKEN_USED_UP",
    ]  # fmt: skip


@pytest.mark.parametrize("bad", [-1, 1_000_001, 2**31 - 1, -(2**31)])
def test_a_number_of_sessions_that_cannot_be_is_refused(wire: Wire, bad: int) -> None:
    for method, fields in ((ISSUE, {"tenant": "acme"}), (EXCHANGE, {})):
        answer = wire.call(method, scopes=[READ], max_sessions=bad, **fields)
        assert (answer.reason, answer.metadata) == ("FIELD_INVALID", {"field": "max_sessions"})


def test_of_200_that_redeem_a_one_use_token_at_once_on_two_workers_exactly_one_wins(
    fresh_site: VaultSite,
) -> None:
    fresh_site.write_config(server={"workers": 2})
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    with fresh_site.client() as client:
        client.put(NAME, {"password": "p"}, kind="bank_login")
    wires = [Wire(fresh_site.profile("payments")) for _ in range(8)]
    text = wires[0].call(ISSUE, tenant="acme", scopes=[OPEN], max_sessions=1).response.token
    together = threading.Barrier(40)

    def redeem(number: int) -> list[str]:
        together.wait()
        return [reveal(wires[number % 8], text).reason for _ in range(5)]

    with ThreadPoolExecutor(40) as pool:
        reasons = [reason for found in pool.map(redeem, range(40)) for reason in found]
    for wire in wires:
        wire.channel.close()
    assert len(reasons) == 200
    assert reasons.count("") == 1
    assert reasons.count("TOKEN_USED_UP") == 199
    books = Books(fresh_site)
    assert [row["sessions"] for row in books.rows("SELECT sessions FROM token_uses")] == [1]
    books.close()
