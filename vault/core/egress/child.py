"""The process that makes one request and ends: run by `calls.py` as `python -I -m vault.core.egress.child`.

What a TLS library does with a secret leaves copies that nobody can wipe; here they go back to the kernel with the
process. It reads one request from its standard input, and writes one answer to its standard output: a JSON head behind
four bytes of its length, then the secrets, each as long as the head says. It is hardened as a worker is, has an empty
environment, and is killed by the kernel if the worker ends.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import sys
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from vault.core.egress.addresses import AddressRefusedError, resolve
from vault.core.egress.leaks import leaks
from vault.crypto.hardening import end_with_parent, harden_process

_CHUNK = 65_536
_MAX_HEADERS = 100
_DROPPED = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade", "set-cookie", "set-cookie2", "location", "refresh", "content-length", "www-authenticate", "alt-svc",
    }
)  # fmt: skip


_MAX_INTERIM = 8
_SWITCHING = 101


class _Answer(http.client.HTTPResponse):
    """An answer behind any interim ones (RFC 9110, 15.2): of those the library passes over one kind only."""

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MAX_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]  # missing from the stubs
            if status // 100 != 1 or status == _SWITCHING:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.BadStatusLine("no answer behind the interim ones")


class _RefusedError(Exception):
    """The request is not made, or its answer not shown; the text says which, and holds nothing else."""


def run(head: dict[str, Any], secrets: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """Make the request; give the answer's head, and what was captured."""
    request = _assemble(head, secrets)
    status, headers, body = _exchange(head, request)
    captured: list[bytes] = []
    if head["capture"] and 200 <= status < 300:  # noqa: PLR2004
        body, captured = _capture(head["capture"], body)
    if captured and head["only_captures"]:
        return {"status": status, "headers": {}, "body": ""}, captured
    shown = {name: value for name, value in headers if name not in _DROPPED}
    text = "\n".join(f"{name}: {value}" for name, value in shown.items()).encode()
    hidden = [secret for secret, told in zip(secrets, head["secret"], strict=True) if told]
    kept = [value for value, told in zip(captured, head["capture_secret"], strict=False) if told]
    if leaks(text + b"\n" + body, hidden + kept):
        raise _RefusedError("withheld")
    return {"status": status, "headers": shown, "body": base64.b64encode(body).decode()}, captured


class _Request:
    def __init__(self, head: dict[str, Any]) -> None:
        self.path: str = head["path"]
        self.query: list[tuple[str, str]] = [(name, value) for name, value in head["query"]]
        self.headers: dict[str, str] = dict(head["headers"])
        self.body: bytes = base64.b64decode(head["body"])
        self.certificate: bytes = b""


def _assemble(head: dict[str, Any], secrets: list[bytes]) -> _Request:
    """Put the secrets where the connector says. What the caller put there gives way."""
    request = _Request(head)
    given = iter(secrets)
    for injection in head["inject"]:
        values = [next(given) for _ in range(injection["values"])]
        _inject(request, injection["place"], injection["name"], values)
    return request


def _inject(request: _Request, place: str, name: str, values: list[bytes]) -> None:
    if place == "tls":
        request.certificate = values[0] + b"\n" + values[1]
        return
    try:
        texts = [value.decode() for value in values]
    except UnicodeDecodeError:
        raise _RefusedError("unsuitable") from None
    if place == "query":
        request.query = [*(pair for pair in request.query if pair[0] != name), (name, texts[0])]
    elif place == "form":
        _into_form(request, name, texts[0])
    elif place == "json":
        _into_json(request, name, texts[0])
    else:
        _into_header(request, place, name, texts)


def _into_header(request: _Request, place: str, name: str, texts: list[str]) -> None:
    if not all(text.isprintable() and text.isascii() for text in texts):
        raise _RefusedError("unsuitable")
    text = texts[0]
    if place == "bearer":
        name, text = "authorization", f"Bearer {text}"
    elif place == "basic":
        name, text = "authorization", "Basic " + base64.b64encode(":".join(texts).encode()).decode()
    request.headers = {key: value for key, value in request.headers.items() if key.lower() != name.lower()}
    request.headers[name] = text


def _into_form(request: _Request, name: str, text: str) -> None:
    try:
        pairs = parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=bool(request.body))
    except ValueError:
        raise _RefusedError("body") from None
    request.body = urlencode([*(pair for pair in pairs if pair[0] != name), (name, text)]).encode()
    request.headers["content-type"] = "application/x-www-form-urlencoded"


def _into_json(request: _Request, name: str, text: str) -> None:
    document = _object(request.body or b"{}")
    at = document
    *parents, last = name.removeprefix("/").split("/")
    for part in parents:
        at = at.setdefault(part, {})
        if not isinstance(at, dict):
            raise _RefusedError("body")
    at[last] = text
    request.body = json.dumps(document).encode()
    request.headers["content-type"] = "application/json"


