"""The process that makes a request: what it sends, and what of an answer it passes on."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import socket
import ssl
import threading
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from vault.cli.pki import ensure_pki
from vault.core.egress import child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = b"a-secret-of-some-length"


class Provider:
    """Takes one request at a time and answers with whatever bytes it is told to."""

    def __init__(self, pki: Path) -> None:
        self.pki = pki
        self.ca_file = pki / "ca.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "server.pem", pki / "server-key.pem")
        context.load_verify_locations(pki / "ca.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        self._listener = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
        self.port = self._listener.getsockname()[1]
        self.answer = b""
        self.seen = b""
        self.certificate: bytes | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except ssl.SSLError:
                continue
            except OSError:
                return
            # Who asked may leave in the middle.
            with connection, contextlib.suppress(OSError):
                self.certificate = connection.getpeercert(binary_form=True)
                self.seen = _request(connection)
                connection.sendall(self.answer)

    def ask(self, secrets: list[bytes] | None = None, **changes: Any) -> tuple[dict[str, Any], list[bytes]]:
        """Have a request made, by default with the secret as bearer."""
        head = {
            "host": "localhost", "port": self.port, "method": "GET", "path": "/", "query": [], "headers": {},
            "body": "", "inject": [{"place": "bearer", "name": "", "values": 1}], "secret": [True],
            "capture": [], "capture_secret": [], "response_bytes": 1000, "seconds": 5, "loopback": True,
            "only_captures": False, "ca_file": str(self.ca_file), **changes,
        }  # fmt: skip
        return child.run(head, secrets or [SECRET])

    def refused(self, answer: bytes, **changes: Any) -> str:
        self.answer = answer
        with pytest.raises(child._RefusedError) as caught:
            self.ask(**changes)
        return str(caught.value)


def _request(connection: socket.socket) -> bytes:
    seen = b""
    while b"\r\n\r\n" not in seen:
        seen += _part(connection)
    head, _, body = seen.partition(b"\r\n\r\n")
    length = int(re.findall(rb"(?i)content-length: (\d+)", head + b"\r\ncontent-length: 0")[0])
    while len(body) < length:
        body += _part(connection)
    return head + b"\r\n\r\n" + body


def _part(connection: socket.socket) -> bytes:
    if part := connection.recv(65_536):
        return part
    raise ConnectionError("it left in the middle")


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    folder = tmp_path_factory.mktemp("egress-child")
    ensure_pki(folder, {"caller": "spiffe://bank.example/caller"})
    made = Provider(folder)
    yield made
    made.close()


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, *headers: str) -> bytes:
    head = "\r\n".join(["HTTP/1.1 200 OK", *headers]).encode()
    return head + b"\r\n\r\n" + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


def test_it_asks_for_nothing_compressed_and_frames_the_message_itself(provider: Provider) -> None:
    provider.answer = http(b"{}")
    provider.ask(
        method="POST", headers={"content-type": "text/plain"}, body=base64.b64encode(b"abc").decode()
    )
    head, _, body = provider.seen.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post / http/1.1"
    assert sorted(lines[1:]) == [
        "accept-encoding: identity",
        f"authorization: bearer {SECRET.decode()}",
        "connection: close",
        "content-length: 3",
        "content-type: text/plain",
        f"host: localhost:{provider.port}",
    ]
    assert body == b"abc"


@pytest.mark.parametrize(
    ("place", "name", "secrets", "given", "sent"),
    [
        ("bearer", "", [SECRET], {"headers": {"Authorization": "mine"}}, ["authorization: Bearer " + SECRET.decode()]),
        ("header", "X-Key", [SECRET], {"headers": {"x-key": "mine"}}, ["X-Key: " + SECRET.decode()]),
        ("basic", "", [b"user", b"pass"], {"headers": {}}, ["authorization: Basic dXNlcjpwYXNz"]),
        ("query", "key", [b"a&b=c d"], {"query": [["key", "mine"], ["x", "1"]]},
         ["GET /?x=1&key=a%26b%3Dc%20d HTTP/1.1"]),
        ("form", "key", [b"a&b"], {"body": b"x=1&key=mine"}, ["x=1&key=a%26b"]),
        ("json", "/deep/key", [b'a"b'], {"body": b'{"x": 1, "deep": {"key": "mine"}}'},
         ['{"x": 1, "deep": {"key": "a\\"b"}}']),
    ],
    ids=["bearer", "header", "basic", "query", "form", "json"],
)  # fmt: skip
def test_the_secret_goes_where_the_connector_says_and_what_the_caller_put_there_gives_way(
    provider: Provider, place: str, name: str, secrets: list[bytes], given: dict[str, Any], sent: list[str]
) -> None:
    provider.answer = http(b"{}")
    if "body" in given:
        given = {"body": base64.b64encode(given["body"]).decode(), "method": "POST"}
    inject = [{"place": place, "name": name, "values": len(secrets)}]
    provider.ask(secrets, inject=inject, secret=[True] * len(secrets), **given)
    text = provider.seen.decode()
    for line in sent:
        assert line in text.split("\r\n")
    assert "mine" not in text


def test_a_client_certificate_is_shown_to_the_provider(provider: Provider) -> None:
    provider.answer = http(b"{}")
    provider.ask()
    assert provider.certificate is None
    certificate, key = ((provider.pki / f"caller{end}").read_bytes() for end in (".pem", "-key.pem"))
    inject = [{"place": "tls", "name": "", "values": 2}]
    provider.ask([certificate, key], inject=inject, secret=[False, True])
    assert provider.certificate == ssl.PEM_cert_to_DER_cert(certificate.decode())
    assert key.splitlines()[1] not in provider.seen


# The provider echoes the secret, in a form that the search cannot look through.
HIDDEN = json.dumps({"echo": SECRET.decode()}).encode()
UNREADABLE = {
    "gzip": http(gzip.compress(HIDDEN), "Content-Encoding: gzip"),
    "GZIP": http(gzip.compress(HIDDEN), "Content-Encoding: GZIP"),
    "deflate": http(zlib.compress(HIDDEN), "Content-Encoding: deflate"),
    "br": http(b"\x0b\x02\x80", "Content-Encoding: br"),
    "zstd": http(b"\x28\xb5\x2f\xfd", "Content-Encoding: zstd"),
    "gzip behind identity": http(
        gzip.compress(HIDDEN), "Content-Encoding: identity", "Content-Encoding: gzip"
    ),
    "a list": http(gzip.compress(HIDDEN), "Content-Encoding: identity, gzip"),
    "gzip as transfer coding": http(gzip.compress(HIDDEN), "Transfer-Encoding: gzip"),
    "gzip before chunked": chunked(gzip.compress(HIDDEN), "Transfer-Encoding: gzip, chunked"),
    "gzip and chunked": chunked(
        gzip.compress(HIDDEN), "Transfer-Encoding: gzip", "Transfer-Encoding: chunked"
    ),
}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_answer_that_nobody_asked_to_be_compressed_is_none(provider: Provider, answer: bytes) -> None:
    assert provider.refused(answer) == "failed"


UNUSABLE = {
    "too long": http(b"x" * 1001),
    "too long in chunks": chunked(b"x" * 1001, "Transfer-Encoding: chunked"),
    "too many headers": http(b"{}", *(f"X-{number}: y" for number in range(101))),
    "a header too long": http(b"{}", f"X: {'y' * 70_000}"),
    "no HTTP": b"hello\r\n\r\n",
    "HTTP/2 without being asked": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "nothing": b"",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("answer", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_answer_of_the_wrong_form_or_size_is_none(provider: Provider, answer: bytes) -> None:
    assert provider.refused(answer) == "failed"


SHOWN = {
    "in the body": http(HIDDEN),
    "in chunks": chunked(HIDDEN, "Transfer-Encoding: chunked"),
    "in JSON escapes": http(b'{"echo": "' + "".join(f"\\u{byte:04x}" for byte in SECRET).encode() + b'"}'),
    "in a header": http(b"{}", f"X-Echo: {SECRET.decode()}"),
    "in base64 in a header": http(b"{}", f"X-Echo: {base64.b64encode(b'bearer ' + SECRET).decode()}"),
    "in hex": http(SECRET.hex().upper().encode()),
    "in UTF-16": http(SECRET.decode().encode("utf-16")),
    "with an error": http(HIDDEN, status="401 Unauthorized"),
}


@pytest.mark.parametrize("answer", SHOWN.values(), ids=SHOWN.keys())
def test_an_answer_that_shows_the_secret_is_withheld(provider: Provider, answer: bytes) -> None:
    assert provider.refused(answer) == "withheld"


INTERIM = "".join(
    f"HTTP/1.1 {status}\r\nLink: </x>\r\n\r\n"
    for status in ("100 Continue", "102 Processing", "103 Early Hints")
)


def test_what_comes_before_the_answer_is_no_answer(provider: Provider) -> None:
    provider.answer = INTERIM.encode() + http(b'{"done": true}')
    answer, _ = provider.ask()
    assert (answer["status"], base64.b64decode(answer["body"])) == (200, b'{"done": true}')
    assert "link" not in answer["headers"]
    assert provider.refused(INTERIM.encode() * 5 + http(b"{}")) == "failed", "there is an end to it"


def test_a_redirect_is_an_answer_like_any_other_and_leads_nowhere(provider: Provider) -> None:
    provider.answer = http(
        b"{}",
        "Location: https://127.0.0.1/elsewhere",
        "Refresh: 0; url=https://127.0.0.1/",
        "Set-Cookie: a=b",
        "X-Kept: 1",
        status="302 Found",
    )
    answer, _ = provider.ask()
    assert (answer["status"], answer["headers"]) == (302, {"x-kept": "1"})


def test_no_proxy_of_the_environment_is_used(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    provider.answer = http(b"{}")
    assert provider.ask()[0]["status"] == 200


@pytest.mark.parametrize("secret", [b"a\r\nHost: evil.example", b"a\0b", b"caf\xc3\xa9", b"\xff\xfe"])
def test_a_secret_that_would_break_out_of_its_header_is_not_sent(provider: Provider, secret: bytes) -> None:
    provider.seen = b""
    head = {"inject": [{"place": "header", "name": "x-key", "values": 1}], "headers": {}, "body": ""}
    with pytest.raises(child._RefusedError, match="unsuitable"):
        child.run({"path": "/", "query": [], **head}, [secret])
    assert provider.seen == b""


def test_a_certificate_for_another_name_is_not_talked_to(provider: Provider) -> None:
    provider.answer = http(b"{}")
    assert provider.refused(http(b"{}"), host="localhost.localdomain", loopback=True) in (
        "unreachable",
        "address",
    )
    assert provider.refused(http(b"{}"), ca_file="") == "unreachable"
