"""What is left of the keys that are derived in use, seen from another process: nothing.

The data key, the session key and the plaintext are ours to wipe; the content key of an envelope and the message key of
HPKE are made on the way. The controls: a child that keeps a copy on purpose is caught, and one that does not
overwrite what the HPKE library has freed shows that there is something to overwrite.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tests.support.scan import copies
from vault.crypto.encoding import encode
from vault.crypto.hardening import ENVIRONMENT

ROOT = Path(__file__).parents[2]

CHILD = """
import asyncio, ctypes, hashlib, os, sys
from vault.crypto import envelope, hardening, hpke, memory, stream, suites

operation, control = sys.argv[1:]
hardening.harden_process()
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # dumpable again: the test is to look into it
if control == "no-overwriting":
    hpke._overwrite_freed_keys = lambda: None

def secret(name):
    return memory.absorb(bytearray(hashlib.sha256(name).digest()))

dek, key, seed, text = map(secret, (b"dek", b"session", b"seed", b"text"))
context = envelope.EnvelopeContext("acme", "acme/x", 1, "kek", 1)
suite, one = suites.current(), hpke.SUITES[1]
blob = envelope.parse(envelope.seal(suite, context, dek, b"wrapped", text.view))
pair = hpke.keypair_from_seed(one, seed)
message = hpke.seal(one, pair.public_bytes, b"info", text.view)
counter, sealed = stream.SessionSealer(key).seal(b"", text.view)

def nothing_secret():
    with memory.allocate(32) as zero:
        parsed = envelope.parse(envelope.seal(suite, context, zero, b"wrapped", zero.view))
        envelope.open(parsed, context, zero).close()
        other = hpke.keypair_from_seed(one, zero)
        hpke.open(one, other.private, b"", hpke.seal(one, other.public_bytes, b"", b"")).close()
        number, channel = stream.SessionSealer(zero).seal(b"", zero.view)
        stream.SessionOpener(zero).open(number, b"", channel).close()

def operate():
    global message
    if operation == "envelope.seal":
        envelope.seal(suite, context, dek, b"wrapped", text.view)
    elif operation == "envelope.open":
        envelope.open(blob, context, dek).close()
    elif operation == "hpke.seal":
        message = hpke.seal(one, pair.public_bytes, b"info", text.view)
    elif operation == "hpke.open":
        hpke.open(one, pair.private, b"info", message).close()
    elif operation == "stream.seal":
        stream.SessionSealer(key).seal(b"", text.view)
    elif operation == "stream.open":
        stream.SessionOpener(key).open(counter, b"", sealed).close()

async def within(depth):
    if depth:
        await within(depth - 1)
    else:
        operate()

nothing_secret()
asyncio.run(within(4))
kept = bytes(dek.view) if control == "leak" else b""
for buffer in (dek, key, seed, text):
    buffer.close()
del pair
os.write(1, message[:32].hex().encode() + b"\\n")
os.read(0, 1)
"""
OPERATIONS = ["envelope.seal", "envelope.open", "hpke.seal", "hpke.open", "stream.seal", "stream.open"]


def secret(name: bytes) -> bytes:
    return hashlib.sha256(name).digest()


def content_key() -> bytes:
    bound = encode("strongroom/envelope/v1", 1, 1, "acme", "acme/x", 1)
    return hmac.digest(secret(b"dek"), b"key\0" + bound + b"\1", "sha256")


def message_key(enc: bytes) -> bytes:
    """The AES key of a message sealed to the test's seed: RFC 9180, by hand."""

    def extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")

    def expand(suite: bytes, prk: bytes, label: bytes, info: bytes) -> bytes:
        return hmac.digest(prk, b"\x00\x20HPKE-v1" + suite + label + info + b"\x01", "sha256")

    private = X25519PrivateKey.from_private_bytes(secret(b"seed"))
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    exchanged = private.exchange(X25519PublicKey.from_public_bytes(enc))
    context = enc + private.public_key().public_bytes_raw()
    shared = expand(kem, extract(kem, b"", b"eae_prk", exchanged), b"shared_secret", context)
    schedule = extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", b"info")
    return expand(suite, extract(suite, shared, b"secret", b""), b"key", b"\0" + schedule)


def left_after(operation: str, control: str = "") -> dict[str, int]:
    """How many copies of each secret another process finds after an operation."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, operation, control],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        enc = bytes.fromhex(child.stdout.readline().decode())
        return copies(
            child.pid,
            {
                "data key": secret(b"dek"),
                "content key": content_key(),
                "session key": secret(b"session"),
                "seed": secret(b"seed"),
                "message key": message_key(enc),
                "plaintext": secret(b"text"),
            },
        )
    finally:
        child.communicate(b"\n", timeout=30)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_key_and_no_plaintext_is_left_after(operation):
    left = left_after(operation)
    assert left == dict.fromkeys(left, 0)


def test_a_copy_that_is_kept_is_found():
    assert left_after("envelope.open", "leak")["data key"] >= 1


def test_there_is_something_to_overwrite():
    assert left_after("hpke.seal", "no-overwriting")["message key"] >= 1, "the library clears it itself now"
