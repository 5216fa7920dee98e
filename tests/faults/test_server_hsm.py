"""An HSM that fails under a vault at work: what callers see, what health says, and that all is well by itself after.

One vault, whose PKCS#11 module is the proxy of `hsm/shim.c`; the faults are switched on and off under a steady load.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.hsm.shim import EVERY, Shim
from tests.integration.wire import until
from tests.support.callers import OPERATIONS, Callers
from tests.support.vault import VaultSite
from vault.client.health import look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

pytestmark = pytest.mark.alone

ALWAYS = 1 << 40
GONE = frozenset({"HSM_UNAVAILABLE"})
GONE_OR_BUSY = GONE | {"OVERLOADED"}
FINE = frozenset({""})
FLAKY = FINE | GONE_OR_BUSY
ALL_FINE = dict.fromkeys(OPERATIONS, FINE)
LASTS = 0.8  # seconds
HANG = 1.0
RECOVERY = 2.0


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is broken, what each operation may be answered meanwhile, and whether the vault calls itself ready."""

    name: str
    begin: Callable[[Shim], object]
    told: dict[str, frozenset[str]]
    ready: bool | None = None
    """None: it may be either, as the fault is there at one call and not at the next."""


def broken(function: str, rv: int) -> Callable[[Shim], object]:
    return lambda shim: shim.fail(function, rv, times=ALWAYS)


def now_and_then(shim: Shim) -> None:
    for _ in range(int(LASTS / 0.01)):
        shim.fail(EVERY, 0x30, skip=5)
        time.sleep(0.01)


def set_to(name: str, value: int) -> Callable[[Shim], object]:
    return lambda shim: setattr(shim, name, value)


UNREADABLE = ALL_FINE | {"reveal": GONE_OR_BUSY, "session": GONE_OR_BUSY}
UNWRITABLE = ALL_FINE | {"put": GONE_OR_BUSY}
UNSIGNED = ALL_FINE | {"issue": GONE_OR_BUSY, "checkpoint": GONE_OR_BUSY}
LOST = dict.fromkeys(OPERATIONS, GONE_OR_BUSY)
# Calls that hang take the threads of others with them.
STUCK = dict.fromkeys(OPERATIONS, FLAKY) | {"reveal": GONE_OR_BUSY, "session": GONE_OR_BUSY}

FAULTS = (
    Fault("two milliseconds a call", lambda shim: shim.delay(EVERY, 2000), ALL_FINE, ready=True),
    Fault("an error now and then", now_and_then, dict.fromkeys(OPERATIONS, FLAKY)),
    Fault("all sessions lost", set_to("lose_sessions", 1), ALL_FINE, ready=True),
    Fault("the log-in lost", set_to("logged_out", 1), ALL_FINE, ready=True),
    Fault("dead until it is initialised", set_to("dead", 1), ALL_FINE, ready=True),
    Fault("cannot decrypt: the device's error", broken("C_Decrypt", 0x30), UNREADABLE, ready=False),
    Fault("cannot decrypt: as if tampered with", broken("C_Decrypt", 0x42), UNREADABLE, ready=False),
    Fault("cannot decrypt: general error", broken("C_Decrypt", 0x05), UNREADABLE, ready=False),
    Fault("cannot encrypt", broken("C_Encrypt", 0x30), UNWRITABLE, ready=False),
    Fault("makes IVs of its own", set_to("iv_mode", 1), UNWRITABLE, ready=False),
    Fault("cannot sign", broken("C_Sign", 0x30), UNSIGNED, ready=False),
    Fault("refuses every function", broken(EVERY, 0x06), LOST, ready=False),
    Fault("without memory", broken(EVERY, 0x31), LOST, ready=False),
    Fault("a vendor's own error", broken(EVERY, 0x80000001), LOST, ready=False),
    Fault("the token taken out", set_to("removed", 1), LOST, ready=False),
    Fault("decryption hangs", lambda shim: shim.hang("C_Decrypt"), STUCK, ready=False),
    Fault("everything hangs", lambda shim: shim.hang(EVERY), LOST, ready=False),
)


@dataclasses.dataclass(frozen=True)
class Bench:
    site: VaultSite
    shim: Shim
    callers: Callers

    def readiness(self) -> tuple[bool, str]:
        found = look(self.site.profile("operator"), timeout=1.5)
        return found.ready, found.reasons


