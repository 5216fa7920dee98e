"""Makes a server that keeps one copy of what it decrypts: the control of the proof, which must find it."""

from vault.crypto import envelope

_open_into = envelope.open_into
kept = []


def leaking_open_into(sealed, bound, dek, key, plaintext):
    _open_into(sealed, bound, dek, key, plaintext)
    if not kept:
        kept.append(bytes(plaintext))


envelope.open_into = leaking_open_into
