"""When a part fails, nothing is answered that should not be; what was acknowledged stays; what was altered is found."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from tests.integration.wire import Answer, Books, Wire, until
from tests.support.postgres import owner_url
from tests.support.vault import VaultSite
from vault.client import Client, StrongroomError
from vault.client.health import check
from vault.client.sealing import Recipient
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Postgres

pytestmark = pytest.mark.alone

SECRET = "fail-closed-canary-4be1"
NAME = "acme/fail/login"
REVEAL = "/vault.v1.SessionService/Reveal"
GET = "/vault.v1.CredentialService/Get"
ISSUE = "/vault.v1.TokenService/Issue"


def prepare(site: VaultSite) -> None:
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
        system.create_tenant("globex")
    with site.client() as client:
        client.put(NAME, {"password": SECRET}, kind="bank_login")


@pytest.fixture
def vault(fresh_site: VaultSite) -> VaultSite:
    """A running vault with one credential; its audit log waits one second."""
    fresh_site.write_config(audit={"wait_seconds": 1.0})
    prepare(fresh_site)
    return fresh_site


@pytest.fixture
def wire(vault: VaultSite) -> Iterator[Wire]:
    with Wire(vault.profile("payments")) as made:
        assert made.token
        yield made


@pytest.fixture
def books(vault: VaultSite) -> Iterator[Books]:
    made = Books(vault)
    yield made
    made.close()


def database(site: VaultSite) -> str:
    return site.database_url.rpartition("/")[2]


def reveal(wire: Wire, name: str = NAME, **more: Any) -> Answer:
    return wire.call(
        REVEAL,
        credentials=[pb.CredentialSelector(name=name, **more)],
        purpose="test",
        recipient_key=Recipient().public_bytes,
    )


def ready(site: VaultSite) -> bool:
    with contextlib.suppress(StrongroomError):
        return check(site.profile("operator"), timeout=2)[0]
    return False


# The database is gone.


def test_without_its_database_the_vault_answers_nothing_says_why_and_comes_back_by_itself(
    vault: VaultSite, wire: Wire, postgres: Postgres
) -> None:
    with wire.stream(timeout=90) as stream:
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=NAME)],
            purpose="test",
            recipient_key=Recipient().public_bytes,
            hpke_suite=1,
        )
        assert stream.ask(start=start).WhichOneof("message") == "opened"
        postgres.kill()
        try:
            operation = stream.ask(operation_id=1, reveal=pb.RevealOperation(name=NAME))
            assert operation.WhichOneof("message") == "error", "a held secret is not given without a record"
            assert operation.error.code == 14
            for method, fields in (
                (GET, {"name": NAME}),
                (ISSUE, {"tenant": "acme", "scopes": ["credential.read:acme/**"]}),
                ("/vault.v1.CredentialService/List", {}),
                ("/vault.v1.TokenService/GetJwks", {}),
                ("/vault.v1.AuditService/GetCheckpoint", {}),
                ("/vault.v1.KeyService/Rotate", {"tenant": "acme"}),
            ):
                answer = wire.call(method, **fields)
                assert answer.code.name == "UNAVAILABLE", method
                assert answer.reason in ("STORAGE_UNAVAILABLE", "AUDIT_UNAVAILABLE", "REVOCATIONS_UNKNOWN")
                assert answer.response is None
            answer = reveal(wire)
            assert answer.code.name == "UNAVAILABLE"
            assert answer.reason
            assert SECRET.encode() not in answer.raw
            until(lambda: not ready(vault), seconds=3)
            assert "database" in check(vault.profile("operator"), timeout=10)[1]
            assert not check(vault.profile("operator"), "database", timeout=10)[0]
            assert check(vault.profile("operator"), "hsm", timeout=10)[0]
            time.sleep(5.5)
            answer = wire.call(GET, name=NAME)
            assert answer.reason in ("REVOCATIONS_UNKNOWN", "AUDIT_UNAVAILABLE")
            message = stream.read()
            # The end of the session cannot be recorded either: then the stream ends with that.
            assert isinstance(message, Answer)
            assert message.reason == "AUDIT_UNAVAILABLE"
        finally:
            postgres.start()
    assert vault.process is not None
    assert vault.process.poll() is None
    assert until(lambda: wire.call(GET, name=NAME).ok, seconds=20)
    until(lambda: ready(vault))
    assert reveal(wire).ok
    assert SECRET not in vault.log()
    assert "Traceback" not in vault.log()
    with vault.system() as system:
        report = system.verify_audit()
    assert report.valid, report.findings


def test_a_vault_that_nobody_calls_becomes_ready_again_when_its_database_is_back(
    vault: VaultSite, wire: Wire, postgres: Postgres
) -> None:
    """A load balancer sends no call to what is not ready, so readiness must not wait for one."""
    postgres.kill()
    try:
        assert wire.call(GET, name=NAME).code.name == "UNAVAILABLE"
        until(lambda: not ready(vault), seconds=5)
    finally:
        postgres.start()
    until(lambda: check(vault.profile("operator"), "database")[0], seconds=10)
    until(lambda: check(vault.profile("operator"), "revocations")[0], seconds=10)
    until(lambda: check(vault.profile("operator")) == (True, ""), seconds=10)


# The audit log cannot be written.

_TRIGGER = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON audit_records FOR EACH ROW EXECUTE FUNCTION refuse();
"""


