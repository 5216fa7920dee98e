"""What happens while a session opens ends it too: it takes an HSM its time, and a caller, to whom it is greeting."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import pytest

from tests.faults.hsm.shim import Shim
from tests.integration.wire import OPEN, Books, Wire, until
from tests.support.postgres import owner_url
from tests.support.vault import VaultSite
from vault.client.sealing import Recipient
from vault.v1 import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from tests.support.postgres import Postgres
    from vault.client import Profile

pytestmark = pytest.mark.alone

SLOW = 2_000_000  # microseconds


class World:
    """A vault whose HSM can be made slow, and its books."""

    def __init__(self, site: VaultSite, shim: Shim) -> None:
        self.site = site
        self.shim = shim
        self.books = Books(site)
        self._unwrapped = 0

    def wait_for_unwrapping(self) -> None:
        """Wait until the HSM unwraps: what is opened was looked up then."""
        until(lambda: self.shim.calls("C_Decrypt") > self._unwrapped)

    @contextlib.contextmanager
    def slow_hsm(self) -> Iterator[None]:
        """Each unwrapping takes longer than it takes every worker to hear of a change."""
        self._unwrapped = self.shim.calls("C_Decrypt")
        self.shim.delay("C_Decrypt", SLOW)
        try:
            yield
        finally:
            self.shim.heal()

    def put(self, name: str) -> str:
        with self.site.client() as client:
            client.put(name, {"password": "p"}, kind="bank_login")
        return name

    def records(self, where: str) -> list[dict[str, Any]]:
        return self.books.rows(f"SELECT * FROM audit_records WHERE {where} ORDER BY sequence")

    def ends(self, session_id: str) -> list[dict[str, Any]]:
        return self.records(f"session_id = '{session_id}' AND action_type = 'session.close'")


@pytest.fixture(scope="module")
def world(
    softhsm: tuple[str, Path], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("vault-openings")
    shim = Shim.build(folder)
    settings: dict[str, dict[str, object]] = {"hsm": {"wait_seconds": 10.0, "hang_seconds": 10.0}}
    site = VaultSite(folder / "vault", postgres.create_database("vault_openings"), *softhsm, settings)
    site.prepare()  # by SoftHSM itself: this process does not load the proxy
    site.hsm_uri = shim.uri(site.hsm_uri)
    site.environment = shim.environment
    site.write_config()
    site.start()
    with site.system() as system:
        system.create_tenant("acme")
    made = World(site, shim)
    yield made
    shim.reset()
    made.books.close()
    site.stop()


def start_on(name: str) -> pb.SessionStart:
    return pb.SessionStart(
        credentials=[pb.CredentialSelector(name=name)], purpose="t", recipient_key=Recipient().public_bytes
    )


GONE: dict[str, Callable[[Wire, str], Any]] = {
    "deleted": lambda wire, name: wire.call("/vault.v1.CredentialService/Delete", name=name),
    "destroyed": lambda wire, name: wire.call(
        "/vault.v1.CredentialService/DestroyVersion", name=name, version=1
    ),
    "suspended": lambda wire, name: wire.call(
        "/vault.v1.CredentialService/SetStanding", name=name, standing=4, note="under suspicion"
    ),
}


@pytest.mark.parametrize("way", GONE)
def test_a_credential_that_goes_while_it_is_opened_ends_the_session(world: World, way: str) -> None:
    name = world.put(f"acme/openings/session/{way}")
    with Wire(world.site.profile("payments")) as wire, Wire(world.site.profile("payments")) as other:
        other.token, wire.token  # noqa: B018 - issued while the HSM is quick
        with wire.stream() as stream:
            with world.slow_hsm():
                stream.send(start=start_on(name))
                world.wait_for_unwrapping()
                assert GONE[way](other, name).ok
                session_id = stream.read().opened.session_id
            stream.send(operation_id=1, reveal=pb.RevealOperation(name=name))
            assert stream.read().revoked == pb.SessionRevoked(
                reason=pb.CLOSE_REASON_CREDENTIAL_GONE, name=name
            )
            closed = stream.read().closed
    assert (closed.reason, closed.reveals, closed.buffers_wiped) == (pb.CLOSE_REASON_CREDENTIAL_GONE, 0, 2)
    (end,) = world.ends(session_id)
    assert json.loads(end["after_state"])["reason"] == "credential-gone"


def test_a_credential_that_goes_while_it_is_revealed_by_one_call_is_not_revealed(world: World) -> None:
    name = world.put("acme/openings/reveal")
    request = pb.SessionServiceRevealRequest(
        credentials=[pb.CredentialSelector(name=name)], purpose="t", recipient_key=Recipient().public_bytes
    )
    answers = []
    with Wire(world.site.profile("payments")) as wire, Wire(world.site.profile("payments")) as other:
        other.token, wire.token  # noqa: B018
        asking = threading.Thread(
            target=lambda: answers.append(wire.call("/vault.v1.SessionService/Reveal", request))
        )
        with world.slow_hsm():
            asking.start()
            world.wait_for_unwrapping()
            assert GONE["deleted"](other, name).ok
            asking.join()
    assert answers[0].reason == "CREDENTIAL_DELETED"
    assert not world.records(
        f"action_type = 'session.reveal' AND resource = '{name}' AND outcome = 'granted'"
    )


def test_a_session_whose_caller_goes_while_it_opens_has_an_end_in_the_log(world: World) -> None:
    name = world.put("acme/openings/left")
    with Wire(world.site.profile("payments")) as wire:
        wire.token  # noqa: B018
        unwrapped = world.shim.calls("C_Decrypt")
        with _held_log(world.site), wire.stream() as stream:
            stream.send(start=start_on(name))
            until(lambda: world.shim.calls("C_Decrypt") > unwrapped)
            time.sleep(0.5)  # what is left is to hand in the record, which cannot be written now
            stream._call.cancel()
            time.sleep(0.2)
    (begun,) = until(lambda: world.records(f"resource = '{name}' AND action_type = 'session.open'"))
    (end,) = until(lambda: world.ends(begun["session_id"]))
    receipt = json.loads(end["after_state"])
    assert (receipt["reason"], receipt["buffers"], receipt["buffers_wiped"]) == ("disconnected", 2, 2)


def test_a_session_ends_within_a_second_though_its_caller_never_takes_the_greeting(world: World) -> None:
    name = world.put("acme/openings/deaf")
    with Wire(world.site.profile("payments")) as wire:
        issued = wire.issue("session.reveal:acme/**")
        with _DeafCaller(world.site.profile("payments"), world.site.port) as deaf:
            deaf.open(issued.token, pb.SessionServiceOpenRequest(start=start_on(name)))
            opened = f"resource = '{name}' AND action_type = 'session.open'"
            session_id = until(lambda: world.records(opened))[0]["session_id"]
            cause = time.time()
            assert wire.call("/vault.v1.TokenService/Revoke", token_id=issued.token_id).ok
            (end,) = until(lambda: world.ends(session_id))
    assert end["created_at"].timestamp() - cause < 1
    assert json.loads(end["after_state"])["reason"] == "token-revoked"


@contextlib.contextmanager
def _held_log(site: VaultSite) -> Iterator[None]:
    """Nothing is committed to the log meanwhile."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(owner_url(site.database_url)))
        runner.run(connection.execute("BEGIN"))
        runner.run(connection.fetch("SELECT size FROM audit_head FOR UPDATE"))
        try:
            yield
        finally:
            runner.run(connection.execute("ROLLBACK"))
            runner.run(connection.close())


