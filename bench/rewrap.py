"""What a rewrap costs:  python -m bench.rewrap [--counts 10000 100000] [--latency-ms 1] [--isolated] [--reads] [--json FILE]

A vault of one worker on PostgreSQL (fsync on) and SoftHSM; so many credentials; `keys rotate`, `keys rewrap`. Says
credentials a second, the worker's memory, and, with --reads, the p99 of reveals without and during a rewrap.
With --latency-ms every call of the PKCS#11 module takes so much longer (the proxy of the fault tests); with
--isolated the module is in a process of its own (`x-isolation=process`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.__main__ import cpu_seconds, resident_mb
from hsm import KeyAlgorithm, KeyRef, KeySpec, RewrapItem, open_backend
from hsm.softhsm import config_file, init_token
from tests.faults.hsm.shim import Shim, use
from tests.support.postgres import Postgres
from tests.support.seeding import seed, seed_by_copy
from tests.support.vault import VaultSite
from vault.client import AsyncClient

CAPACITY_SECONDS = 3.0
CALLS = ("C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt")
SESSIONS = 8


def peak_mb(pid: int) -> float:
    """The most that a process had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def capacity(uri: str) -> float:
    """Rewraps a second that so many sessions give, a thread each that does nothing else."""
    with open_backend(uri, sessions=SESSIONS) as backend:
        old, new = (KeyRef(f"bench/{name}", os.urandom(16)) for name in ("old", "new"))
        for ref in (old, new):
            backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
        item = RewrapItem(old, backend.wrap(old, os.urandom(32), b"old"), b"old", new, b"new")
        end = time.monotonic() + CAPACITY_SECONDS

        def work(_: int) -> int:
            count = 0
            while time.monotonic() < end:
                count += len(backend.rewrap_many([item] * 16))
            return count

        with ThreadPoolExecutor(SESSIONS) as pool:
            return sum(pool.map(work, range(SESSIONS))) / CAPACITY_SECONDS


def rewrap(site: VaultSite, kind: str = "rewrap") -> dict[str, float]:
    (pid,) = site.worker_pids()
    with site.operator() as operator:
        operator.rotate_key("acme")
        cpu, began = cpu_seconds(pid), time.perf_counter()
        job = operator.start_job("acme", kind)
        for seen in operator.watch_job("acme", job.job_id):
            job = seen
    seconds = time.perf_counter() - began
    assert (job.done, job.failed) == (job.total, 0), job
    # What the job itself says: the watch looks twice a second.
    own = (job.end_time.ToMicroseconds() - job.create_time.ToMicroseconds()) / 1e6
    return {
        "credentials": job.total,
        "seconds": own,
        "seconds_seen": seconds,
        "per_second": job.total / own,
        "cpu_us": 1e6 * (cpu_seconds(pid) - cpu) / job.total,
        "resident_mb": resident_mb(pid),
        "peak_mb": peak_mb(pid),
    }


async def reads(site: VaultSite, stop: asyncio.Event, callers: int) -> list[float]:
    """Latencies of reveals by callers that wait a little between them."""
    latencies: list[float] = []
    async with AsyncClient(site.profile("payments"), timeout=30) as client:

        async def work(number: int) -> None:
            while not stop.is_set():
                began = time.perf_counter()
                for secrets in await client.reveal(f"acme/seed/{number:07}", purpose="bench"):
                    secrets.close()
                latencies.append(time.perf_counter() - began)
                await asyncio.sleep(0.02)

        await asyncio.gather(*(work(number) for number in range(callers)))
    return latencies


def p99(latencies: list[float]) -> float:
    return 1e3 * sorted(latencies)[int(len(latencies) * 0.99)]


async def read_latencies(site: VaultSite, callers: int) -> dict[str, float]:
    async def during(work) -> list[float]:
        stop = asyncio.Event()
        reading = asyncio.create_task(reads(site, stop, callers))
        result = await work
        stop.set()
        return await reading, result

    alone, _ = await during(asyncio.sleep(8))
    busy, job = await during(asyncio.to_thread(rewrap, site))
    return {
        "p99_ms_alone": p99(alone),
        "p99_ms_during": p99(busy),
        "ratio": p99(busy) / p99(alone),
        "reads_per_second_alone": len(alone) / 8,
        "per_second_with_readers": job["per_second"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rewrap")
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000])
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--isolated", action="store_true")
    parser.add_argument("--kinds", nargs="+", default=["rewrap"])
    parser.add_argument("--reads", type=int, default=0, help="so many callers that read meanwhile")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name:
        folder = Path(name)
        uri = init_token(folder / "token", "bench", folder / "pin")
        shim = Shim.build(folder)
        use(shim)
        os.environ["SOFTHSM2_CONF"] = str(config_file(folder / "token"))
        if options.latency_ms:
            uri = shim.uri(uri)
        if options.isolated:
            uri += "&x-isolation=process" if "?" in uri else "?x-isolation=process"
        postgres = Postgres()
        site = VaultSite(
            folder / "vault",
            postgres.create_database("bench"),
            uri,
            config_file(folder / "token"),
            {"hsm": {"sessions": SESSIONS}},
        )
        try:
            site.prepare()
            site.start()
            with site.system() as system:
                system.create_tenant("acme")
            stored = 0
            for count in options.counts:
                # What is read must be vouched for by the log; what is only moved need not be.
                (seed if options.reads else seed_by_copy)(site.config_file, count - stored, first=stored)
                stored = count
                site.stop()
                site.start()
                for call in CALLS if options.latency_ms else ():
                    shim.delay(call, int(options.latency_ms * 1000))
                most = capacity(uri) if options.latency_ms else 0.0
                for kind in options.kinds:
                    found = rewrap(site, kind)
                    if options.latency_ms:
                        found["sessions_give"] = most
                        found["of_sessions"] = found["per_second"] / most
                    results[f"{kind} of {count}"] = found
                    print(
                        f"{kind} of {count}: " + ", ".join(f"{k} {v:.2f}" for k, v in found.items()),
                        flush=True,
                    )
                if options.reads:
                    found = asyncio.run(read_latencies(site, options.reads))
                    results[f"reads during a rewrap of {count}"] = found
                    print("reads: " + ", ".join(f"{k} {v:.2f}" for k, v in found.items()), flush=True)
                shim.heal()
        finally:
            if site.process is not None:
                site.stop()
            postgres.close()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
