"""CAs, revocation lists and the server's certificate change under a running vault: the right calls go on, no other."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.wire import Wire, until
from tests.support.vault import TRUST_DOMAIN, client_extensions, issue_certificate
from vault.client.sealing import Recipient
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from tests.support.vault import VaultSite

JWKS = "/vault.v1.TokenService/GetJwks"
NAME = "acme/trust/login"
HOUR = datetime.timedelta(hours=1)
Key = ec.EllipticCurvePrivateKey


def load_ca(pki: Path) -> tuple[x509.Certificate, Key]:
    key = serialization.load_pem_private_key((pki / "ca-key.pem").read_bytes(), None)
    assert isinstance(key, Key)
    return x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes()), key


def write(file: Path, data: bytes) -> None:
    """All at once, as whoever rotates files should."""
    new = file.with_suffix(".new")
    new.write_bytes(data)
    new.replace(file)


def crl(
    pki: Path,
    *revoked: str,
    signer: Key | None = None,
    life: datetime.timedelta = HOUR,
    age: datetime.timedelta = datetime.timedelta(0),
    critical: bool = False,
) -> bytes:
    """A list of the CA's with these certificates on it."""
    ca, key = load_ca(pki)
    now = datetime.datetime.now(datetime.UTC) - age
    builder = x509.CertificateRevocationListBuilder(ca.subject, now, now + life)
    for name in revoked:
        serial = x509.load_pem_x509_certificate((pki / f"{name}.pem").read_bytes()).serial_number
        entry = x509.RevokedCertificateBuilder(serial, now).build()
        builder = builder.add_revoked_certificate(entry)
    if critical:
        builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    return builder.sign(signer or key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def reason(site: VaultSite, name: str) -> str:
    with Wire(site.profile(name)) as wire:
        answer = wire.call(JWKS, wait_for_ready=False)
    return answer.reason if answer.reason or not answer.ok else "OK"


@pytest.fixture
def pki(fresh_site: VaultSite) -> Path:
    return fresh_site.folder / "pki"


@pytest.fixture
def listed(fresh_site: VaultSite, pki: Path) -> VaultSite:
    """A vault with a revocation list, `globex` on it, not started."""
    write(pki / "crl.pem", crl(pki, "globex"))
    fresh_site.settings["tls"] = {"client_crl_file": "pki/crl.pem"}
    fresh_site.write_config()
    return fresh_site


def test_a_revoked_certificate_is_refused_from_the_first_call_and_others_when_their_time_comes(
    listed: VaultSite, pki: Path
) -> None:
    listed.start()
    assert reason(listed, "globex") == "CERTIFICATE_REJECTED"
    with listed.system() as system:
        system.create_tenant("acme")
    with listed.client() as client:
        client.put(NAME, {"password": "p"}, kind="bank_login")
    with Wire(listed.profile("payments")) as wire, wire.stream() as stream:
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=NAME)],
            purpose="t",
            recipient_key=Recipient().public_bytes,
        )
        assert stream.ask(start=start).WhichOneof("message") == "opened"
        assert wire.call(JWKS).ok
        write(pki / "crl.pem", crl(pki, "globex", "payments"))
        assert stream.read().revoked.reason == pb.CLOSE_REASON_CERTIFICATE_REVOKED, "an open session ends"
        assert wire.call(JWKS).reason == "CERTIFICATE_REJECTED", "on the open connection too"
        write(pki / "crl.pem", crl(pki, "globex"))
        until(lambda: wire.call(JWKS).ok)
        assert reason(listed, "ledger") == "OK"


def intermediate(pki: Path, key: Key, life: datetime.timedelta) -> x509.Certificate:
    """A CA's certificate by the site's CA, always of the same name."""
    ca, ca_key = load_ca(pki)
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "between")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )


