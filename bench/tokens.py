"""What a token costs, and how fast a revocation is:  python -m bench.tokens [--live 1000 1000000] [--trials 200] [--callers 4]

The vault's own code in this process, on PostgreSQL (fsync on) and SoftHSM: verification of a token that is remembered
and of one that is not, and issue, beside so many live tokens, which is as many records of issues in the log; at last with
all of them revoked, the worst there can be, and what that takes of a worker's memory. CPU of this process and of PostgreSQL.
Then, over the wire and under load, how long after the answer to Revoke another worker than the one that revoked still lets
the token in: two clients with one connection each, which are seen to be served by different processes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import multiprocessing
import os
import secrets
import time
from pathlib import Path

import asyncpg

from bench.site import running_vault
from tests.integration.test_tokens import approvals_of, people_of, policies_of
from tests.integration.wire import Wire
from vault import config as configuration
from vault.core.follower import Follower
from vault.core.revocations import Kind, Revocation
from vault.core.signing import SigningKeys
from vault.core.tokens import Tokens, TokenSettings, Wish
from vault.model import AuditDraft, Caller, Certificate, Origin, Outcome
from vault.server.foundation import foundation

SCOPE = "session.reveal:acme/bench/*"
REVOKE = "/vault.v1.TokenService/Revoke"
GET = "/vault.v1.CredentialService/Get"
RECORDS = 2000
UTC = datetime.UTC


async def each(call, times: int, before) -> float:
    """Microseconds of this process's CPU for a call: the least of twenty rounds, which others disturbed least."""
    took = []
    for _ in range(20):
        await before()
        began = time.process_time()
        for _ in range(times):
            await call()
        took.append((time.process_time() - began) / times)
    return 1e6 * min(took)


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def costs(config_file: Path, counts: list[int]) -> None:
    config = configuration.load(config_file)
    async with foundation(config) as base:
        follower = Follower(base.database, base.clock)
        keys = SigningKeys(base.keyring, base.hsm, base.clock)
        day = datetime.timedelta(hours=24)
        tokens = Tokens(
            TokenSettings(config.tokens.issuer, config.tokens.audience, day, day),
            base.database,
            keys,
            base.log,
            follower,
            policies_of(base, config),
            approvals_of(base, config),
            base.clock,
            people=people_of(base, config),
        )
        await follower.start()
        await keys.start()
        now = datetime.datetime.now(UTC)
        certificate = Certificate(
            "spiffe://test.strongroom.internal/payments", "A" * 43, now - day, now + 9 * day
        )
        caller = Caller(certificate, Origin("127.0.0.1", "", "bench"))
        wish = Wish((SCOPE,), None, "bench")
        issued = await tokens.issue(caller, "acme", wish)

        async def cached() -> None:
            await tokens.verify(issued.text, certificate, certificate.identity)

        async def uncached() -> None:
            tokens._verified.clear()
            await tokens.verify(issued.text, certificate, certificate.identity)

        async def issue() -> None:
            await asyncio.gather(*(tokens.issue(caller, "acme", wish) for _ in range(32)))

        print(
            f"{'live tokens':>12}{'revoked':>10}{'cached us':>11}{'uncached us':>13}{'issue us':>10}"
            f"{'PostgreSQL us':>15}{'memory MB':>11}"
        )
        before = resident_mb()

        async def measure(revoked: int) -> None:
            figures = [await each(cached, 1000, follower.look), await each(uncached, 100, follower.look)]
            spent = await postgres_cpu(config.database.url)
            figures.append(await each(issue, 5, follower.look) / 32)
            figures.append(1e6 * (await postgres_cpu(config.database.url) - spent) / (20 * 5 * 32))
            row = "".join(
                f"{value:>{width}.1f}" for value, width in zip(figures, (11, 13, 10, 15), strict=True)
            )
            print(f"{len(ids):>12}{revoked:>10}{row}{resident_mb() - before:>11.1f}", flush=True)

        ids: list[str] = []
        for count in counts:
            while len(ids) < count:
                drafts = [
                    AuditDraft("acme", certificate.identity, "token.issue", secrets.token_urlsafe(16),
                               Outcome.GRANTED, caller.origin, after_state="{}")
                    for _ in range(min(RECORDS, count - len(ids)))
                ]  # fmt: skip
                await base.log.record(*drafts)
                ids.extend(draft.resource for draft in drafts)
            await measure(0)
        before = resident_mb()
        for token_id in ids:
            follower._revoked.add(Revocation(Kind.TOKEN, "acme", token_id, now, now + day))
        await measure(len(ids))