def test_what_cannot_be_recorded_is_not_answered(
    vault: VaultSite, wire: Wire, books: Books, postgres: Postgres
) -> None:
    with vault.client() as client:
        client.put("acme/fail/other", {"password": SECRET}, kind="bank_login")
    before = books.state()
    postgres.sql(database(vault), _TRIGGER)
    read = [
        (GET, {"name": NAME}),
        (GET, {"name": "acme/fail/absent"}),
        (GET, {"name": "globex/a/b"}),
        (ISSUE, {"tenant": "acme", "scopes": ["credential.read:acme/**"]}),
        ("/vault.v1.TokenService/GetJwks", {}),
        ("/vault.v1.TokenService/Revoke", {"token_id": "A" * 22}),
        ("/vault.v1.CredentialService/Delete", {"name": NAME}),
        ("/vault.v1.CredentialService/DestroyVersion", {"name": NAME, "version": 1}),
        ("/vault.v1.CredentialService/List", {}),
        ("/vault.v1.KeyService/Rotate", {"tenant": "acme"}),
        ("/vault.v1.AuditService/List", {}),
    ]
    for method, fields in read:
        answer = wire.call(method, **fields)
        assert (answer.code.name, answer.reason) == ("UNAVAILABLE", "AUDIT_UNAVAILABLE"), method
        assert answer.response is None
    answer = reveal(wire)
    assert (answer.reason, answer.response) == ("AUDIT_UNAVAILABLE", None)
    assert reveal(wire, "acme/fail/absent").reason == "AUDIT_UNAVAILABLE", "a refusal needs its record too"
    with wire.stream() as stream:
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=NAME)],
            purpose="test",
            recipient_key=Recipient().public_bytes,
        )
        assert stream.ask(start=start).reason == "AUDIT_UNAVAILABLE"
    with vault.client() as client:
        client.use_token(wire.token)
        with pytest.raises(StrongroomError) as refused:
            client.put("acme/fail/other", {"password": SECRET}, kind="bank_login")
    assert refused.value.reason == "AUDIT_UNAVAILABLE"
    assert books.state() == before, "no change without its record"
    until(lambda: not ready(vault), seconds=3)
    assert "audit" in check(vault.profile("operator"))[1]
    postgres.sql(database(vault), "DROP TRIGGER refuse ON audit_records")
    assert until(lambda: wire.call(GET, name=NAME).ok)
    until(lambda: ready(vault))
    assert SECRET not in vault.log()
    with vault.system() as system:
        assert system.verify_audit().valid


def test_an_operation_of_an_open_session_is_not_answered_without_its_record(
    vault: VaultSite, wire: Wire, postgres: Postgres
) -> None:
    with wire.stream() as stream:
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=NAME)],
            purpose="test",
            recipient_key=Recipient().public_bytes,
        )
        assert stream.ask(start=start).WhichOneof("message") == "opened"
        postgres.sql(database(vault), _TRIGGER)
        for number, operation in enumerate(
            (
                {"reveal": pb.RevealOperation(name=NAME)},
                {
                    "verify_webhook": pb.VerifyWebhookOperation(
                        name=NAME, field_names=["password"], scheme=pb.WEBHOOK_SCHEME_STRIPE, body=b"{}"
                    )
                },
            ),
            1,
        ):
            assert stream.ask(operation_id=number, **operation).error.reason == "AUDIT_UNAVAILABLE"
        postgres.sql(database(vault), "DROP TRIGGER refuse ON audit_records")
        assert stream.ask(operation_id=3, reveal=pb.RevealOperation(name=NAME)).reveal.counter


