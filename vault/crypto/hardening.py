"""Hardening of the process that holds secrets, to be done before it holds any."""

from __future__ import annotations

import ctypes
import resource
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_M_PERTURB = -6
_PATTERN = 0xA5

# What a process that is to hold secrets has to be started with. Resolving a function at its first call saves the vector
# registers, and with them up to 32 bytes of whatever was copied last, on the stack; and glibc does not overwrite the
# small blocks that its per-thread caches keep.
ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {"LD_BIND_NOW": "1", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
)


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


@dataclass(frozen=True)
class Hardening:
    """What was achieved."""

    not_dumpable: bool
    no_core: bool
    frees_overwritten: bool


def harden_process() -> Hardening:
    """No core dump, no attaching by equals (`PR_SET_DUMPABLE`), freed memory overwritten (glibc `M_PERTURB`).

    The rest can only be had from the start of the process: see `ENVIRONMENT`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    not_dumpable = libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    perturb = getattr(libc, "mallopt", None)
    overwritten = perturb is not None and perturb(_M_PERTURB, _PATTERN) == 1
    return Hardening(not_dumpable, no_core=True, frees_overwritten=overwritten)
