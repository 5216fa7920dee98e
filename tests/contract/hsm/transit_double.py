"""A server that speaks Transit, KV 2 and the log-ins as HashiCorp Vault and OpenBao do, and really encrypts.

Its refusals are worded as the real ones are, since that is all a client can tell them by.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding

GRANTED = ("encrypt", "decrypt", "sign", "hmac", "random")


class Refusal(Exception):  # noqa: N818 - it is no error of the double
    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(status)
        self.status, self.errors = status, list(errors)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def unb64(text: str) -> bytes:
    return base64.b64decode(text)


class Key:
    def __init__(self, kind: str, exportable: bool, backup: bool, imported: bytes | None = None) -> None:
        self.kind, self.exportable, self.backup = kind, exportable, backup
        self.imported = imported is not None
        self.versions = {1: imported or self._make()}
        self.min_encryption, self.min_decryption, self.deletable = 0, 1, False

    def _make(self):
        return {
            "aes256-gcm96": lambda: os.urandom(32),
            "hmac": lambda: os.urandom(32),
            "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "ed25519": ed25519.Ed25519PrivateKey.generate,
        }[self.kind]()

    def rotate(self) -> None:
        self.versions[max(self.versions) + 1] = self._make()

    def public(self, version: int):
        if self.kind == "ed25519":
            raw = self.versions[version].public_key().public_bytes_raw()
            return {"public_key": b64(raw), "name": "ed25519"}
        if self.kind == "ecdsa-p256":
            pem = (
                self.versions[version]
                .public_key()
                .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            )
            return {"public_key": pem.decode(), "name": "P-256"}
        return int(time.time())


class Double:
    """The server; `uri` opens a backend on it. `fail` and `revoke_tokens` are its fault switches.

    With `tls` it speaks HTTPS by a certificate of that CA, which it leaves in `ca_file`, and takes a client's
    certificate of it as a log-in.
    """

    def __init__(self, tls: trustme.CA | None = None, ca_file: Path | None = None) -> None:
        self.namespaces: dict[str, dict[str, Key]] = {"": {}}
        self.tokens: dict[str, float] = {}
        self.administrator = "hvs." + os.urandom(12).hex()
        self.ca_file = ca_file
        self.reach = "plaintext-http=yes" if tls is None else f"ca-file={ca_file}"
        if tls is not None and ca_file is not None:
            tls.cert_pem.write_to_path(ca_file)
        self.wrapping_key: rsa.RSAPrivateKey | None = None
        self.secrets = {"strongroom/hsm": {"pin": "1234"}}
        self.logins = {"approle": ("the-role", "the-secret"), "kubernetes": ("vault", "the-jwt")}
        self.ttl = 3600.0
        self.calls: list[tuple[str, str]] = []
        self.failures: list[int] = []
        self.arrived = 0
        self.sealed = False
        self.lock = threading.RLock()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement
            wbufsize = 1 << 16

            def handle_any(self) -> None:
                double.answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_LIST = handle_any  # noqa: N815 - the base class's names

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.issue_cert("localhost", "127.0.0.1").configure_cert(context)
            tls.configure_trust(context)
            context.verify_mode = ssl.CERT_OPTIONAL
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"{'http' if self.ca_file is None else 'https'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def uri(self, query: str, namespace: str = "") -> str:
        within = f"&namespace={namespace}" if namespace else ""
        return f"transit://127.0.0.1:{self.port}/transit?{self.reach}{within}&{query}"

    @property
    def keys(self) -> dict[str, Key]:
        return self.namespaces[""]

    def kv_uri(self, query: str) -> str:
        return f"kv://127.0.0.1:{self.port}/secret?{self.reach}&{query}"

    def new_token(self) -> str:
        token = "hvs." + os.urandom(12).hex()
        self.tokens[token] = time.monotonic() + self.ttl
        return token

    def new_token_in(self, namespace: str) -> str:
        assert namespace in self.namespaces
        return self.new_token()

    def new_namespace(self, name: str) -> bool:
        self.namespaces[name] = {}
        return True

    def importing_token(self) -> str:
        return self.administrator

    def approle(self) -> tuple[str, str]:
        return self.logins["approle"]

    def service_account(self) -> tuple[str, str]:
        return self.logins["kubernetes"]

    def forged_service_account(self) -> tuple[str, str]:
        return self.logins["kubernetes"][0], "another-jwt"

    def write_secret(self, path: str, fields: dict[str, str | None]) -> None:
        self.secrets[path] = fields

    def delete_secret(self, path: str) -> None:
        del self.secrets[path]

    def destroy_key(self, name: str) -> None:
        del self.keys[name]

    def key_names(self) -> list[str]:
        return sorted(self.keys)

    def seal(self) -> None:
        self.sealed = True

    def unseal(self) -> None:
        self.sealed = False

    def fail(self, *statuses: int) -> None:
        """Answer the next requests so; 0 hangs up without an answer, 200 answers as usual."""
        self.failures = list(statuses)

    def revoke_tokens(self) -> None:
        self.tokens.clear()

    # -- answering ---------------------------------------------------------------------------------

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        size = int(handler.headers.get("Content-Length") or 0)
        raw = handler.rfile.read(size)
        path = handler.path.removeprefix("/v1/")
        self.arrived += 1
        with self.lock:
            self.calls.append((handler.command, path))
            status, body = 200, None
            try:
                if self.failures and not self.inject():
                    handler.close_connection = True
                    return
                if self.sealed:
                    self.failures.append(503)
                    self.inject()
                body = self.route(handler, path, json.loads(raw) if raw else {})
            except Refusal as refusal:
                status, body = refusal.status, {"errors": refusal.errors}
        if body is None:
            status = 204
        payload = b"" if body is None else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)

    def inject(self) -> bool:
        """Refuse as the test wants; false means to hang up."""
        if (status := self.failures.pop(0)) == 0:
            return False
        if status == 200:
            return True
        raise Refusal(status, "injected")

    def granted(self, token: str):
        return {"auth": {"client_token": token, "lease_duration": int(self.ttl), "renewable": True}}

    def route(self, handler: BaseHTTPRequestHandler, path: str, body: dict):  # noqa: PLR0911 - it is a table
        if match := re.fullmatch(r"auth/(approle|kubernetes)/login", path):
            role = body.get("role_id") or body.get("role")
            secret = body.get("secret_id") or body.get("jwt")
            if (role, secret) != self.logins[match[1]]:
                raise Refusal(400, "invalid role or secret ID")
            return self.granted(self.new_token())
        if path == "auth/cert/login":
            shown = (
                handler.connection.getpeercert() if isinstance(handler.connection, ssl.SSLSocket) else None
            )
            if not shown:
                raise Refusal(400, "no client certificate found")
            if "commonName" not in dict(pair for name in shown["subject"] for pair in name):
                raise Refusal(500, "missing name in alias")
            return self.granted(self.new_token())
        token = handler.headers.get("X-Vault-Token", "")
        administrator = token == self.administrator
        if not administrator and self.tokens.get(token, 0) < time.monotonic():
            raise Refusal(403, "permission denied")
        if path == "auth/token/lookup-self":
            return {"data": {"ttl": int(self.tokens[token] - time.monotonic()), "renewable": True}}
        if path == "auth/token/renew-self":
            self.tokens[token] = time.monotonic() + self.ttl
            return self.granted(token)
        if handler.command == "LIST" and re.match(r"secret/metadata($|/)", path):
            return {"data": {"keys": self.listing(path.removeprefix("secret/metadata").strip("/"))}}
        if path.startswith("secret/data/"):
            found = self.secrets.get(path.removeprefix("secret/data/"))
            if found is None:
                raise Refusal(404)
            return {"data": {"data": found, "metadata": {"version": 1}}}
        keys = self.namespaces[handler.headers.get("X-Vault-Namespace", "")]
        path = path.removeprefix("transit/")
        if not administrator and self.forbidden(path, body, keys):
            raise Refusal(403, "1 error occurred:\n\t* permission denied\n\n")
        return self.transit(handler.command, path, body, keys)

    def forbidden(self, path: str, body: dict, keys: dict[str, Key]) -> bool:
        """What `deploy/transit-policy.hcl` does not grant."""
        kind, _, rest = path.partition("/")
        name, _, tail = rest.partition("/")
        if kind == "keys" and tail == "config":
            return not body.keys() <= {"min_encryption_version", "min_decryption_version", "deletion_allowed"}
        if kind == "keys":
            open_ = body.get("exportable") or body.get("allow_plaintext_backup")
            return tail not in ("", "rotate") or bool(open_)
        # To encrypt under a name that has no key is to create one.
        return kind not in GRANTED or (kind == "encrypt" and name not in keys)

    def listing(self, folder: str) -> list[str]:
        below = f"{folder}/" if folder else ""
        rests = [path.removeprefix(below) for path in self.secrets if path.startswith(below)]
        found = sorted({rest.partition("/")[0] + ("/" if "/" in rest else "") for rest in rests})
        if not found:
            raise Refusal(404)
        return found

    def transit(self, command: str, path: str, body: dict, keys: dict[str, Key]):
        if path == "keys":
            if not keys:
                raise Refusal(404)
            return {"data": {"keys": sorted(keys)}}
        if path == "wrapping_key":
            return {"data": {"public_key": self.wrapping_public_key()}}
        if path == "random":
            return {"data": {"random_bytes": b64(os.urandom(body["bytes"]))}}
        kind, _, rest = path.partition("/")
        name, _, tail = rest.partition("/")
        if not re.fullmatch(r"\w(([\w-.]+)?\w)?".replace("-.", ".-"), name):
            raise Refusal(404, "unsupported path")
        if kind == "keys":
            return self.manage(command, name, tail, body, keys)
        key = keys.get(name)
        if key is None:
            raise Refusal(400, {"sign": "signing key not found"}.get(kind, "encryption key not found"))
        return {"data": getattr(self, kind)(key, body, tail)}

    def manage(self, command: str, name: str, tail: str, body: dict, keys: dict[str, Key]):
        key = keys.get(name)
        if command == "POST" and not tail:
            if key is None:
                if body["type"] not in ("aes256-gcm96", "hmac", "ecdsa-p256", "ed25519"):
                    raise Refusal(400, f"unknown key type {body['type']}")
                keys[name] = Key(
                    body["type"], body.get("exportable", False), body.get("allow_plaintext_backup", False)
                )
            return None
        if tail == "import":
            keys[name] = Key(body["type"], False, False, self.unwrap_import(body))
            return None
        if key is None:
            raise Refusal(
                404 if command == "GET" else 400, *(() if command == "GET" else ("no existing key named",))
            )
        if command == "DELETE":
            if not key.deletable:
                raise Refusal(400, "deletion is not allowed for this key")
            del keys[name]
            return None
        if tail == "rotate":
            key.rotate()
            return None
        if tail == "config":
            encryption = body.get("min_encryption_version", key.min_encryption)
            decryption = body.get("min_decryption_version", key.min_decryption)
            if max(encryption, decryption) > max(key.versions):
                raise Refusal(400, "cannot set min version to more than the latest version")
            if 0 < encryption < decryption:
                raise Refusal(400, "min encryption version should not be less than min decryption version")
            key.min_encryption, key.min_decryption = encryption, decryption
            key.deletable = body.get("deletion_allowed", key.deletable)
            return None
        return {
            "data": {
                "type": key.kind,
                "exportable": key.exportable,
                "allow_plaintext_backup": key.backup,
                "imported_key": key.imported,
                "latest_version": max(key.versions),
                "min_encryption_version": key.min_encryption,
                "min_decryption_version": key.min_decryption,
                "keys": {str(v): key.public(v) for v in key.versions if v >= key.min_decryption},
            }
        }

    def wrapping_public_key(self) -> str:
        if self.wrapping_key is None:
            self.wrapping_key = rsa.generate_private_key(65537, 4096)
        return (
            self.wrapping_key.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode()
        )

    def unwrap_import(self, body: dict) -> bytes:
        sealed = unb64(body["ciphertext"])
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        return aes_key_unwrap_with_padding(self.wrapping_key.decrypt(sealed[:512], oaep), sealed[512:])

    def version(self, key: Key, body: dict, what: str) -> int:
        version = body.get("key_version") or max(key.versions)
        if version < key.min_encryption:
            # OpenBao 2.6 says 500 of a signing key.
            status = 500 if what == "signing" else 400
            raise Refusal(
                status, f"requested version for {what} is less than the minimum encryption key version"
            )
        return version

    def encrypt(self, key: Key, body: dict, tail: str):
        version = self.version(key, body, "encryption")
        iv = os.urandom(12)
        sealed = AESGCM(key.versions[version]).encrypt(
            iv, unb64(body["plaintext"]), unb64(body.get("associated_data", ""))
        )
        return {"ciphertext": f"vault:v{version}:{b64(iv + sealed)}", "key_version": version}

    def decrypt(self, key: Key, body: dict, tail: str):
        match = re.fullmatch(r"vault:v(\d+):(.*)", body["ciphertext"])
        if match is None:
            raise Refusal(400, "invalid ciphertext: no prefix")
        version, raw = int(match[1]), unb64(match[2])
        if version > max(key.versions):
            raise Refusal(400, "invalid ciphertext: version is too new")
        if version < key.min_decryption:
            raise Refusal(400, "ciphertext or signature version is disallowed by policy (too old)")
        try:
            plain = AESGCM(key.versions[version]).decrypt(
                raw[:12], raw[12:], unb64(body.get("associated_data", ""))
            )
        except (InvalidTag, ValueError):
            raise Refusal(400, "invalid ciphertext: unable to decrypt") from None
        return {"plaintext": b64(plain)}

    def sign(self, key: Key, body: dict, tail: str):
        version = self.version(key, body, "signing")
        data, secret = unb64(body["input"]), key.versions[version]
        if key.kind == "ed25519":
            return {"signature": f"vault:v{version}:{b64(secret.sign(data))}"}
        if key.kind != "ecdsa-p256":
            raise Refusal(400, f"key type {key.kind} does not support signing")
        digest = data if body.get("prehashed") else hashlib.sha256(data).digest()
        der = secret.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        if body.get("marshaling_algorithm") == "jws":
            raw = b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(der))
            return {"signature": f"vault:v{version}:{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"}
        return {"signature": f"vault:v{version}:{b64(der)}"}

    def hmac(self, key: Key, body: dict, tail: str):
        version = self.version(key, body, "HMAC")
        mac = hmac.new(key.versions[version], unb64(body["input"]), hashlib.sha256).digest()
        return {"hmac": f"vault:v{version}:{b64(mac)}"}
