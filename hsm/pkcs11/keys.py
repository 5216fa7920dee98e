"""Key objects on a token: templates, search, creation, and what can be read of them.

Every template states label, id, capabilities, SENSITIVE, EXTRACTABLE and PRIVATE, as the binding's
defaults send an empty label and let an AES key do everything. A KEK for GCM may encrypt and decrypt and
nothing else: one that may also wrap could wrap another key and decrypt it into the open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error

from hsm.errors import HsmUnsupported, KeyAmbiguous, KeyNotFound
from hsm.model import KeyAlgorithm, KeyInfo, KeyRef, KeyState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkcs11.types import Object, Session

P256_PARAMS: Final = bytes.fromhex("06082a8648ce3d030107")  # prime256v1
ED25519_OID: Final = bytes.fromhex("06032b6570")
ED25519_NAME: Final = b"\x13\x0cedwards25519"  # what PKCS#11 3.0 drafts had, and SoftHSM wants
_SPKI_P256: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_SPKI_ED25519: Final = bytes.fromhex("302a300506032b6570032100")
_AES_256: Final = 32

KEY_TYPES: Final = {
    KeyAlgorithm.AES_256: KeyType.AES,
    KeyAlgorithm.EC_P256: KeyType.EC,
    KeyAlgorithm.ED25519: KeyType.EC_EDWARDS,
    KeyAlgorithm.HMAC_SHA256: KeyType.GENERIC_SECRET,
}
CLASSES: Final = {
    KeyAlgorithm.AES_256: ObjectClass.SECRET_KEY,
    KeyAlgorithm.EC_P256: ObjectClass.PRIVATE_KEY,
    KeyAlgorithm.ED25519: ObjectClass.PRIVATE_KEY,
    KeyAlgorithm.HMAC_SHA256: ObjectClass.SECRET_KEY,
}
_CAPABILITIES: Final = {
    KeyAlgorithm.AES_256: MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
    KeyAlgorithm.EC_P256: MechanismFlag.SIGN | MechanismFlag.VERIFY,
    KeyAlgorithm.ED25519: MechanismFlag.SIGN | MechanismFlag.VERIFY,
    KeyAlgorithm.HMAC_SHA256: MechanismFlag.SIGN | MechanismFlag.VERIFY,
}
KWP_CAPABILITIES: Final = MechanismFlag.WRAP | MechanismFlag.UNWRAP
_SECRET: Final[dict[Attribute, Any]] = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: True,
}
# Which attributes a key has when it may do its work, and when it may only undo it.
_USES: Final = {
    KeyAlgorithm.AES_256: (Attribute.ENCRYPT, Attribute.DECRYPT),
    KeyAlgorithm.EC_P256: (Attribute.SIGN, None),
    KeyAlgorithm.ED25519: (Attribute.SIGN, None),
    KeyAlgorithm.HMAC_SHA256: (Attribute.SIGN, None),
}
_KWP_USES: Final = (Attribute.WRAP, Attribute.UNWRAP)


def generate(
    session: Session, ref: KeyRef, algorithm: KeyAlgorithm, *, kwp: bool, store: bool = True
) -> Object:
    """Generate a key, or a key pair, and return the object that must stay secret. Raises `PKCS11Error`."""
    capabilities = KWP_CAPABILITIES if kwp and algorithm is KeyAlgorithm.AES_256 else _CAPABILITIES[algorithm]
    names: dict[str, Any] = {
        "id": ref.object_id,
        "label": ref.label,
        "store": store,
        "capabilities": capabilities,
    }
    if CLASSES[algorithm] is ObjectClass.SECRET_KEY:
        return session.generate_key(KEY_TYPES[algorithm], 256, template=_SECRET, **names)
    if algorithm is KeyAlgorithm.EC_P256:
        return _pair(session, KeyType.EC, Mechanism.EC_KEY_PAIR_GEN, P256_PARAMS, names)
    try:
        return _pair(session, KeyType.EC_EDWARDS, Mechanism.EC_EDWARDS_KEY_PAIR_GEN, ED25519_NAME, names)
    except PKCS11Error:
        return _pair(session, KeyType.EC_EDWARDS, Mechanism.EC_EDWARDS_KEY_PAIR_GEN, ED25519_OID, names)


def _pair(
    session: Session, kind: KeyType, mechanism: Mechanism, params: bytes, names: dict[str, Any]
) -> Object:
    domain = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: params}, local=True)
    _, private = domain.generate_keypair(
        mechanism=mechanism,
        public_template={Attribute.PRIVATE: False, Attribute.MODIFIABLE: True},
        private_template=_SECRET,
        **names,
    )
    return private


def handle_of(key: Object) -> int:
    """The object handle, for calls that bypass the binding."""
    assert key.handle is not None
    return int(key.handle)


def find(session: Session, template: dict[Attribute, Any]) -> list[Object]:
    """Every object that matches. The search is ended before this returns. Raises `PKCS11Error`."""
    return list(session.get_objects(template))


def find_one(session: Session, ref: KeyRef, template: dict[Attribute, Any], op: str) -> Object:
    """The one object of that label, id and template. Raises `KeyNotFound`, `KeyAmbiguous`."""
    found = find(session, {Attribute.LABEL: ref.label, Attribute.ID: ref.object_id, **template})
    if not found:
        raise KeyNotFound(op, "there is no key of that label and id")
    if len(found) > 1:
        raise KeyAmbiguous(op, f"{len(found)} keys have that label and id")
    return found[0]


def find_key(session: Session, ref: KeyRef, algorithm: KeyAlgorithm, op: str) -> Object:
    """The secret or private key of a reference, of the algorithm that the operation needs."""
    template = {Attribute.CLASS: CLASSES[algorithm], Attribute.KEY_TYPE: KEY_TYPES[algorithm]}
    return find_one(session, ref, template, op)


def find_any(session: Session, ref: KeyRef, op: str) -> Object:
    """The secret or private key of a reference, whatever its algorithm."""
    found: list[Object] = []
    for kind in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY):
        template = {Attribute.CLASS: kind, Attribute.LABEL: ref.label, Attribute.ID: ref.object_id}
        found += find(session, template)
    if not found:
        raise KeyNotFound(op, "there is no key of that label and id")
    if len(found) > 1:
        raise KeyAmbiguous(op, f"{len(found)} keys have that label and id")
    return found[0]


def occupied(session: Session, ref: KeyRef) -> bool:
    """Whether any object at all has that label or that id."""
    return bool(find(session, {Attribute.LABEL: ref.label}) or find(session, {Attribute.ID: ref.object_id}))


def describe(key: Object, *, kwp: bool) -> KeyInfo | None:
    """What the token says of a key; `None` for objects that are not keys of ours."""
    label, object_id, kind = (
        _read(key, name) for name in (Attribute.LABEL, Attribute.ID, Attribute.KEY_TYPE)
    )
    try:
        ref = KeyRef(label or "", object_id or b"")
    except ValueError:
        return None
    algorithm = _algorithm(key, kind)
    if algorithm is None:
        return None
    return KeyInfo(
        ref=ref,
        algorithm=algorithm,
        state=_state(key, algorithm, kwp=kwp),
        sensitive=_read(key, Attribute.SENSITIVE),
        extractable=_read(key, Attribute.EXTRACTABLE),
        never_extractable=_read(key, Attribute.NEVER_EXTRACTABLE),
        local=_read(key, Attribute.LOCAL),
    )


def describe_all(session: Session, label_prefix: str, *, kwp: bool) -> Iterator[KeyInfo]:
    """Every key of ours on the token whose label begins so."""
    for kind in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY):
        for key in find(session, {Attribute.CLASS: kind, Attribute.TOKEN: True}):
            info = describe(key, kwp=kwp)
            if info is not None and info.ref.label.startswith(label_prefix):
                yield info


def policy_faults(key: Object, info: KeyInfo) -> list[str]:
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
    if info.algorithm is KeyAlgorithm.AES_256:
        encrypts = bool(_read(key, Attribute.ENCRYPT)) or bool(_read(key, Attribute.DECRYPT))
        wraps = bool(_read(key, Attribute.WRAP)) or bool(_read(key, Attribute.UNWRAP))
        if encrypts and wraps:
            faults.append("may both encrypt and wrap")
        if _read(key, Attribute.DERIVE):
            faults.append("may derive")
    return faults


def set_state(key: Object, algorithm: KeyAlgorithm, state: KeyState, *, kwp: bool) -> None:
    """Set the attributes that a state stands for. Raises `PKCS11Error`, `HsmUnsupported`."""
    forward, backward = _uses(algorithm, kwp=kwp)
    if backward is None and state is KeyState.DECRYPT_ONLY:
        raise HsmUnsupported("set_key_state", "only a key-encryption key can be decrypt-only")
    # The forbidding first, so that a failure in between leaves less permitted, not more.
    wanted = {forward: state is KeyState.ACTIVE}
    if backward is not None:
        wanted[backward] = state is not KeyState.DISABLED
    for attribute, value in sorted(wanted.items(), key=lambda item: item[1]):
        if _read(key, attribute) is not value:
            key[attribute] = value


def destroy(session: Session, key: Object, ref: KeyRef) -> None:
    """Destroy a key and, if it is half of a pair, the public half first. Raises `PKCS11Error`."""
    template = {
        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
        Attribute.LABEL: ref.label,
        Attribute.ID: ref.object_id,
    }
    for public in find(session, template):
        public.destroy()
    key.destroy()


def public_key(session: Session, ref: KeyRef) -> bytes:
    """The SubjectPublicKeyInfo of a key pair. Raises `KeyNotFound`, `KeyAmbiguous`, `HsmUnsupported`."""
    public = find_one(session, ref, {Attribute.CLASS: ObjectClass.PUBLIC_KEY}, "public_key")
    algorithm = _algorithm(public, _read(public, Attribute.KEY_TYPE))
    point: bytes = public[Attribute.EC_POINT]
    for prefix, size, wanted, first in (
        (_SPKI_P256, 65, KeyAlgorithm.EC_P256, b"\x04"),
        (_SPKI_ED25519, 32, KeyAlgorithm.ED25519, b""),
    ):
        if algorithm is wanted:
            # The standard wants the point in a DER OCTET STRING; some tokens give it bare.
            if len(point) == size + 2 and point[:2] == bytes((4, size)):
                point = point[2:]
            if len(point) == size and point.startswith(first):
                return prefix + point
    raise HsmUnsupported("public_key", "the HSM gives this public key in no form known here")


def _uses(algorithm: KeyAlgorithm, *, kwp: bool) -> tuple[Attribute, Attribute | None]:
    return _KWP_USES if kwp and algorithm is KeyAlgorithm.AES_256 else _USES[algorithm]


def _state(key: Object, algorithm: KeyAlgorithm, *, kwp: bool) -> KeyState:
    forward, backward = _uses(algorithm, kwp=kwp)
    if _read(key, forward):
        return KeyState.ACTIVE
    if backward is not None and _read(key, backward):
        return KeyState.DECRYPT_ONLY
    return KeyState.DISABLED


def _algorithm(key: Object, kind: KeyType | None) -> KeyAlgorithm | None:
    if kind is KeyType.AES:
        # Some tokens do not tell the length of a key; one that they tell must be ours.
        return KeyAlgorithm.AES_256 if _read(key, Attribute.VALUE_LEN) in (None, 0, _AES_256) else None
    if kind is KeyType.EC:
        return KeyAlgorithm.EC_P256 if _read(key, Attribute.EC_PARAMS) == P256_PARAMS else None
    if kind is KeyType.EC_EDWARDS:
        return KeyAlgorithm.ED25519
    if kind in (KeyType.GENERIC_SECRET, KeyType.SHA256_HMAC):
        return KeyAlgorithm.HMAC_SHA256
    return None


def _read(key: Object, attribute: Attribute) -> Any:
    """One attribute, or `None` where the token does not have it or the binding cannot read it."""
    try:
        return key[attribute]
    except (PKCS11Error, ValueError, NotImplementedError):
        return None
