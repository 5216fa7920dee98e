"""What the vault costs: server CPU an operation, as ratios to a bare echo of the same size on the same stack.

    python -m bench [--callers 32] [--operations 3200] [--rounds 3] [--only NAME ...] [--json FILE] [--server PROFILE]

Starts PostgreSQL (fsync on), SoftHSM and one worker, beside an echo server; takes turns between echo and operation, so
that what else the machine does hits both. With --server it loads a running vault by a client profile instead, and says
throughput and latency only: a remote process's CPU cannot be seen from here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import uvloop

from bench.audit import draft
from bench.site import cpu_seconds, resident_mb, running_vault
from vault.client import AsyncClient, Profile
from vault.client.operations.calls import CHANNEL_OPTIONS, metadata
from vault.client.sealing import Recipient, seal_fields
from vault.clock import SystemClock
from vault.core.audit import AuditLog
from vault.core.batch import Load as BatchLoad
from vault.store.engine import connect
from vault.store.reach import ALL_TENANTS, declare
from vault.v1 import credential_pb2, session_pb2, token_pb2

if TYPE_CHECKING:
    from tests.support.vault import VaultSite

BUNDLE = 100
IDLE_SECONDS = 3.0
AFTERMATH_SECONDS = 0.7
PREFIX = "acme/bench"
FIELDS = {"value": "x" * 64}
# The echo that an operation is compared with, and how often its cost it may have; None: microseconds a credential.
TARGETS = {
    "reveal": ("unary", 3.0),
    "stream reveal": ("stream", 3.0),
    "reveal of 100": (None, 60.0),
    "put": ("unary", 4.0),
    "issue": ("unary", 3.0),
    "stream verify_webhook": ("stream", 3.0),
    # The record that a reveal waits for, made by the same code and in the same database, in this process alone.
    "audit record": ("reveal", 0.25),
}


@dataclass
class Measure:
    """What one operation took, over all its rounds."""

    operations: int = 0
    seconds: float = 0.0
    server_cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        ordered = sorted(self.latencies)
        return {
            "cpu_us": 1e6 * self.server_cpu / self.operations,
            "per_second": self.operations / self.seconds,
            "p50_ms": 1e3 * statistics.median(ordered),
            "p99_ms": 1e3 * ordered[int(len(ordered) * 0.99)],
        }


class Aftermath:
    """What the worker does later for what was asked before: it belongs to the operation that caused it.

    A checkpoint verifies every record since the last, and the threat rules and sinks read them. So after each round a
    checkpoint is asked for and the rest is waited for; what the idle worker uses in that time is taken off.
    """

    def __init__(self, auditor: AsyncClient, pid: int) -> None:
        self._auditor = auditor
        self._pid = pid
        self._idle = 0.0

    async def prepare(self) -> None:
        await self.pass_by()
        before = cpu_seconds(self._pid)
        await asyncio.sleep(IDLE_SECONDS)
        self._idle = (cpu_seconds(self._pid) - before) / IDLE_SECONDS

    async def pass_by(self) -> float:
        """Returns the CPU that the idle worker would have used meanwhile, in seconds."""
        began = time.perf_counter()
        await self._auditor.checkpoint()
        await asyncio.sleep(AFTERMATH_SECONDS)
        return self._idle * (time.perf_counter() - began)


async def rounds(
    measure: Measure, pid: int | None, callers: list, operations: int, aftermath: Aftermath | None = None
) -> None:
    """Have every caller make its share of operations, side by side."""

    async def work(call, share: int) -> None:
        for _ in range(share):
            began = time.perf_counter()
            await call()
            measure.latencies.append(time.perf_counter() - began)

    share = max(1, operations // len(callers))
    cpu, began = cpu_seconds(pid) if pid else 0.0, time.perf_counter()
    await asyncio.gather(*(work(call, share) for call in callers))
    measure.seconds += time.perf_counter() - began
    idle = await aftermath.pass_by() if aftermath else 0.0
    measure.server_cpu += cpu_seconds(pid) - cpu - idle if pid else 0.0
    measure.operations += share * len(callers)


class Load:
    """The callers of each operation, made ready before anything is measured."""

    def __init__(self, client: AsyncClient, sessions: AsyncClient, callers: int) -> None:
        self._client = client
        self._session_channel = sessions._channel
        self._channel = client._channel
        self._callers = callers
        self._streams: list = []

    async def prepare(self) -> None:
        for start in range(0, BUNDLE, 20):
            names = [f"{PREFIX}/{index}" for index in range(start, start + 20)]
            await asyncio.gather(*(self._client.put(name, FIELDS, kind="generic") for name in names))
        self._token = await self._client._drive(self._client._access.token())
        self._metadata = metadata(self._client.profile, self._token)
        self._recipient = Recipient()

    def reveal(self, count: int) -> list:
        call = self._channel.unary_unary("/vault.v1.SessionService/Reveal")
        request = session_pb2.SessionServiceRevealRequest(
            credentials=[session_pb2.CredentialSelector(name=f"{PREFIX}/{index}") for index in range(count)],
            purpose="bench",
            recipient_key=self._recipient.public_bytes,
        ).SerializeToString()
        self.sizes = (len(request), 300)
        return [lambda: call(request, metadata=self._metadata)] * self._callers

    async def put(self, total: int) -> list:
        call = self._channel.unary_unary("/vault.v1.CredentialService/Put")
        key = await self._client._drive(self._client._access.ingest_key())
        run = secrets.token_hex(4)
        requests = iter(
            [
                credential_pb2.CredentialServicePutRequest(
                    name=(name := f"acme/put/{run}-{index}"),
                    kind="generic",
                    sealed=seal_fields(FIELDS, name, "generic", key),
                    ingest_key_id=key.key_id,
                    request_id=f"{run}-{index}",
                ).SerializeToString()
                for index in range(total)
            ]
        )
        return [lambda: call(next(requests), metadata=self._metadata)] * self._callers

    def issue(self) -> list:
        call = self._channel.unary_unary("/vault.v1.TokenService/Issue")
        request = token_pb2.TokenServiceIssueRequest(
            tenant="acme", scopes=[f"session.reveal:{PREFIX}/*"]
        ).SerializeToString()
        return [lambda: call(request)] * self._callers

    async def stream(self, message: session_pb2.SessionServiceOpenRequest) -> list:
        """One open session a caller."""
        if not self._streams:
            self._streams = [await self._opened() for _ in range(self._callers)]

        def caller(stream):
            async def call() -> None:
                await stream.write(message)
                answer = await stream.read()
                if answer.WhichOneof("message") in ("error", "closed"):
                    raise RuntimeError(f"the vault did not do it: {answer}")

            return call

        return [caller(stream) for stream in self._streams]

    async def _opened(self):
        invoke = self._session_channel.stream_stream(
            "/vault.v1.SessionService/Open",
            request_serializer=session_pb2.SessionServiceOpenRequest.SerializeToString,
            response_deserializer=session_pb2.SessionServiceOpenResponse.FromString,
        )
        stream = invoke(metadata=self._metadata)
        start = session_pb2.SessionStart(
            credentials=[session_pb2.CredentialSelector(name=f"{PREFIX}/0")],
            purpose="bench",
            recipient_key=self._recipient.public_bytes,
        )
        await stream.write(session_pb2.SessionServiceOpenRequest(operation_id=1, start=start))
        await stream.read()
        return stream

    async def close(self) -> None:
        for stream in self._streams:
            await stream.write(session_pb2.SessionServiceOpenRequest(close=session_pb2.SessionClose()))


def echo_callers(
    channels: list[grpc.aio.Channel], callers: int, sizes: tuple[int, int], sent
) -> tuple[list, list]:
    """Callers of the unary and of the stream echo, with the sizes of a reveal."""
    message = sizes[1].to_bytes(4, "big") + bytes(max(0, sizes[0] - 4))
    unary = channels[0].unary_unary("/bench.Echo/Unary")
    stream = channels[1].stream_stream("/bench.Echo/Stream")

    def on_stream():
        opened = stream(metadata=sent)

        async def call() -> None:
            await opened.write(message)
            await opened.read()

        return call

    return [lambda: unary(message, metadata=sent)] * callers, [on_stream() for _ in range(callers)]


async def measure(
    options: argparse.Namespace,
    profile: Profile,
    pid: int | None,
    pki: Path | None,
    log: AuditLog | None,
    aftermath: Aftermath | None = None,
) -> dict:
    results: dict[str, Measure] = {}
    async with AsyncClient(profile, timeout=60) as client, AsyncClient(profile, timeout=60) as sessions:
        load = Load(client, sessions, options.callers)
        await load.prepare()
        each, hundreds = options.operations, max(options.callers, options.operations // 40)
        total = (each + options.callers * 5) * (options.rounds + 1)
        field_name = next(iter(FIELDS))
        webhook = session_pb2.VerifyWebhookOperation(
            name=f"{PREFIX}/0", field_names=[field_name], scheme="WEBHOOK_SCHEME_STRIPE",
            headers={"stripe-signature": f"t={int(time.time())},v1={'0' * 64}"}, body=b"{}",
        )  # fmt: skip
        reveal = session_pb2.RevealOperation(name=f"{PREFIX}/0")
        plan = {
            "reveal": (load.reveal(1), each, pid),
            "stream reveal": (
                await load.stream(session_pb2.SessionServiceOpenRequest(operation_id=1, reveal=reveal)), each, pid,
            ),
            "stream verify_webhook": (
                await load.stream(session_pb2.SessionServiceOpenRequest(operation_id=1, verify_webhook=webhook)),
                each, pid,
            ),
            "reveal of 100": (load.reveal(BUNDLE), hundreds, pid),
            "put": (await load.put(total), each, pid),
            "issue": (load.issue(), each, pid),
        }  # fmt: skip
        if log is not None:
            record = draft(0)
            plan["audit record"] = ([lambda: log.record(record)] * options.callers, each, os.getpid())
        echo = None
        if pki is not None:
            command = [sys.executable, "-m", "bench.echo", str(pki)]
            echo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
            port = int(echo.stdout.readline())
            channels = [
                grpc.aio.secure_channel(f"localhost:{port}", profile.channel_credentials(), CHANNEL_OPTIONS)
                for _ in range(2)
            ]
            unary, stream = echo_callers(channels, options.callers, (160, 300), load._metadata)
            plan = {"unary": (unary, each, echo.pid), "stream": (stream, each, echo.pid), **plan}
        plan = {
            name: row
            for name, row in plan.items()
            if not options.only or name in (*options.only, "unary", "stream")
        }
        try:
            for callers, _, _ in plan.values():
                await rounds(Measure(), None, callers, len(callers) * 5)
            if aftermath is not None:
                await aftermath.prepare()
            for _ in range(options.rounds):
                for name, (callers, operations, process) in plan.items():
                    after = aftermath if process == pid else None
                    await rounds(results.setdefault(name, Measure()), process, callers, operations, after)
            await load.close()
        finally:
            if echo is not None:
                echo.kill()
    return {name: result.summary() for name, result in results.items()}


async def beside_the_vault(options: argparse.Namespace, site: VaultSite, pid: int) -> dict:
    declare(ALL_TENANTS)
    database = connect(site.database_url)
    log = AuditLog(database, SystemClock(), BatchLoad(), wait_seconds=30)
    try:
        async with AsyncClient(
            site.profile("operator", "system", ("audit.read:system/audit",)), timeout=60
        ) as auditor:
            aftermath = Aftermath(auditor, pid)
            return await measure(options, site.profile("payments"), pid, site.folder / "pki", log, aftermath)
    finally:
        await log.drain()
        await database.close()


def report(results: dict[str, dict[str, float]], *, with_cpu: bool) -> None:
    print(f"{'operation':<24}{'ops/s':>8}{'p50 ms':>9}{'p99 ms':>9}", end="")
    print(f"{'CPU us':>9}{'ratio':>8}{'target':>8}  met" if with_cpu else "")
    for name, row in results.items():
        print(f"{name:<24}{row['per_second']:>8.0f}{row['p50_ms']:>9.1f}{row['p99_ms']:>9.1f}", end="")
        if not with_cpu:
            print()
            continue
        echo, target = TARGETS.get(name, (None, None))
        if name == "reveal of 100":
            row["ratio"] = row["cpu_us"] / BUNDLE
        elif echo in results:
            row["ratio"] = row["cpu_us"] / results[echo]["cpu_us"]
        met = "" if target is None or "ratio" not in row else "yes" if row["ratio"] <= target else "no"
        ratio = f"{row['ratio']:.{1 if row['ratio'] >= 1 else 2}f}" if "ratio" in row else ""
        print(f"{row['cpu_us']:>9.0f}{ratio:>8}{target or '':>8}  {met}")
    if with_cpu:
        print(
            "\nratio: to the echo of the same kind; for `reveal of 100`, microseconds of server CPU a credential; "
            "for `audit record`, the share of a reveal"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--operations", type=int, default=3200, help="of each kind in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=TARGETS, default=[])
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results.json")
    parser.add_argument(
        "--server", type=Path, help="a client profile; may write and reveal acme/bench and acme/put"
    )
    options = parser.parse_args()
    if options.server:
        results = uvloop.run(measure(options, Profile.load(options.server), None, None, None))
        report(results, with_cpu=False)
    else:
        results = local(options)
    options.json.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {options.json}")


def local(options: argparse.Namespace) -> dict:
    with running_vault({"sessions": {"max_per_identity": 1000}}) as site:
        (pid,) = site.worker_pids()
        results = uvloop.run(beside_the_vault(options, site, pid))
        report(results, with_cpu=True)
        print(f"resident memory of the worker: {resident_mb(pid):.0f} MB")
        results["worker"] = {"resident_mb": resident_mb(pid)}
        return results


if __name__ == "__main__":
    main()
