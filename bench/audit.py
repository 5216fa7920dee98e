"""What the audit log costs: appending, verifying, proving. `python -m bench.audit --records 1000000`.

PostgreSQL with fsync on, one process, its own CPU time. The log that is verified is made by the ledger itself, in large
batches that do not wait for the disk (a quarter of an hour for 10,000,000, with lowered precedence); a tenth of its
records write a row.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.databases import migrated
from tests.support.postgres import SERVER, Postgres
from vault.clock import SystemClock
from vault.core.audit import AuditLog
from vault.core.batch import Load
from vault.core.inspection import inspect
from vault.crypto import merkle, notes
from vault.model import AuditDraft, Checkpoint, Origin, Outcome
from vault.store import audit as store
from vault.store import tree
from vault.store.engine import connect
from vault.store.ledger import Commit, Ledger, Unit, leaf_hash, read_head
from vault.store.reach import ALL_TENANTS, declare
from vault.store.rows import Write

ORIGIN = "strongroom/audit"
BATCH = 2000
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
VERIFIER = notes.verifier_key(
    ORIGIN, KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)


def draft(number: int) -> AuditDraft:
    return AuditDraft(
        "acme", "spiffe://bank.example/payments", "session.reveal", f"acme/stripe/key-{number % 1000}",
        Outcome.GRANTED, Origin("192.0.2.17", "", f"request-{number}"), token_id="A" * 22, session_id="B" * 22,
        after_state='{"fields":["api_key"],"purpose":"payout","version":3}',
    )  # fmt: skip


def reading(number: int) -> Unit:
    commit = Commit((draft(number),))
    return Unit((), lambda _rows, _now: commit, ALL_TENANTS)


def writing(number: int) -> Unit:
    row = {
        "tenant": f"t{number}", "kek_version": 1, "created_by": "bench",
        "create_time": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    }  # fmt: skip
    commit = Commit((draft(number),), (Write("tenants", row),))
    return Unit((), lambda _rows, _now: commit, ALL_TENANTS)


async def append(url: str, callers: int, seconds: float) -> dict:
    """So many callers, each with one record at a time, each waiting until it is durable."""
    database = connect(url)
    log = AuditLog(database, SystemClock(), Load(), wait_seconds=30)
    done = 0
    end = time.monotonic() + seconds

    async def caller(first: int) -> None:
        nonlocal done
        while time.monotonic() < end:
            await log.record(draft(first + done))
            done += 1

    await log.record(draft(0))
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    await database.close()
    return {"per_second": done / took, "cpu_us": cpu / done * 1e6}


async def make(url: str, records: int) -> None:
    """Records, a checkpoint for each hundred thousand, and the nodes of the tree."""
    database = connect(url)
    async with database.read() as connection:
        done = (await read_head(connection)).size
    ledger = Ledger(database)
    step = max(1, min(100_000, records // 10))
    covered, frontier = 0, merkle.EMPTY
    while done < records:
        count = min(BATCH, records - done)
        units = [(writing if number % 10 == 0 else reading)(number) for number in range(done, done + count)]
        await ledger.commit(units, SystemClock().now())
        done += count
        if done - covered >= step or done >= records:
            nodes: list[merkle.Node] = []
            async for rows in store.stream_rows(database, covered, done):
                frontier, more = frontier.grow([row["leaf_hash"] for row in rows])
                nodes += more
            body = notes.checkpoint_body(ORIGIN, done, frontier.root())
            note = notes.sign_with(body, VERIFIER, KEY.sign(body.encode()))
            checkpoint = Checkpoint(
                done, frontier.root(), merkle.encode_frontier(frontier), note, SystemClock().now()
            )
            await store.insert_checkpoint(database, checkpoint, nodes)
            covered = done
    await database.close()


async def verify(url: str, *, state: bool) -> dict:
    database = connect(url)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    report = await inspect(database, ORIGIN, [VERIFIER], SystemClock().now(), state=state)
    took = time.monotonic() - began
    await database.close()
    assert not report.findings, report.findings[:3]
    return {
        "records": report.records,
        "per_second": report.records / took,
        "memory_before_mb": before / 1024,
        "memory_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


async def prove(url: str) -> dict:
    """Proofs of records all over the log: the look-up, the path, and its verification."""
    database = connect(url)
    took = []
    async with database.read() as connection:
        newest = await store.latest_checkpoint(connection)
    assert newest is not None
    for turn in range(40):
        sequence = newest.size * turn // 40
        began = time.monotonic()
        path = merkle.inclusion_path(sequence, newest.size)
        wanted = {node for span in path for node in merkle.stored_nodes(span)}
        async with database.read() as connection:
            row = await store.get_row(connection, sequence)
            nodes = await tree.look_up(connection, wanted)
        roots = [merkle.subtree_root(span, nodes) for span in path]
        assert row is not None
        merkle.verify_inclusion(leaf_hash(row), sequence, newest.size, roots, newest.root)
        took.append(time.monotonic() - began)
    await database.close()
    took.sort()
    return {"p50_ms": took[len(took) // 2] * 1000, "worst_ms": took[-1] * 1000}


def alone(what: str, url: str) -> dict:
    """In a process of its own, so that its memory is its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.audit", "--part", what, "--url", url],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def fill(postgres: Postgres, url: str, records: int) -> dict:
    """The log to be verified, made without waiting for the disk; on it when this returns."""
    postgres.sql("verify", f"ALTER ROLE {SERVER} SET synchronous_commit = off")
    began = time.monotonic()
    subprocess.run(
        ["nice", sys.executable, "-m", "bench.audit", "--part", "make", "--url", url, "--records", str(records)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    took = time.monotonic() - began
    postgres.sql("verify", f"ALTER ROLE {SERVER} RESET synchronous_commit")
    postgres.sql("verify", "CHECKPOINT")
    return {"records": records, "seconds": took}


def main() -> None:
    declare(ALL_TENANTS)
    parser = argparse.ArgumentParser(prog="python -m bench.audit")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--part", default="")
    parser.add_argument("--url", default="")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "audit.json")
    options = parser.parse_args()
    if options.part:
        parts = {
            "verify": lambda: verify(options.url, state=False),
            "verify with state": lambda: verify(options.url, state=True),
            "prove": lambda: prove(options.url),
            "make": lambda: make(options.url, options.records),
            **{f"append {n}": lambda n=n: append(options.url, n, options.seconds) for n in (1, 32, 256)},
        }
        print(json.dumps(uvloop.run(parts[options.part]())))
        return
    postgres = Postgres()
    try:
        url = postgres.create_database("append")
        uvloop.run(prepare(url))
        results = {part: alone(part, url) for part in ("append 1", "append 32", "append 256")}
        url = postgres.create_database("verify")
        uvloop.run(prepare(url))
        results["make"] = fill(postgres, url, options.records)
        for part in ("verify", "verify with state", "prove"):
            results[part] = alone(part, url)
    finally:
        postgres.close()
    for name, row in results.items():
        print(
            f"{name:<20}",
            "  ".join(
                f"{key} {value:.0f}" if value >= 100 else f"{key} {value:.2f}" for key, value in row.items()
            ),
        )
    options.json.write_text(json.dumps(results, indent=2) + "\n")


async def prepare(url: str) -> None:
    await (await migrated(url)).close()


if __name__ == "__main__":
    main()
