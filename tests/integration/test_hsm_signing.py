"""Signing keys that the HSM makes for a credential: used like any other, given to nobody, gone with their version."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import secrets
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from joserfc import jwk, jws, jwt

from hsm import KeyAlgorithm, KeyRef, KeySpec, open_backend
from tests.integration.wire import until
from tests.support.vault import VaultSite
from vault import config
from vault.client import Client, StrongroomError
from vault.core.credential_keys import CredentialKeys
from vault.crypto.approvals import Operation
from vault.model import AuditDraft, CredentialKey, CredentialKeyState, Origin, Outcome
from vault.server.foundation import foundation
from vault.store import credential_keys as store
from vault.store.ledger import Commit, Unit
from vault.store.rows import Write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vault.v1 import credential_pb2

SCOPES = {
    "acme": ("tenant.delete:acme/subjects", "approval.approve:acme/subjects"),
    "system": ("tenant.delete:system/tenants/globex", "approval.approve:system/tenants/globex"),
}
MORE = 'permit (principal, action, resource) when { resource.tenant == "system" };\n'


@pytest.fixture(scope="module")
def site(softhsm: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultSite]:
    made = VaultSite(tmp_path_factory.mktemp("signing") / "vault", "sqlite:///strongroom.db", *softhsm)
    made.prepare()
    with (made.folder / "policy.cedar").open("a") as policy:
        policy.write(MORE)
    made.start()
    with made.system() as system:
        system.create_tenant("acme")
        system.create_tenant("globex")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()


@pytest.fixture(scope="module")
def client(site: VaultSite) -> Iterator[Client]:
    with site.client() as made:
        yield made


def in_hsm(site: VaultSite) -> set[str]:
    """The labels of the private keys that this vault made for credentials."""
    deployment = config.load(site.config_file).hsm.deployment
    with open_backend(site.hsm_uri) as backend:
        return {info.ref.label for info in backend.list_keys(f"{deployment}/sign/")}


def labels(site: VaultSite, name: str) -> dict[int, str]:
    """The label of each version's key, as the log has it."""
    with site.operator() as operator:
        records = operator.audit_records(action="credential.create_key", resource=name)
        states = [json.loads(record.after_state) for record in records if record.after_state]
    return {state["version"]: state["label"] for state in states if "label" in state}


def refused(call: Any) -> str:
    with pytest.raises(StrongroomError) as caught:
        call()
    return caught.value.reason


