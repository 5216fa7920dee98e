"""The seam: what an HSM does for its callers, whoever made it.

Callers use the public methods of `HsmBackend`. They check arguments and limits, turn every error into the
one family of `hsm.errors`, and refuse work after `close`. A driver implements the methods with a leading
underscore; it may trust its arguments and let its library's errors out, which `_translate` then turns.

Every method blocks and may be called from any thread.
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hsm import blob as blobs
from hsm.errors import HsmError, HsmUnavailable, HsmUnsupported
from hsm.model import (
    MAX_LABEL,
    OBJECT_ID_SIZE,
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
    ReadableBuffer,
    RewrapItem,
    SignatureAlgorithm,
    UnwrapItem,
    WrapItem,
    WrappedKey,
    WrapScheme,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

__all__ = [
    "MAX_LABEL",
    "OBJECT_ID_SIZE",
    "Capabilities",
    "Health",
    "HsmBackend",
    "IvMode",
    "Kek",
    "KeyAlgorithm",
    "KeyInfo",
    "KeyPurpose",
    "KeyRef",
    "KeySpec",
    "KeyState",
    "ReadableBuffer",
    "RewrapItem",
    "SignatureAlgorithm",
    "UnwrapItem",
    "WrapItem",
    "WrapScheme",
    "WrappedKey",
]

MAX_AAD: Final = 2048  # bytes
MAX_MESSAGE: Final = 1 << 20  # bytes to sign or to MAC
MAX_RANDOM: Final = 1 << 16  # bytes


class HsmBackend(ABC):
    """A place where keys live and never leave.

    All methods raise `HsmError`; wrong arguments (a bug of the caller) raise `ValueError`. Names of
    errors in the docstrings below are the ones a caller should expect beside `HsmUnavailable`,
    `HsmBusy` and `HsmAuthFailed`, which any method can raise.
    """

    name: str
    """Stable identity of the place, such as `pkcs11:<token serial>`; fit to be stored beside its blobs."""

    _closed: bool = False

    def capabilities(self) -> Capabilities:
        """What this backend was found to do when it was tried, once, on first call."""
        with self._errors("capabilities"):
            return self._capabilities()

    def health(self, *, deep: bool = False) -> Health:
        """Whether the HSM works. Never raises. `deep` also makes it do what it can do, with throwaway keys."""
        if self._closed:
            return Health(ok=False, reason="closed")
        try:
            return self._health(deep)
        except Exception:  # noqa: BLE001 - health is an answer, whatever happens
            return Health(ok=False, reason="unavailable")

    def create_key(self, spec: KeySpec) -> KeyInfo:
        """Make a key inside the HSM and verify that it is what policy demands.

        Raises `KeyAmbiguous` if any object already has that label or id, and `HsmPolicyViolation`,
        after destroying the key again, if the HSM made it extractable, not sensitive, or not by
        itself. Never retried inside: after `HsmUnavailable`, look for the id with `key_info` first.
        """
        with self._errors("create_key"):
            return self._create_key(spec)

    def key_info(self, ref: KeyRef) -> KeyInfo:
        """What the HSM says of a key. Raises `KeyNotFound`, `KeyAmbiguous`."""
        with self._errors("key_info"):
            return self._key_info(ref)

    def list_keys(self, label_prefix: str = "") -> list[KeyInfo]:
        """Every key whose label begins so, by label. Objects that no `KeyRef` can name are left out."""
        with self._errors("list_keys"):
            return sorted(
                self._list_keys(label_prefix), key=lambda info: (info.ref.label, info.ref.object_id)
            )

    def orphans(self, known: Sequence[KeyRef], label_prefix: str) -> list[KeyInfo]:
        """Keys under a prefix that the caller's records do not know: left by a crash between two phases.

        The prefix may not be empty, as other programs' keys may live on the same token.
        """
        if not label_prefix:
            raise ValueError("orphans are looked for under a label prefix")
        expected = set(known)
        return [info for info in self.list_keys(label_prefix) if info.ref not in expected]

    def set_key_state(self, ref: KeyRef, state: KeyState) -> None:
        """Say what a key may be used for from now on; the HSM itself enforces it.

        `DECRYPT_ONLY` is for KEKs only (`HsmUnsupported` otherwise). Raises `KeyNotFound`,
        `KeyAmbiguous`, `KeyNotPermitted` where the key or the HSM does not allow a change.
        """
        with self._errors("set_key_state"):
            self._set_key_state(ref, state)

    def destroy_key(self, ref: KeyRef, *, confirm: str) -> None:
        """Destroy a key for ever, and with it all that it wrapped. `confirm` must equal its label.

        Raises `KeyNotFound`, `KeyAmbiguous`, `KeyNotPermitted`.
        """
        if not hmac.compare_digest(confirm.encode(), ref.label.encode()):
            raise ValueError("destroying a key must be confirmed by its label")
        with self._errors("destroy_key"):
            self._destroy_key(ref)

    def create_wrapped_key(self, root: KeyRef, ref: KeyRef) -> WrappedKey:
        """Make a KEK inside the HSM that will lie outside of it, wrapped under a root key.

        The root key's algorithm is `AES_256_ROOT`. The KEK is never in the clear outside, and is a
        non-extractable object wherever it is used. Nothing stays behind in the HSM, so this may be tried
        again. Raises `KeyNotFound`, `KeyAmbiguous`, `KeyNotPermitted` (a retired root), `HsmUnsupported`.
        """
        with self._errors("create_wrapped_key"):
            return WrappedKey(ref, root, self._create_wrapped_key(root, ref))

    def rewrap_key(self, key: WrappedKey, root: KeyRef) -> WrappedKey:
        """The same KEK, wrapped under another root key; it does not leave the HSM for that.

        Raises what `create_wrapped_key` raises, and `HsmIntegrityError`.
        """
        with self._errors("rewrap_key"):
            return WrappedKey(key.ref, root, self._rewrap_key(key, root))

    def wrap(self, ref: Kek, dek: ReadableBuffer, aad: bytes) -> bytes:
        """Encrypt a data key of 16 to 64 bytes under a KEK, bound to `aad` (1 to 2048 bytes).

        Returns a self-describing blob (`hsm.blob`). Raises `KeyNotFound`, `KeyAmbiguous`,
        `KeyNotPermitted` (retired or disabled), `HsmPolicyViolation` (the key has wrapped all it may).
        """
        _check_wrap(dek, aad)
        self._open("wrap")
        try:
            return self._wrap(ref, dek, aad)
        except (HsmError, ValueError):
            raise
        except Exception as error:  # noqa: BLE001
            raise self._translate("wrap", error) from None

    def unwrap(self, ref: Kek, blob: bytes, aad: bytes, into: memoryview) -> int:
        """Decrypt a wrapped data key into the caller's buffer and return its length in bytes.

        The buffer should be locked memory; no other copy of the key is left behind. It must be
        writable and at least as long as the key (64 bytes always do). On error it is unchanged. Raises
        `HsmIntegrityError`, `KeyNotFound`, `KeyAmbiguous`, `KeyNotPermitted` (disabled).
        """
        _check_unwrap(blob, aad, into)
        self._open("unwrap")
        try:
            return self._unwrap(ref, blob, aad, into)
        except (HsmError, ValueError):
            raise
        except Exception as error:  # noqa: BLE001
            raise self._translate("unwrap", error) from None

    def wrap_many(self, items: Sequence[WrapItem]) -> list[bytes | HsmError]:
        """`wrap` for several, with one session for all; each answer or error in its place.

        Raises `HsmError` only if none could be tried.
        """
        for item in items:
            _check_wrap(item.dek, item.aad)
        if not items:
            return []
        with self._errors("wrap_many"):
            return self._wrap_many(items)

    def unwrap_many(self, items: Sequence[UnwrapItem]) -> list[int | HsmError]:
        """`unwrap` for several, with one session for all; each answer or error in its place.

        Raises `HsmError` only if none could be tried.
        """
        for item in items:
            _check_unwrap(item.blob, item.aad, item.into)
        if not items:
            return []
        with self._errors("unwrap_many"):
            return self._unwrap_many(items)

    def rewrap(self, old: Kek, blob: bytes, old_aad: bytes, new: Kek, new_aad: bytes) -> bytes:
        """Unwrap under one KEK and wrap under another; the data key never leaves this library.

        Raises what `unwrap` and `wrap` raise.
        """
        (answer,) = self.rewrap_many([RewrapItem(old, blob, old_aad, new, new_aad)])
        if isinstance(answer, HsmError):
            raise answer
        return answer

    def rewrap_many(self, items: Sequence[RewrapItem]) -> list[bytes | HsmError]:
        """`rewrap` for several, with one session for all; each answer or error in its place.

        Raises `HsmError` only if none could be tried.
        """
        for item in items:
            _check_blob(item.blob)
            _check_aad(item.old_aad)
            _check_aad(item.new_aad)
        if not items:
            return []
        with self._errors("rewrap_many"):
            return self._rewrap_many(items)

    def sign(self, ref: KeyRef, algorithm: SignatureAlgorithm, message: bytes) -> bytes:
        """Sign a message of at most 1 MiB; the signature is 64 bytes, `r | s` for ES256 (RFC 7515).

        Raises `KeyNotFound`, `KeyAmbiguous`, `KeyNotPermitted` (disabled), `HsmUnsupported`.
        """
        _check_message(message)
        with self._errors("sign"):
            return self._sign(ref, algorithm, message)

    def public_key(self, ref: KeyRef) -> bytes:
        """The public half of a signing key, a DER SubjectPublicKeyInfo (RFC 5480, RFC 8410).

        Raises `KeyNotFound`, `KeyAmbiguous`.
        """
        with self._errors("public_key"):
            return self._public_key(ref)

    def mac(self, ref: KeyRef, data: bytes) -> bytes:
        """HMAC-SHA256 of at most 1 MiB, 32 bytes.

        Raises `KeyNotFound`, `KeyAmbiguous`, `KeyNotPermitted` (disabled), `HsmUnsupported`.
        """
        _check_message(data)
        with self._errors("mac"):
            return self._mac(ref, data)

    def random(self, size: int) -> bytes:
        """Random bytes of the HSM's own generator, 1 to 65536 of them."""
        if not 1 <= size <= MAX_RANDOM:
            raise ValueError(f"between 1 and {MAX_RANDOM} random bytes at a time")
        with self._errors("random"):
            return self._random(size)

    def forget_keys(self) -> None:  # noqa: B027 - a backend need not hold any
        """Let go of every wrapped key that is loaded now; it is loaded again when it is used."""

    def usage(self) -> Mapping[KeyRef, int]:
        """How often each KEK has wrapped, by this backend or as told by `note_usage`; for persisting."""
        return {}

    def note_usage(self, ref: KeyRef, count: int) -> None:  # noqa: B027 - a backend need not count
        """Tell how often a KEK has wrapped elsewhere or before; the greater number counts."""

    def settle_usage(self, ref: KeyRef, count: int) -> None:  # noqa: B027
        """Count so many wraps no longer, as they are written down elsewhere.

        For keys that are far from their limit: so what is kept here does not grow with the number of keys. A
        key that nears it is told of by `note_usage` instead.
        """

    def close(self) -> None:
        """Log out and let go of everything. May be called twice; every other method then refuses."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, op: str) -> None:
        if self._closed:
            raise HsmUnavailable(op, "this backend is closed")

    # `wrap` and `unwrap` spell this out, because the context manager costs a tenth of their time.
    @contextmanager
    def _errors(self, op: str) -> Iterator[None]:
        """Refuse after close, and let nothing but the family of `HsmError` out."""
        self._open(op)
        try:
            yield
        except (HsmError, ValueError):
            raise
        except Exception as error:  # noqa: BLE001 - a driver may let anything out
            raise self._translate(op, error) from None

    def _translate(self, op: str, error: Exception) -> HsmError:
        """Turn an error of the driver's library into one of ours, without its text."""
        return HsmUnavailable(op, "the HSM's library failed", code_name=type(error).__name__)

    @abstractmethod
    def _capabilities(self) -> Capabilities: ...
    @abstractmethod
    def _health(self, deep: bool) -> Health: ...
    @abstractmethod
    def _create_key(self, spec: KeySpec) -> KeyInfo: ...
    @abstractmethod
    def _key_info(self, ref: KeyRef) -> KeyInfo: ...
    @abstractmethod
    def _list_keys(self, label_prefix: str) -> list[KeyInfo]: ...
    @abstractmethod
    def _set_key_state(self, ref: KeyRef, state: KeyState) -> None: ...
    @abstractmethod
    def _destroy_key(self, ref: KeyRef) -> None: ...
    @abstractmethod
    def _wrap(self, ref: Kek, dek: ReadableBuffer, aad: bytes) -> bytes: ...
    @abstractmethod
    def _unwrap(self, ref: Kek, blob: bytes, aad: bytes, into: memoryview) -> int: ...
    def _create_wrapped_key(self, root: KeyRef, ref: KeyRef) -> bytes:  # noqa: ARG002
        raise HsmUnsupported("create_wrapped_key", "keys do not lie outside of this kind of HSM")

    def _rewrap_key(self, key: WrappedKey, root: KeyRef) -> bytes:  # noqa: ARG002
        raise HsmUnsupported("rewrap_key", "keys do not lie outside of this kind of HSM")

    @abstractmethod
    def _sign(self, ref: KeyRef, algorithm: SignatureAlgorithm, message: bytes) -> bytes: ...
    @abstractmethod
    def _public_key(self, ref: KeyRef) -> bytes: ...
    @abstractmethod
    def _mac(self, ref: KeyRef, data: bytes) -> bytes: ...
    @abstractmethod
    def _random(self, size: int) -> bytes: ...
    @abstractmethod
    def _close(self) -> None: ...

    def _wrap_many(self, items: Sequence[WrapItem]) -> list[bytes | HsmError]:
        results: list[bytes | HsmError] = []
        for item in items:
            try:
                results.append(self.wrap(item.ref, item.dek, item.aad))
            except HsmError as error:
                results.append(error)
        return results

    def _unwrap_many(self, items: Sequence[UnwrapItem]) -> list[int | HsmError]:
        results: list[int | HsmError] = []
        for item in items:
            try:
                results.append(self.unwrap(item.ref, item.blob, item.aad, item.into))
            except HsmError as error:
                results.append(error)
        return results

    def _rewrap_many(self, items: Sequence[RewrapItem]) -> list[bytes | HsmError]:
        results: list[bytes | HsmError] = []
        scratch = bytearray(blobs.MAX_DEK)
        with memoryview(scratch) as view:
            for item in items:
                try:
                    size = self.unwrap(item.old, item.blob, item.old_aad, view)
                    results.append(self.wrap(item.new, view[:size], item.new_aad))
                except HsmError as error:
                    results.append(error)
                finally:
                    view[:] = bytes(len(view))
        return results


def _check_aad(aad: bytes) -> None:
    # An empty AAD crashes some builds of SoftHSM, and a blob that is bound to nothing can be swapped.
    if not 1 <= len(aad) <= MAX_AAD:
        raise ValueError(f"aad must be 1 to {MAX_AAD} bytes")


def _check_blob(blob: bytes) -> None:
    if type(blob) is not bytes:
        raise ValueError("a blob is bytes")


def _check_wrap(dek: ReadableBuffer, aad: bytes) -> None:
    _check_aad(aad)
    size = dek.nbytes if isinstance(dek, memoryview) else len(dek)
    if not blobs.MIN_DEK <= size <= blobs.MAX_DEK:
        raise ValueError(f"a data key is {blobs.MIN_DEK} to {blobs.MAX_DEK} bytes")


def _check_unwrap(blob: bytes, aad: bytes, into: memoryview) -> None:
    _check_aad(aad)
    if into.readonly or into.format != "B" or not into.c_contiguous:
        raise ValueError("unwrap writes into a writable, contiguous buffer of bytes")
    _check_blob(blob)


def _check_message(message: bytes) -> None:
    if len(message) > MAX_MESSAGE:
        raise ValueError(f"at most {MAX_MESSAGE} bytes at a time")