def test_a_lock_on_the_head_of_the_log_holds_no_caller_longer_than_configured(
    vault: VaultSite, wire: Wire
) -> None:
    with asyncio.Runner() as runner:
        holder: Any = runner.run(asyncpg.connect(owner_url(vault.database_url)))
        runner.run(holder.execute("BEGIN"))
        runner.run(holder.execute("SELECT * FROM audit_head FOR UPDATE"))
        answers: list[tuple[float, Answer]] = []

        def work(call: Any) -> None:
            began = time.monotonic()
            answer = call()
            answers.append((time.monotonic() - began, answer))

        calls = [
            lambda: wire.call(GET, name=NAME),
            lambda: wire.call(GET, name="acme/fail/absent"),
            lambda: reveal(wire),
            lambda: wire.call(ISSUE, tenant="acme", scopes=["credential.read:acme/**"]),
            lambda: wire.call("/vault.v1.CredentialService/Delete", name=NAME),
            lambda: wire.call("/vault.v1.TokenService/Revoke", token_id="A" * 22),
        ]
        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        # A refusal is recorded too, so a call may wait twice.
        for took, answer in answers:
            assert answer.code.name == "UNAVAILABLE"
            assert answer.reason == "AUDIT_UNAVAILABLE"
            assert 0.9 < took < 3.5
        runner.run(holder.execute("ROLLBACK"))
        runner.run(holder.close())
    assert until(lambda: wire.call(GET, name=NAME).ok or wire.call(GET, name=NAME).reason)
    with vault.system() as system:
        assert system.verify_audit().valid


def test_what_timed_out_can_be_repeated_and_happens_once(vault: VaultSite, wire: Wire, books: Books) -> None:
    """`A write may have happened: repeat it with the same request_id.`"""
    delete = {"name": NAME, "request_id": "only-once"}
    method = "/vault.v1.CredentialService/Delete"
    with asyncio.Runner() as runner:
        holder: Any = runner.run(asyncpg.connect(owner_url(vault.database_url)))
        runner.run(holder.execute("BEGIN"))
        runner.run(holder.execute("SELECT * FROM audit_head FOR UPDATE"))
        assert wire.call(method, **delete).reason == "AUDIT_UNAVAILABLE"
        runner.run(holder.execute("ROLLBACK"))
        runner.run(holder.close())
    assert until(lambda: wire.call(method, **delete).ok)
    assert wire.call(method, **delete).ok
    rows = books.rows(
        "SELECT after_state FROM audit_records WHERE action_type = 'credential.delete' AND outcome = 'granted'"
    )
    assert sum("repeated" not in row["after_state"] for row in rows) == 1


# The workers are killed.


