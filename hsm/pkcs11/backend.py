"""The PKCS#11 backend: one token of one module."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, TypeVar

from pkcs11.exceptions import PKCS11Error

from hsm import blob as blobs
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
    KeyAlgorithm,
    KeyInfo,
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
from hsm.pkcs11 import codes, cryptoki, detect, keys, module, sealing, wrapped
from hsm.pkcs11.codes import CryptokiError, Remedy, as_failure, as_hsm_error, to_error
from hsm.pkcs11.pool import Pool
from hsm.pkcs11.recovery import Recovery
from hsm.pkcs11.runner import Runner
from hsm.pkcs11.session_keys import HOMES, SessionKeys
from hsm.usage import UsageCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pkcs11.types import Token

    from hsm.model import Kek, ReadableBuffer
    from hsm.pkcs11.sealing import Sealer
    from hsm.pkcs11.worker import Worker
    from hsm.uri import Pkcs11Uri

T = TypeVar("T")

_LOOK_AGAIN: Final = (0.02, 0.05, 0.1, 0.2, 0.4)  # seconds
_CANARY: Final = bytes(32)
_NO_KEY: Final = bytes(blobs.MAX_DEK)
_CANARY_AAD: Final = b"strongroom canary"


class Pkcs11Backend(HsmBackend):
    """Keys on a PKCS#11 token.

    Every operation on a key that changes nothing is made again, on another session, if it failed for a
    reason that this may cure; `create_key` and `destroy_key` never are.
    """

    def __init__(
        self,
        uri: Pkcs11Uri,
        *,
        sessions: int = 8,
        wait_seconds: float = 5.0,
        hang_seconds: float = 10.0,
        cached_keys: int = 256,
    ) -> None:
        if sessions < 1:
            raise ValueError("at least one session")
        self._uri = uri
        self._usage = UsageCounter()
        self._canaries: dict[KeyRef, bytes] = {}
        self._seen: set[KeyRef] = set()
        self._missing: KeyRef | None = None
        self._found: Capabilities | None = None
        reserved = uri.init_string.encode() if uri.init_string is not None else None
        self._module = module.acquire(uri.module_path, reserved=reserved)
        self._pool = Pool(
            self._module,
            self._find_token,
            uri.pin_source,
            limit=sessions,
            wait_seconds=wait_seconds,
            hang_seconds=hang_seconds,
            homes=HOMES,
        )
        self._session_keys = SessionKeys(
            self._pool,
            cached_keys,
            lambda worker, root: self._root(worker, root, "unwrap"),
        )
        self._recovery = Recovery(self._module, self._pool, self._sees_its_keys)
        self._runner = Runner(self._pool, self._recovery)
        try:
            self._log_in_at_first()
            self._sealer = self._runner.run(
                "open", lambda worker: sealing.choose(worker, uri.wrap_scheme, uri.iv_mode)
            )
        except BaseException:
            self._pool.close()
            module.release(self._module)
            raise

    def _log_in_at_first(self) -> None:
        """Log in, looking again for a while where the token does not show itself.

        SoftHSM rewrites its token's file at each log-in, so a process that starts in the same moment as
        another may not see the token, or find it unreadable. A PIN that is refused is never tried again.
        """
        for attempt, pause in enumerate((*_LOOK_AGAIN, None)):
            try:
                with self._module.gate.entered("open", self._pool.wait_seconds):
                    self._pool.log_in()
            except (CryptokiError, PKCS11Error) as error:
                failure = as_failure("open", error)
                passing = failure.code.remedy is Remedy.CONNECT
                if (
                    not passing
                    or pause is None
                    or not module.look_again(
                        self._module, shared=attempt == 0, wait_seconds=self._pool.wait_seconds
                    )
                ):
                    if failure.rv == codes.TOKEN_NOT_PRESENT:
                        text = f"no token of {self._uri.module_path} matches the URI"
                        raise HsmUnavailable("open", text) from None
                    raise to_error("open", failure) from None
                time.sleep(pause)
            else:
                return

    @property
    def _wrapping_keys(self) -> bool:
        return self._sealer is not None and self._sealer.wrapping_keys

    def _matching_tokens(self) -> list[Token]:
        uri = self._uri
        return [
            token
            for token in self._module.tokens()
            if (uri.serial is None or token.serial.decode("utf-8", "replace").strip() == uri.serial)
            and (uri.token is None or token.label.strip() == uri.token)
            and (uri.manufacturer is None or token.manufacturer_id.strip() == uri.manufacturer)
            and (uri.model is None or token.model.strip() == uri.model)
        ]

    def _find_token(self) -> Token:
        """The one token of the URI. Slot ids are not looked at: some modules make them up anew."""
        matching = self._matching_tokens()
        if not matching:
            raise CryptokiError(codes.TOKEN_NOT_PRESENT)
        if len(matching) > 1:
            raise HsmUnavailable("open", "more than one token matches the URI; name it by its serial")
        token = matching[0]
        name = f"pkcs11:{token.serial.decode('utf-8', 'replace').strip()}"
        if name != getattr(self, "name", name):
            raise HsmUnavailable("open", f"another token has taken the place of {self.name}")
        self.name = name
        self._model = f"{token.manufacturer_id.strip()} {token.model.strip()}"
        self._firmware = ".".join(map(str, token.firmware_version))
        return token

    # -- data keys -----------------------------------------------------------------------------------

    def _key(self, worker: Worker, ref: KeyRef, algorithm: KeyAlgorithm, op: str) -> int:
        """The object handle of a key, looked up once a session."""
        if worker.stale:
            worker.keys.clear()
            worker.stale = False
        cached = worker.keys.get((algorithm, ref.object_id))
        if cached is not None and cached[0] == ref.label:
            return cached[1]
        try:
            handle = keys.find_key(worker, ref, algorithm, op)
        except KeyNotFound:
            worker.require_login()
            if ref not in self._seen:
                raise
            # It was there. Either another process has destroyed it, or the token is gone, which some modules
            # answer by finding nothing; a new start will tell.
            self._seen.discard(ref)
            self._missing = ref
            raise CryptokiError(codes.TOKEN_NOT_PRESENT) from None
        self._seen.add(ref)
        worker.keys[algorithm, ref.object_id] = (ref.label, handle)
        return handle

    def _sees_its_keys(self, worker: Worker) -> bool:
        """Whether a key that had gone missing is there again. After a new start the answer is final."""
        missing, self._missing = self._missing, None
        if missing is None:
            return True
        try:
            keys.find_any(worker, missing, "health")
        except KeyNotFound:
            return False
        return True

    def _wrap(self, ref: Kek, dek: ReadableBuffer, aad: bytes) -> bytes:
        return self._runner.run("wrap", lambda worker: self._wrap_on(worker, ref, dek, aad))

    def _unwrap(self, ref: Kek, blob: bytes, aad: bytes, into: memoryview) -> int:
        parsed = self._parse(blob, into)
        return self._runner.run("unwrap", lambda worker: self._unwrap_on(worker, ref, parsed, aad, into))

    def _wrap_many(self, items: Sequence[WrapItem]) -> list[bytes | HsmError]:
        return self._runner.many(
            "wrap",
            items,
            lambda worker, item: self._wrap_on(worker, item.ref, item.dek, item.aad),
            lambda item: self._wrap(item.ref, item.dek, item.aad),
        )

    def _unwrap_many(self, items: Sequence[UnwrapItem]) -> list[int | HsmError]:
        return self._runner.many(
            "unwrap",
            items,
            lambda worker, item: self._unwrap_on(
                worker, item.ref, self._parse(item.blob, item.into), item.aad, item.into
            ),
            lambda item: self._unwrap(item.ref, item.blob, item.aad, item.into),
        )

    def _rewrap_many(self, items: Sequence[RewrapItem]) -> list[bytes | HsmError]:
        return self._runner.many(
            "rewrap",
            items,
            self._rewrap_on,
            lambda item: self._runner.run("rewrap", lambda worker: self._rewrap_on(worker, item)),
        )

    def _rewrap_on(self, worker: Worker, item: RewrapItem) -> bytes:
        # Between the two operations the key lies in the session's locked page, and nowhere else.
        kept = worker.arena.kept
        try:
            size = self._unwrap_on(worker, item.old, self._parse(item.blob, kept), item.old_aad, kept)
            return self._wrap_on(worker, item.new, kept[:size], item.new_aad)
        finally:
            kept[:] = _NO_KEY

    def _sealer_for(self, op: str) -> Sealer:
        if self._sealer is None:
            raise HsmUnsupported(op, "this HSM has neither AES-GCM with AAD nor AES-KWP")
        return self._sealer

    def _wrap_on(self, worker: Worker, kek: Kek, dek: ReadableBuffer, aad: bytes) -> bytes:
        sealer = self._sealer_for("wrap")
        if isinstance(kek, WrappedKey):
            with self._session_keys.lent(worker, kek, sealer) as key:
                self._usage.spend(kek)
                return sealer.wrap(worker, key, dek, aad)
        key = self._key(worker, kek, KeyAlgorithm.AES_256, "wrap")
        self._usage.spend(kek)
        return sealer.wrap(worker, key, dek, aad)

    def _unwrap_on(
        self, worker: Worker, kek: Kek, parsed: blobs.Wrapped, aad: bytes, into: memoryview
    ) -> int:
        sealer = self._sealer_for("unwrap")
        if isinstance(kek, WrappedKey):
            with self._session_keys.lent(worker, kek, sealer) as key:
                return self._unwrap_by(worker, key, kek.ref, parsed, aad, into)
        key = self._key(worker, kek, KeyAlgorithm.AES_256, "unwrap")
        return self._unwrap_by(worker, key, kek, parsed, aad, into)

    def _unwrap_by(
        self, worker: Worker, key: int, ref: KeyRef, parsed: blobs.Wrapped, aad: bytes, into: memoryview
    ) -> int:
        sealer = self._sealer_for("unwrap")
        try:
            return sealer.unwrap(worker, key, parsed, aad, into)
        except CryptokiError as first:
            if not codes.suspicious(first):
                raise
        # Either the blob is bad or the HSM is. A second failure, with a canary that still opens, says blob.
        try:
            return sealer.unwrap(worker, key, parsed, aad, into)
        except CryptokiError as second:
            if not codes.suspicious(second):
                raise
            if self._canary_opens(worker, sealer, key, ref):
                raise HsmIntegrityError(
                    "unwrap", codes.MESSAGES[HsmIntegrityError], code_name=second.code.name
                ) from None
            raise CryptokiError(codes.GENERAL_ERROR) from None

    def _parse(self, blob: bytes, into: memoryview) -> blobs.Wrapped:
        parsed = blobs.parse(blob)
        if self._sealer is None or parsed.scheme not in self._sealer.opens:
            raise HsmIntegrityError("unwrap", "not wrapped by this kind of HSM")
        if len(into) < parsed.dek_size:
            raise ValueError(f"the buffer is shorter than the key of {parsed.dek_size} bytes")
        return parsed

    def _canary_opens(self, worker: Worker, sealer: Sealer, key: int, ref: KeyRef) -> bool:
        """Whether the HSM still opens, with this very key, something that is known to be good.

        A retired key cannot make a canary; a key of the session's own stands in for it then.
        """
        opened = bytearray(blobs.MAX_DEK)
        try:
            canary = self._canaries.get(ref)
            if canary is None:
                self._usage.spend(ref)
                canary = self._canaries[ref] = sealer.wrap(worker, key, _CANARY, _CANARY_AAD)
            size = sealer.unwrap(worker, key, blobs.parse(canary), _CANARY_AAD, memoryview(opened))
        except (CryptokiError, HsmPolicyViolation) as error:
            if isinstance(error, HsmPolicyViolation) or error.code.error is KeyNotPermitted:
                return sealing.works(worker, sealer)
            return False
        except (HsmError, PKCS11Error):
            return False
        return opened[:size] == _CANARY

    # -- wrapped keys --------------------------------------------------------------------------------

    def _root(self, worker: Worker, root: KeyRef, op: str) -> int:
        return self._key(worker, root, KeyAlgorithm.AES_256_ROOT, op)

    def _create_wrapped_key(self, root: KeyRef, ref: KeyRef) -> bytes:
        sealer = self._sealer_for("create_wrapped_key")

        def work(worker: Worker) -> bytes:
            blob = wrapped.create(worker, self._root(worker, root, "create_wrapped_key"), ref, sealer)
            self._usage.spend(ref)  # the proof
            return blob

        return self._runner.run("create_wrapped_key", work)

    def _rewrap_key(self, key: WrappedKey, root: KeyRef) -> bytes:
        sealer = self._sealer_for("rewrap_key")

        def work(worker: Worker) -> bytes:
            old, new = (self._root(worker, which, "rewrap_key") for which in (key.root, root))
            self._usage.spend(key.ref)
            return wrapped.rewrap(worker, key.blob, old, new, key.ref, sealer)

        return self._runner.run("rewrap_key", work)

    # -- everything else ---------------------------------------------------------------------------

    def _sign(self, ref: KeyRef, algorithm: SignatureAlgorithm, message: bytes) -> bytes:
        def work(worker: Worker) -> bytes:
            key = self._key(worker, ref, algorithm.key_algorithm, "sign")
            return detect.sign(worker, key, algorithm, message)

        return self._runner.run("sign", work)

    def _mac(self, ref: KeyRef, data: bytes) -> bytes:
        def work(worker: Worker) -> bytes:
            key = self._key(worker, ref, KeyAlgorithm.HMAC_SHA256, "mac")
            return worker.sign(key, cryptoki.CKM_SHA256_HMAC, data, 32)

        return self._runner.run("mac", work)

    def _public_key(self, ref: KeyRef) -> bytes:
        return self._runner.run("public_key", lambda worker: keys.public_key(worker, ref))

    def _random(self, size: int) -> bytes:
        return self._runner.run("random", lambda worker: worker.random(size))

    def _create_key(self, spec: KeySpec) -> KeyInfo:
        kwp = self._wrapping_keys

        def work(worker: Worker) -> KeyInfo:
            if keys.occupied(worker, spec.ref):
                raise KeyAmbiguous("create_key", "an object has that label or id already")
            key = keys.generate(worker.session, spec.ref, spec.algorithm, kwp=kwp)
            try:
                info = keys.describe(worker, key, kwp=kwp)
                faults = ["it cannot be read back"] if info is None else keys.policy_faults(worker, key, info)
            except BaseException:
                keys.destroy(worker, key, spec.ref)
                raise
            if info is None or faults or info.ref != spec.ref:
                keys.destroy(worker, key, spec.ref)
                raise HsmPolicyViolation("create_key", f"the new key was destroyed: {', '.join(faults)}")
            return info

        return self._runner.alone("create_key", work)

    def _key_info(self, ref: KeyRef) -> KeyInfo:
        def work(worker: Worker) -> KeyInfo:
            info = keys.describe(worker, keys.find_any(worker, ref, "key_info"), kwp=self._wrapping_keys)
            if info is None:
                raise HsmUnsupported("key_info", "the object is not a key of a kind known here")
            return info

        return self._runner.run("key_info", work)

    def _list_keys(self, label_prefix: str) -> list[KeyInfo]:
        def work(worker: Worker) -> list[KeyInfo]:
            worker.require_login()  # without it the list would be empty, and wrong
            found = list(keys.describe_all(worker, label_prefix, kwp=self._wrapping_keys))
            worker.require_login()
            return found

        return self._runner.run("list_keys", work)

    def _set_key_state(self, ref: KeyRef, state: KeyState) -> None:
        def work(worker: Worker) -> None:
            key = keys.find_any(worker, ref, "set_key_state")
            info = keys.describe(worker, key, kwp=self._wrapping_keys)
            if info is None:
                raise HsmUnsupported("set_key_state", "the object is not a key of a kind known here")
            keys.set_state(worker, key, info.algorithm, state, kwp=self._wrapping_keys)

        self._runner.alone("set_key_state", work)

    def _destroy_key(self, ref: KeyRef) -> None:
        def work(worker: Worker) -> None:
            keys.destroy(worker, keys.find_any(worker, ref, "destroy_key"), ref)

        self._runner.alone("destroy_key", work)
        self._canaries.pop(ref, None)
        self._seen.discard(ref)
        self._usage.forget(ref)
        # Another module might give the handle of a destroyed key to a new one.
        self._pool.forget_keys()

    def forget_keys(self) -> None:  # noqa: D102
        with self._errors("forget_keys"), self._module.gate.entered("forget_keys", self._pool.wait_seconds):
            self._session_keys.close()

    def usage(self) -> Mapping[KeyRef, int]:  # noqa: D102 - inherited
        return self._usage.snapshot()

    def note_usage(self, ref: KeyRef, count: int) -> None:  # noqa: D102
        self._usage.note(ref, count)

    def settle_usage(self, ref: KeyRef, count: int) -> None:  # noqa: D102
        self._usage.settle(ref, count)

    def _capabilities(self) -> Capabilities:
        if self._found is None:
            self._found = self._runner.run("capabilities", self._detect)
        return self._found

    def _detect(self, worker: Worker) -> Capabilities:
        return Capabilities(
            wrap=WrapScheme.NONE if self._sealer is None else self._sealer.scheme,
            iv_mode=None if self._sealer is None else self._sealer.iv_mode,
            signatures=frozenset(detect.signatures(worker)),
            mac=detect.mac(worker),
            random=detect.random(worker),
            max_sessions=self._pool.limit,
            model=self._model,
            wrapped_keys=self._sealer is not None and wrapped.works(worker, self._sealer),
            firmware=self._firmware,
        )

    def _health(self, deep: bool) -> Health:
        pool = self._pool
        reason = ""
        if self._module.gate.forked:
            reason = "forked"
        elif pool.auth_failed is not None:
            reason = "auth failed"
        elif pool.check_hung():
            reason = "hung"
        elif not deep and not self._recovery.failing and (logged_in := pool.logged_in()) is not None:
            reason = "ok" if logged_in else "login lost"
        if reason:
            return Health(ok=reason == "ok", reason=reason)
        # Not in order, or asked to look closely: use it, which also heals what can be healed.
        try:
            works = self._runner.run("health", self._works)
        except HsmError as error:
            reason = "auth failed" if isinstance(error, HsmAuthFailed) else "unavailable"
            return Health(ok=False, reason=reason)
        return Health(ok=works, reason="ok" if works else "canary failed")

    def _works(self, worker: Worker) -> bool:
        """Whether it still does what it was found to do."""
        worker.random(16)
        if self._sealer is not None and not sealing.works(worker, self._sealer):
            return False
        found = self._found
        return found is None or (
            found.signatures <= set(detect.signatures(worker)) and detect.mac(worker) >= found.mac
        )

    def with_session(self, work: Callable[[Worker], T]) -> T:
        """Do something that only PKCS#11 has, on a checked-out session: for probing, not for products."""
        with self._errors("with_session"):
            return self._runner.run("with_session", work)

    def _translate(self, op: str, error: Exception) -> HsmError:
        if isinstance(error, (CryptokiError, PKCS11Error)):
            return as_hsm_error(op, error)
        return super()._translate(op, error)

    def _close(self) -> None:
        gate = self._module.gate
        if not gate.forked:
            with contextlib.suppress(HsmBusy), gate.entered("close", self._pool.wait_seconds):
                self._session_keys.close()
        self._pool.close()
        module.release(self._module)
