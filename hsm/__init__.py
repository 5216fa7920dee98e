"""An HSM abstraction that real HSMs can live behind.

from hsm import KeyAlgorithm, KeyRef, KeySpec, open_backend

with open_backend("pkcs11:serial=...?module-path=/usr/lib/...so&pin-source=file:/run/pin") as backend:
    kek = KeyRef("acme/kek/v1", secrets.token_bytes(16))
    backend.create_key(KeySpec(kek, KeyAlgorithm.AES_256))
    blob = backend.wrap(kek, dek, b"what it is for")
"""

from __future__ import annotations

from hsm.backend import HsmBackend
from hsm.errors import (
    HsmAuthFailed,
    HsmBusy,
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
    IvMode,
    Kek,
    KeyAlgorithm,
    KeyInfo,
    KeyPurpose,
    KeyRef,
    KeySpec,
    KeyState,
    RewrapItem,
    SignatureAlgorithm,
    UnwrapItem,
    WrapItem,
    WrappedKey,
    WrapScheme,
)
from hsm.open import open_backend

__all__ = [
    "Capabilities",
    "Health",
    "HsmAuthFailed",
    "HsmBackend",
    "HsmBusy",
    "HsmError",
    "HsmIntegrityError",
    "HsmPolicyViolation",
    "HsmUnavailable",
    "HsmUnsupported",
    "IvMode",
    "Kek",
    "KeyAlgorithm",
    "KeyAmbiguous",
    "KeyInfo",
    "KeyNotFound",
    "KeyNotPermitted",
    "KeyPurpose",
    "KeyRef",
    "KeySpec",
    "KeyState",
    "RewrapItem",
    "SignatureAlgorithm",
    "UnwrapItem",
    "WrapItem",
    "WrapScheme",
    "WrappedKey",
    "open_backend",
]
