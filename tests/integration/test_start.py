"""What is wrong at start is said in one line that names it; nothing is served, tried twice, or leaked."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.integration.wire import Wire, failure, until
from tests.support.postgres import free_port
from tests.support.vault import VaultSite
from vault.client.health import look
from vault.client.sealing import Recipient
from vault.v1 import credential_pb2
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.postgres import Postgres

PASSWORD = "db-password-9c1f77aa"
SECRET = "start-canary-51c0ffee"


@pytest.fixture(scope="module")
def prepared(softhsm: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> VaultSite:
    """A vault that would start, on SQLite."""
    site = VaultSite(tmp_path_factory.mktemp("start"), "sqlite:///strongroom.db", *softhsm)
    site.prepare()
    return site


@pytest.fixture
def broken(prepared: VaultSite, tmp_path: Path) -> Iterator[VaultSite]:
    """A copy of its configuration, to be broken. Whatever is written beside it is gone afterwards."""
    kept = {file: file.read_bytes() for file in prepared.folder.rglob("*") if file.is_file()}
    yield prepared
    for file in [file for file in prepared.folder.rglob("*") if file.is_file()]:
        if file not in kept:
            file.unlink()
    for file, content in kept.items():
        file.write_bytes(content)


def serve(site: VaultSite, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vault.cli", "serve", "--config", str(site.config_file)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def pin(site: VaultSite) -> str:
    path = site.hsm_uri.partition("pin-source=file:")[2].partition("&")[0]
    return Path(path).read_text().strip()


def refused(site: VaultSite, *names: str) -> str:
    """The one line that says what is wrong."""
    done = serve(site)
    assert done.returncode != 0
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("strongroom: ")
    for name in names:
        assert name in lines[0]
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    for kept in (pin(site), PASSWORD, SECRET, "PRIVATE KEY"):
        assert kept not in output
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", site.port)) != 0 or "listen" in lines[0]
    return lines[0]


def edit(site: VaultSite, old: str, new: str) -> None:
    text = site.config_file.read_text()
    assert old in text
    site.config_file.write_text(text.replace(old, new, 1))


CONFIGS: dict[str, tuple[Callable[[VaultSite], None], tuple[str, ...]]] = {
    "an unknown key": (lambda s: edit(s, "[server]", "[server]\nlisten_on = 1"), ("server.listen_on", "unknown key")),
    "an unknown section": (lambda s: edit(s, "[server]", "[servers]\n[server]"), ("servers", "unknown key")),
    "a key in the wrong section": (lambda s: edit(s, "[tls]", "[tls]\nworkers = 2"), ("tls.workers",)),
    "a section missing": (lambda s: edit(s, "[identity]\ntrust_domains", "[tokens]\nissuer"), ("configuration",)),
    "a value out of range": (lambda s: edit(s, "[server]", "[server]\nworkers = 0"), ("server.workers",)),
    "a value of the wrong kind": (lambda s: edit(s, "_seconds = 3.0", '_seconds = "soon"'), ("drain_seconds",)),
    "no TOML": (lambda s: s.config_file.write_text("[server\n"), ("not TOML",)),
    "not UTF-8": (lambda s: s.config_file.write_bytes(b"\xff\xfe"), ("not TOML",)),
    "an address that is none": (lambda s: edit(s, f"127.0.0.1:{s.port}", "nowhere"), ("server.listen",)),
    "no trust domain": (lambda s: s.write_config(identity={"trust_domains": []}), ("identity.trust_domains",)),
    "a token life beyond 24 hours": (
        lambda s: s.write_config(tokens={"max_life_seconds": 86_401}), ("tokens.max_life_seconds",),
    ),
    "a default life beyond the most": (
        lambda s: s.write_config(tokens={"max_life_seconds": 60}), ("tokens", "default_life_seconds"),
    ),
    "a PIN in the URI": (
        lambda s: s.write_config(hsm={"uri": s.hsm_uri + "&pin-value=" + SECRET}), ("hsm", "pin-value"),
    ),
    "a password in the database's URL": (
        lambda s: s.write_config(database={"url": f"postgresql://a:{PASSWORD}@127.0.0.1/a"}),
        ("database.url", "password"),
    ),
    "a database of another kind": (
        lambda s: s.write_config(database={"url": "mysql://127.0.0.1/a"}), ("database.url",),
    ),
    "a database URL that is none": (lambda s: s.write_config(database={"url": "nonsense"}), ("database.url",)),
    "a password file that is missing": (
        lambda s: s.write_config(database={"password_file": "nowhere"}), ("database.password_file", "nowhere"),
    ),
}  # fmt: skip
FILES: dict[str, tuple[Callable[[VaultSite], None], tuple[str, ...]]] = {
    "no configuration": (lambda s: s.config_file.unlink(), ("strongroom.toml",)),
    "no certificate": (lambda s: (s.folder / "pki/server.pem").unlink(), ("tls.certificate_file", "server.pem")),
    "no private key": (lambda s: (s.folder / "pki/server-key.pem").unlink(), ("tls.private_key_file",)),
    "no CA": (lambda s: (s.folder / "pki/ca.pem").unlink(), ("tls.client_ca_file", "ca.pem")),
    "no policy": (lambda s: (s.folder / "policy.cedar").unlink(), ("policy.files", "policy.cedar")),
    "an empty policy": (lambda s: _policy(s, ""), ("policy",)),
    "a policy that does not parse": (lambda s: _policy(s, "permit ("), ("policy",)),
    "a policy that does not fit the schema": (
        lambda s: _policy(s, "permit (principal, action, resource) when { principal.shoe_size == 43 };"), ("policy",),
    ),
    "a policy that is not UTF-8": (
        lambda s: (s.folder / "policy.cedar").write_bytes(b"\xff\xfe"), ("policy.files", "policy.cedar"),
    ),
    "a certificate that is none": (
        lambda s: (s.folder / "pki/server.pem").write_text(SECRET), ("tls.certificate_file",),
    ),
    "a key that is none": (
        lambda s: (s.folder / "pki/server-key.pem").write_text(SECRET), ("tls.private_key_file",),
    ),
    "a CA that is none": (lambda s: (s.folder / "pki/ca.pem").write_text(SECRET), ("tls.client_ca_file",)),
    "a certificate and a key that do not match": (
        lambda s: _key(s, ec.generate_private_key(ec.SECP256R1())), ("tls", "do not match"),
    ),
    "an RSA key": (
        lambda s: _key(s, rsa.generate_private_key(65537, 3072), matching=True), ("tls.private_key_file", "elliptic"),
    ),
    "an encrypted key": (
        lambda s: _key(s, ec.generate_private_key(ec.SECP256R1()), password=True), ("tls.private_key_file",),
    ),
    "a directory for a key": (lambda s: _directory(s.folder / "pki/server-key.pem"), ("tls.private_key_file",)),
}  # fmt: skip


def _policy(site: VaultSite, text: str) -> None:
    (site.folder / "policy.cedar").write_text(text)


def _directory(path: Path) -> None:
    kept = path.with_name("moved")
    path.rename(kept)
    path.mkdir()


def _key(site: VaultSite, key: Any, *, matching: bool = False, password: bool = False) -> None:
    pki = site.folder / "pki"
    encryption: Any = (
        serialization.BestAvailableEncryption(SECRET.encode()) if password else serialization.NoEncryption()
    )
    (pki / "server-key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    if matching:
        ca_key: Any = serialization.load_pem_private_key((pki / "ca-key.pem").read_bytes(), None)
        old = x509.load_pem_x509_certificate((pki / "server.pem").read_bytes())
        builder = x509.CertificateBuilder(
            issuer_name=old.issuer, subject_name=old.subject, public_key=key.public_key(),
            serial_number=x509.random_serial_number(), not_valid_before=old.not_valid_before_utc,
            not_valid_after=old.not_valid_after_utc, extensions=list(old.extensions),
        )  # fmt: skip
        (pki / "server.pem").write_bytes(
            builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )


@pytest.mark.parametrize(("spoil", "names"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_wrong_configuration_is_named_by_its_key(
    broken: VaultSite, spoil: Callable[[VaultSite], None], names: tuple[str, ...]
) -> None:
    broken.write_config()
    spoil(broken)
    refused(broken, *names)


@pytest.mark.parametrize(("spoil", "names"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_missing_or_wrong_is_named(
    broken: VaultSite, spoil: Callable[[VaultSite], None], names: tuple[str, ...]
) -> None:
    broken.write_config()
    try:
        spoil(broken)
        refused(broken, *names)
    finally:
        with contextlib.suppress(OSError):
            (broken.folder / "pki/server-key.pem").rmdir()


def test_a_key_on_another_curve_is_named(broken: VaultSite) -> None:
    broken.write_config()
    _key(broken, ec.generate_private_key(ec.SECP521R1()), matching=True)
    refused(broken, "tls.private_key_file", "P-256")


def test_memory_that_may_not_be_locked_is_told_before_the_hsm_is_asked(broken: VaultSite) -> None:
    broken.write_config()
    # Root may lock what it likes, unless that is taken from it.
    bounds = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"] if os.geteuid() == 0 else []
    command = [sys.executable, "-m", "vault.cli", "serve", "--config", str(broken.config_file)]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -l 1024; exec "$@"', "sh", *bounds, *command],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 78, done.stderr
    (line,) = done.stderr.splitlines()
    assert "sessions.locked_memory_bytes" in line
    assert "LimitMEMLOCK=" in line


def test_what_would_start_starts(prepared: VaultSite) -> None:
    """The oracle of all the others."""
    prepared.write_config()
    prepared.start()
    assert prepared.stop() == 0


def test_a_database_that_is_not_there_is_named(broken: VaultSite) -> None:
    broken.write_config(database={"url": f"postgresql://strongroom@127.0.0.1:{free_port()}/vault"})
    assert "database.url: the database does not answer" in serve(broken).stderr
    assert serve(broken).returncode == 75, "whoever started it may try again"


def test_a_file_that_cannot_be_opened_is_named_and_not_tried_again(broken: VaultSite) -> None:
    broken.write_config(database={"url": "sqlite:///absent/strongroom.db"})
    refused(broken, "database.url: the database cannot be opened", "unable to open database file")
    assert serve(broken).returncode == 78


def test_a_database_that_wants_another_password_is_named_without_it(broken: VaultSite) -> None:
    (broken.folder / "db-password").write_text(PASSWORD)
    broken.write_config(
        database={"url": f"postgresql://nobody@127.0.0.1:{free_port()}/vault", "password_file": "db-password"}
    )
    refused(broken, "database")


def test_a_schema_that_was_not_migrated_is_named_with_the_command(broken: VaultSite) -> None:
    broken.write_config(database={"url": "sqlite:///empty.db"})
    refused(broken, "database", "strongroom migrate")


def test_a_schema_of_another_version_is_named_with_the_command(broken: VaultSite) -> None:
    with contextlib.closing(sqlite3.connect(broken.folder / "strongroom.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'future'")
        database.commit()
    refused(broken, "database", "future", "strongroom migrate")


def test_a_vault_without_keys_of_its_own_is_told_the_command(broken: VaultSite) -> None:
    import asyncio

    from vault.cli.server import migrate_database

    broken.write_config(database={"url": "sqlite:///keyless.db"})
    asyncio.run(migrate_database(broken.config_file))
    refused(broken, "keys", "strongroom keys init")


def test_a_missing_hsm_module_is_named(broken: VaultSite) -> None:
    module = broken.hsm_uri.partition("module-path=")[2].partition("&")[0]
    broken.write_config(hsm={"uri": broken.hsm_uri.replace(module, "/nowhere/libhsm.so")})
    refused(broken, "hsm", "/nowhere/libhsm.so")


def test_a_file_that_is_no_hsm_module_is_named(broken: VaultSite) -> None:
    module = broken.hsm_uri.partition("module-path=")[2].partition("&")[0]
    file = broken.folder / "libhsm.so"
    file.write_text("no library")
    broken.write_config(hsm={"uri": broken.hsm_uri.replace(module, str(file))})
    refused(broken, "hsm", str(file))


def test_a_missing_token_is_named(broken: VaultSite) -> None:
    query = broken.hsm_uri.partition("?")[2]
    broken.write_config(hsm={"uri": f"pkcs11:token=elsewhere?{query}"})
    refused(broken, "hsm")


def with_pin(site: VaultSite, file: Path, **changes: Any) -> None:
    path = site.hsm_uri.partition("pin-source=file:")[2].partition("&")[0]
    site.write_config(hsm={"uri": site.hsm_uri.replace(path, str(file))}, **changes)


@pytest.mark.parametrize("content", [None, SECRET], ids=["missing", "wrong"])
def test_a_pin_that_is_no_good_is_said_in_one_line(
    broken: VaultSite, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "pin"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    with_pin(broken, file)
    refused(broken, "hsm")


def test_a_wrong_pin_is_tried_exactly_once(broken: VaultSite, tmp_path: Path) -> None:
    """A few wrong PINs lock a token for ever: neither the next worker nor a restart may try again."""
    pipe = tmp_path / "pin"
    os.mkfifo(pipe, 0o600)
    reads = []

    def give() -> None:
        while True:
            with pipe.open("w") as writer:
                if done.is_set():
                    return
                reads.append(time.monotonic())
                writer.write(SECRET)
            # The reader sees the end of the file before the next one can be let in.
            time.sleep(0.1)

    done = threading.Event()
    giver = threading.Thread(target=give)
    giver.start()
    try:
        with_pin(broken, pipe, server={"workers": 4})
        ended = serve(broken)
    finally:
        done.set()
        with pipe.open("r"):
            giver.join(5)
    assert ended.returncode != 0
    assert len(reads) == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("strongroom: hsm: ")
    assert "PIN" in last
    assert ended.stderr.count("CKR_PIN_INCORRECT") == ended.stderr.count("\n")
    assert SECRET not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_busy_port_is_named(broken: VaultSite) -> None:
    broken.write_config()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", broken.port))
        taken.listen()
        refused(broken, "server.listen", str(broken.port))


def test_a_worker_that_cannot_start_takes_the_others_with_it(broken: VaultSite) -> None:
    _policy(broken, "permit (")
    took = []
    for workers in (1, 4):
        broken.write_config(server={"workers": workers})
        began = time.monotonic()
        refused(broken, "policy")
        took.append(time.monotonic() - began)
    assert took[1] < 2 * took[0] + 1, "nobody waited for three that could not start either"


# And the end.


@pytest.fixture
def running(prepared: VaultSite) -> Iterator[VaultSite]:
    prepared.write_config()
    prepared.start()
    with prepared.system() as system, contextlib.suppress(Exception):
        system.create_tenant("acme")
    yield prepared
    assert prepared.process is not None
    if prepared.process.poll() is None:
        prepared.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_told_to_stop_it_closes_sessions_wipes_and_ends_with_0(
    running: VaultSite, number: signal.Signals
) -> None:
    name = f"acme/start/{secrets.token_hex(4)}"
    with running.client() as client:
        client.put(name, {"password": SECRET}, kind="bank_login")
    with Wire(running.profile("payments")) as wire, wire.stream(timeout=60) as stream:
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=name)],
            purpose="test",
            recipient_key=Recipient().public_bytes,
        )
        opened = stream.ask(start=start).opened
        assert stream.ask(operation_id=1, reveal=pb.RevealOperation(name=name)).WhichOneof("message")
        assert running.process is not None
        running.process.send_signal(number)
        closed = stream.read().closed
        assert closed.reason == pb.CLOSE_REASON_SERVER_STOPPING
        assert closed.reveals == 1
        assert closed.buffers == closed.buffers_wiped == 2
        assert running.process.wait(60) == 0
    assert "Traceback" not in running.log()
    assert SECRET not in running.log()
    with contextlib.closing(sqlite3.connect(running.folder / "strongroom.db")) as database:
        rows = database.execute(
            "SELECT action_type, after_state FROM audit_records WHERE session_id = ? ORDER BY sequence",
            (opened.session_id,),
        ).fetchall()
    assert [action for action, _ in rows] == ["session.open", "session.reveal", "session.close"]
    assert "server-stopping" in rows[-1][1]


def test_told_to_stop_it_finishes_what_it_took_on_and_takes_on_nothing_new(running: VaultSite) -> None:
    done: list[str] = []
    refusals: list[Any] = []

    def work() -> None:
        with Wire(running.profile("payments")) as wire:
            while True:
                answer = wire.call(
                    "/vault.v1.TokenService/Issue",
                    wait_for_ready=False,
                    tenant="acme",
                    scopes=["credential.read:acme/**"],
                )
                if not answer.ok:
                    refusals.append(answer)
                    return
                done.append(answer.response.token_id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(done) > 50)
    assert running.stop() == 0
    for thread in threads:
        thread.join(20)
    # gRPC itself cancels what came in the very moment it closed the door, before the vault saw it.
    assert {answer.code.name for answer in refusals} <= {"UNAVAILABLE", "CANCELLED"}
    assert {answer.reason for answer in refusals} <= {"SHUTTING_DOWN", ""}
    with contextlib.closing(sqlite3.connect(running.folder / "strongroom.db")) as database:
        query = "SELECT resource FROM audit_records WHERE action_type = 'token.issue' AND outcome = 'granted'"
        recorded = {row[0] for row in database.execute(query)}
    assert set(done) <= recorded, "every token that was handed out has its record"


def test_told_to_stop_it_ends_its_watches_and_says_why(running: VaultSite) -> None:
    with Wire(running.profile("payments"), scopes=("credential.read:acme/**",)) as wire:
        watch = wire.channel.unary_stream(
            "/vault.v1.CredentialService/Watch",
            response_deserializer=credential_pb2.CredentialServiceWatchResponse.FromString,
        )(b"", metadata=[("authorization", f"Bearer {wire.token}")], timeout=20)
        next(watch)
        assert running.stop() == 0
        with pytest.raises(grpc.RpcError) as ended:
            for _ in watch:
                pass
    # What lasts until the server's patience is over, gRPC ends without a reason.
    assert failure(ended.value, "").reason == "SHUTTING_DOWN"


def test_a_vault_whose_last_worker_can_never_start_again_ends_and_says_why(running: VaultSite) -> None:
    policy = running.folder / "policy.cedar"
    kept = policy.read_text()
    policy.write_text("permit (")
    try:
        running.kill_workers()
        assert running.process is not None
        assert running.process.wait(60) == 78
        assert "policy" in running.log().splitlines()[-1]
    finally:
        policy.write_text(kept)


def listens(site: VaultSite) -> bool:
    host, _, port = site.address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_workers_that_end_while_the_database_is_away_are_back_when_it_is(
    fresh_site: VaultSite, postgres: Postgres
) -> None:
    name = fresh_site.database_url.rpartition("/")[2]
    fresh_site.start()
    postgres.sql("postgres", f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
    fresh_site.kill_workers()
    until(lambda: "takes no connection now" in fresh_site.log())
    postgres.sql("postgres", f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')
    until(lambda: listens(fresh_site))
    assert look(fresh_site.profile("operator")).ready
    assert fresh_site.stop() == 0


def test_a_worker_that_is_killed_while_the_vault_starts_is_said_in_one_line(broken: VaultSite) -> None:
    broken.write_config()
    vault = subprocess.Popen(
        [sys.executable, "-m", "vault.cli", "serve", "--config", str(broken.config_file)],
        stderr=subprocess.PIPE,
        text=True,
    )
    children = Path(f"/proc/{vault.pid}/task/{vault.pid}/children")
    pid = int(until(children.read_text).split()[0])
    os.kill(pid, signal.SIGKILL)
    _, errors = vault.communicate(timeout=60)
    assert vault.returncode != 0
    assert errors.startswith("strongroom: ")
    assert errors.count("\n") == 1


def test_a_health_check_knows_every_part_and_no_other(running: VaultSite) -> None:
    from vault.client import StrongroomError
    from vault.client.health import check

    name = "acme/start/health"
    with running.client() as client:
        client.put(name, {"password": SECRET}, kind="bank_login")
    assert check(running.profile("operator")) == (True, "")
    for part in ("hsm", "database", "audit", "revocations", "server"):
        assert check(running.profile("operator"), part) == (True, "")
    with pytest.raises(StrongroomError):
        check(running.profile("operator"), "nonsense")


def test_a_supervisor_that_is_killed_leaves_no_worker_behind(running: VaultSite) -> None:
    workers = running.worker_pids()
    assert running.process is not None
    running.process.kill()
    running.process.wait(10)

    def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in workers)

    try:
        until(gone)
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
