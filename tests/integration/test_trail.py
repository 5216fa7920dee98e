"""Reading the log: by every filter, page by page, as it grows, and in the forms of other systems."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from vault.client import AsyncClient, StrongroomError
from vault.core.export import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.vault import VaultSite
    from vault.client import Client


@pytest.fixture
def name(site: VaultSite) -> str:
    """A credential that was put, revealed, and asked for by somebody who may not."""
    name = f"acme/trail/{secrets.token_hex(6)}"
    with site.client() as client:
        client.put(name, {"value": "x"}, kind="generic")
        client.reveal(name, purpose="for the trail")[0].close()
    with (
        site.client("ledger", scopes=(f"credential.read:{name}",)) as powerless,
        pytest.raises(StrongroomError),
    ):
        powerless.reveal(name, purpose="test")
    return name


@pytest.fixture
def reader(site: VaultSite) -> Iterator[Client]:
    with site.operator() as reader:
        yield reader


def command(site: VaultSite, *arguments: str, profile: str = "operator", **options: Any) -> str:
    """What the command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "vault.cli", *arguments], env=environment(site, profile), check=True,
        capture_output=True, text=True, timeout=60, **options,
    )  # fmt: skip
    return done.stdout


def environment(site: VaultSite, name: str) -> dict[str, str]:
    profile = site.folder / f"trail-{name}.toml"
    made = site.profile(name, scopes=("audit.read:acme/audit",))
    profile.write_text(
        f'server = "{made.server}"\nca_file = "{made.ca_file}"\ncertificate_file = "{made.certificate_file}"\n'
        f'private_key_file = "{made.private_key_file}"\ntenant = "acme"\nscopes = {json.dumps(made.scopes)}\n'
    )
    return {**os.environ, "STRONGROOM_PROFILE": str(profile)}


def test_each_filter_finds_what_it_names_and_nothing_else(site: VaultSite, name: str, reader: Client) -> None:
    def actions(**filters: Any) -> list[str]:
        return [record.action for record in reader.audit_records(**{"resource": name, **filters})]

    everything = ["credential.put", "session.reveal", "session.reveal"]
    trust_domain = "spiffe://test.strongroom.internal"
    now = datetime.datetime.now(datetime.UTC)
    hour = datetime.timedelta(hours=1)
    assert actions() == everything
    assert actions(resource=name.rpartition("/")[0] + "/**", since=now - hour)[-3:] == everything
    assert actions(resource="acme/trail_/**") == []
    assert actions(tenant="acme") == everything
    assert actions(outcome="granted") == everything[:2]
    assert actions(outcome="refused") == everything[2:]
    assert actions(action="credential.put") == everything[:1]
    assert actions(identity=f"{trust_domain}/ledger") == everything[2:]
    assert actions(network="127.0.0.0/8") == actions(network="127.0.0.1") == everything
    assert actions(network="10.0.0.0/8") == actions(network="::1/128") == []
    assert actions(since=now - hour, until=now + hour) == everything
    assert actions(since=now + hour) == actions(until=now - hour) == []
    assert actions(device_id="another") == []
    assert actions(newest_first=True) == everything[::-1]


def test_the_device_is_a_filter(site: VaultSite) -> None:
    import dataclasses

    from vault.client import Client

    device = f"device-{secrets.token_hex(6)}"
    with Client(dataclasses.replace(site.profile("payments"), device_id=device)) as client:
        client.put(f"acme/trail/{device}", {"value": "x"}, kind="generic")
    with site.operator() as reader:
        found = reader.audit_records(device_id=device)
    assert {record.device_id for record in found} == {device}
    assert "credential.put" in {record.action for record in found}


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_hold_every_record_once_while_the_log_grows(reader: Client, *, newest_first: bool) -> None:
    from vault.client.operations import audit

    before = reader.audit_records(most=100_000)
    request = audit.audit_request({"newest_first": newest_first})
    request.page_size = 7
    sequences: list[int] = []
    while True:
        # Each page makes a record of its own.
        page = reader.audit_page(request)
        request.page_token = page.next_page_token
        sequences += [record.sequence for record in page.records]
        if not page.next_page_token or sequences[-1] > before[-1].sequence:
            break
    assert sequences == sorted(set(sequences), reverse=newest_first)
    assert set(sequences) >= {record.sequence for record in before}


