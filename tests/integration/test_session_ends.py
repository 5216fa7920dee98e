"""The ways a session ends: each within a second of its cause, wiped, and in the log with its reason and receipt."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest

from tests.integration.test_policy import BASE, SECOND_PERSON, WITHOUT_PAYMENTS, apply
from tests.integration.test_trust import crl, write
from tests.integration.wire import Books, Wire, until
from tests.support.postgres import free_port
from tests.support.vault import TRUST_DOMAIN, VaultSite, client_extensions, issue_certificate
from vault.client.sealing import Recipient
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.wire import Stream
    from tests.support.postgres import Postgres

pytestmark = pytest.mark.alone

NAME = "acme/ends/login"
GONE = "acme/ends/gone"
LARGE = "acme/ends/large"
AT_MOST = 1.0
IDLE = 13
"""Seconds: longer than anything here takes between two operations."""


class World:
    """A vault with a revocation list, and what is known of it."""

    def __init__(self, site: VaultSite) -> None:
        self.site = site
        self.books = Books(site)
        self.left_alone = ""
        self.last_used = 0.0, 0.0
        """Between which moments the vault last heard of it."""

    def has_ended(self, session_id: str) -> bool:
        return bool(self._records_of_end(session_id))

    def record_of_end(self, session_id: str) -> dict[str, Any]:
        (record,) = until(lambda: self._records_of_end(session_id))
        return record  # type: ignore[no-any-return]

    def _records_of_end(self, session_id: str) -> list[dict[str, Any]]:
        return self.books.rows(
            "SELECT created_at, after_state FROM audit_records "
            f"WHERE session_id = '{session_id}' AND action_type = 'session.close'"
        )


@pytest.fixture(scope="module")
def world(
    softhsm: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("vault-ends")
    settings: dict[str, dict[str, object]] = {
        "tls": {"client_crl_file": "pki/crl.pem"},
        "sessions": {"idle_seconds": IDLE},
    }
    site = VaultSite(folder, postgres.create_database("vault_ends"), softhsm[0], softhsm[1], settings)
    site.prepare()
    (folder / "policy.cedar").write_text(BASE)
    write(folder / "pki/crl.pem", crl(folder / "pki", "globex"))
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    with site.client() as client:
        for name in (NAME, GONE):
            client.put(name, {"password": "p", "username": "u"}, kind="bank_login")
    made = World(site)
    # Opened now and left alone, so that no test has to wait for it.
    with Wire(site.profile("payments")) as wire, wire.stream(timeout=300) as stream:
        began = time.time()
        made.left_alone = opened(stream)
        made.last_used = began, time.time()
        yield made
    made.books.close()
    if site.process is not None and site.process.poll() is None:
        site.stop()


def opened(stream: Stream, name: str = NAME, seconds: int = 0) -> str:
    """Open a session, reveal once, and give its id."""
    start = pb.SessionStart(
        credentials=[pb.CredentialSelector(name=name)], purpose="t", recipient_key=Recipient().public_bytes
    )
    if seconds:
        start.ttl.seconds = seconds
    session_id: str = stream.ask(start=start).opened.session_id
    stream.send(operation_id=1, reveal=pb.RevealOperation(name=name))
    assert next_of(stream).WhichOneof("message") == "reveal"
    return session_id


def next_of(stream: Stream) -> Any:
    """The next message that is not said because the session will soon end."""
    message = stream.read()
    while message.WhichOneof("message") == "expiring":
        message = stream.read()
    return message


def holds(
    world: World, session_id: str, cause: float, reason: str, *, late: float = AT_MOST
) -> dict[str, Any]:
    """What the log says of the end, held against its cause (seconds since 1970) and how it must be."""
    record = world.record_of_end(session_id)
    receipt: dict[str, Any] = json.loads(record["after_state"])
    after = record["created_at"].timestamp() - cause
    assert -0.05 <= after <= late, f"recorded {after:.3f} s after its cause"
    assert receipt["reason"] == reason
    assert (receipt["reveals"], receipt["uses"]) == (1, 0)
    assert receipt["buffers"] == receipt["buffers_wiped"] == 2
    assert receipt["milliseconds"] >= 0
    return receipt


def told(stream: Stream, session_id: str, world: World, reason: int) -> pb.SessionClosed:
    """What the caller is told at the end, which is what the log says."""
    message, revoked = next_of(stream), None
    if message.WhichOneof("message") == "revoked":
        revoked, message = message.revoked, stream.read()
    assert message.closed.reason == reason
    taken = (
        pb.CLOSE_REASON_TOKEN_REVOKED,
        pb.CLOSE_REASON_CERTIFICATE_REVOKED,
        pb.CLOSE_REASON_CREDENTIAL_GONE,
    )
    assert (revoked is not None) == (reason in taken)
    if revoked is not None:
        assert revoked.reason == reason
        assert bool(revoked.name) == (reason == pb.CLOSE_REASON_CREDENTIAL_GONE)
    receipt = json.loads(world.record_of_end(session_id)["after_state"])
    assert (message.closed.reveals, message.closed.buffers_wiped) == (
        receipt["reveals"],
        receipt["buffers_wiped"],
    )
    return message.closed  # type: ignore[no-any-return]


def test_closed_by_the_caller(world: World) -> None:
    with Wire(world.site.profile("payments")) as wire, wire.stream() as stream:
        session_id = opened(stream)
        cause = time.time()
        stream.send(close=pb.SessionClose())
        told(stream, session_id, world, pb.CLOSE_REASON_CLOSED_BY_CALLER)
        holds(world, session_id, cause, "closed-by-caller")


def test_cancelled_by_the_caller(world: World) -> None:
    with Wire(world.site.profile("payments")) as wire, wire.stream() as stream:
        session_id = opened(stream)
        cause = time.time()
        stream._call.cancel()
        holds(world, session_id, cause, "disconnected")


def test_its_connection_lost(world: World) -> None:
    with _Line(world.site.port) as line:
        wire = Wire(world.site.profile("payments"))
        issued = wire.token
        wire.channel.close()
        wire.channel = grpc.secure_channel(
            f"localhost:{line.port}", wire.profile.channel_credentials(), [("grpc.enable_retries", 0)]
        )
        with wire, wire.stream(bearer=issued) as stream:
            session_id = opened(stream)
            cause = time.time()
            line.cut()
            holds(world, session_id, cause, "disconnected")


_CHILD = """
import sys
from pathlib import Path
from vault.client import Client, Profile
f = Path(sys.argv[1])
p = Profile(sys.argv[2], f/"ca.pem", f/"payments.pem", f/"payments-key.pem", "acme", ("session.reveal:acme/**",))
with Client(p).session(sys.argv[3], purpose="t") as session:
    session.reveal()
    print(session.session_id, flush=True)
    sys.stdin.read()
