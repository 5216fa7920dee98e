"""Steers the PKCS#11 proxy of `shim.c`: the real SoftHSM with a fault switch, in this process or another.

shim = Shim.build(directory)
uri = shim.uri(uri_of_softhsm)          # and set shim.environment before the module is loaded
shim.fail("C_Decrypt", 0x30, skip=2)    # the third call from now answers CKR_DEVICE_ERROR
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path
from urllib.parse import quote

from hsm import softhsm

EVERY = "*"
PLACES = {
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_GetSlotList": 4,
    "C_GetTokenInfo": 6,
    "C_OpenSession": 12,
    "C_CloseSession": 13,
    "C_GetSessionInfo": 15,
    "C_Login": 18,
    "C_CreateObject": 20,
    "C_CopyObject": 21,
    "C_DestroyObject": 22,
    "C_GetAttributeValue": 24,
    "C_SetAttributeValue": 25,
    "C_FindObjectsInit": 26,
    "C_FindObjects": 27,
    "C_FindObjectsFinal": 28,
    "C_EncryptInit": 29,
    "C_Encrypt": 30,
    "C_DecryptInit": 33,
    "C_Decrypt": 34,
    "C_SignInit": 42,
    "C_Sign": 43,
    "C_GenerateKey": 58,
    "C_GenerateKeyPair": 59,
    "C_WrapKey": 60,
    "C_UnwrapKey": 61,
    "C_GenerateRandom": 64,
    EVERY: 68,
}
_RULE = ("skip", "times", "rv", "delay_us", "hang", "calls")
_STATE = (
    "removed",
    "dead",
    "logged_out",
    "lose_sessions",
    "lost_below",
    "iv_mode",
    "open_sessions",
    "active",
    "most_active",
    "initializations",
    "hanging",
    "highest",
    "session_limit",
    "objects",
)
_WORD = 8
_RULES_SIZE = 69 * len(_RULE) * _WORD
_SIZE = _RULES_SIZE + len(_STATE) * _WORD


class Shim:
    """The switch of one proxy."""

    def __init__(self, library: Path, control: Path) -> None:
        self.library = library
        self.environment = {"P11SHIM_CONTROL": str(control)}
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)

    @classmethod
    def build(cls, directory: Path) -> Shim:
        """Compile the proxy and make its control file."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise RuntimeError("a C compiler is needed to build the PKCS#11 proxy of these tests")
        library, control = directory / "shim.so", directory / "control"
        source = Path(__file__).with_name("shim.c")
        real = f'-DREAL_MODULE="{softhsm.module_path()}"'
        subprocess.run(
            [
                compiler,
                "-shared",
                "-fPIC",
                "-O1",
                "-w",
                real,
                "-o",
                str(library),
                str(source),
                "-ldl",
                "-lpthread",
            ],
            check=True,
        )
        control.write_bytes(bytes(_SIZE))
        return cls(library, control)

    def uri(self, uri: str) -> str:
        """The same token through the proxy."""
        return uri.replace(quote(str(softhsm.module_path())), quote(str(self.library)))

    # -- faults ------------------------------------------------------------------------------------

    def fail(self, function: str, rv: int, *, skip: int = 0, times: int = 1) -> None:
        """Let calls answer `rv`: `times` of them, after `skip` that do not."""
        for name, value in (("times", 0), ("skip", skip), ("rv", rv), ("times", times)):
            self._set_rule(function, name, value)

    def delay(self, function: str, microseconds: int) -> None:
        self._set_rule(function, "delay_us", microseconds)

    def hang(self, function: str) -> None:
        self._set_rule(function, "hang", 1)

    def heal(self) -> None:
        """End every fault; what they broke stays broken."""
        for place in range(69):
            for name in ("hang", "times", "skip", "delay_us"):
                self._write((place * len(_RULE) + _RULE.index(name)) * _WORD, 0)
        for name in ("removed", "iv_mode", "session_limit"):
            setattr(self, name, 0)

    def reset(self) -> None:
        """End every fault and forget what they broke."""
        self.heal()
        for name in ("dead", "logged_out", "lose_sessions", "lost_below", "most_active"):
            setattr(self, name, 0)

    # -- what it saw -------------------------------------------------------------------------------

    def calls(self, function: str = EVERY) -> int:
        return self._read((PLACES[function] * len(_RULE) + _RULE.index("calls")) * _WORD)

    def pending(self, function: str = EVERY) -> int:
        """How many calls are still to fail."""
        return self._read((PLACES[function] * len(_RULE) + _RULE.index("times")) * _WORD)

    def __getattr__(self, name: str) -> int:
        if name not in _STATE:
            raise AttributeError(name)
        return self._read(_RULES_SIZE + _STATE.index(name) * _WORD)

    def __setattr__(self, name: str, value: object) -> None:
        if name in _STATE:
            self._write(_RULES_SIZE + _STATE.index(name) * _WORD, int(value))  # type: ignore[call-overload]
        else:
            super().__setattr__(name, value)

    def _set_rule(self, function: str, name: str, value: int) -> None:
        self._write((PLACES[function] * len(_RULE) + _RULE.index(name)) * _WORD, value)

    def _read(self, offset: int) -> int:
        return struct.unpack_from("=Q", self._map, offset)[0]

    def _write(self, offset: int, value: int) -> None:
        struct.pack_into("=Q", self._map, offset, value)


def use(shim: Shim) -> None:
    """Let this process's proxy be steered by it; before its module is loaded for the first time."""
    os.environ.update(shim.environment)