SOAK = [pytest.mark.soak, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    ("killed", "cycles"),
    [
        ("server", 10),
        pytest.param("server", 100, marks=SOAK),
        ("database", 3),
        pytest.param("database", 20, marks=SOAK),
    ],
)
def test_what_was_acknowledged_survives_every_kill_and_nothing_is_half_there(
    fresh_site: VaultSite, postgres: Postgres, killed: str, cycles: int
) -> None:
    fresh_site.write_config(server={"workers": 2})
    prepare(fresh_site)
    writers = 4
    stop = threading.Event()
    acknowledged: dict[str, str] = {}
    tried: set[str] = set()
    revealed: list[str] = []

    def write(number: int) -> None:
        count = 0
        client: Client | None = None
        while not stop.is_set():
            name, value = f"acme/kill/w{number}-{count}", secrets.token_hex(8)
            count += 1
            try:
                client = client or Client(fresh_site.profile("payments"), timeout=5)
                tried.add(name)
                client.put(name, {"password": value}, kind="bank_login")
                acknowledged[name] = value
                (secret,) = client.reveal(name, purpose="check")
                with secret:
                    assert secret.text("password") == value
                revealed.append(name)
            except StrongroomError:
                if client is not None:
                    client.close()
                client = None
                time.sleep(0.05)
        if client is not None:
            client.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    try:
        for cycle in range(cycles):
            before = len(acknowledged)
            until(lambda before=before: len(acknowledged) > before + 3, seconds=30)
            if killed == "database":
                postgres.kill()
                postgres.start()
                continue
            assert fresh_site.process is not None
            if cycle:
                # The supervisor too: it waits longer each time before it replaces a worker.
                fresh_site.process.send_signal(signal.SIGSTOP)
            fresh_site.kill_workers()
            if cycle:
                fresh_site.process.kill()
                fresh_site.process.wait(10)
                fresh_site.start(whole=False)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    until(lambda: ready(fresh_site), seconds=60)
    assert len(acknowledged) > cycles * 3
    books = Books(fresh_site)
    try:
        with fresh_site.client() as client:
            listed = {item.name: item for item in client.list_credentials("acme/kill")}
            for name, value in acknowledged.items():
                (secret,) = client.reveal(name, purpose="check")
                with secret:
                    assert secret.text("password") == value
            for name in listed.keys() - acknowledged.keys():
                assert name in tried
                (secret,) = client.reveal(name, purpose="check")
                with secret:
                    assert list(secret) == ["password"], "written whole, though nobody was told"
        rows = books.rows("SELECT action_type, resource FROM audit_records WHERE outcome = 'granted'")
        recorded = {(row["action_type"], row["resource"]) for row in rows}
        for name in acknowledged:
            assert ("credential.put", name) in recorded
        puts = {
            name for action, name in recorded if action == "credential.put" and name.startswith("acme/kill/")
        }
        assert puts == set(listed), "no effect without its record, and no record without its effect"
        for name in revealed:
            assert ("session.reveal", name) in recorded
        halves = books.rows(
            "SELECT name FROM credentials c WHERE NOT EXISTS (SELECT 1 FROM credential_versions v "
            "WHERE v.name = c.name AND v.version = c.latest_version) UNION ALL "
            "SELECT name FROM credential_versions v WHERE NOT EXISTS (SELECT 1 FROM credentials c "
            "WHERE c.name = v.name AND v.version <= c.latest_version)"
        )
        assert halves == []
        with fresh_site.system() as system:
            report = system.verify_audit()
        assert report.valid, report.findings
    finally:
        books.close()


# What was altered behind the vault's back is found.

CHANGES = {
    "id": "'00000000-0000-4000-8000-000000000000'",
    "created_at": "created_at + interval '1 microsecond'",
    "tenant": "'globex'",
    "user_id": "'spiffe://test.strongroom.internal/nobody'",
    "action_type": "'credential.list'",
    "resource": "'acme/fail/other'",
    "outcome": "'refused'",
    "reason": "'SCOPE_DENIED'",
    "ip_address": "'10.0.0.1'",
    "device_id": "'device'",
    "request_id": "'altered'",
    "token_id": "'AAAAAAAAAAAAAAAAAAAAAA'",
    "session_id": "'AAAAAAAAAAAAAAAAAAAAAA'",
    "before_state": "'{}'",
    "after_state": "after_state || ' '",
    "rows_written": "'{}'",
    "leaf_hash": "decode(repeat('00', 32), 'hex')",
    "sequence": "1000000",
}


class Tamper:
    """A running vault whose database is altered, judged, and put back."""

    def __init__(self, site: VaultSite, postgres: Postgres) -> None:
        self.site = site
        self._postgres = postgres
        self._system = site.system()
        with site.client() as client:
            for name in ("acme/fail/one", "acme/fail/two"):
                for number in (1, 2):
                    client.put(name, {"password": f"{SECRET}-{name}-{number}"}, kind="bank_login")
        self.wire = Wire(site.profile("payments"))
        assert reveal(self.wire, "acme/fail/one").ok

    def close(self) -> None:
        self._system.close()
        self.wire.channel.close()

    def sql(self, statement: str) -> str:
        return self._postgres.sql(database(self.site), statement)

    def findings(self) -> str:
        return "\n".join(self._system.verify_audit().findings)

    def sign(self) -> Answer:
        return self.wire.call("/vault.v1.AuditService/GetCheckpoint")

    @contextlib.contextmanager
    def altered(self, statement: str, *tables: str) -> Iterator[None]:
        """The statement's effect on these tables, for a while."""
        for table in tables:
            self.sql(f"CREATE TABLE kept_{table} AS TABLE {table}")
        self.sql(statement)
        try:
            yield
        finally:
            for table in tables:
                if table == "audit_records":
                    # What was appended meanwhile stays.
                    self.sql(
                        f"DELETE FROM {table} WHERE sequence <= (SELECT max(sequence) FROM kept_{table}) OR "
                        f"sequence = 1000000; INSERT INTO {table} TABLE kept_{table}"
                    )
                else:
                    self.sql(f"DELETE FROM {table}; INSERT INTO {table} TABLE kept_{table}")
                self.sql(f"DROP TABLE kept_{table}")


