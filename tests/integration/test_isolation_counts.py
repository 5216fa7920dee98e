"""What is another tenant's costs the vault exactly what an absent thing costs: the same work in database and HSM.

Counted from outside: each statement as PostgreSQL logs it, each operation of the HSM as the vault's metrics count it.
What goes on in the background only ever adds, so of several calls the least that each took is what it needs itself.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.test_tenant_isolation import (
    ABSENT,
    BY_NAME,
    BY_TENANT,
    DELETED,
    EXISTING,
    KEY,
    OWN,
    SECRET,
    WITHOUT_OBJECT,
)
from tests.integration.wire import METHODS, OPEN, Wire, until
from tests.support.postgres import free_port
from tests.support.vault import VaultSite
from vault.crypto.approvals import Operation
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

ENTRY = re.compile(r"^\d{4}-\d\d-\d\d .*?(?=^\d{4}-\d\d-\d\d |\Z)", re.MULTILINE | re.DOTALL)
STATEMENT = re.compile(r"LOG:  (?:statement|execute [^:]*): (.*)", re.DOTALL)
SIGNER, CANARY = "acme/isolation/signer", "acme/isolation/canary"
LEAST, MOST = 3, 12
NO_ID = "A" * 22
Cost = tuple[Counter[str], Counter[str]]


@dataclasses.dataclass
class Counted:
    """A vault with the tenants acme and globex, whose work can be counted; and what acme has."""

    site: VaultSite
    log: Path
    globex: Wire
    acme: Wire
    ids: dict[str, str]

    def cost(self, call: Callable[[], object]) -> Cost:
        """The statements and operations of the HSM that fell into the time of a call."""
        hsm, place = self._hsm(), self.log.stat().st_size
        call()
        with self.log.open() as opened:
            opened.seek(place)
            entries = ENTRY.findall(opened.read())
        statements = Counter(
            " ".join(found[1].split()) for entry in entries if (found := STATEMENT.search(entry))
        )
        return statements, self._hsm() - hsm

    def _hsm(self) -> Counter[str]:
        url = f"http://{self.site.settings['metrics']['listen']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return Counter(
            {
                sample.labels["operation"]: int(sample.value)
                for family in families
                for sample in family.samples
                if sample.name == "strongroom_hsm_operations_total" and sample.labels["operation"] != "health"
            }
        )

    def same(self, *calls: Callable[[], object]) -> bool:
        """Whether all of these cost the same."""
        seen: list[list[Cost]] = [[] for _ in calls]
        for turn in range(MOST):
            for samples, call in zip(seen, calls, strict=True):
                samples.append(self.cost(call))
            costs = [_least(samples) for samples in seen]
            if turn + 1 >= LEAST and all(cost == costs[0] for cost in costs):
                return True
        return False


def _least(samples: list[Cost]) -> Cost:
    statements, operations = zip(*samples, strict=True)
    return functools.reduce(Counter.__and__, statements), functools.reduce(Counter.__and__, operations)


@pytest.fixture(scope="module")
def counted(
    softhsm: tuple[str, Path], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Counted]:
    url = postgres.create_database("counted")
    postgres.sql("postgres", "ALTER DATABASE counted SET log_statement = 'all'")
    settings: dict[str, dict[str, object]] = {
        "metrics": {"listen": f"127.0.0.1:{free_port()}"},
        "threats": {"denied_per_minute": 1_000_000},
    }
    site = VaultSite(tmp_path_factory.mktemp("counted"), url, *softhsm, settings)
    site.prepare()
    site.start()
    try:
        with site.system() as system:
            system.create_tenant("acme")
            system.create_tenant("globex")
        for tenant, who, names in (("acme", "payments", (EXISTING, DELETED)), ("globex", "globex", (OWN,))):
            with site.client(who, tenant) as client:
                for name in names:
                    client.put(name, {"password": SECRET}, kind="bank_login")
        with Wire(site.profile("payments"), "acme") as acme, Wire(site.profile("globex"), "globex") as globex:
            for wire in (acme, globex):
                also = (
                    "session.break_glass:{}/**", "token.issue:{}/tokens", "threat.read:{}/threats",
                    "threat.release:{}/threats",
                )  # fmt: skip
                used = (scope for scope in wire.scopes if not scope.startswith("session.use."))
                wire.scopes = (*used, *(scope.format(wire.tenant) for scope in also))
            yield Counted(site, postgres.folder / "log", globex, acme, _belongings(site, acme))
    finally:
        site.stop()


def _belongings(site: VaultSite, acme: Wire) -> dict[str, str]:
    """One of everything that has an id, all of acme."""
    with site.client("payments", "acme", acme.scopes) as client:
        client.delete(DELETED)
        client.put(SIGNER, {"signing_secret": "whsec_" + "A" * 44}, kind="webhook_endpoint")
        client.put(CANARY, {"password": "x"}, kind="bank_login", labels={"canary": "true"})
        endpoint = client.create_webhook_endpoint(
            "https://hooks.example/", ["credential.put"], credential=SIGNER
        )
        recipient = "spiffe://test.strongroom.internal/globex"
        handover = client.wrap("acme/isolation/handed", {"password": "x"}, recipient=recipient)
        for secrets in client.reveal(CANARY, purpose="test"):
            secrets.close()
        glass = Operation("session.break_glass", EXISTING, {"version": "0", "fields": ""})
        approval = client.request_approval(glass, purpose="test")
        (threat, *_) = until(client.list_threats)
    issued = acme.issue("credential.read:acme/**")
    with site.operator() as operator:
        job = operator.start_job("acme", "rewrap")
    return {
        "endpoint": endpoint.endpoint_id,
        "handover": handover.handover_id,
        "token": issued.token,
        "token_id": issued.token_id,
        "approval": approval.approval_id,
        "threat": threat.threat_id,
        "job": job.job_id,
    }


def by_id(method: str, field: str, kind: str, **more: Any) -> tuple[str, str, str, dict[str, Any]]:
    return f"/vault.v1.{method}", field, kind, more


BY_ID = (
    by_id("WebhookService/DeleteEndpoint", "endpoint_id", "endpoint"),
    by_id("HandoverService/Unwrap", "handover_id", "handover", name="globex/isolation/handed", recipient_key=KEY),
    by_id("TokenService/Revoke", "token_id", "token_id"),
    by_id("TokenService/Revoke", "parent_id", "token_id"),
    by_id("TokenService/Issue", "approval_id", "approval", tenant="globex", scopes=["credential.read:globex/**"]),
    by_id("SessionService/Reveal", "approval_id", "approval",
          credentials=[pb.CredentialSelector(name=OWN)], purpose="test", recipient_key=KEY),
    by_id("ApprovalService/Get", "approval_id", "approval"),
    by_id("ApprovalService/Approve", "approval_id", "approval", signature=b"x"),
    by_id("ApprovalService/Cancel", "approval_id", "approval"),
    by_id("ThreatService/Explain", "threat_id", "threat"),
    by_id("ThreatService/Release", "threat_id", "threat", purpose="test"),
    by_id("JobService/Get", "job_id", "job", tenant="globex"),
    by_id("JobService/ListFailures", "job_id", "job", tenant="globex"),
    by_id("JobService/Update", "job_id", "job", tenant="globex", command=1),
    by_id("JobService/Watch", "job_id", "job", tenant="globex"),
)  # fmt: skip
"""By its id, from within the caller's own tenant: the look-up is done, and must find nothing in the same way."""
BY_OWN_WORDS = {
    OPEN,
    "/vault.v1.TokenService/Exchange",
    "/vault.v1.TokenService/Introspect",
    "/vault.v1.ApprovalService/Request",
    "/vault.v1.ApprovalService/List",
}
"""Those with a test of their own below."""


