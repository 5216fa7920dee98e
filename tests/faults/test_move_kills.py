"""Killed anywhere in the middle of moving a tenant from one HSM to the other and back, with the vault in use.

Whatever happens: what `test_rotation_kills` holds, and when a move has ended nothing needs the HSM it came from.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_rotation_kills import Crowd, check, kill
from tests.integration.test_key_homes import TwoTokens
from tests.integration.test_policy import profile_file
from tests.integration.wire import until
from tests.support import seeding

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Postgres

pytestmark = pytest.mark.alone

COUNT, CYCLES, RATE = 1000, 6, 500
DATABASE = "moves"


@pytest.mark.timeout(420)
def test_a_vault_killed_in_the_middle_of_moves_between_hsms_converges(
    postgres: Postgres, tmp_path: Path
) -> None:
    two = TwoTokens(tmp_path, postgres.create_database(DATABASE))
    site = two.site
    site.prepare()
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    seeding.seed(site.config_file, COUNT)
    profile = profile_file(site, "operator", tmp_path, "acme", site.operator().profile.scopes)

    def move(to: str, *more: str) -> subprocess.Popen[bytes]:
        words = ("keys", "move", "acme", "--to", to, "--profile", str(profile), *more)
        return subprocess.Popen([sys.executable, "-m", "vault.cli", *words], stderr=subprocess.DEVNULL)

    serials = [uri.partition("serial=")[2].partition("?")[0] for uri in two.uris]

    def there(cycle: int) -> int:
        """How many keys of the tenant lie, or shall lie, in the HSM that this cycle moves to."""
        where = f"tenant = 'acme' AND backend = 'pkcs11:{serials[(cycle + 1) % 2]}'"
        return int(postgres.sql(DATABASE, f"SELECT count(*) FROM keys WHERE {where}"))

    def under_way() -> int:
        """How many jobs there are that a move would be refused beside."""
        return int(postgres.sql(DATABASE, "SELECT count(*) FROM jobs WHERE state IN ('running', 'paused')"))

    try:
        with Crowd(site, COUNT) as crowd:
            for cycle in range(CYCLES):
                until(lambda: not under_way(), 60)
                keys = there(cycle)
                moving = move(("second", "first")[cycle % 2], "--max-per-second", str(RATE))
                # From the moment that the new key is announced, and not yet made, to somewhere in the job.
                deadline = time.monotonic() + 30
                while there(cycle) == keys and moving.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                time.sleep(random.uniform(0, 1.5))
                kill(site)
                moving.kill()
                moving.wait()
                site.start()
        check(site, postgres, DATABASE, crowd, COUNT)
        assert there(0) > 1, "no move was tried"
        assert move("second").wait(120) == 0
        with site.client() as payments:
            payments.put(
                "acme/moved", {"value": "x"}, kind="generic"
            )  # its token is issued while both are there
            two.take(0)
            for first in range(0, COUNT, 100):
                names = [f"acme/seed/{number:07}" for number in range(first, first + 100)]
                for number, secrets in enumerate(payments.reveal(*names, purpose="test"), first):
                    with secrets:
                        assert secrets["value"] == seeding.value_of(number).encode()
    finally:
        site.stop()
