"""Checkpoints: what signs them, who is told, and what a verifier needs to trust. Real HSM, database, witness, TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import signal
import socket
import ssl
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from hsm import Capabilities, HsmBackend, KeyAlgorithm, SignatureAlgorithm
from tests.support.vault import VaultSite
from tests.support.witness import Witness
from vault import config as configuration
from vault.clock import SystemClock
from vault.core import anchors as anchors_module
from vault.core import export
from vault.core.anchors import AnchorFailed, Anchors, DirectoryAnchor, FileAnchor, SyslogAnchor
from vault.core.anchors import Witness as WitnessAnchor
from vault.core.checkpoints import Checkpoints
from vault.core.inspection import inspect
from vault.core.proofs import Paths
from vault.core.recovery import Recovery
from vault.core.verification import INTRODUCE
from vault.crypto import notes
from vault.errors import StartError
from vault.model import SYSTEM_TENANT, AuditDraft, Checkpoint, KeyPurpose, Origin, Outcome
from vault.server.checkpointing import checkpointing
from vault.server.foundation import Foundation, foundation
from vault.store import audit as store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from vault.core.anchors import Anchor
    from vault.core.checkpoint_keys import CheckpointKeys
    from vault.core.verification import Report

ORIGIN = "strongroom/audit"


class Log:
    """A log with what signs it, without a server."""

    def __init__(self, base: Foundation, keys: CheckpointKeys, anchors: Anchors) -> None:
        self.base = base
        self.keys = keys
        self.anchors = anchors
        self.checkpoints = Checkpoints(keys, anchors, Recovery((), 1), base.database, base.log, base.clock)

    async def grow(self, count: int = 1) -> None:
        draft = AuditDraft("acme", "me", "test", "", Outcome.GRANTED, Origin())
        await self.base.log.record(*[draft] * count)

    async def check(self, keys: Sequence[str] | None = None, **more: Any) -> Report:
        return await inspect(
            self.base.database, ORIGIN, keys or self.keys.verifiers, self.base.clock.now(), **more
        )

    async def export(self) -> list[str]:
        source = await export.of_database(self.base.database, ORIGIN, ())
        return "".join([text async for _, text in export.pages(source)]).splitlines(keepends=True)


@pytest.fixture(scope="module")
def prepared(softhsm: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> VaultSite:
    site = VaultSite(tmp_path_factory.mktemp("checkpoints"), "sqlite:///strongroom.db", *softhsm)
    site.prepare()
    return site


@pytest.fixture
async def open_log(prepared: VaultSite) -> AsyncIterator[Callable[..., Any]]:
    """Opens a log: `await open_log(anchors=..., post_quantum=...)`."""
    async with contextlib.AsyncExitStack() as stack:
        config = configuration.load(prepared.config_file)

        async def opened(
            anchors: Callable[[Paths, Foundation], list[Anchor]] = lambda _paths, _base: [],
            *,
            post_quantum: bool = False,
        ) -> Log:
            base = await stack.enter_async_context(foundation(config))
            audit = config.audit.model_copy(update={"post_quantum_signature": post_quantum})
            keys = checkpointing(base, config.model_copy(update={"audit": audit})).keys
            made = Anchors(
                anchors(Paths(base.database, keys), base),
                lambda checkpoint, name, lines: store.keep_cosignature(
                    base.database, checkpoint.size, name, lines, base.clock.now()
                ),
            )
            log = Log(base, keys, made)
            stack.push_async_callback(made.close)
            await log.checkpoints.start(new_anchors=True)  # on a log that is shared and has grown
            return log

        yield opened


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110 - what is waited for happens elsewhere
            await asyncio.sleep(0.01)


async def rotate_checkpoint_key(log: Log) -> None:
    draft = AuditDraft(SYSTEM_TENANT, "test", "key.rotate", "", Outcome.GRANTED, Origin())
    algorithm = KeyAlgorithm((await log.base.keyring.active(SYSTEM_TENANT, KeyPurpose.CHECKPOINT)).algorithm)
    await log.base.keyring._make(SYSTEM_TENANT, KeyPurpose.CHECKPOINT, algorithm, draft, None)


# Who signs.


async def test_whoever_trusts_the_first_key_can_follow_to_the_next(open_log: Any) -> None:
    log = await open_log()
    await log.grow()
    first = log.keys.newest
    assert (await log.checkpoints.sign()).note.count("\u2014") == 1
    await rotate_checkpoint_key(log)
    both = await log.checkpoints.sign()
    assert log.keys.newest != first
    assert set(notes.verify_signatures(both.note, [first, log.keys.newest]).signers) == {
        first,
        log.keys.newest,
    }
    await log.grow()
    alone = await log.checkpoints.sign()
    assert notes.verify_signatures(alone.note, [first, log.keys.newest]).signers == (log.keys.newest,)
    report = await log.check([first])
    assert report.findings == []
    lines = await log.export()
    assert export.verify_file(lines, [first]).findings == []
    assert log.checkpoints.verifier_keys == (log.keys.newest, first)
    assert any(
        "give the log's first" in text for text in export.verify_file(lines, [log.keys.newest]).findings
    )
    # Without the record that introduces it, the new key is nobody's.
    unnamed = [line.replace(INTRODUCE, "audit.whatever") for line in lines]
    assert any(
        "its signature does not verify" in text for text in export.verify_file(unnamed, [first]).findings
    )


async def test_where_the_hsm_has_no_ed25519_checkpoints_are_signed_by_ecdsa(
    softhsm: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = HsmBackend.capabilities

    def without_ed25519(backend: HsmBackend) -> Capabilities:
        found = tried(backend)
        return dataclasses.replace(found, signatures=found.signatures - {SignatureAlgorithm.EDDSA})

    monkeypatch.setattr(HsmBackend, "capabilities", without_ed25519)
    site = VaultSite(tmp_path / "ecdsa", "sqlite:///strongroom.db", *softhsm)
    await asyncio.to_thread(site.prepare)
    config = configuration.load(site.config_file)
    async with foundation(config) as base:
        keys = checkpointing(base, config).keys
        log = Log(base, keys, Anchors([], store.keep_cosignature))
        await log.checkpoints.start()
        await log.grow()
        checkpoint = await log.checkpoints.sign()
        key = await base.keyring.active(SYSTEM_TENANT, KeyPurpose.CHECKPOINT)
        assert key.algorithm == KeyAlgorithm.EC_P256
        assert notes.verify_signatures(checkpoint.note, [keys.newest]).signers == (keys.newest,)
        assert (await log.check()).findings == []
        assert export.verify_file(await log.export(), [keys.newest]).findings == []


async def test_a_key_that_only_a_record_names_and_no_known_key_signed_for_is_not_trusted(
    open_log: Any,
) -> None:
    """Whoever can append to the log cannot give themselves a key: the checkpoint must be by a key before."""
    log = await open_log()
    await log.grow()
    await log.checkpoints.sign()
    from cryptography.hazmat.primitives.asymmetric import ed25519

    stranger = ed25519.Ed25519PrivateKey.generate()
    key = notes.cosigner_key(ORIGIN, stranger.public_key())
    lines = await log.export()
    kept = [line for line in lines if '"checkpoint"' not in line]
    size = sum('"record"' in line for line in lines)
    head = [line for line in lines if '"checkpoint"' in line][-1]
    import json

    frontier = json.loads(head)["checkpoint"]["frontier"]
    note = json.loads(head)["checkpoint"]["note"]
    body = note.partition("\n\n")[0] + "\n"
    signature = stranger.sign(notes.cosigned_message(key, body, 1))
    forged = body + "\n" + notes.cosignature_line(key, 1, signature)
    kept[-1:] = [export.checkpoint_line(size, forged, bytes.fromhex(frontier)), kept[-1]]
    found = export.verify_file(kept, log.keys.verifiers[-1:]).findings
    assert any("does not verify" in text for text in found)


async def test_ml_dsa_signs_beside_the_hsm_and_alone_is_enough_to_trust(open_log: Any) -> None:
    log = await open_log(post_quantum=True)
    await log.grow()
    checkpoint = await log.checkpoints.sign()
    lines = await log.export()
    import json

    introduced = [json.loads(line)["record"] for line in lines if INTRODUCE in line]
    (ml_dsa,) = {
        key
        for record in introduced
        if notes.is_post_quantum(key := json.loads(record["after_state"])["verifier_key"])
    }
    assert notes.verify_signatures(checkpoint.note, [ml_dsa]).signers == (ml_dsa,)
    # By the classical key, and, for the day when that is worth nothing, by this one alone.
    assert export.verify_file(lines, log.keys.verifiers).findings == []
    alone = export.verify_file(lines, [ml_dsa])
    assert (alone.findings, alone.signed_size) == ([], checkpoint.size)
    # It cannot be left out again: not by the vault, not by whoever breaks the other key.
    again = await open_log(post_quantum=False)
    await again.grow()
    later = await again.checkpoints.sign()
    assert notes.verify_signatures(later.note, [ml_dsa]).signers == (ml_dsa,)
    text, _, signatures = later.note.rpartition("\n\n")
    without = text + "\n\n" + signatures.splitlines(keepends=True)[0]
    signed, unsigned = (json.dumps(note, ensure_ascii=False) for note in (later.note, without))
    lines = [line.replace(signed, unsigned) for line in await again.export()]
    found = export.verify_file(lines, log.keys.verifiers).findings
    assert found == [f"checkpoint {later.size}: it lacks the ML-DSA signature that the log promises"]


# When.


async def test_a_checkpoint_is_signed_after_so_many_records_or_seconds_whichever_is_first(
    open_log: Any,
) -> None:
    log = await open_log()
    await log.grow()
    first = await log.checkpoints.sign()
    await log.grow(9)
    assert not await log.checkpoints._due(3600, 10)
    await log.grow()
    assert await log.checkpoints._due(3600, 10)
    work = asyncio.create_task(log.checkpoints.run(seconds=0.05, records=1000))
    async with asyncio.timeout(30):
        newest = first
        while newest.size <= first.size:
            await asyncio.sleep(0.02)
            async with log.base.database.read() as connection:
                newest = await store.latest_checkpoint(connection) or first
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert newest.size >= first.size + 10


# Anchors.


async def test_a_directory_keeps_every_checkpoint_and_a_database_behind_it_is_refused(
    open_log: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "worm"
    folder.mkdir()
    log = await open_log(lambda _paths, _base: [DirectoryAnchor(folder)])
    for _ in range(2):
        await log.grow()
        newest = await log.checkpoints.sign()
    files = sorted(folder.iterdir())
    assert len(files) == 2
    assert files[-1].read_text() == newest.note
    held = await log.anchors.held()
    assert (await log.check(anchors=held)).findings == []
    # As a database would see it that was set back.
    from vault.crypto import merkle

    body = notes.checkpoint_body(ORIGIN, newest.size + 5, merkle.tree_root([b"\0" * 32]))
    (folder / f"{newest.size + 5:020}.checkpoint").write_text(await log.keys.sign(body, None))
    found = (await log.check(anchors=await log.anchors.held())).findings
    assert any("anchor" in text and f"seen {newest.size + 5} records" in text for text in found)
    with pytest.raises(StartError, match="rolled back or truncated"):
        await log.checkpoints.start()
    files[-1].write_text("damaged")
    found = (await log.check(anchors=await log.anchors.held())).findings
    assert any(files[-1].name in text and "does not verify" in text for text in found)


@pytest.mark.parametrize("post_quantum", [False, True], ids=["Ed25519", "ML-DSA-44"])
async def test_a_witness_cosigns_what_is_consistent_with_what_it_saw(
    open_log: Any, *, post_quantum: bool
) -> None:
    with Witness(post_quantum=post_quantum) as witness:
        log = await open_log(
            lambda paths, _base: [WitnessAnchor(witness.url, witness.key, ORIGIN, None, paths.consistency)]
        )
        witness.log_keys = list(log.keys.verifiers)
        (name,) = log.anchors.health
        for _ in range(3):
            await log.grow(300)
            checkpoint = await log.checkpoints.sign()
            assert witness.size == checkpoint.size
            assert notes.verify_signatures(checkpoint.note, [witness.key]).signers == (witness.key,)
        assert log.anchors.health[name].reason == ""
        (held,) = await log.anchors.held()
        assert held.note == witness.latest
        assert (await log.check(anchors=[held])).findings == []
        # A vault that has forgotten what the witness saw learns it, and proves from there.
        again = await open_log(
            lambda paths, _base: [WitnessAnchor(witness.url, witness.key, ORIGIN, None, paths.consistency)]
        )
        await again.grow()
        assert (await again.checkpoints.sign()).size == witness.size


async def test_a_witness_that_saw_another_or_a_longer_log_is_heard(
    open_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchors_module, "_AGAIN_SECONDS", 0.05)
    with Witness() as witness:
        log = await open_log(
            lambda paths, _base: [WitnessAnchor(witness.url, witness.key, ORIGIN, None, paths.consistency)]
        )
        (health,) = log.anchors.health.values()
        await log.grow()
        await log.checkpoints.sign()
        assert health.reason == "it answers 403"
        witness.log_keys = list(log.keys.verifiers)
        await log.grow()
        good = await log.checkpoints.sign()
        assert health.reason == ""
        witness.size = 10**6
        await log.grow()
        await log.checkpoints.sign()
        assert health.reason == f"it has seen 1000000 records, the log holds {good.size + 1}"
        witness.size, witness.root = good.size, bytes(32)
        await until(lambda: health.reason == "it answers 422")
        # The end must find it between two tries: SQLite's driver loses a connection that is made when it is cancelled.
        monkeypatch.setattr(anchors_module, "_AGAIN_SECONDS", 60.0)
        health.reason = ""
        await until(lambda: health.reason == "it answers 422")


DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from vault.core import anchors

def die(file, text):
    file.write(text[:10])
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

anchors._write_down = die
asyncio.run(anchors.DirectoryAnchor(Path(sys.argv[1])).push(SimpleNamespace(size=7, note="strongroom/audit")))
"""