def test_every_method_is_counted() -> None:
    by_ids = {method for method, *_ in BY_ID}
    assert {*BY_NAME, *BY_TENANT, *by_ids, *BY_OWN_WORDS, *WITHOUT_OBJECT} == set(METHODS)


@pytest.mark.parametrize("method", BY_NAME)
def test_a_credential_by_its_name(counted: Counted, method: str) -> None:
    fields = BY_NAME[method]
    assert counted.same(
        *(
            functools.partial(counted.globex.call, method, **fields(name))
            for name in (ABSENT, EXISTING, DELETED)
        )
    )


@pytest.mark.parametrize("method", BY_TENANT)
def test_a_tenant(counted: Counted, method: str) -> None:
    fields = BY_TENANT[method]
    assert counted.same(
        *(functools.partial(counted.globex.call, method, **fields(tenant)) for tenant in ("initech", "acme"))
    )


@pytest.mark.parametrize(
    ("method", "field", "kind", "more"), BY_ID, ids=[f"{row[0].rpartition('.')[2]}-{row[1]}" for row in BY_ID]
)
def test_whatever_has_an_id(
    counted: Counted, method: str, field: str, kind: str, more: dict[str, Any]
) -> None:
    calls = [
        functools.partial(counted.globex.call, method, **{field: value}, **more)
        for value in (NO_ID, counted.ids[kind])
    ]
    absent, other = (dataclasses.replace(call(), response=None, request_id="") for call in calls)
    assert absent == other
    assert counted.same(*calls)


