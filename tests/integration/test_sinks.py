"""The log's sinks, by real receivers: each record arrives, none is missed, and a required sink is waited for."""

from __future__ import annotations

import json
import re
import secrets
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.wire import Wire, until
from tests.support.receivers import Collector, SyslogReceiver
from vault.client import StrongroomError
from vault.client.health import check, look
from vault.client.sealing import Recipient
from vault.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Postgres
    from tests.support.vault import VaultSite
    from vault.client import Client

RFC5424 = re.compile(
    rb"<(\d{1,3})>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S{1,255} strongroom - [!-~]{1,32} - (\{.*\})"
)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def start(site: VaultSite, *sinks: dict[str, Any], workers: int = 1, wait_seconds: float = 3.0) -> None:
    site.write_config(audit={"sinks": list(sinks), "wait_seconds": wait_seconds}, server={"workers": workers})
    site.start()


def is_ready(site: VaultSite) -> bool:
    try:
        return check(site.profile("operator"))[0]
    except StrongroomError:
        return False


def put(client: Client) -> str:
    name = f"acme/sinks/{secrets.token_hex(6)}"
    client.put(name, {"value": "x"}, kind="generic")
    return name


def log_size(postgres: Postgres, site: VaultSite) -> int:
    return int(postgres.sql(site.database_url.rpartition("/")[2], "SELECT size FROM audit_head"))


def make_tenant(site: VaultSite) -> None:
    with site.system() as system:
        system.create_tenant("acme")


def test_a_file_holds_every_record_in_order_and_is_changed_when_it_is_full(
    fresh_site: VaultSite, postgres: Postgres
) -> None:
    file = fresh_site.folder / "audit.jsonl"
    first = log_size(postgres, fresh_site)
    start(
        fresh_site,
        {"name": "disk", "kind": "file", "file": str(file), "max_bytes": 65536, "delivery": "required"},
    )
    make_tenant(fresh_site)
    with fresh_site.client() as client:
        names = [put(client) for _ in range(80)]
        size = log_size(postgres, fresh_site)
        # When this one is answered, it and everything before it is in the files.
        put(client)
    full = sorted(fresh_site.folder.glob("audit-*.jsonl"))
    assert full, "64 KiB were not enough to fill the first file"
    records = [
        json.loads(line) for part in (*full, file) if part.exists() for line in part.read_text().splitlines()
    ]
    assert [record["sequence"] for record in records][: size - first] == list(range(first, size))
    assert {record["resource"] for record in records} >= set(names)


def test_a_file_cut_by_a_crash_is_mended_and_has_no_record_twice(
    fresh_site: VaultSite, postgres: Postgres
) -> None:
    file = fresh_site.folder / "audit.jsonl"
    sink = {"name": "disk", "kind": "file", "file": str(file), "delivery": "required"}
    first = log_size(postgres, fresh_site)
    start(fresh_site, sink)
    make_tenant(fresh_site)
    fresh_site.kill_workers()
    fresh_site.stop()
    # The cursor is behind what the file has, and its last line is half a record.
    postgres.sql(
        fresh_site.database_url.rpartition("/")[2], f"UPDATE audit_sinks SET next_sequence = {first}"
    )
    with file.open("ab") as broken:
        broken.write(b'{"sequence": 99')
    start(fresh_site, sink)
    with fresh_site.client() as client:
        put(client)
        size = log_size(postgres, fresh_site)
        put(client)
    sequences = [json.loads(line)["sequence"] for line in file.read_text().splitlines()]
    assert sequences[: size - first] == list(range(first, size))


def test_what_was_lost_behind_the_last_checkpoint_is_found_by_a_file_that_has_it(
    fresh_site: VaultSite, postgres: Postgres
) -> None:
    """No anchor tells: the database is the one of the newest checkpoint, and a start is not refused."""
    file = fresh_site.folder / "audit.jsonl"
    start(fresh_site, {"name": "disk", "kind": "file", "file": str(file), "delivery": "required"})
    make_tenant(fresh_site)
    with fresh_site.system() as system:
        system.checkpoint()
    with fresh_site.client() as client:
        put(client)
    # No checkpoint at the end, as a vault that is stopped makes.
    assert fresh_site.process is not None
    fresh_site.process.send_signal(signal.SIGSTOP)
    fresh_site.kill_workers()
    fresh_site.process.kill()
    fresh_site.process.wait()
    database = fresh_site.database_url.rpartition("/")[2]
    newest = "SELECT size, encode(frontier, 'hex') FROM checkpoints ORDER BY size DESC LIMIT 1"
    size, frontier = postgres.sql(database, newest).split("|")
    postgres.sql(
        database,
        f"DELETE FROM audit_records WHERE sequence >= {size}; UPDATE audit_sinks SET next_sequence = {size};"
        f"UPDATE audit_head SET size = {size}, frontier = decode('{frontier}', 'hex')",
    )
    fresh_site.start()
    with fresh_site.client() as client:
        with pytest.raises(StrongroomError, match="AUDIT_UNAVAILABLE"):
            put(client)
        until(lambda: "set back" in look(fresh_site.profile("operator")).reasons)
        # Who has seen to what is lost puts the file aside as evidence, and the vault goes on.
        file.rename(file.with_suffix(".lost"))
        until(lambda: is_ready(fresh_site))
        name = put(client)
    assert name in file.read_text()