@pytest.fixture(scope="module")
def tamper(softhsm: Any, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tamper]:
    url = postgres.create_database(f"vault_{secrets.token_hex(6)}")
    site = VaultSite(tmp_path_factory.mktemp("tamper"), url, softhsm[0], softhsm[1])
    site.prepare()
    prepare(site)
    made = Tamper(site, postgres)
    yield made
    made.close()
    site.stop()


def _some(tamper: Tamper) -> int:
    query = (
        "SELECT max(sequence) FROM audit_records WHERE action_type = 'credential.put' AND outcome = 'granted'"
    )
    return int(tamper.sql(query))


def test_an_untouched_log_verifies(tamper: Tamper) -> None:
    assert tamper.findings() == ""
    assert tamper.sign().ok


@pytest.mark.parametrize("column", CHANGES)
def test_a_record_altered_in_any_column_is_found_and_not_signed_over(tamper: Tamper, column: str) -> None:
    columns = tamper.sql(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'audit_records'"
    ).split()
    assert set(columns) == set(CHANGES)
    assert reveal(tamper.wire, "acme/fail/one").ok
    sequence = int(tamper.sql("SELECT max(sequence) FROM audit_records"))
    statement = f"UPDATE audit_records SET {column} = {CHANGES[column]} WHERE sequence = {sequence}"
    with tamper.altered(statement, "audit_records"):
        assert str(sequence) in tamper.findings()
        if column != "sequence":
            assert tamper.sign().reason == "STORED_DATA_DAMAGED"
    assert tamper.findings() == ""
    assert tamper.sign().ok


def test_a_record_altered_with_a_fitting_leaf_hash_is_found(tamper: Tamper) -> None:
    """Whoever can write to the database can compute a leaf; the tree and what was signed say otherwise."""
    from vault.store.ledger import leaf_hash

    sequence = _some(tamper)
    assert tamper.sign().ok
    with asyncio.Runner() as runner:
        connection: Any = runner.run(asyncpg.connect(owner_url(tamper.site.database_url)))
        row = dict(
            runner.run(connection.fetchrow("SELECT * FROM audit_records WHERE sequence = $1", sequence))
        )
        runner.run(connection.close())
    row["user_id"] = "spiffe://test.strongroom.internal/nobody"
    fitting = leaf_hash(row).hex()
    statement = (
        f"UPDATE audit_records SET user_id = '{row['user_id']}', leaf_hash = decode('{fitting}', 'hex') "
        f"WHERE sequence = {sequence}"
    )
    with tamper.altered(statement, "audit_records"):
        found = tamper.findings()
        assert "tree" in found
        assert "checkpoint" in found


