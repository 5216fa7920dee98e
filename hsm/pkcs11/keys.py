"""Keys on a token: how they are made, found, read, and what policy demands of them.

Every template states label, id, capabilities, SENSITIVE, EXTRACTABLE and PRIVATE, as the binding's
defaults send an empty label and let an AES key do everything. A KEK for GCM may encrypt and decrypt and
nothing else: one that may also wrap could wrap another key and decrypt it into the open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag
from pkcs11.exceptions import PKCS11Error

from hsm.errors import HsmUnsupported, KeyAmbiguous, KeyNotFound
from hsm.model import KeyAlgorithm, KeyInfo, KeyRef, KeyState
from hsm.pkcs11 import objects as obj

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkcs11.types import Session

    from hsm.pkcs11.worker import Worker

P256_PARAMS: Final = bytes.fromhex("06082a8648ce3d030107")  # prime256v1
ED25519_OID: Final = bytes.fromhex("06032b6570")
ED25519_NAME: Final = b"\x13\x0cedwards25519"  # what PKCS#11 3.0 drafts had, and SoftHSM wants
_SPKI_P256: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_SPKI_ED25519: Final = bytes.fromhex("302a300506032b6570032100")
_AES_256: Final = 32
_SIGN: Final = MechanismFlag.SIGN | MechanismFlag.VERIFY
_CRYPT: Final = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
_WRAP: Final = MechanismFlag.WRAP | MechanismFlag.UNWRAP


class _Kind(NamedTuple):
    """How an algorithm's keys look on a token; `forward` and `backward` are what a state takes away."""

    key_class: int
    key_type: int
    capabilities: MechanismFlag
    forward: int
    backward: int | None


_KWP: Final = _Kind(obj.CKO_SECRET_KEY, obj.CKK_AES, _WRAP, obj.CKA_WRAP, obj.CKA_UNWRAP)
_KINDS: Final = {
    KeyAlgorithm.AES_256_ROOT: _KWP,
    KeyAlgorithm.AES_256: _Kind(obj.CKO_SECRET_KEY, obj.CKK_AES, _CRYPT, obj.CKA_ENCRYPT, obj.CKA_DECRYPT),
    KeyAlgorithm.EC_P256: _Kind(obj.CKO_PRIVATE_KEY, obj.CKK_EC, _SIGN, obj.CKA_SIGN, None),
    KeyAlgorithm.ED25519: _Kind(obj.CKO_PRIVATE_KEY, obj.CKK_EC_EDWARDS, _SIGN, obj.CKA_SIGN, None),
    KeyAlgorithm.HMAC_SHA256: _Kind(obj.CKO_SECRET_KEY, obj.CKK_GENERIC_SECRET, _SIGN, obj.CKA_SIGN, None),
}
_SECRET: Final[dict[Attribute, Any]] = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: True,
}
_SHOWN: Final = (
    *(obj.CKA_LABEL, obj.CKA_ID, obj.CKA_CLASS, obj.CKA_KEY_TYPE),
    *(obj.CKA_SENSITIVE, obj.CKA_EXTRACTABLE, obj.CKA_NEVER_EXTRACTABLE, obj.CKA_LOCAL),
)
_POWERS: Final = (obj.CKA_ENCRYPT, obj.CKA_DECRYPT, obj.CKA_WRAP, obj.CKA_UNWRAP, obj.CKA_DERIVE)


def _kind(algorithm: KeyAlgorithm, *, kwp: bool) -> _Kind:
    return _KWP if kwp and algorithm is KeyAlgorithm.AES_256 else _KINDS[algorithm]


def generate(session: Session, ref: KeyRef, algorithm: KeyAlgorithm, *, kwp: bool, store: bool = True) -> int:
    """Generate a key, or a key pair, and return the object that must stay secret. Raises `PKCS11Error`."""
    kind = _kind(algorithm, kwp=kwp)
    names: dict[str, Any] = {
        "id": ref.object_id,
        "label": ref.label,
        "store": store,
        "capabilities": kind.capabilities,
    }
    if kind.key_class == obj.CKO_SECRET_KEY:
        key = session.generate_key(KeyType(kind.key_type), 256, template=_SECRET, **names)
        return handle_of(key)
    if algorithm is KeyAlgorithm.EC_P256:
        return _pair(session, KeyType.EC, Mechanism.EC_KEY_PAIR_GEN, P256_PARAMS, names)
    try:
        return _pair(session, KeyType.EC_EDWARDS, Mechanism.EC_EDWARDS_KEY_PAIR_GEN, ED25519_NAME, names)
    except PKCS11Error:
        return _pair(session, KeyType.EC_EDWARDS, Mechanism.EC_EDWARDS_KEY_PAIR_GEN, ED25519_OID, names)


