"""Looking for a pattern in another process's memory, from outside: the only way not to disturb what is looked for."""

from __future__ import annotations

import base64
import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

_WINDOW = 64 << 20
_SHORTEST = 8


def forms(secret: bytes) -> dict[str, bytes]:
    """A secret in every spelling that a copy of it could have."""
    return {
        "raw": secret,
        "base64": base64.b64encode(secret).rstrip(b"=")[:-1],
        "base64url": base64.urlsafe_b64encode(secret).rstrip(b"=")[:-1],
        "hex": secret.hex().encode(),
        "utf-16": secret.decode().encode("utf-16-le"),
    }


def copies(pid: int, patterns: dict[str, bytes]) -> dict[str, int]:
    """How often each pattern, of eight bytes and more, stands in the readable memory of a process.

    All are looked for in one pass. Raises `PermissionError` where the kernel does not let this user look (the vault is
    not dumpable).
    """
    assert all(len(pattern) >= _SHORTEST for pattern in patterns.values())
    number = len(patterns)
    values = (ctypes.c_char_p * number)(*patterns.values())
    lengths = (ctypes.c_size_t * number)(*map(len, patterns.values()))
    counts = (ctypes.c_uint64 * number)()
    overlap = max(map(len, patterns.values()), default=1) - 1
    content = bytearray(_WINDOW + overlap)
    address = (ctypes.c_char * len(content)).from_buffer(content)
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in _readable(pid):
            for at in range(start, end, _WINDOW):
                wanted = min(end - at, len(content))
                try:
                    memory.seek(at)
                    size = _fill(memory, memoryview(content)[:wanted])
                except OSError:
                    # Locked away from everybody, as device memory is: nothing of ours lies there.
                    continue
                assert _library().scan_count(address, _WINDOW, size, number, values, lengths, counts) == 0
    return dict(zip(patterns, counts, strict=True))


def _readable(pid: int) -> list[tuple[int, int]]:
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        where, permissions, *_ = line.split()
        if "r" in permissions and "[vvar" not in line and "[vsyscall" not in line:
            start, end = (int(part, 16) for part in where.split("-"))
            found.append((start, end))
    return found


def _fill(memory: object, view: memoryview) -> int:
    done = 0
    while done < len(view) and (count := memory.readinto(view[done:])):  # type: ignore[attr-defined]
        done += count
    return done


@functools.cache
def _library() -> ctypes.CDLL:
    source = Path(__file__).with_suffix(".c")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "scan.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", built, source], check=True)
        library = ctypes.CDLL(str(built))
    library.scan_count.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )
    return library
