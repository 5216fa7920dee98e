"""Two workers share a job: one is killed, the other goes on, nothing is done twice. A command leaves and comes back."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.integration.test_policy import profile_file
from tests.integration.wire import until
from tests.support import seeding
from tests.support.vault import VaultSite
from vault.cli.jobs import EXIT_DETACHED
from vault.v1 import job_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Postgres

COUNT, DATABASE = 6000, "rewrap_workers"
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command of `keys` whose errors, and so its progress, go to a terminal."""

    def __init__(self, profile: Path, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self.shown = ""
        command = [sys.executable, "-m", "vault.cli", "keys", *words, "--profile", str(profile)]
        # A shell that runs tests in the background has them ignore Ctrl-C, and so would the command.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            [*command, "--output", "json"],
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
        )
        signal.signal(signal.SIGINT, before)
        os.close(theirs)

    def until(self, pattern: str) -> None:
        """Read on until the terminal has shown this."""
        while not re.search(pattern, self.shown):
            try:
                shown = os.read(self._ours, 4096).decode(errors="replace")
            except OSError:  # nobody writes to it any more
                pytest.fail(f"{self.end()}: {self.shown}")
            self.shown += _CONTROLS.sub("", shown)

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=60)
        os.close(self._ours)
        return self.process.returncode, out


@pytest.mark.timeout(240)
def test_two_workers_share_a_job_one_is_killed_and_nothing_is_done_twice(
    softhsm: tuple[str, Path], postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.create_database(DATABASE)
    site = VaultSite(tmp_path / "vault", url, *softhsm, {"server": {"workers": 2}})
    site.prepare()
    site.start()
    try:
        with site.system() as system:
            system.create_tenant("acme")
        seeding.seed(site.config_file, COUNT)
        with site.operator() as operator:
            profile = profile_file(site, "operator", tmp_path, "acme", operator.profile.scopes)
            operator.rotate_key("acme")
            # Slowly, so that there is time for all this before it is over.
            command = Terminal(profile, "rewrap", "acme", "--max-per-second", "100")
            command.until(r"rewrap running.*/6000 .*[0-9]/s .*[0-9]+:[0-9]{2}:[0-9]{2}.*0 failed")
            command.process.send_signal(signal.SIGINT)
            command.until("detached; the job goes on: strongroom keys watch acme")
            assert command.end()[0] == EXIT_DETACHED
            (job,) = operator.list_jobs("acme")
            # Both have parts of it by now; one ends without a word, and the other takes up what it held.
            until(lambda: len(holders(postgres, job.job_id)) == 2, 30)
            before = site.worker_pids()
            os.kill(before[0], signal.SIGKILL)
            paused = operator.update_job("acme", job.job_id, command="pause")
            done = [operator.get_job("acme", job.job_id).done for _ in range(5)]
            assert {*done} == {paused.done}, "a pause is seen by every worker"
            operator.update_job("acme", job.job_id, command="resume", max_per_second=0)
            again = Terminal(profile, "watch", "acme", job.job_id)
            code, out = again.end()
            assert code == 0, again.shown
            ended = json.loads(out)
            assert (ended["state"], ended["done"], ended["failed"]) == (
                "JOB_STATE_SUCCEEDED",
                str(COUNT),
                "0",
            )
            job = operator.get_job("acme", job.job_id)
            assert (job.state, job.done, job.skipped) == (pb.JOB_STATE_SUCCEEDED, COUNT, 0)
        with site.system() as system:
            verdict = system.verify_audit()
        assert verdict.valid, list(verdict.findings)
        with pytest.raises(subprocess.CalledProcessError, match="psql"):
            # Not even by hand: it is the database that holds it.
            postgres.sql(DATABASE, "UPDATE keys SET state = 'active' WHERE tenant = 'acme'")
    finally:
        site.stop()
    statement = "SELECT rows_written FROM audit_records WHERE action_type = 'job.rewrap'"
    written = Counter(
        row
        for line in postgres.sql(DATABASE, statement).splitlines()
        for row in json.loads(line)
        if row.startswith("credential_versions:")
    )
    assert len(written) == COUNT
    assert set(written.values()) == {1}, "each was moved once"


def holders(postgres: Postgres, job_id: str) -> set[str]:
    """The workers that have ever taken a part of a job, by the log."""
    statement = "SELECT after_state FROM audit_records WHERE action_type = 'job.claim'"
    claims = [json.loads(line) for line in postgres.sql(DATABASE, statement).splitlines()]
    return {claim["holder"].partition("/")[0] for claim in claims if claim["job"] == job_id}