def _pair(session: Session, kind: KeyType, mechanism: Mechanism, params: bytes, names: dict[str, Any]) -> int:
    domain = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: params}, local=True)
    _, private = domain.generate_keypair(
        mechanism=mechanism,
        public_template={Attribute.PRIVATE: False, Attribute.MODIFIABLE: True},
        private_template=_SECRET,
        **names,
    )
    return handle_of(private)


def handle_of(key: Any) -> int:
    """The handle of one of the binding's objects."""
    return int(key.handle)


def find_key(worker: Worker, ref: KeyRef, algorithm: KeyAlgorithm, op: str) -> int:
    """Find the secret or private key of a reference, of the algorithm that the operation needs.

    Raises `KeyNotFound`, `KeyAmbiguous`, `CryptokiError`.
    """
    kind = _KINDS[algorithm]
    return _only(_named(worker, ref, {obj.CKA_CLASS: kind.key_class, obj.CKA_KEY_TYPE: kind.key_type}), op)


def find_any(worker: Worker, ref: KeyRef, op: str) -> int:
    """Find the secret or private key of a reference, whatever its algorithm. Raises as `find_key`."""
    kinds = (obj.CKO_SECRET_KEY, obj.CKO_PRIVATE_KEY)
    return _only([key for kind in kinds for key in _named(worker, ref, {obj.CKA_CLASS: kind})], op)


def occupied(worker: Worker, ref: KeyRef) -> bool:
    """Whether any object at all has that label or that id. Raises `CryptokiError`."""
    by_label = obj.find(worker, {obj.CKA_LABEL: ref.label.encode()})
    return bool(by_label or obj.find(worker, {obj.CKA_ID: ref.object_id}))


def _named(worker: Worker, ref: KeyRef, template: dict[int, obj.Value]) -> list[int]:
    return obj.find(worker, {obj.CKA_LABEL: ref.label.encode(), obj.CKA_ID: ref.object_id, **template})


def _only(found: list[int], op: str) -> int:
    if not found:
        raise KeyNotFound(op, "there is no key of that label and id")
    if len(found) > 1:
        raise KeyAmbiguous(op, f"{len(found)} keys have that label and id")
    return found[0]


def describe(worker: Worker, key: int, *, kwp: bool) -> KeyInfo | None:
    """What the token says of a key; `None` for objects that are not keys of ours."""
    said = obj.read(worker, key, _SHOWN)
    try:
        ref = KeyRef((said[obj.CKA_LABEL] or b"").decode("ascii"), said[obj.CKA_ID] or b"")
    except ValueError:
        return None
    algorithm = _algorithm(worker, key, said[obj.CKA_KEY_TYPE])
    if algorithm is KeyAlgorithm.AES_256 and not kwp and _wraps_keys(worker, key):
        algorithm = KeyAlgorithm.AES_256_ROOT
    if algorithm is None or said[obj.CKA_CLASS] not in (obj.CKO_SECRET_KEY, obj.CKO_PRIVATE_KEY):
        return None
    return KeyInfo(
        ref=ref,
        algorithm=algorithm,
        state=_state(worker, key, _kind(algorithm, kwp=kwp)),
        sensitive=said[obj.CKA_SENSITIVE],
        extractable=said[obj.CKA_EXTRACTABLE],
        never_extractable=said[obj.CKA_NEVER_EXTRACTABLE],
        local=said[obj.CKA_LOCAL],
    )


def describe_all(worker: Worker, label_prefix: str, *, kwp: bool) -> Iterator[KeyInfo]:
    """Every key of ours on the token whose label begins so."""
    for kind in (obj.CKO_SECRET_KEY, obj.CKO_PRIVATE_KEY):
        for key in obj.find(worker, {obj.CKA_CLASS: kind, obj.CKA_TOKEN: True}):
            info = describe(worker, key, kwp=kwp)
            if info is not None and info.ref.label.startswith(label_prefix):
                yield info


def policy_faults(worker: Worker, key: int, info: KeyInfo) -> list[str]:
    """In what a new key falls short of policy. What the token does not say counts against it, save LOCAL."""
    faults = []
    if info.sensitive is not True:
        faults.append("not sensitive")
    if info.extractable is not False:
        faults.append("extractable")
    if info.never_extractable is False:
        faults.append("was extractable")
    if info.local is False:
        faults.append("not made in the HSM")
    if info.algorithm in (KeyAlgorithm.AES_256, KeyAlgorithm.AES_256_ROOT):
        may = obj.read(worker, key, _POWERS)
        if (may[obj.CKA_ENCRYPT] or may[obj.CKA_DECRYPT]) and (may[obj.CKA_WRAP] or may[obj.CKA_UNWRAP]):
            faults.append("may both encrypt and wrap")
        if may[obj.CKA_DERIVE]:
            faults.append("may derive")
    return faults


