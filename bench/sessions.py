"""What an open, idle session costs a worker: memory, locked memory, and the time to open the next.

    python -m bench.sessions [--sessions 5000]

Targets: under 64 KB each, locked memory included; the next opens no slower than the first (ratio at most 1.2).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time

import uvloop

from bench.site import cpu_seconds, locked_kb, resident_mb, running_vault
from vault.client import AsyncClient, Profile

NAME = "acme/bench/0"
PER_CONNECTION = 50
SAMPLE = 200
REST_SECONDS = 5.0


async def measure(profile: Profile, pid: int, count: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncClient(profile, timeout=60))
            for _ in range((count + SAMPLE) // PER_CONNECTION + 1)
        ]
        await clients[0].put(NAME, {"value": "x" * 64}, kind="generic")
        token = (await clients[0].issue_token(profile.scopes)).token
        for client in clients:
            client.use_token(token)
            await client.get(NAME)  # connects
        sessions = (
            client.session(NAME, purpose="bench") for client in clients for _ in range(PER_CONNECTION)
        )

        async def open_next() -> float:
            session = next(sessions)
            began = time.perf_counter()
            await session.__aenter__()
            return time.perf_counter() - began

        for _ in range(SAMPLE // 2):
            await open_next()
        resident, locked = resident_mb(pid), locked_kb(pid)
        first = [await open_next() for _ in range(SAMPLE // 2)]
        for _ in range((count - SAMPLE) // PER_CONNECTION):
            await asyncio.gather(*(open_next() for _ in range(PER_CONNECTION)))
        opened = count - SAMPLE // 2
        each = (resident_mb(pid) - resident) * 1024 / opened
        each_locked = (locked_kb(pid) - locked) / opened
        cpu = cpu_seconds(pid)
        await asyncio.sleep(REST_SECONDS)
        idle = (cpu_seconds(pid) - cpu) / REST_SECONDS
        last = [await open_next() for _ in range(SAMPLE // 2)]
    ratio = statistics.median(last) / statistics.median(first)
    print(f"{count} open idle sessions on one worker, each on one credential of 64 bytes")
    print(f"memory a session      {each:8.1f} KB, {each_locked:.2f} KB of it locked (target: 64)")
    print(f"CPU while all idle    {idle:8.1%} of a core")
    print(f"opening one at first  {statistics.median(first) * 1e3:8.2f} ms")
    print(f"opening one at last   {statistics.median(last) * 1e3:8.2f} ms, ratio {ratio:.2f} (target: 1.2)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sessions")
    parser.add_argument("--sessions", type=int, default=5000)
    options = parser.parse_args()
    limit = {
        "max_per_identity": 100_000,
        "max_per_tenant": 100_000,
        "max_per_worker": 100_000,
        "idle_seconds": 3600,
    }
    with running_vault({"sessions": limit}) as site:
        (pid,) = site.worker_pids()
        uvloop.run(measure(site.profile("payments"), pid, options.sessions))


if __name__ == "__main__":
    main()