def _exchange(head: dict[str, Any], request: _Request) -> tuple[int, list[tuple[str, str]], bytes]:
    host, port = head["host"], head["port"]
    try:
        address = resolve(host, port, loopback=head["loopback"])
        raw = socket.create_connection((address, port), timeout=head["seconds"])
    except AddressRefusedError:
        raise _RefusedError("address") from None
    except OSError:
        raise _RefusedError("unreachable") from None
    try:
        with raw:
            secured = _context(head, request).wrap_socket(raw, server_hostname=host)
    except (OSError, ssl.SSLError):
        raise _RefusedError("unreachable") from None
    with secured:
        return _converse(head, request, secured)


def _converse(
    head: dict[str, Any], request: _Request, secured: ssl.SSLSocket
) -> tuple[int, list[tuple[str, str]], bytes]:
    host, port = head["host"], head["port"]
    connection = http.client.HTTPConnection(host, port, timeout=head["seconds"])
    connection.sock = secured
    connection.response_class = _Answer
    target = request.path
    if request.query:
        target += "?" + urlencode(request.query, quote_via=quote)
    try:
        connection.putrequest(head["method"], target, skip_host=True, skip_accept_encoding=True)
        authority = host if port == 443 else f"{host}:{port}"  # noqa: PLR2004
        for name, value in {
            "Host": authority, "Accept-Encoding": "identity", "Connection": "close", **request.headers,
        }.items():  # fmt: skip
            connection.putheader(name, value)
        if request.body or head["method"] not in ("GET", "HEAD", "DELETE"):
            connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body or None)
        with contextlib.closing(connection.getresponse()) as answer:
            body = answer.read(head["response_bytes"] + 1)
    except (OSError, http.client.HTTPException, ValueError):
        raise _RefusedError("failed") from None
    headers = [(name.lower(), value) for name, value in answer.getheaders()]
    # What is compressed could hide a secret, and was not asked for. One chunking is the library's to undo.
    encodings = {value.lower() for name, value in headers if name == "content-encoding"}
    transfers = [value.lower() for name, value in headers if name == "transfer-encoding"]
    cut_off = answer.length and len(body) <= head["response_bytes"]
    if len(body) > head["response_bytes"] or cut_off or len(headers) > _MAX_HEADERS:
        raise _RefusedError("failed")
    if encodings - {"identity"} or transfers not in ([], ["chunked"]):
        raise _RefusedError("failed")
    return answer.status, headers, body


def _context(head: dict[str, Any], request: _Request) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=head["ca_file"] or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if request.certificate:
        # The library reads files only: one that lies in memory and has no name.
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        os.write(descriptor, request.certificate)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)
    return context


def _capture(rules: list[dict[str, str]], body: bytes) -> tuple[bytes, list[bytes]]:
    """Take values out of the answer, and put the handle in their place. A shown one stays.

    What is optional and not there, or not a text or a number where nothing has to be hidden, is empty.
    """
    document = _object(body, "withheld")
    captured = []
    for rule in rules:
        *parents, last = rule["pointer"].removeprefix("/").split("/")
        at: Any = document
        for part in parents:
            at = at.get(part) if isinstance(at, dict) else None
        value = at.get(last) if isinstance(at, dict) else None
        usable = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
        if not usable and rule["optional"] and (value in (None, "") or not rule["handle"]):
            captured.append(b"")
            continue
        if not usable:
            raise _RefusedError("withheld")
        captured.append(str(value).encode())
        if rule["handle"]:
            at[last] = rule["handle"]
    return json.dumps(document).encode(), captured


def _object(body: bytes, otherwise: str = "body") -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _RefusedError(otherwise) from None
    if not isinstance(document, dict):
        raise _RefusedError(otherwise)
    return document


def _read(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(0, min(size, _CHUNK))
        if not part:
            raise SystemExit(1)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def main() -> None:
    """Read one request, make it, write one answer."""
    harden_process()
    end_with_parent(signal.SIGKILL)
    head = json.loads(_read(int.from_bytes(_read(4), "big")))
    signal.alarm(int(head["seconds"]) + 1)
    secrets = [_read(size) for size in head["sizes"]]
    captured: list[bytes] = []
    try:
        answer, captured = run(head, secrets)
    except _RefusedError as error:
        answer = {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - its text may hold anything, its type does not
        answer = {"error": "failed", "type": type(error).__name__}
    answer["sizes"] = [len(value) for value in captured]
    text = json.dumps(answer).encode()
    sys.stdout.buffer.write(len(text).to_bytes(4, "big") + text + b"".join(captured))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
