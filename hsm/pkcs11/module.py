"""One loaded PKCS#11 module: initialising it properly, and the gate that all calls into it pass.

A module is a process-wide thing: initialised once, its log-ins shared by all sessions, useless after a
fork. So there is one `Module` per library file, shared by every backend that uses it.

The gate counts the calls under way. Shutting it lets them end and new ones wait, which is needed twice: for
changes of token objects, as SoftHSM's search and use of keys race with them even with its locks on, and for
finalising and initialising the module again, the one thing that recovers a lost connection.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import _pkcs11
from pkcs11.exceptions import PKCS11Error

from hsm.errors import HsmBusy, HsmError, HsmUnavailable, HsmUnsupported
from hsm.pkcs11 import codes, cryptoki
from hsm.pkcs11.codes import CryptokiError, check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from pkcs11.types import Token

CANT_LOCK: Final = 0x00A


class _OsLockingLib(_pkcs11.lib):
    """python-pkcs11's library, told that this process has threads.

    The stock `initialize` passes NULL, which promises the module that only one thread calls it, while
    the GIL is released in each call; SoftHSM then crashes within seconds. `initialized` of the base
    stays false, so it never finalises the module behind our back.
    """

    def __new__(cls, path: str, *_: object) -> Self:
        return super().__new__(cls, path)  # type: ignore[call-arg]  # the compiled base wants the path here too

    def __init__(self, path: str, functions: cryptoki.Functions, reserved: bytes | None) -> None:
        self._functions = functions
        self._reserved = reserved
        super().__init__(path)

    def initialize(self) -> None:
        arguments = cryptoki.InitializeArgs(flags=cryptoki.CKF_OS_LOCKING_OK, reserved=self._reserved)
        check(self._functions.C_Initialize(ctypes.byref(arguments)))

    def finalize(self) -> None:
        check(self._functions.C_Finalize(None))

    def reinitialize(self) -> None:
        self.finalize()
        self.initialize()


class Gate:
    """Counts the calls inside a module; can be shut while those that are inside come out."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.active = 0
        self.lost = 0  # calls that were given up but never came out
        self.shut = False
        self.forked = False

    @contextmanager
    def entered(self, op: str, wait_seconds: float) -> Iterator[None]:
        """Be inside for a moment. Raises `HsmBusy` if the gate stays shut."""
        with self.changed:
            if not self.changed.wait_for(lambda: not self.shut, wait_seconds):
                raise HsmBusy(op, "a change of keys or a reconnect is under way")
            self.active += 1
        try:
            yield
        finally:
            with self.changed:
                self.active -= 1
                self.changed.notify_all()

    @contextmanager
    def exclusive(self, op: str, wait_seconds: float) -> Iterator[None]:
        """Be alone in the module. Raises `HsmBusy` if the calls inside do not end in time."""
        deadline = time.monotonic() + wait_seconds
        with self.changed:
            if not self.changed.wait_for(lambda: not self.shut, wait_seconds):
                raise HsmBusy(op, "another change of keys is under way")
            self.shut = True
            if not self.changed.wait_for(lambda: not self.active, deadline - time.monotonic()):
                self.shut = False
                self.changed.notify_all()
                raise HsmBusy(op, "calls to the HSM do not end")
        try:
            yield
        finally:
            with self.changed:
                self.shut = False
                self.changed.notify_all()


