"""Far more tenants than the HSM holds keys: their keys lie wrapped in the database, a few in the HSM at a time."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.hsm.shim import Shim
from tests.integration.wire import Wire
from tests.support.vault import VaultSite
from vault.client.sealing import Recipient, seal_fields, verify_ingest_key
from vault.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.postgres import Postgres

POLICY = 'permit (principal, action, resource) when { principal.path == "operator" };'
SESSIONS = 4
SPARE = 4 * SESSIONS
"""Session objects beside the cache: what is being made, proved or replaced at the moment, in each session."""
CALLERS = 8
ACTIONS = ("credential.write", "session.reveal")


class Tenants:
    """A vault whose tenants' keys are wrapped; the proxy in front of its HSM counts what lives in it."""

    def __init__(self, folder: Path, softhsm: tuple[str, Path], database_url: str, cached: int) -> None:
        self.shim = Shim.build(folder)
        settings: dict[str, dict[str, object]] = {
            "hsm": {"key_placement": "wrapped", "cached_keys": cached, "sessions": SESSIONS}
        }
        self.site = VaultSite(folder / "vault", database_url, *softhsm, settings)
        self.site.prepare()
        (self.site.folder / "policy.cedar").write_text(POLICY)
        self.site.hsm_uri = self.shim.uri(self.site.hsm_uri)
        self.site.environment = self.shim.environment
        self.site.write_config()
        self.site.start()
        self._own = threading.local()
        self.before = self.shim.objects

    def wire(self) -> Wire:
        """This thread's connection."""
        if not hasattr(self._own, "wire"):
            self._own.wire = Wire(
                self.site.profile("operator"), "system", ("tenant.create:system/tenants/*",)
            )
        wire: Wire = self._own.wire
        return wire

    def side_by_side(self, work: Callable[[str], object], names: Sequence[str]) -> None:
        with ThreadPoolExecutor(CALLERS) as pool:
            for _ in pool.map(work, names):
                pass

    def create(self, name: str) -> None:
        answer = self.wire().call("/vault.v1.KeyService/CreateTenant", tenant=name)
        assert answer.ok, answer

    def token(self, name: str) -> str:
        return self.wire().issue(*(f"{action}:{name}/**" for action in ACTIONS), tenant=name).token

    def put(self, name: str) -> None:
        wire = self.wire()
        if not hasattr(self._own, "key"):
            signed = wire.call("/vault.v1.CredentialService/GetIngestKey").response.signed_key
            jwks = wire.call("/vault.v1.TokenService/GetJwks").response.jwks
            self._own.key = verify_ingest_key(signed, jwks)
        credential, key = f"{name}/a", self._own.key
        answer = wire.call(
            "/vault.v1.CredentialService/Put",
            bearer=self.token(name),
            name=credential,
            kind="generic",
            sealed=seal_fields({"k": name}, credential, "generic", key),
            ingest_key_id=key.key_id,
            request_id=secrets.token_hex(8),
        )
        assert answer.ok, answer

    def reveal(self, name: str) -> None:
        recipient = Recipient()
        answer = self.wire().call(
            "/vault.v1.SessionService/Reveal",
            bearer=self.token(name),
            credentials=[session_pb2.CredentialSelector(name=f"{name}/a")],
            purpose="test",
            recipient_key=recipient.public_bytes,
        )
        assert answer.ok, answer
        (found,) = recipient.open_parcel(answer.response)
        with found:
            assert found.text("k") == name

    def memory(self) -> int:
        """What the worker holds of memory that is its own, in bytes.

        Not of its libraries' files: how much of those counts as its own depends on who else has them open.
        """
        (worker,) = self.site.worker_pids()
        told = Path(f"/proc/{worker}/status").read_text()
        return sum(int(told.partition(f"{kind}:")[2].split()[0]) for kind in ("RssAnon", "RssShmem")) * 1024

    def handles(self) -> int:
        """How many objects are in the HSM beside those that were there at the start."""
        return self.shim.objects - self.before

    def rotate_root(self) -> int:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "vault.cli", "keys", "rotate-root", "--output", "json"),
                *("--config", str(self.site.config_file)),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=1800,
        )
        return int(json.loads(done.stdout)["rewrapped"])


@pytest.mark.parametrize(
    ("number", "cached", "growth"),
    [
        (240, 16, 24 << 20),
        pytest.param(10_000, 256, 32 << 20, marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
def test_tenants_without_number_in_a_bounded_hsm_and_flat_memory(
    softhsm: tuple[str, Path], postgres: Postgres, tmp_path: Path, number: int, cached: int, growth: int
) -> None:
    tenants = Tenants(tmp_path, softhsm, postgres.create_database(f"many_{number}"), cached)
    site = tenants.site
    names = [f"t{place:05}" for place in range(number)]
    held: list[tuple[int, int, int]] = []
    stop = threading.Event()

    def look(count: int) -> None:
        held.append((count, tenants.memory(), tenants.handles()))
        print(f"{count:6} tenants: {held[-1][1] / 2**20:.1f} MiB, {held[-1][2]} session objects", flush=True)

    try:
        began = time.monotonic()
        for start in range(0, number, number // 5):
            part = names[start : start + number // 5]
            tenants.side_by_side(tenants.create, part)
            tenants.side_by_side(tenants.put, part)
            tenants.side_by_side(tenants.reveal, part)
            look(start + len(part))
        print(f"{number} tenants made, written and read in {time.monotonic() - began:.0f} s", flush=True)
        began = time.monotonic()
        tenants.side_by_side(tenants.reveal, names[::-1])
        print(f"all read again in {time.monotonic() - began:.0f} s", flush=True)
        look(number)

        failures = []

        def read_on() -> None:
            while not stop.is_set():
                try:
                    tenants.reveal(secrets.choice(names))
                except AssertionError as error:
                    failures.append(error)

        reader = threading.Thread(target=read_on)
        reader.start()
        began = time.monotonic()
        assert tenants.rotate_root() == number
        print(f"under a new root in {time.monotonic() - began:.0f} s, while others read", flush=True)
        stop.set()
        reader.join(60)
        assert failures == []
        tenants.side_by_side(tenants.reveal, names[:: max(1, number // 500)])
        look(number)
        assert max(handles for _, _, handles in held) <= cached + SPARE
        assert max(memory for _, memory, _ in held) - held[0][1] < growth
        with site.system(timeout=600) as system:
            report = system.verify_audit()
        assert report.valid, report.findings
    finally:
        stop.set()
        assert site.stop() == 0
    assert "Traceback" not in site.log()