def test_a_client_goes_on_when_the_ca_between_has_a_new_certificate(fresh_site: VaultSite, pki: Path) -> None:
    fresh_site.start()
    key = ec.generate_private_key(ec.SECP256R1())
    seconds = 10
    old, new = (intermediate(pki, key, life) for life in (datetime.timedelta(seconds=seconds), HOUR))
    ends = time.monotonic() + seconds
    between = pki / "between"
    between.mkdir()
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (between / "ca-key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    (between / "ca.pem").write_bytes(new.public_bytes(serialization.Encoding.PEM))
    issue_certificate(between, "payments", client_extensions(f"spiffe://{TRUST_DOMAIN}/payments"))
    leaf = (between / "payments.pem").read_bytes()
    write(pki / "payments-key.pem", (between / "payments-key.pem").read_bytes())
    for chain in (old, new):
        write(pki / "payments.pem", leaf + chain.public_bytes(serialization.Encoding.PEM))
        assert reason(fresh_site, "payments") == "OK"
        time.sleep(max(0.0, ends - time.monotonic()))


def test_a_list_that_cannot_be_used_changes_nothing_until_the_last_good_one_is_out_of_date(
    listed: VaultSite, pki: Path
) -> None:
    listed.start()
    good = time.monotonic() + 20
    write(pki / "crl.pem", crl(pki, "globex", "ledger", life=datetime.timedelta(seconds=20)))
    until(lambda: reason(listed, "ledger") == "CERTIFICATE_REJECTED")
    stranger = ec.generate_private_key(ec.SECP256R1())
    ca, _ = load_ca(pki)
    bad = {
        "by another key of the same name": crl(pki, signer=stranger),
        "no list": b"nothing",
        "half a list": crl(pki)[:200],
        "a delta": crl(pki, critical=True),
        "older than the one in force": crl(pki, age=HOUR, life=2 * HOUR),
        "from the future": crl(pki, age=-HOUR),
        "a certificate": ca.public_bytes(serialization.Encoding.PEM),
    }
    for what, data in bad.items():
        size = listed.log_file.stat().st_size
        write(pki / "crl.pem", data)
        until(lambda size=size: b"cannot be used" in listed.log_file.read_bytes()[size:])
        verdicts = reason(listed, "globex"), reason(listed, "payments")
        if time.monotonic() < good - 1:
            assert verdicts == ("CERTIFICATE_REJECTED", "OK"), what
    (pki / "crl.pem").unlink()
    until(lambda: reason(listed, "payments") == "CERTIFICATE_REJECTED", seconds=60, step=0.2)
    assert time.monotonic() >= good - 1
    write(pki / "crl.pem", crl(pki))
    until(lambda: reason(listed, "payments") == "OK")
    assert reason(listed, "globex") == "OK"


@pytest.mark.parametrize(("grace", "verdict"), [(0, "CERTIFICATE_REJECTED"), (7200, "OK")])
def test_a_list_out_of_date_is_good_for_the_grace_and_no_longer(
    listed: VaultSite, pki: Path, grace: int, verdict: str
) -> None:
    write(pki / "crl.pem", crl(pki, "globex", age=2 * HOUR))
    listed.settings["tls"]["crl_grace_seconds"] = grace
    listed.write_config()
    listed.start()
    assert reason(listed, "payments") == verdict
    assert reason(listed, "globex") == "CERTIFICATE_REJECTED"


@pytest.mark.parametrize("what", ["missing", "by another CA", "nothing"])
def test_without_a_list_of_its_ca_the_vault_does_not_start(listed: VaultSite, pki: Path, what: str) -> None:
    file = pki / "crl.pem"
    if what == "missing":
        file.unlink()
    else:
        write(file, b"" if what == "nothing" else crl(pki, signer=ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(RuntimeError, match="client_crl_file"):
        listed.start()


def new_ca(name: str) -> tuple[x509.Certificate, Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + 24 * HOUR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return builder.sign(key, hashes.SHA256()), key


def test_the_bundle_of_cas_changes_under_open_connections_and_no_good_call_fails(
    fresh_site: VaultSite, pki: Path
) -> None:
    old = (pki / "ca.pem").read_bytes()
    ca, key = new_ca("another CA")
    new = ca.public_bytes(serialization.Encoding.PEM)
    other = pki.parent / "other"
    other.mkdir()
    (other / "ca.pem").write_bytes(new)
    (other / "ca-key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    issue_certificate(other, "moved", client_extensions(f"spiffe://{TRUST_DOMAIN}/payments"))
    for file in ("moved.pem", "moved-key.pem"):
        (pki / file).write_bytes((other / file).read_bytes())
    # Not `ca.pem`, by which clients know the server.
    fresh_site.settings["tls"] = {"client_ca_file": "pki/clients.pem"}
    (pki / "clients.pem").write_bytes(old)
    fresh_site.write_config()
    fresh_site.start()
    with Wire(fresh_site.profile("payments")) as payments, Wire(fresh_site.profile("moved")) as moved:
        answers: list[str] = []
        stopping = threading.Event()

        def call() -> None:
            while not stopping.is_set():
                answers.append(payments.call(JWKS).reason)

        calling = threading.Thread(target=call)
        calling.start()
        assert not moved.call(JWKS, wait_for_ready=False).ok
        write(pki / "clients.pem", old + new)
        until(lambda: moved.call(JWKS, wait_for_ready=False).ok, step=0.2)
        stopping.set()
        calling.join()
        assert set(answers) == {""}, "no call of the old CA's client failed"
        write(pki / "clients.pem", new)
        until(lambda: payments.call(JWKS).reason == "CERTIFICATE_REJECTED")
        assert moved.call(JWKS).ok
        write(pki / "clients.pem", b"no certificate")
        time.sleep(1.5)
        assert moved.call(JWKS).ok, "a bundle that cannot be used changes nothing"


def test_the_servers_certificate_is_renewed_without_a_restart_and_without_a_failed_call(
    fresh_site: VaultSite, pki: Path
) -> None:
    fresh_site.start()

    def shown() -> bytes:
        context = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(pki / "payments.pem", pki / "payments-key.pem")
        with (
            socket.create_connection(("127.0.0.1", fresh_site.port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""

    before = shown()
    ca, key = load_ca(pki)
    old = x509.load_pem_x509_certificate((pki / "server.pem").read_bytes())
    new_key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        ca.subject,
        old.subject,
        new_key.public_key(),
        x509.random_serial_number(),
        now - HOUR,
        now + 24 * HOUR,
    )
    for extension in old.extensions:
        if not isinstance(extension.value, x509.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    renewed = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    answers: list[bool] = []
    stopping = threading.Event()

    def call() -> None:
        with Wire(fresh_site.profile("payments")) as lasting:
            while not stopping.is_set():
                with Wire(fresh_site.profile("ledger")) as wire:
                    answers.append(wire.call(JWKS).ok and lasting.call(JWKS).ok)

    calling = threading.Thread(target=call)
    calling.start()
    write(pki / "server.pem", renewed)
    time.sleep(1.5)
    assert shown() == before, "a certificate without its key is not taken"
    write(
        pki / "server-key.pem",
        new_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    until(lambda: shown() != before)
    time.sleep(0.3)
    stopping.set()
    calling.join()
    assert len(answers) > 5
    assert all(answers)