def _stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` behind the name, beginning with the state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


async def postgres_cpu(url: str) -> float:
    """Seconds of CPU that the connections now open have used; what cleans up behind the bulk load is left out."""
    connection = await asyncpg.connect(url)
    backends = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    await connection.close()
    return sum(int(field) for row in backends for field in _stat(row["pid"])[11:13]) / os.sysconf(
        "SC_CLK_TCK"
    )


def worker_of(site, known: set[int]) -> tuple[int, int]:
    """The one connection to the vault that is not known yet: its socket's inode, and the worker that has it."""
    port = f":{site.port:04X}"
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    inodes = {int(row[9]) for row in rows if row[1].endswith(port) and row[3] == "01"} - known
    for pid in site.worker_pids():
        for opened in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                inode = opened.readlink().name.removeprefix("socket:[").removesuffix("]")
                if inode.isdigit() and int(inode) in inodes:
                    return int(inode), pid
    raise RuntimeError("no new connection")


def pinned(site, stack) -> list[Wire]:
    """Two clients, each with one connection, to two workers."""
    known: set[int] = set()
    by_worker: dict[int, Wire] = {}
    while len(by_worker) < 2:
        wire = stack.enter_context(Wire(site.profile("payments"), "acme", ("credential.read:acme/**",)))
        assert wire.token
        inode, worker = worker_of(site, known)
        known.add(inode)
        by_worker.setdefault(worker, wire)
    return list(by_worker.values())


def load(profile, stopping) -> None:
    with Wire(profile) as wire:
        while not stopping.is_set():
            wire.call(GET, name="acme/bench/0")


def revocation(trials: int, callers: int) -> None:
    context = multiprocessing.get_context("spawn")
    with running_vault({"server": {"workers": 2}}) as site, contextlib.ExitStack() as stack:
        with site.client() as client:
            client.put("acme/bench/0", {"value": "x"}, kind="generic")
        revoking, other = pinned(site, stack)
        stopping = context.Event()
        loaders = [
            context.Process(target=load, args=(site.profile("ledger"), stopping)) for _ in range(callers)
        ]
        for loader in loaders:
            loader.start()
        time.sleep(3)
        took, calls = [], []
        for _ in range(trials):
            issued = revoking.issue("credential.read:acme/**")
            # Known to the other worker, and good there.
            assert other.call(GET, bearer=issued.token, name="acme/bench/0").ok
            assert revoking.call(REVOKE, bearer=issued.token, token_id=issued.token_id).ok
            began = time.perf_counter()
            number = 0
            while True:
                number += 1
                answer = other.call(GET, bearer=issued.token, name="acme/bench/0")
                if answer.reason == "TOKEN_REVOKED":
                    break
                assert answer.ok, answer
            took.append(1e3 * (time.perf_counter() - began))
            calls.append(number)
        stopping.set()
        for loader in loaders:
            loader.join()
    at_once = sum(number == 1 for number in calls)
    took.sort()
    print(
        f"from the answer to Revoke to the first refusal by the other worker, {callers} callers beside, {trials} trials:"
        f" p50 {took[len(took) // 2]:.1f} ms, p99 {took[int(len(took) * 0.99)]:.1f} ms, longest {took[-1]:.1f} ms;"
        f" the first call was refused in {at_once}, the last one let in at most {max(calls) - 1} calls after"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tokens")
    parser.add_argument("--live", type=int, nargs="*", default=[1000, 1_000_000])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--callers", type=int, default=4)
    options = parser.parse_args()
    if options.live:
        with running_vault({}) as site:
            asyncio.run(costs(site.config_file, options.live))
    if options.trials:
        revocation(options.trials, options.callers)


if __name__ == "__main__":
    main()
