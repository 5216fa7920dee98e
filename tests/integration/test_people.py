"""People who call are known by pseudonym wherever anything is written; erased, nothing leads back to them."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.integration.test_audit_evidence import strongroom as by_command
from tests.integration.test_backup import moved, start_elsewhere, strongroom
from tests.integration.test_policy import profile_file
from tests.integration.wire import until
from tests.support.vault import TRUST_DOMAIN, client_extensions, issue_certificate
from vault.client import Client, Profile, StrongroomError
from vault.core.policies import change
from vault.core.policy import Policy
from vault.crypto.approvals import Operation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.postgres import Postgres
    from tests.support.vault import VaultSite

ZARA, OTTO, MONA = "zara.quillfeather", "otto.brandywine", "mona.applegarth"
DEVICE = "quillfeathers-laptop"
NAME, CANARY = "acme/people/login", "acme/people/canary"
MORE = 'permit (principal, action, resource) when { principal.path like "people/*" };\n'
ACME = (
    "credential.write:acme/**", "credential.read:acme/**", "credential.delete:acme/**", "session.reveal:acme/**",
    "credential.set_standing:acme/**", "session.use.hmac:acme/**", "handover.wrap:acme/**",
    "handover.unwrap:acme/**", "audit.read:acme/audit", "token.revoke:acme/tokens", "key.rotate:acme/keys",
    "key.rewrap:acme/keys", "key.schedule:acme/keys", "key.read:acme/keys", "webhook.manage:acme/**",
    "policy.read:acme/policy", "threat.read:acme/threats", "threat.release:acme/threats",
)  # fmt: skip
SYSTEM = (
    "policy.read:system/policy", "policy.write:system/policy", "approval.approve:system/**",
    "approval.read:system/**", "tenant.delete:system/people", "audit.read:system/audit",
    "audit.verify:system/audit",
)  # fmt: skip
OFFICER = (*SYSTEM, "audit.identify:system/audit")


def spiffe(name: str) -> str:
    return f"spiffe://{TRUST_DOMAIN}/people/{name}"


def profile(site: VaultSite, name: str, tenant: str, scopes: tuple[str, ...]) -> Profile:
    pki = site.folder / "pki"
    if not (pki / f"{name}.pem").exists():
        issue_certificate(pki, name, client_extensions(spiffe(name)))
    return Profile(
        server=site.address,
        ca_file=pki / "ca.pem",
        certificate_file=pki / f"{name}.pem",
        private_key_file=pki / f"{name}-key.pem",
        tenant=tenant,
        scopes=scopes,
        device_id=DEVICE if name == ZARA else "",
    )


def client(site: VaultSite, name: str, tenant: str = "acme", scopes: tuple[str, ...] = ACME) -> Client:
    return Client(profile(site, name, tenant, scopes), timeout=60)


def clues(site: VaultSite, name: str) -> dict[str, bytes]:
    """What leads to a person: name, device, and everything of the certificate that only it has."""
    certificate = x509.load_pem_x509_certificate((site.folder / f"pki/{name}.pem").read_bytes())
    point = certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    thumbprint = certificate.fingerprint(hashes.SHA256())
    return {
        "name": name.encode(),
        "surname": name.partition(".")[2].encode(),
        "thumbprint": thumbprint,
        "thumbprint's text": base64.urlsafe_b64encode(thumbprint).rstrip(b"="),
        "public key": point[1:],
    }


def spellings(clue: bytes) -> list[str]:
    """As text, in hexadecimal, and in base64 wherever in a longer text it may begin."""
    found = [clue.hex(), clue.decode("latin-1")]
    for lead in range(3):
        # Without the characters at both ends, which the neighbours share.
        whole = base64.b64encode(bytes(lead) + clue)
        inner = whole[(4 if lead else 0) : len(whole) // 4 * 4 - 4].decode()
        found += [inner, inner.replace("+", "-").replace("/", "_")]
    return found


def traces(text: str, wanted: dict[str, bytes]) -> list[str]:
    lower = text.lower()
    return [
        what for what, clue in wanted.items() if any(s in text or s.lower() in lower for s in spellings(clue))
    ]


def dump(postgres: Postgres, site: VaultSite) -> dict[str, str]:
    """Every table of the database as text, by name."""
    database = site.database_url.rpartition("/")[2]
    names = postgres.sql(
        database,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
        "AND NOT relispartition",
    ).split()
    every = (f"SELECT '{name}' AS name, string_agg(t::text, ' ') AS rows FROM \"{name}\" t" for name in names)
    found = json.loads(
        postgres.sql(database, f"SELECT json_object_agg(name, rows) FROM ({' UNION ALL '.join(every)}) x")
    )
    assert {"audit_records", "people", "subjects", "approvals", "policies", "requests"} <= {*found}
    return {name: rows or "" for name, rows in found.items()}


def approved(site: VaultSite, operation: Operation, asking: Client, document: str = "") -> str:
    """An approval of an operation, by two people."""
    asked = asking.request_approval(operation, purpose="asked", document=document)
    for name in (OTTO, MONA):
        with client(site, name, "system", SYSTEM) as other:
            other.approve(asked)
    return asked.approval_id


def refused(reason: str, call: Callable[[], object]) -> None:
    with pytest.raises(StrongroomError) as caught:
        call()
    assert caught.value.reason == reason


def work(site: VaultSite, person: str) -> None:
    """The main operations, each as this person."""
    with client(site, person) as vault:
        vault.put(NAME, {"password": "x"}, kind="bank_login")
        vault.put(CANARY, {"key": "x"}, kind="generic", labels={"canary": "true"})
        with vault.reveal(NAME, purpose="work")[0] as found:
            assert found.text("password") == "x"
        with vault.session(CANARY, purpose="work") as session:
            session.reveal("key").close()
        vault.set_standing(NAME, "suspended", note="on leave")
        handover = vault.wrap(NAME, {"key": "given"}, recipient=spiffe(OTTO))
        with client(site, OTTO) as other:
            refused("HANDOVER_NOT_FOUND", lambda: vault.unwrap(NAME, handover.handover_id))
            with other.unwrap(NAME, handover.handover_id) as given:
                assert given.text("key") == "given"
        vault.delete(CANARY)
        vault.rotate_key("acme")
        vault.start_job("acme", "rewrap")
        vault.explain_policy(spiffe(OTTO), f"session.reveal:{NAME}")
        assert OTTO not in str(vault.list_reachers(NAME, identities=[spiffe(OTTO)]))
        refused("SCOPE_DENIED", lambda: vault.destroy_version(NAME, 1))
        until(vault.list_threats)
        vault.exchange_token(("credential.read:acme/**",))
        vault.revoke_tokens(identity=spiffe("nora.penhaligon"))


def change_policy(site: VaultSite, person: str) -> None:
    text = (site.folder / "policy.cedar").read_text() + (
        f'@id("by-name") permit (principal, action, resource) when {{ principal.id == "{spiffe(person)}" }};\n'
        f"// asked for by {spiffe(person)}.\n"
    )
    with client(site, person, "system", SYSTEM) as vault:
        by_path = text + 'forbid (principal, action, resource) when { principal.path == "people/some.body" };'
        assert vault.validate_policy(by_path)
        written = vault.written_policy(text)
        assert person not in written
        for told in (text, by_path):
            naming = change(0, Policy(told).digest)
            refused(
                "FIELD_INVALID",
                lambda told=told, naming=naming: vault.request_approval(
                    naming, purpose="asked", document=told
                ),
            )
        approval = approved(site, change(0, Policy(written).digest), vault, written)
        vault.apply_policy(text, base_version=0, comment="c", approval_id=approval)
        assert vault.get_policy().text == written
        # By name it is judged, as long as there is one.
        assert "by-name" in str(vault.explain_policy(spiffe(person), f"session.reveal:{NAME}").rules)


@pytest.mark.timeout(400)
def test_nothing_tells_who_a_person_is_but_to_those_who_may_know_and_to_nobody_once_erased(
    fresh_site: VaultSite, postgres: Postgres, tmp_path: Path
) -> None:
    site, sink = fresh_site, fresh_site.folder / "audit.jsonl"
    site.settings = {
        "identity": {"trust_domains": [TRUST_DOMAIN], "personal": [f"spiffe://{TRUST_DOMAIN}/people/*"]},
        "rates": {"per_identity": 10_000},
        "audit": {
            "checkpoint_seconds": 3600.0,
            "anchor_file": "anchor.txt",
            "sinks": [{"kind": "file", "name": "lines", "file": str(sink), "delivery": "required"}],
        },
    }
    (site.folder / "policy.cedar").write_text((site.folder / "policy.cedar").read_text() + MORE)
    site.write_config()
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
        key = system.checkpoint().verifier_key

    work(site, ZARA)
    change_policy(site, ZARA)
    nora = {"who never called, and was revoked": b"penhaligon"}
    everything = {ZARA: clues(site, ZARA), OTTO: clues(site, OTTO)}
    everything[ZARA]["device"] = DEVICE.encode()
    export, old = tmp_path / "before.jsonl", tmp_path / "before.backup"
    by_command("audit", "export", export, "--config", site.config_file)
    assert strongroom("backup", str(old), "--config", str(site.config_file))[0] == 0
    tables = dump(postgres, site)
    for wanted in (*everything.values(), nora):
        for table, text in tables.items():
            assert (table, traces(text, wanted)) == (table, [])
        assert traces(sink.read_text() + export.read_text() + site.log(), wanted) == []
    # The search finds what is there: of a service the name and the address are.
    assert traces(tables["audit_records"], {"service": b"/operator"}) == ["service"]

    with Client(site.profile("operator", "system", OFFICER), timeout=60) as officer:
        records = officer.audit_records(identity=spiffe(ZARA))
        (pseudonym,) = {record.identity for record in records}
        assert len(records) > 10
        assert {record.ip_address for record in records} <= {"127.0.0.0/24", ""}
        assert officer.identify([pseudonym]) == [spiffe(ZARA)]
        by_device = officer.audit_records(identity=spiffe(ZARA), device_id=DEVICE)
        assert {record.identity for record in by_device} == {pseudonym}
        assert officer.audit_records(network="127.0.0.0/8", identity=pseudonym)
        assert officer.blast_radius(identity=spiffe(ZARA)).touches
        bound_to = everything[ZARA]["thumbprint's text"].decode()
        assert officer.blast_radius(certificate=bound_to).touches
        assert any(x.certificate for a in officer.list_approvals() for x in a.signatures)
    with Client(site.profile("operator", "system", SYSTEM), timeout=60) as reader:
        refused("SCOPE_DENIED", lambda: reader.audit_records(identity=spiffe(ZARA)))
        refused("SCOPE_DENIED", lambda: reader.blast_radius(identity=spiffe(ZARA)))
        refused("SCOPE_DENIED", lambda: reader.identify([pseudonym]))
        assert reader.audit_records(identity=pseudonym)
        assert traces(str(reader.list_approvals()), everything[OTTO]) == []
        assert traces(reader.get_policy().text, everything[ZARA]) == []

    with (
        client(site, ZARA) as zara,
        Client(site.profile("operator", "system", SYSTEM), timeout=60) as asking,
    ):
        zara.use_token(zara.issue_token(("credential.read:acme/**",)).token)
        assert zara.get(NAME).name == NAME
        found = asking.describe_erasure(identity=spiffe(ZARA))
        operation = Operation(found.action, found.resource, dict(found.arguments))
        refused("APPROVAL_REQUIRED", lambda: asking.erase(identity=spiffe(ZARA)))
        certificate = asking.erase(identity=spiffe(ZARA), approval_id=approved(site, operation, asking))
        refused("SUBJECT_NOT_FOUND", lambda: asking.erase(identity=spiffe(ZARA)))
        assert asking.erase(identity=pseudonym) == certificate, "the same answer"
        with Client(site.profile("operator", "system", OFFICER), timeout=60) as officer:
            assert officer.audit_records(identity=spiffe(ZARA)) == []
        # Who still has the certificate is somebody else now, and that token is nobody's.
        refused("TOKEN_REVOKED", lambda: zara.get(NAME))
    content = json.loads(certificate.split("\n")[1])
    assert (content["erased"], content["opened"]) == ("person", 0)
    assert content["tried"] > 0

    with Client(site.profile("operator", "system", OFFICER), timeout=60) as officer:
        assert officer.identify([pseudonym]) == [""]
        file = profile_file(site, "operator", tmp_path, "system", OFFICER)
        assert by_command("person", "identify", pseudonym, "--profile", file).split()[1:2] == ["nobody:"]
        assert officer.audit_records(identity=pseudonym), "the records stay"
        # The others are known as before.
        assert {record.identity for record in officer.audit_records(identity=spiffe(OTTO))}
        assert "by-name" not in str(officer.explain_policy(spiffe(ZARA), f"session.reveal:{NAME}").rules)
        report = officer.verify_audit()
        assert report.valid, list(report.findings)
        assert officer.compliance_report("gdpr").report
    code, said = strongroom("audit", "verify", str(export), "--key", key)
    assert (code, said["valid"]) == (0, True), said
    for table, text in dump(postgres, site).items():
        assert (table, traces(text, everything[ZARA])) == (table, [])
    assert traces(certificate + sink.read_text() + site.log(), everything[ZARA]) == []

    # Who comes back is somebody else, and a restart forgets nothing and remembers nobody.
    site.stop()
    site.start()
    with client(site, ZARA) as zara, Client(site.profile("operator", "system", OFFICER)) as officer:
        zara.get(NAME)
        assert officer.audit_records(identity=spiffe(ZARA))[0].identity not in ("", pseudonym)
        assert officer.identify([pseudonym]) == [""]
    site.stop()

    # A backup from before holds the sealed name, and nothing opens it.
    url = postgres.create_database(f"vault_{secrets.token_hex(6)}")
    restored = moved(site, url)
    code, said = strongroom("restore", str(old), "--config", str(restored.config_file), "--key", key)
    assert code == 0, said
    start_elsewhere(restored)
    try:
        with Client(restored.profile("operator", "system", OFFICER), timeout=60) as officer:
            assert officer.identify([pseudonym]) == [""]
            assert officer.audit_records(identity=pseudonym)
    finally:
        restored.stop()
