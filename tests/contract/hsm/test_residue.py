"""Where a data key is after it was unwrapped: in the caller's buffer, and nowhere else in the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import ctypes, hashlib, os, sys
from hsm import KeyAlgorithm, KeyRef, KeySpec, RewrapItem, UnwrapItem, WrapItem, open_backend
libc = ctypes.CDLL(None)
libc.mallopt(-6, 0xA5)  # as a server does at its start: freed memory is overwritten
seed = bytearray.fromhex(sys.argv[2])

def dek(number):
    # Never as bytes, whose copies we could not wipe: hashed into a buffer.
    buffer = bytearray(32)
    for place in range(32):
        buffer[place] = seed[place] ^ (number & 0xFF)
    return buffer

backend = open_backend(sys.argv[1])
ref = KeyRef("residue/kek", os.urandom(16))
backend.create_key(KeySpec(ref, KeyAlgorithm.AES_256))
into = bytearray(64)
for number in range(200):
    key = dek(number)
    blob = backend.wrap(ref, key, b"aad")
    many = backend.wrap_many([WrapItem(ref, key, b"aad")] * 2)
    key[:] = bytes(32)
    backend.unwrap(ref, blob, b"aad", memoryview(into))
    backend.unwrap_many([UnwrapItem(ref, item, b"aad", memoryview(into)) for item in many])
    try:
        backend.unwrap(ref, blob, b"other", memoryview(into))
    except Exception:
        pass
    backend.rewrap(ref, blob, b"aad", ref, b"new")
    backend.rewrap_many([RewrapItem(ref, item, b"aad", ref, b"new") for item in many])
    backend.rewrap_many([RewrapItem(ref, item, b"other", ref, b"new") for item in many])
if sys.argv[3] == "wiped":
    into[:] = bytes(64)
backend.destroy_key(ref, confirm=ref.label)
print("ready", flush=True)
sys.stdin.read()
"""


def copies(pid: int, seed: bytes) -> int:
    """How often any of the data keys lies in that process's memory."""
    needles = [bytes(byte ^ number for byte in seed) for number in range(200)]
    found = 0
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode = line.split()[:2]
            start, end = (int(part, 16) for part in span.split("-"))
            if "rw" not in mode or "[vvar]" in line:
                continue
            try:
                memory.seek(start)
                block = memory.read(end - start)
            except OSError:
                continue
            found += sum(block.count(needle) for needle in needles)
    return found


@pytest.mark.parametrize("scheme", ["aes-gcm", "aes-kwp"])
def test_no_copy_of_a_data_key_is_left(token_uri, scheme):
    for buffer, wanted in (("kept", 1), ("wiped", 0)):
        seed = os.urandom(32)
        # The child gets it in hexadecimal, which is no copy of it.
        command = [sys.executable, "-c", PROGRAM, f"{token_uri}&x-wrap-scheme={scheme}", seed.hex(), buffer]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            found = copies(child.pid, seed)
            child.communicate("")
        # `seed` in the child is the key of number 0.
        assert found - 1 == wanted, f"{found - 1 - wanted} stray copies"
