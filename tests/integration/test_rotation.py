"""Rotating and rewrapping on a running vault, as an operator does it, and what an auditor gets."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.integration.wire import Wire, failure, until
from tests.support import seeding
from vault.cli.jobs import EXIT_NOT_ALL_DONE
from vault.cli.verification import EXIT_NOT_VALID
from vault.client import StrongroomError
from vault.crypto import notes
from vault.v1 import job_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Postgres
    from tests.support.vault import VaultSite
    from vault.client import Client

EXIT_USAGE = 2
COUNT = 1200
MANY = 12_000
MOST_MORE = 128 * 1024 * 1024
LIST_FAILURES = "/vault.v1.JobService/ListFailures"


@pytest.fixture(scope="module")
def seeded(site: VaultSite) -> VaultSite:
    seeding.seed(site.config_file, COUNT, folder="rotation")
    return site


@pytest.fixture(scope="module")
def operator(seeded: VaultSite) -> Iterator[Client]:
    with seeded.operator() as client:
        yield client


@pytest.fixture(scope="module")
def verifier(seeded: VaultSite) -> str:
    with seeded.system() as system:
        return system.checkpoint().verifier_key


def finished(client: Client, job: pb.RewrapJob) -> pb.RewrapJob:
    for seen in client.watch_job(job.tenant, job.job_id):
        last = seen
    return last


def report_of(job: pb.RewrapJob, verifier: str) -> dict[str, Any]:
    head, body, _ = notes.verify_note(job.report, [verifier]).split("\n")
    assert head == "strongroom/rotation-report/v1"
    found: dict[str, Any] = json.loads(body)
    return found


def uses(client: Client, version: int) -> int:
    return client.describe_key("acme", version).credential_versions


def opens(client: Client, number: int) -> bool:
    with client.reveal(f"acme/rotation/{number:07}", purpose="test")[0] as secrets:
        return secrets["value"] == seeding.value_of(number).encode()


def test_a_rewrap_brings_everything_under_the_newest_key_and_everything_still_opens(
    seeded: VaultSite, operator: Client, verifier: str
) -> None:
    # Other tests may have left versions under older keys: first all come under one.
    finished(operator, operator.start_job("acme", "rewrap"))
    old = operator.describe_key("acme").key.version
    count = uses(operator, old)
    new = operator.rotate_key("acme").version
    dry = operator.start_job("acme", "rewrap", validate_only=True)
    assert (dry.job_id, dry.total, uses(operator, old)) == ("", count, count)

    job = finished(operator, operator.start_job("acme", "rewrap"))

    assert job.state == pb.JOB_STATE_SUCCEEDED
    assert (job.total, job.done, job.skipped, job.failed) == (count, count, 0, 0)
    assert (uses(operator, old), uses(operator, new)) == (0, count)
    with seeded.client() as payments:
        assert all(opens(payments, number) for number in (0, 255, 256, 700, COUNT - 1))
    report = report_of(job, verifier)
    assert report["before"] == {str(old): count}
    assert report["after"] == {str(new): count}
    assert report["requested_by"].endswith("/operator")
    with seeded.system() as system:
        verdict = system.verify_audit()
        # Each of these records names hundreds of rows; a page of them still fits into an answer.
        records = system.audit_records(tenant="acme", action="job.rewrap")
    assert verdict.valid, list(verdict.findings)
    assert sum(json.loads(record.after_state)["done"] for record in records) >= count


def test_a_reencryption_changes_suite_and_data_key_and_everything_still_opens(
    seeded: VaultSite, operator: Client
) -> None:
    suite = "CHACHA20-POLY1305-HKDF-SHA256-COMMIT"
    job = finished(operator, operator.start_job("acme", "reencrypt", suite=suite))
    assert job.state == pb.JOB_STATE_SUCCEEDED, job
    (version,) = operator.list_versions("acme/rotation/0000500")
    assert (version.version, version.suite) == (1, suite)
    with seeded.client() as payments:
        assert all(opens(payments, number) for number in (0, 500, COUNT - 1))
        # What is new is written with the current suite again.
        payments.put("acme/rotation/new", {"value": "x"}, kind="generic")
    assert operator.list_versions("acme/rotation/new")[0].suite != suite
    with seeded.system() as system:
        assert system.verify_audit().valid


def test_a_job_is_throttled_paused_resumed_and_cancelled(operator: Client, verifier: str) -> None:
    operator.rotate_key("acme")
    job = operator.start_job("acme", "rewrap", max_per_second=100)
    try:
        until(lambda: operator.get_job("acme", job.job_id).done)
        with pytest.raises(StrongroomError) as second:
            operator.start_job("acme", "rewrap")
        assert (second.value.reason, second.value.metadata["job_id"]) == ("JOB_RUNNING", job.job_id)

        paused = operator.update_job("acme", job.job_id, command="pause")
        assert paused.state == pb.JOB_STATE_PAUSED
        assert paused.done < paused.total
        resumed = operator.update_job("acme", job.job_id, command="resume", max_per_second=50)
        assert resumed.done == paused.done, "nothing was done meanwhile"
        until(lambda: operator.get_job("acme", job.job_id).done > paused.done)
    finally:
        operator.update_job("acme", job.job_id, command="cancel")
    ended = finished(operator, job)
    report = report_of(ended, verifier)
    assert (ended.state, report["state"]) == (pb.JOB_STATE_CANCELLED, "cancelled")
    assert len(report["after"]) == 2, "what is not done stays where it was"
    with pytest.raises(StrongroomError) as again:
        operator.update_job("acme", job.job_id, command="resume")
    assert again.value.reason == "JOB_ENDED"
    assert operator.list_jobs("acme")[0].job_id == job.job_id
    rest = finished(operator, operator.start_job("acme", "rewrap"))
    assert (rest.state, rest.done) == (pb.JOB_STATE_SUCCEEDED, ended.total - ended.done)


def test_watches_of_a_job_that_stands_still_are_few_and_end_with_their_token(
    seeded: VaultSite, operator: Client
) -> None:
    operator.rotate_key("acme")
    job = operator.start_job("acme", "rewrap", max_per_second=10)
    operator.update_job("acme", job.job_id, command="pause")
    with Wire(seeded.profile("operator")) as wire:
        issued = wire.issue("key.read:acme/keys")
        watch = wire.channel.unary_stream("/vault.v1.JobService/Watch")
        asked = pb.JobServiceWatchRequest(tenant="acme", job_id=job.job_id).SerializeToString()
        call = watch(asked, metadata=[("authorization", f"Bearer {issued.token}")], timeout=20)
        next(call)
        others = [watch(asked, metadata=[("authorization", f"Bearer {issued.token}")]) for _ in range(15)]
        for other in others:
            next(other)
        with pytest.raises(grpc.RpcError) as one_too_many:
            next(watch(asked, metadata=[("authorization", f"Bearer {issued.token}")]))
        assert failure(one_too_many.value, "").metadata == {"limit": "watches_per_identity"}
        operator.revoke_token(issued.token_id)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as ended:
            for _ in call:
                pass
        assert failure(ended.value, "").reason == "TOKEN_REVOKED"
        assert time.monotonic() - began < 3
    operator.update_job("acme", job.job_id, command="cancel")
    finished(operator, operator.start_job("acme", "rewrap"))


def test_the_command_follows_a_job_and_its_exit_code_says_how_it_ended(
    seeded: VaultSite, operator: Client
) -> None:
    operator.rotate_key("acme")
    done = strongroom(seeded, "keys", "rewrap", "acme", "--output", "json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    report = strongroom(seeded, "keys", "report", "acme", job["job_id"])
    assert report.stdout.startswith("strongroom/rotation-report/v1\n")
    as_json = strongroom(seeded, "keys", "report", "acme", job["job_id"], "--output", "json")
    told = json.loads(as_json.stdout)
    assert (told["job_id"], told["report"]) == (job["job_id"], report.stdout)
    dry = strongroom(seeded, "keys", "rewrap", "acme", "--dry-run", "--output", "json")
    assert (dry.returncode, json.loads(dry.stdout)["total"]) == (0, "0")


def test_the_report_binds_every_failure_and_each_can_be_listed(
    fresh_site: VaultSite, postgres: Postgres
) -> None:
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
        verifier = system.checkpoint().verifier_key
    seeding.seed(fresh_site.config_file, 30, folder="rotation")
    database = fresh_site.database_url.rpartition("/")[2]
    damaged = [f"acme/rotation/{number:07}" for number in (3, 11, 29)]
    postgres.sql(
        database,
        "UPDATE credential_versions SET envelope = set_byte(envelope, 12, 255 - get_byte(envelope, 12)) "
        f"WHERE name IN {tuple(damaged)}",
    )
    with fresh_site.operator() as client:
        client.rotate_key("acme")
    ended = strongroom(fresh_site, "keys", "rewrap", "acme", "--output", "json")
    assert ended.returncode == EXIT_NOT_ALL_DONE, ended.stderr
    job_id = json.loads(ended.stdout)["job_id"]
    with fresh_site.operator() as client:
        job = client.get_job("acme", job_id)
        assert (job.state, job.done, job.failed) == (pb.JOB_STATE_FAILED, 27, 3)
        report = report_of(job, verifier)
        expected = [{"name": name, "reason": "STORED_DATA_DAMAGED", "version": 1} for name in damaged]
        assert report["failures"] == expected
        lines = "".join(f'["{name}",1,"STORED_DATA_DAMAGED"]\n' for name in damaged)
        assert report["failures_sha256"] == hashlib.sha256(lines.encode()).hexdigest()
        with Wire(client.profile, scopes=client.profile.scopes) as wire:
            query = {"tenant": "acme", "job_id": job_id, "page_size": 2}
            first = wire.call(LIST_FAILURES, **query).response
            second = wire.call(LIST_FAILURES, **query, page_token=first.next_page_token).response
        assert [[item.name for item in page.failures] for page in (first, second)] == [
            damaged[:2],
            damaged[2:],
        ]
        assert not second.next_page_token
    listed = strongroom(fresh_site, "keys", "failures", "acme", job_id, "--output", "json")
    assert listed.returncode == 0, listed.stderr
    assert [item["name"] for item in json.loads(listed.stdout)] == damaged
    postgres.sql(database, f"UPDATE job_failures SET reason = 'HSM_UNAVAILABLE' WHERE name = '{damaged[1]}'")
    assert strongroom(fresh_site, "keys", "failures", "acme", job_id).returncode == EXIT_NOT_VALID
    # As an auditor does it, without the vault: the report, and the list that was kept beside it.
    kept, failures = (fresh_site.folder / name for name in ("report", "failures.json"))
    kept.write_text(job.report)
    failures.write_text(listed.stdout)
    audited = ("keys", "verify-report", str(kept), "--key", verifier, "--failures", str(failures))
    assert offline(*audited) == 0
    failures.write_text(listed.stdout.replace(damaged[2], damaged[2].replace("29", "28")))
    assert offline(*audited) == EXIT_NOT_VALID
    for garbage in ("no list", "[1]", '{"a":1}'):
        failures.write_text(garbage)
        assert offline(*audited) == EXIT_USAGE
    kept.write_text(job.report.replace('"failed":3', '"failed":0'))
    assert offline(*audited[:-2]) == EXIT_NOT_VALID


def offline(*arguments: str) -> int:
    words = [sys.executable, "-m", "vault.cli", *arguments]
    return subprocess.run(words, capture_output=True, check=False, timeout=60).returncode


def strongroom(site: VaultSite, *arguments: str) -> subprocess.CompletedProcess[str]:
    profile = site.folder / "operator-acme.toml"
    made = site.operator().profile
    scopes = json.dumps([*made.scopes])
    profile.write_text(
        f'server = "{made.server}"\nca_file = "{made.ca_file}"\ncertificate_file = "{made.certificate_file}"\n'
        f'private_key_file = "{made.private_key_file}"\ntenant = "acme"\nscopes = {scopes}\n'
    )
    return subprocess.run(
        [sys.executable, "-m", "vault.cli", *arguments, "--profile", str(profile)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_report_of_more_failures_than_it_can_name_still_fits_and_binds_them_all(
    fresh_site: VaultSite, postgres: Postgres
) -> None:
    fresh_site.start()
    with fresh_site.system() as system:
        system.create_tenant("acme")
        verifier = system.checkpoint().verifier_key
    # The longest names that there are, so that ten thousand of them are more than an answer holds.
    folder = "/".join(["x" * 63] * 6)
    seeding.seed_by_copy(fresh_site.config_file, MANY, folder=folder)
    database = fresh_site.database_url.rpartition("/")[2]
    postgres.sql(
        database,
        "UPDATE credential_versions SET envelope = set_byte(envelope, 12, 255 - get_byte(envelope, 12))",
    )
    memory = Memory(fresh_site.worker_pids()[0])
    with fresh_site.operator() as client:
        client.rotate_key("acme")
        before = memory.most()
        job = finished(client, client.start_job("acme", "rewrap"))
        assert (job.state, job.done, job.failed) == (pb.JOB_STATE_FAILED, 0, MANY)
        assert memory.most() - before < MOST_MORE
    report = report_of(job, verifier)
    names = [f"acme/{folder}/{number:07}" for number in range(MANY)]
    named = [item["name"] for item in report["failures"]]
    assert named == names[: len(named)]
    assert 1000 < len(named) < MANY
    listed = strongroom(fresh_site, "keys", "failures", "acme", job.job_id, "--output", "json")
    assert listed.returncode == 0, listed.stderr
    assert [item["name"] for item in json.loads(listed.stdout)] == names
    kept, failures = (fresh_site.folder / name for name in ("report", "failures.json"))
    assert strongroom(fresh_site, "keys", "report", "acme", job.job_id, "--out", str(kept)).returncode == 0
    failures.write_text(listed.stdout)
    audited = ("keys", "verify-report", str(kept), "--key", verifier, "--failures", str(failures))
    assert offline(*audited) == 0
    failures.write_text(json.dumps(json.loads(listed.stdout)[:-1]))
    assert offline(*audited) == EXIT_NOT_VALID, "the last one is bound too, though it is not named"


class Memory:
    """The resident memory of a process."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")

    def most(self) -> int:
        """The most that it ever was, in bytes."""
        (line,) = [line for line in self._status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
