"""A witness of C2SP `tlog-witness`: a real HTTP server that checks proofs and cosigns, as the specification says."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from vault.crypto import merkle, notes
from vault.crypto.errors import CryptoError


class Witness:
    """Knows one log by its keys. `latest` is the newest note that it cosigned."""

    def __init__(self, *, post_quantum: bool = False) -> None:
        self.private: Any = (
            mldsa.MLDSA44PrivateKey.generate() if post_quantum else ed25519.Ed25519PrivateKey.generate()
        )
        self.key = notes.cosigner_key("witness.example/w1", self.private.public_key())
        self.log_keys: list[str] = []
        self.origin = "strongroom/audit"
        self.size = 0
        self.root = hashlib.sha256().digest()
        self.latest = ""
        self.requests = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        witness = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/add-checkpoint"
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, kind, answer = witness.add(body)
                self._answer(status, kind, answer)

            def do_GET(self) -> None:
                digest = hashlib.sha256(witness.origin.encode()).hexdigest()
                if self.path == f"/{digest}/checkpoint" and witness.latest:
                    self._answer(200, "text/plain", witness.latest)
                else:
                    self._answer(404, "text/plain", "")

            def _answer(self, status: int, kind: str, answer: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, body: str) -> tuple[int, str, str]:  # noqa: PLR0911 - one for each of its answers
        """What the specification says, in its order."""
        with self._lock:
            self.requests += 1
            top, _, note = body.partition("\n\n")
            first, *lines = top.split("\n")
            old = int(first.removeprefix("old "))
            text = note.partition("\n\n")[0] + "\n"
            head = notes.checkpoint_head(text)
            if head.origin != self.origin:
                return 404, "text/plain", ""
            try:
                notes.verify_note(note, self.log_keys)
            except CryptoError:
                return 403, "text/plain", ""
            if old > head.size:
                return 400, "text/plain", ""
            if old != self.size:
                return 409, "text/x.tlog.size", f"{self.size}\n"
            proof = [base64.b64decode(line) for line in lines]
            try:
                if old:
                    merkle.verify_consistency(old, self.root, head.size, head.root, proof)
                elif proof:
                    return 422, "text/plain", ""
            except CryptoError:
                return 422, "text/plain", ""
            seconds = int(time.time())
            signature = self.private.sign(notes.cosigned_message(self.key, text, seconds))
            line = notes.cosignature_line(self.key, seconds, signature)
            self.size, self.root, self.latest = head.size, head.root, note + line
            return 200, "text/plain", line
