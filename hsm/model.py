"""What the HSM abstraction speaks of: keys, their references and states, and what a backend can do."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

ReadableBuffer: TypeAlias = bytes | bytearray | memoryview

MAX_LABEL: Final = 40  # characters; the smallest limit among the HSMs we know is the YubiHSM's
OBJECT_ID_SIZE: Final = 16  # bytes


class KeyPurpose(enum.StrEnum):
    """What a key is for. A key serves one purpose only."""

    KEK = "kek"
    ROOT = "root"
    SIGNING = "signing"
    MAC = "mac"


class KeyAlgorithm(enum.StrEnum):
    """What kind of key it is; the purpose follows from it. `AES_256_ROOT` wraps keys and nothing else."""

    AES_256 = "AES-256"
    AES_256_ROOT = "AES-256-ROOT"
    EC_P256 = "EC-P256"
    ED25519 = "Ed25519"
    HMAC_SHA256 = "HMAC-SHA256"

    @property
    def purpose(self) -> KeyPurpose:
        """The one purpose of keys of this algorithm."""
        return _PURPOSES[self]


class SignatureAlgorithm(enum.StrEnum):
    """JOSE names of the signature algorithms."""

    ES256 = "ES256"
    EDDSA = "EdDSA"

    @property
    def key_algorithm(self) -> KeyAlgorithm:
        """The keys that sign with it."""
        return KeyAlgorithm.EC_P256 if self is SignatureAlgorithm.ES256 else KeyAlgorithm.ED25519


class KeyState(enum.StrEnum):
    """What a key may be used for. `DECRYPT_ONLY` is a retired KEK: it unwraps, it no longer wraps."""

    ACTIVE = "active"
    DECRYPT_ONLY = "decrypt-only"
    DISABLED = "disabled"


class IvMode(enum.StrEnum):
    """Who makes the GCM IV: this library, the HSM in place, or the HSM behind the ciphertext."""

    HOST = "host"
    HSM = "hsm"
    APPENDED = "appended"


class WrapScheme(enum.StrEnum):
    """How a backend wraps data keys."""

    AES_GCM = "aes-gcm"
    AES_KWP = "aes-kwp"
    TRANSIT = "transit"
    NONE = "none"


_PURPOSES: Final = {
    KeyAlgorithm.AES_256: KeyPurpose.KEK,
    KeyAlgorithm.AES_256_ROOT: KeyPurpose.ROOT,
    KeyAlgorithm.EC_P256: KeyPurpose.SIGNING,
    KeyAlgorithm.ED25519: KeyPurpose.SIGNING,
    KeyAlgorithm.HMAC_SHA256: KeyPurpose.MAC,
}


@dataclass(frozen=True, slots=True)
class KeyRef:
    """Which key: both its label and its id must match, and exactly one object may.

    `label` is 1 to 40 printable ASCII characters. `object_id` is 16 random bytes that the caller chose
    and wrote down *before* creating the key, so that a crash leaves an orphan that can be found and
    never two keys of one name. Raises `ValueError`.
    """

    label: str
    object_id: bytes

    def __post_init__(self) -> None:
        label = self.label
        if not 1 <= len(label) <= MAX_LABEL or not label.isascii() or not label.isprintable():
            raise ValueError(f"a key label is 1 to {MAX_LABEL} printable ASCII characters")
        # An int or a bytearray would pack into a template that the PKCS#11 binding frees wrongly.
        if type(self.object_id) is not bytes or len(self.object_id) != OBJECT_ID_SIZE:
            raise ValueError(f"a key id is exactly {OBJECT_ID_SIZE} bytes")


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A KEK that the HSM has no room for: it lies with the caller, wrapped under a root key of the HSM.

    `ref` is the name that it was made with, and the only one under which it can be used. `blob` is what
    `create_wrapped_key` returned; it is no secret, and there is no use for it but in that HSM.
    """

    ref: KeyRef
    root: KeyRef
    blob: bytes = field(repr=False)


Kek: TypeAlias = KeyRef | WrappedKey
"""What wraps and unwraps data keys, wherever it lies."""


def name_of(kek: Kek) -> KeyRef:
    """The name of a KEK, wherever it lies."""
    return kek if isinstance(kek, KeyRef) else kek.ref


@dataclass(frozen=True, slots=True)
class KeySpec:
    """A key to be created."""

    ref: KeyRef
    algorithm: KeyAlgorithm


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What the HSM says of a key. `None` means that it does not say."""

    ref: KeyRef
    algorithm: KeyAlgorithm
    state: KeyState
    sensitive: bool | None
    extractable: bool | None
    never_extractable: bool | None
    local: bool | None


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the HSM works, and one stable word for why it does not.

    Reasons: `ok`, `closed`, `forked`, `unavailable`, `login lost`, `auth failed`, `hung`,
    `canary failed`.
    """

    ok: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend was found to do, by trying it; a module's own list of mechanisms is not believed.

    `max_sessions` is the number that this backend uses at once. `wrapped_keys` says whether KEKs can lie
    outside, wrapped under a root key. `firmware` is the token's version of it, where it has one.
    """

    wrap: WrapScheme
    iv_mode: IvMode | None
    signatures: frozenset[SignatureAlgorithm]
    mac: bool
    random: bool
    max_sessions: int
    model: str = ""
    notes: tuple[str, ...] = field(default=())
    wrapped_keys: bool = False
    firmware: str = ""


@dataclass(frozen=True, slots=True)
class WrapItem:
    """One data key to be wrapped by `wrap_many`; the fields are the arguments of `wrap`."""

    ref: Kek
    dek: ReadableBuffer = field(repr=False)
    aad: bytes


class UnwrapItem(NamedTuple):
    """One blob to be unwrapped by `unwrap_many`; the fields are the arguments of `unwrap`."""

    ref: Kek
    blob: bytes
    aad: bytes
    into: memoryview


@dataclass(frozen=True, slots=True)
class RewrapItem:
    """One blob to be moved to another KEK by `rewrap_many`; the fields are the arguments of `rewrap`."""

    old: Kek
    blob: bytes
    old_aad: bytes
    new: Kek
    new_aad: bytes