"""


def test_its_caller_killed(world: World) -> None:
    arguments = [str(world.site.folder / "pki"), world.site.address, NAME]
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        session_id = child.stdout.readline().decode().strip()
        cause = time.time()
        os.kill(child.pid, signal.SIGKILL)
        holds(world, session_id, cause, "disconnected")


def test_its_token_expired(world: World) -> None:
    with Wire(world.site.profile("payments")) as wire:
        issued = wire.issue("session.reveal:acme/**", seconds=4)
        with wire.stream(bearer=issued.token) as stream:
            session_id = opened(stream)
            told(stream, session_id, world, pb.CLOSE_REASON_TOKEN_ENDED)
            holds(world, session_id, issued.expire_time.ToNanoseconds() / 1e9, "token-ended")


def test_its_own_time_over(world: World) -> None:
    with Wire(world.site.profile("payments")) as wire, wire.stream() as stream:
        began = time.time()
        session_id = opened(stream, seconds=2)
        opening = time.time() - began
        told(stream, session_id, world, pb.CLOSE_REASON_EXPIRED)
        receipt = holds(world, session_id, began + 2, "expired", late=1.5)
        # Its life counts from when it was asked for, the receipt from when everything was open.
        assert 2000 - 1000 * opening <= receipt["milliseconds"] < 3000


def test_its_token_revoked(world: World) -> None:
    with Wire(world.site.profile("payments")) as wire:
        issued = wire.issue("session.reveal:acme/**")
        with wire.stream(bearer=issued.token) as stream:
            session_id = opened(stream)
            cause = time.time()
            assert wire.call("/vault.v1.TokenService/Revoke", token_id=issued.token_id).ok
            told(stream, session_id, world, pb.CLOSE_REASON_TOKEN_REVOKED)
            holds(world, session_id, cause, "token-revoked")


def test_its_certificate_revoked(world: World) -> None:
    pki = world.site.folder / "pki"
    uri = f"spiffe://{TRUST_DOMAIN}/payments"
    issue_certificate(pki, "short", client_extensions(uri), life=datetime.timedelta(hours=1))
    with (
        Wire(world.site.profile("short")) as wire,
        wire.stream() as stream,
        Wire(world.site.profile("payments")) as other,
        other.stream() as staying,
    ):
        session_id = opened(stream)
        opened(staying)
        cause = time.time()
        write(pki / "crl.pem", crl(pki, "globex", "short"))
        told(stream, session_id, world, pb.CLOSE_REASON_CERTIFICATE_REVOKED)
        holds(world, session_id, cause, "certificate-revoked")
        assert (
            staying.ask(operation_id=2, reveal=pb.RevealOperation(name=NAME)).WhichOneof("message")
            == "reveal"
        )


@pytest.mark.parametrize("way", ["deleted", "destroyed", "suspended", "revoked at its provider"])
def test_its_credential_gone(world: World, way: str) -> None:
    ways: dict[str, Callable[[Wire], Any]] = {
        "deleted": lambda wire: wire.call("/vault.v1.CredentialService/Delete", name=GONE),
        "destroyed": lambda wire: wire.call(
            "/vault.v1.CredentialService/DestroyVersion", name=GONE, version=wire.call(
                "/vault.v1.CredentialService/Get", name=GONE
            ).response.credential.latest_version,
        ),
        "suspended": lambda wire: wire.call(
            "/vault.v1.CredentialService/SetStanding", name=GONE, standing=4, note="under suspicion"
        ),
        "revoked at its provider": lambda wire: wire.call(
            "/vault.v1.CredentialService/SetStanding", name=GONE, standing=5, note="gone"
        ),
    }  # fmt: skip
    with Wire(world.site.profile("payments")) as wire, wire.stream() as stream:
        session_id = opened(stream, GONE)
        cause = time.time()
        assert ways[way](wire).ok
        told(stream, session_id, world, pb.CLOSE_REASON_CREDENTIAL_GONE)
        holds(world, session_id, cause, "credential-gone")
        if way == "deleted":
            assert wire.call("/vault.v1.CredentialService/Undelete", name=GONE).ok
        if way == "suspended":
            lifted = {"name": GONE, "standing": 1, "note": "cleared"}
            assert wire.call("/vault.v1.CredentialService/SetStanding", **lifted).ok
    if way == "destroyed":
        with world.site.client() as client:
            client.put(GONE, {"password": "p"}, kind="bank_login")


def test_a_caller_that_does_not_read_loses_its_session_and_nobody_elses(world: World) -> None:
    with world.site.client() as client:
        client.put(LARGE, {"value": "x" * 60_000}, kind="generic")
    with (
        Wire(world.site.profile("payments")) as wire,
        wire.stream(timeout=60) as stream,
        Wire(world.site.profile("ledger")) as other,
        other.stream() as reading,
    ):
        session_id = opened(stream, LARGE)
        opened(reading)
        pids = world.site.worker_pids()
        before = resident(pids)
        cause = time.time()
        for number in range(2, 500):
            stream.send(operation_id=number, reveal=pb.RevealOperation(name=LARGE))

        def reads_on() -> bool:
            asked = reading.ask(operation_id=2, reveal=pb.RevealOperation(name=NAME))
            assert asked.WhichOneof("message") == "reveal"
            return world.has_ended(session_id)

        until(reads_on, step=0.5)
        record = world.record_of_end(session_id)
        assert 9 < record["created_at"].timestamp() - cause < 25, "ten seconds for a message to be taken"
        receipt = json.loads(record["after_state"])
        assert (receipt["reason"], receipt["buffers_wiped"]) == ("failed", 2)
        assert receipt["reveals"] < 400, "what was asked beyond what could be answered was not begun"
        assert resident(pids) - before < 20_000, "30 MB of answers did not pile up"
        assert reads_on()


def test_left_alone_for_too_long(world: World) -> None:
    earliest, latest = world.last_used
    holds(world, world.left_alone, earliest + IDLE, "idle", late=AT_MOST + latest - earliest)


def resident(pids: list[int]) -> int:
    """KB of memory that processes have."""
    sizes = (re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0] for pid in pids)
    return sum(map(int, sizes))


def test_the_policy_changed(world: World) -> None:
    with Wire(world.site.profile("payments")) as wire, wire.stream() as stream:
        session_id = opened(stream)
        applied = apply(world.site, WITHOUT_PAYMENTS + SECOND_PERSON)
        told(stream, session_id, world, pb.CLOSE_REASON_POLICY_CHANGED)
        holds(world, session_id, applied.create_time.ToNanoseconds() / 1e9, "policy-changed")


def test_the_server_stopped(world: World) -> None:
    # The last: nothing runs after it.
    with Wire(world.site.profile("ledger")) as wire, wire.stream() as stream:
        session_id = opened(stream)
        assert world.site.process is not None
        cause = time.time()
        world.site.process.send_signal(signal.SIGTERM)
        told(stream, session_id, world, pb.CLOSE_REASON_SERVER_STOPPING)
        holds(world, session_id, cause, "server-stopping")


class _Line:
    """A line to the vault that can be cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._ends: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_arguments: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _accept(self) -> None:
        try:
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [ours, theirs]
                for source, sink in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=_carry, args=(source, sink), daemon=True).start()
        except OSError:
            return


def _carry(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
    except OSError:
        return