@pytest.mark.parametrize("which", ["first", "last", "one in the middle"])
def test_a_record_that_was_deleted_is_found(tamper: Tamper, which: str) -> None:
    last = int(tamper.sql("SELECT max(sequence) FROM audit_records"))
    sequence = {"first": 0, "last": last, "one in the middle": last // 2}[which]
    with tamper.altered(f"DELETE FROM audit_records WHERE sequence = {sequence}", "audit_records"):
        assert tamper.findings() != ""
    assert tamper.findings() == ""


def test_two_records_that_changed_places_are_found(tamper: Tamper) -> None:
    sequence = _some(tamper)
    swap = (
        f"UPDATE audit_records SET sequence = -1 WHERE sequence = {sequence};"
        f"UPDATE audit_records SET sequence = {sequence} WHERE sequence = {sequence - 1};"
        f"UPDATE audit_records SET sequence = {sequence - 1} WHERE sequence = -1"
    )
    with tamper.altered(swap, "audit_records"):
        assert tamper.findings() != ""


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE checkpoints SET root = decode(repeat('00', 32), 'hex')",
        "UPDATE checkpoints SET note = replace(note, chr(10), '  ' || chr(10))",
        "UPDATE checkpoints SET size = size + 1",
        "UPDATE checkpoints SET frontier = decode('00', 'hex')",
    ],
    ids=["root", "note", "size", "frontier"],
)
def test_an_altered_checkpoint_is_found(tamper: Tamper, statement: str) -> None:
    assert tamper.sign().ok
    newest = " WHERE size = (SELECT max(size) FROM checkpoints)"
    with tamper.altered(statement + newest, "checkpoints"):
        assert "checkpoint" in tamper.findings()
    assert tamper.findings() == ""


