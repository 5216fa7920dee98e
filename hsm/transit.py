"""The Transit backend: keys in HashiCorp Vault or OpenBao, used over HTTPS.

Every key stays at version 1; a new KEK is a new key, as everywhere else. That leaves Transit's versions free
to say what a key may do, enforced by the server: retiring a key adds an empty version 2 and sets
`min_encryption_version` to it, disabling sets `min_decryption_version` as well, and both can be undone.

The token's policy should be `deploy/transit-policy.hcl`. It grants `update`, not `create`, on `transit/encrypt/+`:
with `create`, encrypting with a key that was deleted makes a new one of that name. And it lets nobody set
`exportable`, which a policy without its `allowed_parameters` does.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import hashlib
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hvac.exceptions import InvalidPath, InvalidRequest, VaultError

from hsm import blob as blobs
from hsm.backend import HsmBackend
from hsm.errors import (
    HsmAuthFailed,
    HsmError,
    HsmIntegrityError,
    HsmPolicyViolation,
    HsmUnavailable,
    HsmUnsupported,
    KeyAmbiguous,
    KeyNotFound,
    KeyNotPermitted,
)
from hsm.model import (
    Capabilities,
    Health,
    KeyAlgorithm,
    KeyInfo,
    KeyRef,
    KeySpec,
    KeyState,
    ReadableBuffer,
    SignatureAlgorithm,
    WrappedKey,
    WrapScheme,
)
from hsm.transit_login import Connection, unavailable
from hsm.usage import UsageCounter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm.model import Kek
    from hsm.uri import TransitUri

log = logging.getLogger("hsm.transit")

_TYPES: Final = {
    KeyAlgorithm.AES_256: "aes256-gcm96",
    KeyAlgorithm.EC_P256: "ecdsa-p256",
    KeyAlgorithm.ED25519: "ed25519",
    KeyAlgorithm.HMAC_SHA256: "hmac",
}
_ALGORITHMS: Final = {name: algorithm for algorithm, name in _TYPES.items()}
_PREFIX: Final = "vault:v1:"
_ACTIVE, _RETIRED, _DISABLED = (1, 1), (2, 1), (2, 2)  # minimum versions to encrypt and to decrypt
_NAME: Final = re.compile(r"((?:[A-Za-z0-9-]|_[0-9a-f]{2})+)\.([0-9a-f]{32})")


class TransitBackend(HsmBackend):
    """Keys of one Transit mount."""

    def __init__(self, uri: TransitUri, *, sessions: int = 8, wait_seconds: float = 5.0) -> None:
        self._mount = uri.mount
        self._sessions = sessions
        self._usage = UsageCounter()
        self._types: dict[KeyRef, KeyAlgorithm] = {}
        self._connection = Connection(uri, clients=sessions, wait_seconds=wait_seconds)
        self.name = f"transit:{uri.address.partition('://')[2]}/{uri.namespace or ''}/{uri.mount}"
        try:
            taken = self._connection.logged_in()
        except BaseException:
            self._connection.close()
            raise
        if not taken:
            self._connection.close()
            raise HsmAuthFailed("open", "the server does not take the token")

    def _call(
        self, op: str, method: str, path: str, body: dict[str, Any] | None = None, *, repeat: bool = True
    ) -> dict[str, Any]:
        return self._connection.request(op, method, f"{self._mount}/{path}", body, repeat=repeat)

    # -- data keys ---------------------------------------------------------------------------------

    def _wrap(self, kek: Kek, dek: ReadableBuffer, aad: bytes) -> bytes:
        ref = self._require(kek, KeyAlgorithm.AES_256, "wrap")
        self._usage.spend(ref)
        body = {
            "plaintext": base64.b64encode(dek).decode("ascii"),
            "associated_data": _b64(blobs.bind(blobs.TRANSIT, aad)),
            "key_version": 1,
        }
        try:
            text = self._call("wrap", "post", f"encrypt/{key_name(ref)}", body).get("ciphertext", "")
        except KeyNotPermitted:
            # To encrypt under a name that has no key is to create one, which the server then forbids.
            self._read(ref, "wrap")
            raise
        sealed = len(dek) + blobs.IV_SIZES[blobs.GCM_12] + blobs.GCM_TAG
        return blobs.header(blobs.TRANSIT) + _tail(text, sealed, "wrap")

    def _unwrap(self, kek: Kek, blob: bytes, aad: bytes, into: memoryview) -> int:
        wrapped = blobs.parse(blob)
        if wrapped.scheme != blobs.TRANSIT:
            raise HsmIntegrityError("unwrap", "not wrapped by this kind of HSM")
        size = wrapped.dek_size
        if len(into) < size:
            raise ValueError(f"the buffer is shorter than the key of {size} bytes")
        ref = self._require(kek, KeyAlgorithm.AES_256, "unwrap")
        body = {
            "ciphertext": _PREFIX + _b64(wrapped.body),
            "associated_data": _b64(blobs.bind(blobs.TRANSIT, aad)),
        }
        plain = b""
        try:
            plain = base64.b64decode(
                self._call("unwrap", "post", f"decrypt/{key_name(ref)}", body)["plaintext"]
            )
            if len(plain) != size:
                raise HsmIntegrityError("unwrap", "the server returned a key of another length")
            into[:size] = plain
        except (KeyError, TypeError, binascii.Error):
            raise HsmUnavailable("unwrap", "the server answered with no plaintext") from None
        finally:
            # Of the copies on the way this is the one that can be wiped; the server's answer cannot.
            _wipe(plain)
        return size

    # -- signatures, MACs, randomness --------------------------------------------------------------

    def _sign(self, ref: KeyRef, algorithm: SignatureAlgorithm, message: bytes) -> bytes:
        self._require(ref, algorithm.key_algorithm, "sign")
        body: dict[str, Any] = {"key_version": 1}
        if algorithm is SignatureAlgorithm.ES256:
            digest = hashlib.sha256(message).digest()
            body |= {
                "input": _b64(digest),
                "prehashed": True,
                "hash_algorithm": "sha2-256",
                "marshaling_algorithm": "jws",
            }
        else:
            body["input"] = _b64(message)
        text = self._call("sign", "post", f"sign/{key_name(ref)}", body).get("signature", "")
        return _tail(text, 64, "sign")

    def _mac(self, ref: KeyRef, data: bytes) -> bytes:
        self._require(ref, KeyAlgorithm.HMAC_SHA256, "mac")
        body = {"input": _b64(data), "key_version": 1}
        return _tail(
            self._call("mac", "post", f"hmac/{key_name(ref)}/sha2-256", body).get("hmac", ""), 32, "mac"
        )

    def _random(self, size: int) -> bytes:
        body = {"bytes": size, "format": "base64"}
        found = base64.b64decode(self._call("random", "post", "random", body)["random_bytes"])
        if len(found) != size:
            raise HsmUnsupported("random", "the server gave another number of random bytes")
        return found

    def _public_key(self, ref: KeyRef) -> bytes:
        found = self._read(ref, "public_key")
        text = (found.get("keys", {}).get("1") or {}).get("public_key", "") if "keys" in found else ""
        if not text:
            raise KeyNotFound("public_key", "this key has no public half")
        if _ALGORITHMS.get(found["type"]) is KeyAlgorithm.ED25519:
            public: Any = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(text))
        else:
            public = serialization.load_pem_public_key(text.encode("ascii"))
        der: bytes = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return der

    # -- the life of a key -------------------------------------------------------------------------

    def _create_key(self, spec: KeySpec) -> KeyInfo:
        ref = spec.ref
        if spec.algorithm not in _TYPES:
            raise HsmUnsupported("create_key", f"no {spec.algorithm} keys here")
        for other in self._refs():
            if other.label == ref.label or other.object_id == ref.object_id:
                raise KeyAmbiguous("create_key", "a key has that label or id already")
        body: dict[str, Any] = {
            "type": _TYPES[spec.algorithm],
            "exportable": False,
            "allow_plaintext_backup": False,
        }
        if spec.algorithm is KeyAlgorithm.HMAC_SHA256:
            body["key_size"] = 32
        self._call("create_key", "post", f"keys/{key_name(ref)}", body, repeat=False)
        info = self._key_info(ref)
        if info.extractable is not False or info.local is False or info.algorithm is not spec.algorithm:
            self._destroy_key(ref)
            raise HsmPolicyViolation("create_key", "the new key was destroyed: the server made it exportable")
        return info

    def _key_info(self, ref: KeyRef) -> KeyInfo:
        found = self._read(ref, "key_info")
        algorithm = _ALGORITHMS.get(found.get("type", ""))
        if algorithm is None:
            raise HsmUnsupported("key_info", "the key is not of a kind known here")
        open_to_backup = bool(found.get("exportable")) or bool(found.get("allow_plaintext_backup"))
        imported = found.get("imported_key")
        return KeyInfo(
            ref=ref,
            algorithm=algorithm,
            state=_state(found, algorithm),
            sensitive=not open_to_backup,
            extractable=open_to_backup,
            # Both flags can be set, never taken back, so what is not exportable now never was.
            never_extractable=not open_to_backup,
            local=None if imported is None else not imported,
        )

    def _list_keys(self, label_prefix: str) -> list[KeyInfo]:
        infos = []
        for ref in self._refs():
            if ref.label.startswith(label_prefix):
                try:
                    infos.append(self._key_info(ref))
                except (KeyNotFound, HsmUnsupported):
                    continue  # destroyed meanwhile, or not of ours
        return infos

    def _set_key_state(self, ref: KeyRef, state: KeyState) -> None:
        found = self._read(ref, "set_key_state")
        kek = _ALGORITHMS.get(found.get("type", "")) is KeyAlgorithm.AES_256
        if state is KeyState.DECRYPT_ONLY and not kek:
            raise HsmUnsupported("set_key_state", "only a key-encryption key can be decrypt-only")
        encrypt, decrypt = {
            KeyState.ACTIVE: _ACTIVE,
            KeyState.DECRYPT_ONLY: _RETIRED,
            # The public half of a signing key stays readable.
            KeyState.DISABLED: _DISABLED if kek else _RETIRED,
        }[state]
        if encrypt > int(found.get("latest_version", 1)):
            self._call("set_key_state", "post", f"keys/{key_name(ref)}/rotate", {}, repeat=False)
        body = {"min_encryption_version": encrypt, "min_decryption_version": decrypt}
        self._call("set_key_state", "post", f"keys/{key_name(ref)}/config", body)

    def _destroy_key(self, ref: KeyRef) -> None:
        self._read(ref, "destroy_key")
        self._call("destroy_key", "post", f"keys/{key_name(ref)}/config", {"deletion_allowed": True})
        self._call("destroy_key", "delete", f"keys/{key_name(ref)}", repeat=False)
        self._types.pop(ref, None)
        self._usage.forget(ref)

    def _read(self, ref: KeyRef, op: str) -> dict[str, Any]:
        return self._call(op, "get", f"keys/{key_name(ref)}")

    def _require(self, ref: Kek, algorithm: KeyAlgorithm, op: str) -> KeyRef:
        """Refuse a key that is not there or of another kind; the server would make one, or try."""
        if isinstance(ref, WrappedKey):
            raise HsmUnsupported(op, "keys do not lie outside of this kind of HSM")
        if (known := self._types.get(ref)) is None:
            known = self._types[ref] = self._key_info(ref).algorithm
        if known is not algorithm:
            raise KeyNotFound(op, "there is no key of that label, id and kind")
        return ref

    def _refs(self) -> list[KeyRef]:
        try:
            names = self._call("list_keys", "list", "keys").get("keys", [])
        except InvalidPath:
            return []
        return [ref for name in names if (ref := _ref(name)) is not None]

    # -- itself ------------------------------------------------------------------------------------

    def _capabilities(self) -> Capabilities:
        return Capabilities(
            wrap=WrapScheme.TRANSIT,
            iv_mode=None,
            signatures=frozenset(SignatureAlgorithm),
            mac=True,
            random=True,
            max_sessions=self._sessions,
            model="Transit",
            notes=("as Transit's interface has it; not tried, as trying would leave keys behind",),
        )

    def _health(self, deep: bool) -> Health:
        if self._connection.forked:
            return Health(ok=False, reason="forked")
        try:
            if not self._connection.logged_in():
                return Health(ok=False, reason="login lost")
            if deep:
                self._random(16)
        except HsmAuthFailed:
            return Health(ok=False, reason="auth failed")
        return Health(ok=True, reason="ok")

    def usage(self) -> Mapping[KeyRef, int]:  # noqa: D102 - inherited
        return self._usage.snapshot()

    def note_usage(self, ref: KeyRef, count: int) -> None:  # noqa: D102
        self._usage.note(ref, count)

    def settle_usage(self, ref: KeyRef, count: int) -> None:  # noqa: D102
        self._usage.settle(ref, count)

    def _translate(self, op: str, error: Exception) -> HsmError:
        """What the server says of a request itself. Its sentences are the only thing to tell by."""
        if isinstance(error, InvalidPath):
            self._types.clear()
            return KeyNotFound(op, "there is no key of that label and id", code_name="HTTP 404")
        if isinstance(error, InvalidRequest):
            return self._translate_refusal(op, str(error).lower())
        if isinstance(error, VaultError):
            return unavailable(op, error)
        return super()._translate(op, error)

    def _translate_refusal(self, op: str, said: str) -> HsmError:
        code = "HTTP 400"
        if "key not found" in said:
            self._types.clear()
            return KeyNotFound(op, "there is no key of that label and id", code_name=code)
        if "minimum encryption key version" in said or "disallowed by policy" in said:
            return KeyNotPermitted(op, "the key is retired or disabled", code_name=code)
        if op == "unwrap":
            return HsmIntegrityError(op, "the wrapped key or its context has been changed", code_name=code)
        return HsmUnsupported(op, "the server refused the request", code_name=code)

    def _close(self) -> None:
        self._connection.close()


def _state(found: dict[str, Any], algorithm: KeyAlgorithm) -> KeyState:
    encrypt, decrypt = (int(found.get(f"min_{what}_version", 0)) for what in ("encryption", "decryption"))
    if encrypt <= 1 and decrypt <= 1:
        return KeyState.ACTIVE
    if decrypt <= 1 and algorithm is KeyAlgorithm.AES_256:
        return KeyState.DECRYPT_ONLY
    return KeyState.DISABLED


def key_name(ref: KeyRef) -> str:
    """A reference as a name that Transit takes: label, escaped, and id."""
    label = re.sub(r"[^A-Za-z0-9-]", lambda match: f"_{ord(match[0]):02x}", ref.label)
    return f"k-{label}.{ref.object_id.hex()}"


def _ref(name: str) -> KeyRef | None:
    """The reference of a name; `None` for keys that are not ours."""
    match = _NAME.fullmatch(name.removeprefix("k-")) if name.startswith("k-") else None
    if match is None:
        return None
    label = re.sub(r"_([0-9a-f]{2})", lambda escape: chr(int(escape[1], 16)), match[1])
    try:
        return KeyRef(label, bytes.fromhex(match[2]))
    except ValueError:
        return None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _tail(text: str, size: int, op: str) -> bytes:
    """The bytes of `vault:v1:...`, in either alphabet of base64."""
    raw = text.removeprefix(_PREFIX).replace("-", "+").replace("_", "/") if text.startswith(_PREFIX) else ""
    try:
        found = base64.b64decode(raw + "=" * (-len(raw) % 4), validate=True)
    except ValueError:
        found = b""
    if len(found) != size:
        raise HsmUnsupported(op, "the server's answer is not of the form asked for")
    return found


def _wipe(data: bytes) -> None:
    # CPython keeps the bytes at the end of the object, before a final NUL.
    if data:
        ctypes.memset(id(data) + bytes.__basicsize__ - 1, 0, len(data))