def test_a_token_to_look_at(counted: Counted) -> None:
    method = "/vault.v1.TokenService/Introspect"
    revoked = counted.acme.issue("credential.read:acme/**")
    counted.acme.call("/vault.v1.TokenService/Revoke", token_id=revoked.token_id)
    texts = (counted.ids["token"], revoked.token, counted.ids["token"][:-4] + "AAAA")
    assert counted.same(*(functools.partial(counted.globex.call, method, token=text) for text in texts))


def test_a_token_to_exchange_and_an_approval_to_ask_for(counted: Counted) -> None:
    globex = counted.globex
    assert counted.same(
        *(
            functools.partial(
                globex.call, "/vault.v1.TokenService/Exchange", scopes=[f"credential.read:{name}"]
            )
            for name in ("globex-none/isolation/x", EXISTING)
        )
    )
    asked = [
        {"action": "session.break_glass", "resource": name, "arguments": {"version": "0", "fields": ""}}
        for name in (ABSENT, EXISTING, "initech/isolation/login")
    ]
    request = "/vault.v1.ApprovalService/Request"
    assert counted.same(
        *(functools.partial(globex.call, request, operation=one, purpose="test") for one in asked)
    )


def test_a_list_costs_no_more_for_what_another_tenant_has(counted: Counted) -> None:
    def least() -> Cost:
        method = "/vault.v1.ApprovalService/List"
        return _least([counted.cost(functools.partial(counted.globex.call, method)) for _ in range(MOST)])

    before = least()
    glass = {
        "action": "session.break_glass",
        "resource": EXISTING,
        "arguments": {"version": "0", "fields": ""},
    }
    for _ in range(5):
        assert counted.acme.call("/vault.v1.ApprovalService/Request", operation=glass, purpose="test").ok
    assert least() == before


def test_a_session_and_an_operation_on_one(counted: Counted) -> None:
    def start(*names: str) -> object:
        with counted.globex.stream() as stream:
            selectors = [pb.CredentialSelector(name=name) for name in names]
            return stream.ask(start=pb.SessionStart(credentials=selectors, purpose="test", recipient_key=KEY))

    assert counted.same(lambda: start(ABSENT), lambda: start(EXISTING))
    assert counted.same(lambda: start(OWN, ABSENT), lambda: start(OWN, EXISTING))
    with counted.globex.stream() as stream:
        opening = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=OWN)], purpose="test", recipient_key=KEY
        )
        assert stream.ask(start=opening).WhichOneof("message") == "opened"
        assert counted.same(
            *(
                functools.partial(stream.ask, operation_id=1, reveal=pb.RevealOperation(name=name))
                for name in (ABSENT, EXISTING)
            )
        )


def test_a_difference_of_one_statement_or_one_operation_of_the_hsm_is_seen(counted: Counted) -> None:
    """Of one's own things the one that exists does cost more than the one that does not."""
    get_job = "/vault.v1.JobService/Get"
    assert not counted.same(
        *(
            functools.partial(counted.acme.call, get_job, tenant="acme", job_id=job_id)
            for job_id in (NO_ID, counted.ids["job"])
        )
    )
    reveal = BY_NAME["/vault.v1.SessionService/Reveal"]
    calls = [
        functools.partial(counted.acme.call, "/vault.v1.SessionService/Reveal", **reveal(name))
        for name in (ABSENT, EXISTING)
    ]
    assert not counted.same(*calls)
    absent, existing = (_least([counted.cost(call) for _ in range(LEAST)])[1] for call in calls)
    assert existing - absent == Counter(unwrap=1)
