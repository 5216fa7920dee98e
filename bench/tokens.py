"""What a token costs, and how fast a revocation is:  python -m bench.tokens [--live 1000 1000000] [--trials 200]

The vault's own code in this process, on PostgreSQL (fsync on) and SoftHSM: verification of a token that is remembered
and of one that is not, and issue, beside so many live tokens: as many records of issues in the log, and as many revoked
ids in memory, the worst there can be. Then what those take of the worker's memory. Then, over the wire and under load,
how long after the answer to Revoke a call with the token is still let in, on either of two workers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import os
import secrets
import statistics
import threading
import time
from pathlib import Path

from bench.site import running_vault
from tests.integration.test_tokens import policies_of
from tests.integration.wire import Wire
from vault import config as configuration
from vault.core.follower import Follower
from vault.core.revocations import Kind, Revocation
from vault.core.signing import SigningKeys
from vault.core.tokens import Tokens, TokenSettings, Wish
from vault.model import AuditDraft, Caller, Certificate, Origin, Outcome
from vault.server.app import foundation

SCOPE = "session.reveal:acme/bench/*"
GET = "/vault.v1.CredentialService/Get"
RECORDS = 1000
UTC = datetime.UTC


async def each(call, times: int) -> float:
    """Microseconds of this process's CPU for a call: the median of five rounds."""
    took = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            await call()
        took.append((time.process_time() - began) / times)
    return 1e6 * statistics.median(took)


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
            base.clock,
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
            await tokens.verify(issued.text, certificate)

        async def uncached() -> None:
            tokens._verified.clear()
            await tokens.verify(issued.text, certificate)

        async def issue() -> None:
            await asyncio.gather(*(tokens.issue(caller, "acme", wish) for _ in range(32)))

        there = 0
        print(
            f"{'live tokens':>12}{'cached us':>11}{'uncached us':>13}{'issue us':>10}{'revocations MB':>16}"
        )
        before = resident_mb()
        for count in counts:
            while there < count:
                drafts = [
                    AuditDraft("acme", certificate.identity, "token.issue", secrets.token_urlsafe(16),
                               Outcome.GRANTED, caller.origin, after_state="{}")
                    for _ in range(RECORDS)
                ]  # fmt: skip
                await base.log.record(*drafts)
                there += RECORDS
                for draft in drafts:
                    follower._revoked.add(Revocation(Kind.TOKEN, "acme", draft.resource, now, now + day))
            await follower.look()
            figures = [await each(cached, 2000), await each(uncached, 200), await each(issue, 10) / 32]
            row = "".join(f"{value:>{width}.1f}" for value, width in zip(figures, (11, 13, 10), strict=True))
            print(f"{count:>12}{row}{resident_mb() - before:>16.1f}")


def revocation(trials: int) -> None:
    with running_vault({"server": {"workers": 2}}) as site, contextlib.ExitStack() as stack:
        with site.client() as client:
            client.put("acme/bench/0", {"value": "x"}, kind="generic")
        wires = [
            stack.enter_context(Wire(site.profile("payments"), "acme", ("credential.read:acme/**",)))
            for _ in range(8)
        ]
        stopping = threading.Event()

        def load() -> None:
            with Wire(site.profile("ledger")) as other:
                while not stopping.is_set():
                    other.call(GET, name="acme/bench/0")

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        took = []
        for _ in range(trials):
            issued = wires[0].issue("credential.read:acme/**")
            assert (
                wires[0]
                .call("/vault.v1.TokenService/Revoke", bearer=issued.token, token_id=issued.token_id)
                .ok
            )
            began = last = time.perf_counter()
            for wire in wires:
                while True:
                    asked = time.perf_counter()
                    if wire.call(GET, bearer=issued.token, name="acme/bench/0").reason == "TOKEN_REVOKED":
                        break
                    last = asked
            took.append(1e3 * (last - began))
        stopping.set()
        for thread in threads:
            thread.join()
    took.sort()
    print(
        f"from the answer to Revoke to the last call that was let in, {trials} trials, milliseconds: ",
        end="",
    )
    print(f"p50 {took[len(took) // 2]:.0f}, p99 {took[int(len(took) * 0.99)]:.0f}, longest {took[-1]:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tokens")
    parser.add_argument("--live", type=int, nargs="*", default=[1000, 1_000_000])
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    if options.live:
        with running_vault({}) as site:
            asyncio.run(costs(site.config_file, options.live))
    if options.trials:
        revocation(options.trials)


if __name__ == "__main__":
    main()
