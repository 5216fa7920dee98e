"""Hardening of the process that holds secrets, to be done before it holds any."""

from __future__ import annotations

import ctypes
import resource
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_M_PERTURB = -6
_PATTERN = 0xA5


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

    glibc does not overwrite blocks of up to 1032 bytes that its per-thread caches keep, unless the process was started
    with `GLIBC_TUNABLES=glibc.malloc.tcache_count=0`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    not_dumpable = libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    perturb = getattr(libc, "mallopt", None)
    overwritten = perturb is not None and perturb(_M_PERTURB, _PATTERN) == 1
    return Hardening(not_dumpable, no_core=True, frees_overwritten=overwritten)