def set_state(worker: Worker, key: int, algorithm: KeyAlgorithm, state: KeyState, *, kwp: bool) -> None:
    """Set the attributes that a state stands for. Raises `CryptokiError`, `HsmUnsupported`."""
    kind = _kind(algorithm, kwp=kwp)
    if kind.backward is None and state is KeyState.DECRYPT_ONLY:
        raise HsmUnsupported("set_key_state", "only a key-encryption key can be decrypt-only")
    if algorithm is KeyAlgorithm.AES_256_ROOT and state is KeyState.DISABLED:
        # By what it may do a root is told from a KEK, and a disabled key may do nothing.
        raise HsmUnsupported("set_key_state", "a root key cannot be disabled; retire it")
    wanted = {kind.forward: state is KeyState.ACTIVE}
    if kind.backward is not None:
        wanted[kind.backward] = state is not KeyState.DISABLED
    now = obj.read(worker, key, tuple(wanted))
    # The forbidding first, so that a failure in between leaves less permitted, not more.
    for attribute, value in sorted(wanted.items(), key=lambda item: item[1]):
        if now[attribute] is not value:
            obj.write(worker, key, attribute, value=value)


def destroy(worker: Worker, key: int, ref: KeyRef) -> None:
    """Destroy a key and, if it is half of a pair, the public half first. Raises `CryptokiError`."""
    for public in _named(worker, ref, {obj.CKA_CLASS: obj.CKO_PUBLIC_KEY}):
        obj.destroy(worker, public)
    obj.destroy(worker, key)


def destroy_all(worker: Worker, object_id: bytes, *, stored: bool) -> None:
    """Destroy every object of that id. Raises `CryptokiError`."""
    for thing in obj.find(worker, {obj.CKA_ID: object_id, obj.CKA_TOKEN: stored}):
        obj.destroy(worker, thing)


def public_key(worker: Worker, ref: KeyRef) -> bytes:
    """The SubjectPublicKeyInfo of a key pair. Raises `KeyNotFound`, `KeyAmbiguous`, `HsmUnsupported`."""
    public = _only(_named(worker, ref, {obj.CKA_CLASS: obj.CKO_PUBLIC_KEY}), "public_key")
    said = obj.read(worker, public, (obj.CKA_KEY_TYPE, obj.CKA_EC_POINT))
    algorithm, point = _algorithm(worker, public, said[obj.CKA_KEY_TYPE]), said[obj.CKA_EC_POINT] or b""
    for prefix, size, wanted, first in (
        (_SPKI_P256, 65, KeyAlgorithm.EC_P256, b"\x04"),
        (_SPKI_ED25519, 32, KeyAlgorithm.ED25519, b""),
    ):
        if algorithm is wanted:
            # The standard wants the point in a DER OCTET STRING; some tokens give it bare.
            bare = point[2:] if len(point) == size + 2 and point[:2] == bytes((4, size)) else point
            if len(bare) == size and bare.startswith(first):
                return bytes(prefix + bare)
    raise HsmUnsupported("public_key", "the HSM gives this public key in no form known here")


def _state(worker: Worker, key: int, kind: _Kind) -> KeyState:
    uses = (kind.forward,) if kind.backward is None else (kind.forward, kind.backward)
    may = obj.read(worker, key, uses)
    if may[kind.forward]:
        return KeyState.ACTIVE
    if kind.backward is not None and may[kind.backward]:
        return KeyState.DECRYPT_ONLY
    return KeyState.DISABLED


def _wraps_keys(worker: Worker, key: int) -> bool:
    may = obj.read(worker, key, (obj.CKA_WRAP, obj.CKA_UNWRAP))
    return bool(may[obj.CKA_WRAP] or may[obj.CKA_UNWRAP])


def _algorithm(worker: Worker, key: int, key_type: int | None) -> KeyAlgorithm | None:
    if key_type == obj.CKK_AES:
        # Some tokens do not tell the length of a key; one that they tell must be ours.
        size = obj.read(worker, key, (obj.CKA_VALUE_LEN,))[obj.CKA_VALUE_LEN]
        return KeyAlgorithm.AES_256 if size in (None, 0, _AES_256) else None
    if key_type == obj.CKK_EC:
        params = obj.read(worker, key, (obj.CKA_EC_PARAMS,))[obj.CKA_EC_PARAMS]
        return KeyAlgorithm.EC_P256 if params == P256_PARAMS else None
    if key_type == obj.CKK_EC_EDWARDS:
        return KeyAlgorithm.ED25519
    if key_type in (obj.CKK_GENERIC_SECRET, obj.CKK_SHA256_HMAC):
        return KeyAlgorithm.HMAC_SHA256
    return None
