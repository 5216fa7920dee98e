"""Makes a server that keeps one copy of what it decrypts: the control of the proof, which must find it."""

from vault.crypto import envelope

_open = envelope.open
kept = []


def leaking_open(*arguments):
    opened = _open(*arguments)
    if not kept:
        kept.append(bytes(opened.view))
    return opened


envelope.open = leaking_open
