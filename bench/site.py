"""A vault to measure: PostgreSQL with fsync on, SoftHSM, one worker, the tenant `acme`; and what its processes use."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hsm.softhsm import config_file, init_token
from tests.support.postgres import Postgres
from tests.support.vault import VaultSite

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def running_vault(settings: dict[str, dict[str, object]]) -> Iterator[VaultSite]:
    """A vault from nothing, with these settings besides the tests'; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name:
        folder = Path(name)
        uri = init_token(folder / "token", "bench", folder / "pin")
        postgres = Postgres()
        site = VaultSite(
            folder / "vault", postgres.create_database("bench"), uri, config_file(folder / "token"), settings
        )
        try:
            site.prepare()
            site.start()
            with site.system() as system:
                system.create_tenant("acme")
            yield site
        finally:
            if site.process is not None:
                site.stop()
            postgres.close()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def locked_kb(pid: int) -> int:
    """Locked memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmLck:")[2].split()[0])