class _DeafCaller:
    """An HTTP/2 client that lets the server send no data at all (RFC 9113, 6.9.2), and does as it should otherwise."""

    def __init__(self, profile: Profile, port: int) -> None:
        context = ssl.create_default_context(cafile=str(profile.ca_file))
        context.load_cert_chain(profile.certificate_file, profile.private_key_file)
        context.set_alpn_protocols(["h2"])
        self._socket = context.wrap_socket(
            socket.create_connection(("127.0.0.1", port)), server_hostname="localhost"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def open(self, token: str, start: pb.SessionServiceOpenRequest) -> None:
        message = start.SerializeToString()
        headers = {
            ":method": "POST", ":scheme": "https", ":path": OPEN, ":authority": "localhost",
            "content-type": "application/grpc", "te": "trailers", "authorization": f"Bearer {token}",
        }  # fmt: skip
        no_window = struct.pack(">HI", 4, 0)
        self._socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(4, 0, 0, no_window)
            + _frame(
                1,
                4,
                1,
                b"".join(_literal(name) + _literal(value, first=b"") for name, value in headers.items()),
            )
            + _frame(0, 0, 1, b"\0" + struct.pack(">I", len(message)) + message)
        )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _literal(text: str, *, first: bytes = b"\0") -> bytes:
    """A name or a value that is not indexed (RFC 7541, 6.2.2), its length in an integer of 7 bits (5.1)."""
    size, prefix = len(text), b""
    if size < 127:
        return first + bytes([size]) + text.encode()
    size -= 127
    while size >= 128:
        prefix += bytes([size % 128 | 128])
        size //= 128
    return first + b"\x7f" + prefix + bytes([size]) + text.encode()