def test_syslog_messages_are_well_formed_and_none_is_missed_when_the_receiver_was_away(
    fresh_site: VaultSite, postgres: Postgres
) -> None:
    receiver = SyslogReceiver(fresh_site.folder / "pki")
    first = log_size(postgres, fresh_site)
    start(
        fresh_site,
        {
            "name": "siem", "kind": "syslog", "host": "localhost", "port": receiver.port,
            "ca_file": str(fresh_site.folder / "pki/ca.pem"),
        },
    )  # fmt: skip
    make_tenant(fresh_site)

    def sequences() -> set[int]:
        bodies = [RFC5424.fullmatch(message) for message in receiver.messages]
        assert all(bodies)
        return {json.loads(body[2])["sequence"] for body in bodies if body}

    with fresh_site.client() as client:
        put(client)
        until(lambda: log_size(postgres, fresh_site) - 1 in sequences())
        receiver.stop()
        for _ in range(5):
            put(client)
        with fresh_site.system() as system:
            until(lambda: system.audit_sinks()[0].error != "")
            assert not system.audit_sinks()[0].required
            seen = until(lambda: (found := look(fresh_site.profile("operator"))).alarms and found)
            assert seen.ready, "a best-effort sink makes the vault unready"
            assert seen.alarms.startswith("sink siem: ")
            receiver.start()
            until(lambda: system.audit_sinks()[0].error == "")
            until(lambda: look(fresh_site.profile("operator")).alarms == "")
            actions = [record.action for record in system.audit_records(resource="system/sinks/siem")]
        assert actions == ["audit.fail_sink", "audit.recover_sink"]
        put(client)
    size = log_size(postgres, fresh_site)
    until(lambda: sequences() >= set(range(first, size)))
    assert receiver.broken == []
    priority = RFC5424.fullmatch(receiver.messages[0])
    assert priority is not None
    assert int(priority[1]) >> 3 == 13
    receiver.stop()


def test_a_collector_gets_every_record_with_its_token(
    fresh_site: VaultSite, postgres: Postgres, collector: Collector
) -> None:
    (fresh_site.folder / "token").write_text("s3cret\n")
    first = log_size(postgres, fresh_site)
    start(
        fresh_site,
        {"name": "otel", "kind": "otlp", "url": collector.url, "token_file": "token", "delivery": "required"},
    )
    make_tenant(fresh_site)
    with fresh_site.client() as client:
        name = put(client)
    size = log_size(postgres, fresh_site)
    with fresh_site.system() as system:
        report = system.verify_audit()
    assert report.valid, report.findings
    assert collector.sequences()[: size - first] == list(range(first, size))
    assert collector.headers[0]["authorization"] == "Bearer s3cret"
    assert name in str(collector.requests)
    assert "s3cret" not in fresh_site.log()


def test_without_a_required_sinks_receipt_there_is_no_answer_and_no_hang(
    fresh_site: VaultSite, postgres: Postgres, collector: Collector
) -> None:
    first = log_size(postgres, fresh_site)
    start(
        fresh_site,
        {"name": "otel", "kind": "otlp", "url": collector.url, "delivery": "required"},
        wait_seconds=1.0,
    )
    make_tenant(fresh_site)
    with fresh_site.client() as client, Wire(fresh_site.profile("payments")) as wire:
        name = put(client)
        assert wire.token
        collector.answer = "hang"
        began = time.monotonic()
        answer = wire.call(
            "/vault.v1.SessionService/Reveal",
            credentials=[session_pb2.CredentialSelector(name=name)],
            purpose="test",
            recipient_key=Recipient().public_bytes,
        )
        took = time.monotonic() - began
        assert answer.reason == "AUDIT_UNAVAILABLE"
        # A second for the record and one for that of the refusal; the collector would have it wait for twenty.
        assert took < 10
        until(lambda: not check(fresh_site.profile("operator"))[0])
        collector.answer = "take"
        until(lambda: check(fresh_site.profile("operator"))[0], 30)
        client.reveal(name, purpose="test")[0].close()
    size = log_size(postgres, fresh_site)
    until(lambda: set(collector.sequences()) >= set(range(first, size)))


def test_with_several_workers_one_serves_and_another_takes_over_when_it_dies(
    fresh_site: VaultSite, postgres: Postgres, collector: Collector
) -> None:
    first = log_size(postgres, fresh_site)
    start(
        fresh_site,
        {"name": "otel", "kind": "otlp", "url": collector.url, "delivery": "required"},
        workers=2,
        wait_seconds=10.0,
    )
    make_tenant(fresh_site)
    clients = [fresh_site.client() for _ in range(6)]
    for client in clients:
        put(client)
    fresh_site.kill_workers()
    until(lambda: is_ready(fresh_site), 60)
    for client in clients:
        size = log_size(postgres, fresh_site)
        put(client)
        client.close()
    assert set(collector.sequences()) >= set(range(first, size))
    assert len(collector.sequences()) < 2 * (size - first), "most records arrive once"