class Module:
    """A library file that is loaded and initialised.

    `epoch` grows with each initialisation; handles of an earlier epoch mean nothing, or worse, another
    session. `salt` keys the digests by which backends compare PINs without keeping them.
    """

    def __init__(self, path: str, reserved: bytes | None) -> None:
        self.path = path
        self.reserved = reserved
        self.gate = Gate()
        self.epoch = 0
        self.users = 0
        self.up = False
        self.salt = secrets.token_bytes(32)
        self.logins: dict[int, bytes] = {}
        try:
            self.functions = cryptoki.Functions(path)
        except (OSError, AttributeError):
            raise HsmUnavailable("open", f"{path} is not a PKCS#11 module that can be loaded here") from None
        self._lib: Any = None

    def initialize(self) -> None:
        """Bring the module up. Raises `HsmUnavailable`, `HsmUnsupported`."""
        self.logins.clear()
        self.epoch += 1
        try:
            if self._lib is None:
                self._lib = _OsLockingLib(self.path, self.functions, self.reserved)
            else:
                self._lib.initialize()
            self.up = True
        except CryptokiError as error:
            if error.rv == CANT_LOCK:
                raise HsmUnsupported("open", f"{self.path} does not work with threads") from None
            if error.rv == codes.ALREADY_INITIALIZED:
                text = f"{self.path} is already in use by another part of this process, with unknown locking"
                raise HsmUnavailable("open", text, code_name=error.code.name) from None
            text = f"{self.path} cannot be initialised"
            raise HsmUnavailable("open", text, code_name=error.code.name) from None
        except PKCS11Error as error:
            raise HsmUnavailable("open", f"{self.path} cannot be loaded: {error}") from None

    def finalize(self) -> None:
        """Shut the module down; all its sessions and log-ins end. A module that is down already is fine.

        Raises `CryptokiError`, and then the sessions are as they were.
        """
        if self._lib is None:
            return
        for attempt in (1, 2):
            rv = self.functions.C_Finalize(None)
            if rv in (cryptoki.OK, codes.NOT_INITIALIZED):
                break
            if attempt > 1:
                raise CryptokiError(rv)
        self.up = False
        self.logins.clear()

    def tokens(self) -> list[Token]:
        """The tokens that are present."""
        return list(self._lib.get_tokens())


_modules: dict[str, Module] = {}
_registry_lock = threading.Lock()


def acquire(path: str, *, reserved: bytes | None = None) -> Module:
    """The module of a library file, initialised. Give it back with `release`.

    Raises `HsmUnavailable` with the path in its text if there is none.
    """
    real = os.path.realpath(path)
    if not Path(real).is_file():
        raise HsmUnavailable("open", f"there is no PKCS#11 module at {path}")
    with _registry_lock:
        module = _modules.get(real)
        if module is not None and module.gate.forked:
            raise forked("open")
        if module is None:
            module = _modules[real] = Module(real, reserved)
        if not module.up:
            module.reserved = reserved
            module.initialize()
        elif module.reserved != reserved:
            raise HsmUnavailable("open", f"{path} is already initialised with another init string")
        module.users += 1
        return module


def look_again(module: Module, *, shared: bool, wait_seconds: float) -> bool:
    """Initialise a module again, as tokens are seen only then; if others use it, only where `shared` says so.

    Their sessions end with that, as after a reconnect. Raises `HsmBusy`.
    """
    with _registry_lock:
        if module.users != 1 and (not shared or module.gate.lost):
            return False
        with module.gate.exclusive("open", wait_seconds):
            with suppress(CryptokiError):
                module.finalize()
            module.initialize()
        return True


def release(module: Module, wait_seconds: float = 1.0) -> None:
    """Give a module back; the last user's leaving finalises it.

    It stays up if calls do not come out of it in time, as finalising it under them is undefined.
    """
    with _registry_lock:
        module.users -= 1
        if module.users or module.gate.forked or module.gate.lost:
            return
        with suppress(HsmBusy, CryptokiError), module.gate.exclusive("close", wait_seconds):
            module.finalize()


def forked(op: str) -> HsmError:
    """The error for use in a child that was forked off: sessions, locks and log-in are the parent's."""
    return HsmUnavailable(op, "this process was forked from one that uses the HSM; spawn it instead")


def _poison() -> None:
    # No lock may be taken here: the thread that held it does not exist in the child.
    for module in list(_modules.values()):
        module.gate.forked = True


os.register_at_fork(after_in_child=_poison)
