"""Killed anywhere in the middle of rotating and rewrapping, with writers, readers, deleters and a second admin at work.

Whatever happens: every live version opens, no acknowledged write is lost, one version of the key is active, no version
is moved twice by one job, and the log vouches for every row.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Self

import pytest

from tests.support import seeding
from tests.support.vault import VaultSite
from vault.client import StrongroomError
from vault.v1 import job_pb2, key_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.postgres import Postgres
    from vault.client import Client

pytestmark = pytest.mark.alone

WRITERS = 2
DELETED = 30
"""The first so many seeded credentials are deleted and undeleted all the time."""


class Crowd:
    """Clients that use the vault all the time, whether it is there or not."""

    def __init__(self, site: VaultSite, count: int) -> None:
        self._site = site
        self._count = count
        self._stop = threading.Event()
        self.written: dict[str, tuple[str, ...]] = {}
        """By name: the value that was last acknowledged, and those that may have been stored since."""
        self.reads = 0
        self.wrong: list[str] = []
        work: list[Callable[[Client], None]] = [self._read, self._delete, self._rotate]
        work += [lambda client, number=number: self._write(client, number) for number in range(WRITERS)]
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in work]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, work: Callable[[Client], None]) -> None:
        operator = work in (self._delete, self._rotate)
        with self._site.operator() if operator else self._site.client() as client:
            while not self._stop.is_set():
                try:
                    work(client)
                except StrongroomError as error:
                    # A vault that is not there, or somebody else who was first; never damage.
                    if error.reason in ("STORED_DATA_DAMAGED", "INTERNAL", "VERSION_NOT_FOUND"):
                        self.wrong.append(f"{work}: {error}")
                    time.sleep(0.05)

    def _write(self, client: Client, number: int) -> None:
        name, value = f"acme/kills/{number}", f"{time.monotonic_ns()}"
        self.written[name] = (*self.written.get(name, ()), value)
        stored = client.put(name, {"value": value}, kind="generic")
        self.written[name] = (value,)
        if stored.latest_version > 2:
            client.destroy_version(name, stored.latest_version - 2)

    def _read(self, client: Client) -> None:
        number = random.randrange(DELETED, self._count)
        if not opens(client, f"acme/seed/{number:07}", (seeding.value_of(number),)):
            self.wrong.append(f"read of {number}")
        self.reads += 1

    def _delete(self, client: Client) -> None:
        name = f"acme/seed/{random.randrange(DELETED):07}"
        with contextlib.suppress(StrongroomError):
            client.delete(name)
        client.undelete(name)

    def _rotate(self, client: Client) -> None:
        time.sleep(0.7)
        client.rotate_key("acme")


def opens(client: Client, name: str, values: tuple[str, ...]) -> bool:
    with client.reveal(name, purpose="test")[0] as secrets:
        return bytes(secrets["value"]).decode() in values


def kill(site: VaultSite) -> None:
    """SIGKILL everything at once: workers, then their supervisor."""
    assert site.process is not None
    site.process.send_signal(signal.SIGSTOP)
    for pid in site.worker_pids():
        os.kill(pid, signal.SIGKILL)
    site.process.kill()
    site.process.wait()


def trial(
    softhsm: tuple[str, Path], postgres: Postgres, folder: Path, *, count: int, cycles: int, rate: int
) -> None:
    name = f"kills_{count}"
    site = VaultSite(folder, postgres.create_database(name), *softhsm)
    site.prepare()
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    seeding.seed(site.config_file, count)
    with Crowd(site, count) as crowd:
        for _ in range(cycles):
            with site.operator() as operator, contextlib.suppress(StrongroomError):
                operator.rotate_key("acme")
                operator.start_job("acme", "rewrap", max_per_second=rate)
            time.sleep(random.uniform(0.05, 1.0))
            kill(site)
            site.start()
    try:
        check(site, postgres, name, crowd, count)
    finally:
        site.stop()


def check(site: VaultSite, postgres: Postgres, database: str, crowd: Crowd, count: int) -> None:
    assert not crowd.wrong
    assert crowd.reads
    with site.operator() as operator, site.client() as payments, site.system() as system:
        # It resumes and converges: what is under way ends, and one more rewrap leaves nothing behind.
        for job in operator.list_jobs("acme"):
            if job.state == job_pb2.JOB_STATE_RUNNING:
                try:
                    operator.update_job("acme", job.job_id, max_per_second=0)
                except StrongroomError as error:
                    assert error.reason == "JOB_ENDED", "it ended this very moment"
                assert list(operator.watch_job("acme", job.job_id))[-1].state == job_pb2.JOB_STATE_SUCCEEDED
        last = operator.start_job("acme", "rewrap")
        assert list(operator.watch_job("acme", last.job_id))[-1].state == job_pb2.JOB_STATE_SUCCEEDED
        standing = operator.key_status("acme").versions
        # The newest may have been announced only, by a vault that was killed before it made it.
        in_use = [item.key.version for item in standing if item.key.state == key_pb2.KEY_STATE_ACTIVE]
        assert len(in_use) == 1
        assert [item.key.version for item in standing if item.credential_versions] == in_use

        for number in range(DELETED):
            with contextlib.suppress(StrongroomError):
                operator.undelete(f"acme/seed/{number:07}")
        for first in range(0, count, 100):
            names = [f"acme/seed/{number:07}" for number in range(first, min(first + 100, count))]
            for number, secrets in enumerate(payments.reveal(*names, purpose="test"), first):
                with secrets:
                    assert secrets["value"] == seeding.value_of(number).encode()
        assert crowd.written
        for name, values in crowd.written.items():
            assert opens(payments, name, values)
        verdict = system.verify_audit()
        assert verdict.valid, list(verdict.findings)
    moved: dict[str, list[str]] = defaultdict(list)
    statement = "SELECT json_build_array(after_state, rows_written) FROM audit_records WHERE action_type = 'job.rewrap'"
    for line in postgres.sql(database, statement).splitlines():
        state, rows = (json.loads(text) for text in json.loads(line))
        moved[state["job"]] += [row for row in rows if row.startswith("credential_versions:")]
    assert moved, "no job moved anything: nothing was tried"
    for rows in moved.values():
        assert len(rows) == len(set(rows)), "a version was moved twice by one job"


@pytest.mark.timeout(300)
def test_ten_kills_in_the_middle_of_rotating_and_rewrapping(
    softhsm: tuple[str, Path], postgres: Postgres, tmp_path: Path
) -> None:
    trial(softhsm, postgres, tmp_path, count=2000, cycles=10, rate=1500)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_kills_with_ten_thousand_credentials(
    softhsm: tuple[str, Path], postgres: Postgres, tmp_path: Path
) -> None:
    trial(softhsm, postgres, tmp_path, count=10_000, cycles=100, rate=0)