def strongroom(site: VaultSite, *arguments: str) -> str:
    """The CLI, by a profile of the site's."""
    profile = site.profile("payments")
    file = site.folder / "profile.toml"
    file.write_text(
        f'server = "{profile.server}"\nca_file = "{profile.ca_file}"\n'
        f'certificate_file = "{profile.certificate_file}"\nprivate_key_file = "{profile.private_key_file}"\n'
        f'tenant = "acme"\nscopes = {json.dumps(profile.scopes)}\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "vault.cli", *arguments, "--profile", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def verify(key: credential_pb2.PublicKey, signature: bytes, message: bytes) -> None:
    public = load_pem_public_key(key.pem.encode())
    if isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(signature, message)
    else:
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # its name, not the algorithm: RFC 9864
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_every_format_is_signed_in_the_hsm_and_verifies_by_the_public_key(
    site: VaultSite, client: Client, algorithm: str
) -> None:
    name = f"acme/sign/{algorithm.lower()}"
    key = client.create_key(name, algorithm=algorithm, labels={"team": "a"}, etag="new")
    assert (key.name, key.version, key.algorithm) == (name, 1, algorithm)
    assert labels(site, name)[1] in in_hsm(site)
    assert client.public_key(name) == key
    public = jwk.import_key(json.loads(key.jwk))
    assert key.kid == public.thumbprint() == json.loads(key.jwk)["kid"]
    assert "d" not in json.loads(key.jwk)
    with client.session(name, purpose="test") as session:
        payload = b'{"amount":"1.00"}'
        header, _, signature = session.sign_jws(payload).partition("..")
        whole = f"{header}.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.{signature}"
        assert jws.deserialize_compact(whole, public, algorithms=[algorithm]).headers()["kid"] == key.kid
        assertion = session.client_assertion("https://bank.example", client_id="us")
        assert jwt.decode(assertion, public, algorithms=[algorithm]).claims["iss"] == "us"
        raw = session.sign_raw(b"anything")
        verify(key, raw.signature, b"anything")
        headers = session.sign_http(
            "POST", "https://bank.example/pay", {}, components=["@method", "content-digest"], body=b"{}"
        )
        parameters = headers["signature-input"].partition("=")[2]
        base = (
            f'"@method": POST\n"content-digest": {headers["content-digest"]}\n'
            f'"@signature-params": {parameters}'
        )
        value = base64.b64decode(headers["signature"].partition("=:")[2].rstrip(":"))
        if algorithm == "ES256":
            value = encode_dss_signature(int.from_bytes(value[:32], "big"), int.from_bytes(value[32:], "big"))
        verify(key, value, base.encode())


def test_the_private_key_is_revealed_to_nobody_and_cannot_be_put(client: Client) -> None:
    name = "acme/sign/kept"
    client.create_key(name)
    assert refused(lambda: client.reveal(name, purpose="test")) == "NOT_REVEALABLE"
    with client.session(name, purpose="test") as session:
        assert refused(session.reveal) == "NOT_REVEALABLE"
        assert session.sign_raw(b"it goes on").signature
    forged = {"private_key": '{"backend":"a","label":"b","object_id":"00"}', "algorithm": "ES256"}
    for kind in ("hsm_signing_key", ""):
        assert refused(lambda kind=kind: client.put(name, forged, kind=kind)) == "FIELD_INVALID"
    client.put("acme/sign/other", {"value": "x"}, kind="generic")
    assert refused(lambda: client.create_key("acme/sign/other")) == "FIELD_INVALID"
    assert refused(lambda: client.public_key("acme/sign/other")) == "SECRET_UNSUITABLE"


def test_it_is_held_to_formats_and_to_scopes(site: VaultSite, client: Client) -> None:
    name = "acme/sign/held"
    key = client.create_key(name, kid="bank-1", formats=["client_assertion", "http"])
    assert key.kid == "bank-1"
    with client.session(name, purpose="test") as session:
        assert refused(lambda: session.sign_raw(b"m")) == "SECRET_UNSUITABLE"
        header = session.client_assertion("https://bank.example", client_id="us").split(".")[0]
        assert json.loads(base64.urlsafe_b64decode(header + "=="))["kid"] == "bank-1"
    with site.client(scopes=("credential.read:acme/**",)) as reading:
        assert reading.public_key(name) == key
        assert refused(lambda: reading.create_key(name)) == "SCOPE_DENIED"
    with site.client(scopes=("credential.write:acme/**", "session.use.sign_jws:acme/**")) as writing:
        assert refused(lambda: writing.public_key(name)) == "SCOPE_DENIED"
        with writing.session(name, purpose="test") as session:
            assert (
                refused(lambda: session.client_assertion("https://b.example", client_id="u"))
                == "SCOPE_DENIED"
            )


def test_a_rotation_is_a_new_version_and_a_destroyed_one_leaves_the_hsm(
    site: VaultSite, client: Client
) -> None:
    name = "acme/sign/turning"
    old = client.create_key(name)
    again = secrets.token_hex(8)
    new = client.create_key(name, request_id=again)
    assert client.create_key(name, request_id=again) == new, "repeated, not done twice"
    assert (new.version, new.kid == old.kid) == (2, False)
    found = labels(site, name)
    assert set(found.values()) <= in_hsm(site)
    client.destroy_version(name, 1)
    until(lambda: found[1] not in in_hsm(site), 20, 0.5)
    assert found[2] in in_hsm(site)
    with client.session(name, purpose="test") as session:
        verify(new, session.sign_raw(b"new").signature, b"new")
    until(lambda: client.public_key(name, 1).HasField("destroy_time"), 10, 0.5)
    assert client.public_key(name, 1).pem == old.pem, "what it signed can still be verified"
    assert not client.public_key(name).HasField("destroy_time")


def test_the_command_line_makes_a_key_and_shows_it(site: VaultSite) -> None:
    name = "acme/sign/fapi"
    made = json.loads(
        strongroom(site, "credential", "create-key", name, "--algorithm", "ES256", "--output", "json")
    )
    pem = strongroom(site, "credential", "public-key", name, "--form", "pem")
    assert pem.strip() == made["pem"].strip()
    assert (
        json.loads(strongroom(site, "credential", "public-key", name, "--form", "jwk"))["kid"] == made["kid"]
    )


def test_an_erased_tenant_leaves_no_key_in_the_hsm_and_the_certificate_names_them(site: VaultSite) -> None:
    scopes = ("credential.write:globex/**", "credential.read:globex/**")
    with site.client("globex", "globex", scopes) as globex:
        for number in range(2):
            globex.create_key(f"globex/sign/{number}")
        before = in_hsm(site)
    callers = [
        Client(site.profile(who, "system", SCOPES["system"]), timeout=60)
        for who in ("operator", "payments", "ledger")
    ]
    asking, first, second = callers
    found = asking.describe_erasure("globex", "")
    approval = asking.request_approval(
        Operation(found.action, found.resource, dict(found.arguments)), purpose="test"
    )
    first.approve(approval)
    second.approve(approval)
    certificate = json.loads(asking.erase("globex", "", approval_id=approval.approval_id).split("\n")[1])
    for caller in callers:
        caller.close()
    signing = {key["label"] for key in certificate["keys_destroyed"] if key["purpose"] == "signing"}
    assert len(signing) == 2
    assert signing <= before
    assert not signing & in_hsm(site), "at the moment of the certificate, not some time later"


async def test_what_a_crash_left_between_the_two_steps_is_found_and_destroyed(site: VaultSite) -> None:
    """Announced, made by the HSM, and then the worker died; and announced only."""
    settings = config.load(site.config_file)
    async with foundation(settings) as base:
        orphans = []
        for made in (True, False):
            key = CredentialKey(
                key_id=secrets.token_hex(16),
                tenant="acme",
                name="acme/sign/crashed",
                version=1,
                state=CredentialKeyState.PENDING,
                algorithm="ES256",
                kid="",
                backend=base.hsm.backend.name,
                label=f"{settings.hsm.deployment}/sign/{secrets.token_hex(12)}",
                public_key=b"",
                create_time=base.clock.now(),
                created_by="test",
                destroy_time=None,
            )
            if made:
                ref = KeyRef(key.label, bytes.fromhex(key.key_id))
                base.hsm.backend.create_key(KeySpec(ref, KeyAlgorithm.EC_P256))
            draft = AuditDraft("acme", "test", "credential.create_key", key.name, Outcome.GRANTED, Origin())
            write = Write("credential_keys", store.key_row(key))
            await base.log.commit(
                Unit(
                    (write.row_key,), lambda _rows, _now, draft=draft, write=write: Commit((draft,), (write,))
                )
            )
            orphans.append(key)

        @dataclasses.dataclass
        class Later:
            """A clock that is ahead."""

            ahead: datetime.timedelta

            def now(self) -> datetime.datetime:
                return base.clock.now() + self.ahead

            def monotonic(self) -> float:
                return time.monotonic()

        async def sweep(minutes: int) -> set[CredentialKeyState]:
            keys = CredentialKeys(
                base.database, base.hsm, base.log, base.keyring, None, settings.hsm.deployment,  # type: ignore[arg-type]
                Later(datetime.timedelta(minutes=minutes)), most=64,
            )  # fmt: skip
            await keys.sweep()
            wanted = {orphan.key_id for orphan in orphans}
            return {key.state for key in await keys.of_tenant("acme") if key.key_id in wanted}

        assert await sweep(9) == {CredentialKeyState.PENDING}, "a call under way is left alone"
        assert orphans[0].label in in_hsm(site)
        assert await sweep(11) == {CredentialKeyState.DESTROYED}
        assert orphans[0].label not in in_hsm(site)


def test_everything_that_was_done_with_keys_is_in_the_log_and_it_verifies(site: VaultSite) -> None:
    with site.system() as system:
        report = system.verify_audit()
    assert report.valid, report.findings
    with site.operator() as operator:
        told = {record.action for record in operator.audit_records(resource="acme/sign/turning")}
    assert told >= {
        "credential.create_key", "credential.put", "credential.get_public_key", "credential.destroy_version",
        "credential.destroy_key", "session.use.sign_raw",
    }  # fmt: skip