def test_a_wait_ends_with_the_first_record_that_matches_and_not_with_its_own(
    site: VaultSite, reader: Client
) -> None:
    name = f"acme/trail/{secrets.token_hex(6)}"
    newest = reader.audit_records(newest_first=True, most=1)[0].sequence
    seen: list[str] = []

    def follow() -> None:
        for record in reader.iter_audit(follow=True, first_sequence=newest + 1):
            seen.append(record.action)
            if record.resource == name:
                return

    reading = threading.Thread(target=follow)
    reading.start()
    time.sleep(1)
    with site.client() as client:
        client.put(name, {"value": "x"}, kind="generic")
    reading.join(30)
    assert not reading.is_alive()
    assert seen[-1] == "credential.put"
    assert seen.count("audit.list") <= 4, "a reader that waits must not wake itself"


async def test_the_asyncio_sdk_reads_the_log_too(site: VaultSite, name: str) -> None:
    scopes = ("audit.read:acme/audit",)
    async with AsyncClient(site.profile("operator", scopes=scopes)) as reader:
        found = [record.action async for record in reader.iter_audit(resource=name)]
        assert found == [record.action for record in await reader.audit_records(resource=name)]
    assert found == ["credential.put", "session.reveal", "session.reveal"]


def test_search_and_show_tell_all_of_a_record(site: VaultSite, name: str) -> None:
    found = json.loads(command(site, "audit", "search", "--credential", name, "--since", "1h", "-o", "json"))
    assert [record["action"] for record in found] == ["credential.put", "session.reveal", "session.reveal"]
    shown = json.loads(command(site, "audit", "show", str(found[1]["sequence"]), "-o", "json"))
    assert shown["id"] == found[1]["id"]
    assert "for the trail" in shown["after_state"]
    assert tuple(shown) == COLUMNS


def test_tail_follows_until_it_is_stopped(site: VaultSite) -> None:
    name = f"acme/trail/{secrets.token_hex(6)}"
    command_line = [sys.executable, "-m", "vault.cli", "audit", "tail", "-f", "-n", "1", "-o", "json"]
    with subprocess.Popen(
        command_line,
        env=environment(site, "operator"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as tail:
        try:
            assert tail.stdout is not None
            tail.stdout.readline()
            with site.client() as client:
                client.put(name, {"value": "x"}, kind="generic")
            for line in tail.stdout:
                if json.loads(line)["resource"] == name:
                    break
        finally:
            tail.terminate()


def test_following_goes_on_after_a_restart_and_misses_nothing(fresh_site: VaultSite) -> None:
    def start_again() -> None:
        fresh_site.start()
        with fresh_site.client() as client:
            client.put("acme/trail/after", {"value": "x"}, kind="generic")

    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
        followed = system.iter_audit(follow=True)
        sequences = [next(followed).sequence]
        fresh_site.stop()
        starting = threading.Timer(2.0, start_again)
        starting.start()
        for record in followed:
            sequences.append(record.sequence)
            if record.action == "credential.put":
                break
        starting.join()
    assert sequences == list(range(len(sequences)))


def test_an_export_is_the_same_in_every_form(site: VaultSite, name: str, tmp_path: Path) -> None:
    def exported(form: str) -> str:
        file = tmp_path / form
        command(site, "audit", "export", str(file), "--format", form, "--credential", name)
        return file.read_text()

    rows = list(csv.DictReader(io.StringIO(exported("csv"))))
    assert [row["action_type"] for row in rows] == ["credential.put", "session.reveal", "session.reveal"]
    assert tuple(rows[0]) == COLUMNS
    shown = json.loads(command(site, "audit", "show", rows[0]["sequence"], "-o", "json"))
    assert rows[0] == {key: str(value) for key, value in shown.items()}
    events = [json.loads(line) for line in exported("ocsf").splitlines()]
    assert [event["metadata"]["uid"] for event in events] == [row["id"] for row in rows]
    assert [event["type_uid"] for event in events] == [600301, 600302, 600302]
    assert [event["status_id"] for event in events] == [1, 1, 2]


def test_the_view_of_payment_audits_has_the_columns_that_auditors_know(fresh_site: VaultSite) -> None:
    from tests.integration.wire import Books

    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
    books = Books(fresh_site)
    (row,) = books.rows(
        "SELECT id, user_id, action_type, before_state, after_state->>'state' AS state, family(ip_address) AS v,"
        " device_id, created_at FROM payment_audits WHERE action_type = 'key.create_tenant'"
    )
    books.close()
    assert row["user_id"].endswith("/operator")
    assert row["v"] == 4