@pytest.fixture(scope="module")
def bench(
    softhsm: tuple[str, Path], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("server-faults")
    shim = Shim.build(folder)
    url = postgres.create_database("server_faults")
    settings = {"hsm": {"sessions": 4, "wait_seconds": 0.5, "hang_seconds": HANG}}
    site = VaultSite(folder / "vault", url, *softhsm, settings)
    site.prepare()  # by SoftHSM itself: this process does not load the proxy
    site.hsm_uri = shim.uri(site.hsm_uri)
    site.environment = shim.environment
    site.write_config()
    site.start()
    try:
        with site.system() as system:
            system.create_tenant("acme")
        with Callers(site) as callers:
            yield Bench(site, shim, callers)
    finally:
        shim.reset()
        site.stop()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_said_as_it_is_and_passes_without_a_trace(bench: Bench, fault: Fault) -> None:
    until(lambda: all("" in told for told in bench.callers.since(time.monotonic() - 1).values()), 20)
    until(lambda: bench.readiness()[0], 5)
    began = time.monotonic()
    try:
        fault.begin(bench.shim)
        # What was on its way when the fault began may have passed it.
        settled = time.monotonic() + 0.2 if fault.ready is False else began
        time.sleep(LASTS)
        until(lambda: all(bench.callers.since(settled).values()), 10)
        if fault.ready is False:
            reason = until(lambda: not (found := bench.readiness())[0] and found[1], 3)
            assert reason.startswith("hsm: ")
        elif fault.ready:
            assert bench.readiness() == (True, "")
        told = bench.callers.since(settled)
    finally:
        bench.shim.heal()
    ended = time.monotonic()
    for operation, reasons in told.items():
        assert reasons <= fault.told[operation], operation
    # No caller waits longer than for a session and then for the call.
    assert bench.callers.longest_since(began) < 5 * (HANG + 0.5)

    def well() -> bool:
        return all("" in reasons for reasons in bench.callers.since(ended).values()) and bench.readiness()[0]

    until(well, 10)
    assert time.monotonic() - ended < RECOVERY
    recovered = time.monotonic()
    until(lambda: all(bench.callers.since(recovered).values()), 10)
    assert bench.callers.since(recovered) == {operation: {""} for operation in OPERATIONS}
    assert bench.callers.wrong == []


def test_a_log_in_that_is_refused_is_tried_once_and_needs_somebody(bench: Bench) -> None:
    """A few wrong PINs lock a real HSM. So this, alone, does not pass by itself."""
    until(lambda: bench.readiness()[0], 5)
    before = bench.shim.calls("C_Login")
    bench.shim.fail("C_Login", 0xA0, times=ALWAYS)
    bench.shim.dead = 1
    until(lambda: bench.readiness() == (False, "hsm: auth failed"), 5)
    began = time.monotonic()
    until(lambda: all(bench.callers.since(began).values()), 10)
    told = bench.callers.since(began)
    bench.shim.reset()
    assert told == dict.fromkeys(OPERATIONS, GONE)
    assert bench.shim.calls("C_Login") == before + 1
    assert bench.readiness() == (False, "hsm: auth failed")
    bench.site.kill_workers()
    until(lambda: "" in bench.callers.since(began)["issue"], 20)


def test_nothing_that_was_acknowledged_is_lost_and_nothing_is_half_done(bench: Bench) -> None:
    callers = bench.callers
    until(lambda: all("" in told for told in callers.since(time.monotonic() - 1).values()), 30)
    callers.stop()
    names = list(callers.acknowledged)
    assert len(names) > 20, "there was a load"
    for start in range(0, len(names), 100):
        assert callers.reveal(callers.wire, names[start : start + 100]).ok
    assert callers.wrong == []
    with bench.site.client() as client:
        listed = {item.name for item in client.list_credentials("acme/faults")}
    assert listed >= set(names)
    assert not listed & callers.refused
    assert {one.reason for one in callers.seen} <= {"", "HSM_UNAVAILABLE", "OVERLOADED", "UNAVAILABLE"}
    log = bench.site.log()
    assert "Traceback" not in log
    assert "defect" not in log
    assert not any(value in log for value in callers.acknowledged.values())
    verified = subprocess.run(
        [
            *(sys.executable, "-m", "vault.cli", "audit", "verify", "--state", "--output", "json"),
            *("--config", str(bench.site.config_file)),
        ],
        env={**os.environ, **bench.site.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    found = json.loads(verified.stdout)
    assert found["valid"]
    assert found["findings"] == []
