"""Looking for a pattern in another process's memory, from outside: the only way not to disturb what is looked for."""

from __future__ import annotations

import base64
from pathlib import Path


def forms(secret: bytes) -> dict[str, bytes]:
    """A secret in every spelling that a copy of it could have."""
    return {
        "raw": secret,
        "base64": base64.b64encode(secret).rstrip(b"=")[:-1],
        "base64url": base64.urlsafe_b64encode(secret).rstrip(b"=")[:-1],
        "hex": secret.hex().encode(),
        "utf-16": secret.decode().encode("utf-16-le"),
    }


def copies(pid: int, patterns: dict[str, bytes], marks: dict[str, bytes] | None = None) -> dict[str, int]:
    """How often each pattern stands in the readable memory of a process.

    `marks`: what a pattern begins with, where many share it; only where a mark stands are they looked for one by one.
    Raises `PermissionError` where the kernel does not let this user look (the vault is not dumpable).
    """
    found = dict.fromkeys(patterns, 0)
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            where, permissions, *_ = line.split()
            if "r" not in permissions or "[vvar" in line or "[vsyscall" in line:
                continue
            start, end = (int(part, 16) for part in where.split("-"))
            try:
                memory.seek(start)
                content = bytearray()
                while len(content) < end - start and (part := memory.read(end - start - len(content))):
                    content += part
            except OSError:
                # Locked away from everybody, as device memory is: nothing of ours lies there.
                continue
            standing = {mark: mark in content for mark in set((marks or {}).values())}
            for name, pattern in patterns.items():
                if marks is None or name not in marks or standing[marks[name]]:
                    found[name] += content.count(pattern)
    return found
