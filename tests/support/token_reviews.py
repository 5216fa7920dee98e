"""Of a Kubernetes API server, what a log-in by service account needs: it issues tokens, and reviews them."""

from __future__ import annotations

import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from joserfc import jwt
from joserfc.jwk import ECKey

NAMESPACE, ACCOUNT = "payments", "strongroom"


class TokenReviews:
    """The server. A token is what this one issued, or it is nobody's."""

    def __init__(self) -> None:
        self._key = ECKey.generate_key("P-256")
        self._uids: dict[str, str] = {}
        issued = self._uids

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                uid = issued.get(review["spec"]["token"])
                user = {"username": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}", "uid": uid}
                status = {"authenticated": uid is not None, **({"user": user} if uid else {})}
                payload = json.dumps({**review, "status": status}).encode()
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def issue(self) -> str:
        """A service account's token."""
        uid = secrets.token_hex(16)
        token = self.forge(uid)
        self._uids[token] = uid
        return token

    def forge(self, uid: str = "0") -> str:
        """What looks like a token, and was not issued."""
        account = {"name": ACCOUNT, "uid": uid}
        claims = {
            "iss": "kubernetes/serviceaccount",
            "sub": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}",
            "exp": int(time.time()) + 600,
            "iat": int(time.time()),
            "kubernetes.io": {"namespace": NAMESPACE, "serviceaccount": account},
        }
        return jwt.encode({"alg": "ES256"}, claims, self._key)