def test_who_is_killed_while_it_writes_leaves_no_half_checkpoint_that_would_refuse_the_next_start(
    tmp_path: Path,
) -> None:
    done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    anchor = DirectoryAnchor(tmp_path)
    assert asyncio.run(anchor.held()) == []
    checkpoint = Checkpoint(size=7, root=b"", frontier=b"", note="a note", create_time=SystemClock().now())
    asyncio.run(anchor.push(checkpoint))
    asyncio.run(anchor.push(dataclasses.replace(checkpoint, note="another, of the same size")))
    assert [held.note for held in asyncio.run(anchor.held())] == ["a note"]
    assert len(list(tmp_path.iterdir())) == 1


async def test_an_anchor_that_is_away_holds_nothing_up_and_catches_up(
    open_log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchors_module, "_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(anchors_module, "_PATIENCE_SECONDS", 0.1)
    folder = tmp_path / "away"
    folder.mkdir()
    log = await open_log(lambda _paths, _base: [DirectoryAnchor(folder), FileAnchor(tmp_path / "here")])
    folder.rmdir()
    await log.grow()
    # Else this waits for as long as the folder is not there.
    async with asyncio.timeout(30):
        checkpoint = await log.checkpoints.sign()
    away, here = log.anchors.health.values()
    await until(lambda: (here.size, here.reason) == (checkpoint.size, ""))
    assert (tmp_path / "here").read_text() == checkpoint.note
    await until(lambda: "cannot be written" in away.reason)
    folder.mkdir()
    await until(lambda: (away.size, away.reason) == (checkpoint.size, ""))


async def test_syslog_over_tls_is_told_every_checkpoint_and_only_the_right_server(
    open_log: Any, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    listener = socket.create_server(("localhost", 0))
    got: list[bytes] = []
    whole = threading.Event()

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as channel:
                while part := channel.recv(65536):
                    got.append(part)
            whole.set()

    thread = threading.Thread(target=serve)
    thread.start()
    port = listener.getsockname()[1]
    try:
        log = await open_log(
            lambda _paths, base: [SyslogAnchor("localhost", port, tmp_path / "ca.pem", base.clock)]
        )
        await log.grow()
        checkpoint = await log.checkpoints.sign()
        await until(whole.is_set)
        length, _, message = b"".join(got).partition(b" ")
        assert int(length) == len(message)
        assert message.startswith(b"<109>1 ")
        assert base64.b64decode(message.rpartition(b"note=")[2]).decode() == checkpoint.note
        with pytest.raises(AnchorFailed, match="cannot be reached"):
            await SyslogAnchor("127.0.0.1", port, None, log.base.clock).push(checkpoint)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