def test_a_database_that_is_set_back_under_a_running_vault_is_not_worked_with(
    vault: VaultSite, wire: Wire, postgres: Postgres
) -> None:
    """An older copy, or a standby that lacked the end: whole, as far as it goes, and its head fits."""
    sign = "/vault.v1.AuditService/GetCheckpoint"
    assert wire.call(sign).ok
    size, frontier = postgres.sql(
        database(vault), "SELECT size, encode(frontier, 'hex') FROM checkpoints ORDER BY size DESC LIMIT 1"
    ).split("|")
    assert reveal(wire).ok
    assert wire.call(sign).ok
    anchored = (vault.folder / "anchor.txt").read_text()
    with wire.stream(timeout=60) as stream:
        start = pb.SessionStart(
            credentials=[pb.CredentialSelector(name=NAME)],
            purpose="test",
            recipient_key=Recipient().public_bytes,
        )
        assert stream.ask(start=start).WhichOneof("message") == "opened"
        postgres.sql(
            database(vault),
            f"DELETE FROM audit_records WHERE sequence >= {size}; DELETE FROM checkpoints WHERE size > {size};"
            f"UPDATE audit_head SET size = {size}, frontier = decode('{frontier}', 'hex')",
        )
        assert stream.read().closed.reason == pb.CLOSE_REASON_REVOCATIONS_UNKNOWN
    answer = reveal(wire)
    assert (answer.code.name, answer.reason) == ("UNAVAILABLE", "REVOCATIONS_UNKNOWN")
    # New tokens are trusted no more, however far the log has grown again.
    for _ in range(30):
        wire.issue("credential.read:acme/**")
    assert reveal(wire, NAME).reason == "REVOCATIONS_UNKNOWN"
    until(lambda: not ready(vault))
    assert "the database was set back" in vault.log()
    assert (vault.folder / "anchor.txt").read_text() == anchored, "nothing was signed over it"
    done = subprocess.run(
        [sys.executable, "-m", "vault.cli", "audit", "verify", "--config", str(vault.config_file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert "was anchored" in done.stdout
    vault.stop()
    for _ in range(2):  # nor is anything signed by a start that is refused
        with pytest.raises(RuntimeError, match=r"is not the one in anchor"):
            vault.start()
        assert (vault.folder / "anchor.txt").read_text() == anchored


VERSIONS = {
    "the envelope of another credential": (
        "UPDATE credential_versions SET envelope = (SELECT envelope FROM credential_versions WHERE "
        "name = 'acme/fail/two' AND version = 2) WHERE name = 'acme/fail/one' AND version = 2"
    ),
    "the envelope of an older version": (
        "UPDATE credential_versions SET envelope = (SELECT envelope FROM credential_versions WHERE "
        "name = 'acme/fail/one' AND version = 1) WHERE name = 'acme/fail/one' AND version = 2"
    ),
    "two credentials' rows swapped": (
        "UPDATE credential_versions SET name = 'acme/fail/tmp' WHERE name = 'acme/fail/one';"
        "UPDATE credential_versions SET name = 'acme/fail/one' WHERE name = 'acme/fail/two';"
        "UPDATE credential_versions SET name = 'acme/fail/two' WHERE name = 'acme/fail/tmp'"
    ),
    "two versions' rows swapped": (
        "UPDATE credential_versions SET version = 9 WHERE name = 'acme/fail/one' AND version = 1;"
        "UPDATE credential_versions SET version = 1 WHERE name = 'acme/fail/one' AND version = 2;"
        "UPDATE credential_versions SET version = 2 WHERE name = 'acme/fail/one' AND version = 9"
    ),
    "another key's version": (
        "UPDATE credential_versions SET kek_version = 2 WHERE name = 'acme/fail/one' AND version = 2"
    ),
    "another suite": "UPDATE credential_versions SET suite = 3 - suite WHERE name = 'acme/fail/one'",
    "a suite that is none": "UPDATE credential_versions SET suite = 99 WHERE name = 'acme/fail/one'",
    "an empty envelope": (
        "UPDATE credential_versions SET envelope = '' WHERE name = 'acme/fail/one' AND version = 2"
    ),
    "one bit of its first byte": (
        "UPDATE credential_versions SET envelope = set_bit(envelope, 0, 1 - get_bit(envelope, 0)) "
        "WHERE name = 'acme/fail/one' AND version = 2"
    ),
    "one bit of its last byte": (
        "UPDATE credential_versions SET envelope = set_bit(envelope, (length(envelope) - 1) * 8, "
        "1 - get_bit(envelope, (length(envelope) - 1) * 8)) WHERE name = 'acme/fail/one' AND version = 2"
    ),
    "one byte less": (
        "UPDATE credential_versions SET envelope = substring(envelope for length(envelope) - 1) "
        "WHERE name = 'acme/fail/one' AND version = 2"
    ),
}  # fmt: skip
UNSEEN = {
    "a credential rolled back by a version": (
        "DELETE FROM credential_versions WHERE name = 'acme/fail/one' AND version = 2;"
        "UPDATE credentials SET latest_version = 1 WHERE name = 'acme/fail/one'"
    ),
    "the newest version deleted": (
        "DELETE FROM credential_versions WHERE name = 'acme/fail/one' AND version = 2"
    ),
    "another state of a credential": "UPDATE credentials SET state = 'deleted' WHERE name = 'acme/fail/one'",
    "a revocation forgotten": "DELETE FROM revocations",
}  # fmt: skip


@pytest.mark.parametrize("statement", VERSIONS.values(), ids=VERSIONS.keys())
def test_a_version_that_was_altered_or_swapped_is_data_loss_on_reveal(tamper: Tamper, statement: str) -> None:
    with tamper.altered(statement, "credential_versions"):
        answer = reveal(tamper.wire, "acme/fail/one")
        assert (answer.code.name, answer.reason) == ("DATA_LOSS", "STORED_DATA_DAMAGED")
        assert SECRET.encode() not in answer.raw
        with tamper.wire.stream() as stream:
            start = pb.SessionStart(
                credentials=[pb.CredentialSelector(name="acme/fail/one")],
                purpose="test",
                recipient_key=Recipient().public_bytes,
            )
            assert stream.ask(start=start).reason == "STORED_DATA_DAMAGED"
    assert reveal(tamper.wire, "acme/fail/one").ok
    assert SECRET not in tamper.site.log()


def test_a_row_that_was_given_to_another_tenant_is_not_opened_and_found(tamper: Tamper) -> None:
    given = "UPDATE credential_versions SET tenant = 'globex' WHERE name = 'acme/fail/one'"
    with tamper.altered(given, "credential_versions"):
        answer = reveal(tamper.wire, "acme/fail/one")
        assert answer.code.name == "NOT_FOUND", (
            "row-level security shows it to globex, whose name it does not bear"
        )
        assert SECRET.encode() not in answer.raw
        assert "acme/fail/one" in tamper.findings()
    assert reveal(tamper.wire, "acme/fail/one").ok


@pytest.mark.parametrize("statement", UNSEEN.values(), ids=UNSEEN.keys())
def test_what_was_rolled_back_or_removed_is_found(tamper: Tamper, statement: str) -> None:
    """By verify, or at the latest when it is revealed."""
    issued = tamper.wire.issue("credential.read:acme/**")
    assert tamper.wire.call("/vault.v1.TokenService/Revoke", token_id=issued.token_id).ok
    with tamper.altered(statement, "credential_versions", "credentials", "revocations"):
        assert tamper.findings() != "" or reveal(tamper.wire, "acme/fail/one").reason == "STORED_DATA_DAMAGED"
